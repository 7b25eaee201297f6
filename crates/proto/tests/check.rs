//! The rules of Envoy's API against real messages of it: one case for each kind of rule.
#![allow(clippy::unwrap_used)]

use prost::{Message as _, Name};
use proto::ResourceType;
use proto::pb::envoy::config::accesslog::v3::ResponseFlagFilter;
use proto::pb::envoy::config::cluster::v3::{Cluster, cluster};
use proto::pb::envoy::config::core::v3::health_check::{HealthChecker, HttpHealthCheck};
use proto::pb::envoy::config::core::v3::{
    DataSource, HeaderValue, HealthCheck, Locality, Metadata, ProxyProtocolPassThroughTlVs, RateLimitSettings,
    TypedExtensionConfig, data_source,
};
use proto::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use proto::pb::envoy::config::listener::v3::{
    Filter, FilterChain, Listener, ListenerFilterChainMatchPredicate, filter, listener_filter_chain_match_predicate,
};
use proto::pb::envoy::config::metrics::v3::HistogramBucketSettings;
use proto::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::pb::envoy::config::route::v3::route_match::PathSpecifier;
use proto::pb::envoy::config::route::v3::{
    HeaderMatcher, InternalRedirectPolicy, RedirectAction, Route, RouteConfiguration, RouteMatch, VirtualHost,
    rate_limit, route,
};
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret};
use proto::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use proto::pb::envoy::r#type::v3::Percent;
use proto::pb::google::protobuf::{Any, DoubleValue, Duration, Struct, UInt32Value};
use proto::wire::{Message, Violation};

/// What is found in a message, as `path: rule`.
fn found<M: prost::Message + Name>(message: &M) -> Vec<String> {
    found_in_bytes(&M::full_name(), &message.encode_to_vec())
}

fn found_in_bytes(name: &str, bytes: &[u8]) -> Vec<String> {
    let violations = Message::of(name).unwrap().check(bytes).err().unwrap_or_default();
    violations.into_iter().map(|v| format!("{}: {}", v.path, v.rule)).collect()
}

const NOTHING: [&str; 0] = [];

fn cluster() -> Cluster {
    Cluster { name: "c".into(), ..Default::default() }
}

fn route(path_specifier: Option<PathSpecifier>) -> Route {
    Route {
        r#match: Some(RouteMatch { path_specifier, ..Default::default() }),
        action: Some(route::Action::Redirect(RedirectAction::default())),
        ..Default::default()
    }
}

fn prefix(path: &str) -> Route {
    route(Some(PathSpecifier::Prefix(path.into())))
}

fn host(routes: Vec<Route>) -> VirtualHost {
    VirtualHost { name: "h".into(), domains: vec!["*".into()], routes, ..Default::default() }
}

#[test]
fn min_len_holds_for_a_text_that_is_not_there() {
    assert_eq!(found(&Cluster::default()), ["name: string.min_len = 1"]);
    assert_eq!(found(&cluster()), NOTHING);
}

#[test]
fn durations_have_bounds() {
    let timeout = |seconds, nanos| Cluster { connect_timeout: Some(Duration { seconds, nanos }), ..cluster() };
    assert_eq!(found(&timeout(-1, 0)), ["connect_timeout: duration.gt = 0s"]);
    assert_eq!(found(&timeout(0, 0)), ["connect_timeout: duration.gt = 0s"]);
    assert_eq!(found(&timeout(0, 1)), NOTHING);
    let violations = Message::of_resource(ResourceType::Cluster).check(&timeout(-1, -500_000_000).encode_to_vec());
    assert_eq!(violations.unwrap_err()[0].value, "-1.5s");
}

#[test]
fn a_required_message_is_required() {
    let route = Route { r#match: None, ..prefix("/") };
    assert_eq!(found(&host(vec![route])), ["routes[0].match: required"]);
    let check = HealthCheck { unhealthy_threshold: None, ..health_check(HttpHealthCheck::default()) };
    assert!(found(&check).contains(&"unhealthy_threshold: required".to_owned()));
}

#[test]
fn a_required_oneof_is_required_and_its_other_members_are_not() {
    assert_eq!(found(&host(vec![route(None)])), ["routes[0].match.path_specifier: required"]);
    assert_eq!(found(&host(vec![prefix("/")])), NOTHING);
    let regex = PathSpecifier::SafeRegex(RegexMatcher { regex: String::new(), ..Default::default() });
    assert_eq!(found(&host(vec![route(Some(regex))])), ["routes[0].match.safe_regex.regex: string.min_len = 1"]);
}

#[test]
fn paths_count_repeated_fields() {
    let mut bad = prefix("/");
    let matcher = |name: &str| HeaderMatcher {
        name: name.into(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
        ..Default::default()
    };
    bad.r#match.as_mut().unwrap().headers = vec![matcher("x-a"), matcher("")];
    let virtual_hosts = vec![host(vec![]), host(vec![prefix("/"), prefix("/b"), bad])];
    let paths = found(&RouteConfiguration { virtual_hosts, ..Default::default() });
    assert_eq!(paths, ["virtual_hosts[1].routes[2].match.headers[1].name: string.min_len = 1"]);
}

#[test]
fn header_names_and_values_have_their_form() {
    let header = |key: &str, value: &str| HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    assert_eq!(found(&header("x-a", "a b")), NOTHING);
    assert_eq!(found(&header("", "")), ["key: string.min_len = 1"]);
    assert_eq!(found(&header("x\n", "")), ["key: string.well_known_regex (no NUL, CR or LF)"]);
    assert_eq!(found(&header("x", "a\r\nb: c")), ["value: string.well_known_regex (no NUL, CR or LF)"]);
    assert_eq!(found(&header("x", &"a".repeat(16_385))), ["value: string.max_bytes = 16384"]);
    let raw = HeaderValue { raw_value: vec![0; 16_385], ..header("x", "") };
    assert_eq!(found(&raw), ["raw_value: bytes.max_len = 16384"]);
}

#[test]
fn numbers_have_bounds_also_when_wrapped() {
    assert_eq!(found(&Percent { value: 100.0 }), NOTHING);
    assert_eq!(found(&Percent { value: 100.5 }), ["value: double.gte = 0, double.lte = 100"]);
    assert_eq!(found(&Percent { value: f64::NAN }), ["value: double.gte = 0, double.lte = 100"]);
    let rate = |value| RateLimitSettings { fill_rate: Some(DoubleValue { value }), ..Default::default() };
    assert_eq!(found(&rate(0.5)), NOTHING);
    assert_eq!(found(&rate(0.0)), ["fill_rate: double.gt = 0"]);
    let weight = |value| LocalityLbEndpoints {
        load_balancing_weight: Some(UInt32Value { value }),
        locality: Some(Locality::default()),
        ..Default::default()
    };
    assert_eq!(found(&weight(0)), ["load_balancing_weight: uint32.gte = 1"]);
    assert_eq!(found(&weight(u32::MAX)), NOTHING);
    let priority = LocalityLbEndpoints { priority: 129, ..weight(1) };
    assert_eq!(found(&priority), ["priority: uint32.lte = 128"]);
}

#[test]
fn numbers_that_are_packed_are_checked_one_by_one() {
    let buckets = |buckets: &[f64]| HistogramBucketSettings {
        r#match: Some(StringMatcher {
            match_pattern: Some(proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern::Exact("a".into())),
            ..Default::default()
        }),
        buckets: buckets.to_vec(),
        ..Default::default()
    };
    assert_eq!(found(&buckets(&[1.0, 2.0])), NOTHING);
    assert_eq!(found(&buckets(&[1.0, -2.0])), ["buckets[1]: double.gt = 0"]);
    assert_eq!(found(&buckets(&[1.0, 2.0, 1.0])), ["buckets[2]: repeated.unique"]);
    let types = ProxyProtocolPassThroughTlVs { tlv_type: vec![1, 255, 256], ..Default::default() };
    assert_eq!(found(&types), ["tlv_type[2]: uint32.lt = 256"]);
    // Field 2 packed twice and once not: 1 and 2, then 256, then 3 and 300.
    let bytes = [0x12, 2, 1, 2, 0x10, 0x80, 2, 0x12, 3, 3, 0xac, 2];
    let name = ProxyProtocolPassThroughTlVs::full_name();
    assert_eq!(found_in_bytes(&name, &bytes), ["tlv_type[2]: uint32.lt = 256", "tlv_type[4]: uint32.lt = 256"]);
    assert_eq!(found_in_bytes(&name, &[0x12, 2, 1, 0x80]), ["tlv_type[1]: malformed"]);
}

#[test]
fn a_truth_value_may_be_fixed() {
    let predicate = |any| ListenerFilterChainMatchPredicate {
        rule: Some(listener_filter_chain_match_predicate::Rule::AnyMatch(any)),
    };
    assert_eq!(found(&predicate(true)), NOTHING);
    assert_eq!(found(&predicate(false)), ["any_match: bool.const = true"]);
}

fn health_check(http: HttpHealthCheck) -> HealthCheck {
    HealthCheck {
        timeout: Some(Duration { seconds: 1, nanos: 0 }),
        interval: Some(Duration { seconds: 1, nanos: 0 }),
        unhealthy_threshold: Some(UInt32Value { value: 1 }),
        healthy_threshold: Some(UInt32Value { value: 1 }),
        health_checker: Some(HealthChecker::HttpHealthCheck(http)),
        ..Default::default()
    }
}

#[test]
fn enums_are_defined_and_in_their_lists() {
    let method = |method| health_check(HttpHealthCheck { path: "/".into(), method, ..Default::default() });
    assert_eq!(found(&method(1)), NOTHING);
    assert_eq!(found(&method(6)), ["http_health_check.method: enum.not_in = [6]"]);
    assert_eq!(found(&method(77)), ["http_health_check.method: enum.defined_only"]);
    assert_eq!(found(&method(-1)), ["http_health_check.method: enum.defined_only"]);
    let policy = Cluster { lb_policy: 99, ..cluster() };
    assert_eq!(found(&policy), ["lb_policy: enum.defined_only"]);
    let discovery = cluster::ClusterDiscoveryType::Type(99);
    assert_eq!(found(&Cluster { cluster_discovery_type: Some(discovery), ..cluster() }), ["type: enum.defined_only"]);
}

#[test]
fn texts_are_in_their_lists_and_have_their_pattern_prefix_and_suffix() {
    let flags = |flag: &str| ResponseFlagFilter { flags: vec!["UH".into(), flag.into()] };
    assert_eq!(found(&flags("NR")), NOTHING);
    assert!(found(&flags("nonsense"))[0].starts_with("flags[1]: string.in = ["));

    let separated = |path: &str| host(vec![route(Some(PathSpecifier::PathSeparatedPrefix(path.into())))]);
    assert_eq!(found(&separated("/a")), NOTHING);
    let pattern = r#"routes[0].match.path_separated_prefix: string.pattern = "^[^?#]+[^?#/]$""#;
    assert_eq!(found(&separated("/a/")), [pattern]);

    let format = |format: &str| rate_limit_addend(format);
    assert_eq!(found(&format("%A%")), NOTHING);
    assert_eq!(found(&format("")), NOTHING, "ignore_empty");
    assert_eq!(found(&format("A%")), ["format: string.prefix = \"%\""]);
    assert_eq!(found(&format("%A")), ["format: string.suffix = \"%\""]);
}

fn rate_limit_addend(format: &str) -> rate_limit::HitsAddend {
    rate_limit::HitsAddend { format: format.into(), ..Default::default() }
}

#[test]
fn repeated_fields_have_a_number_of_items_that_may_be_limited() {
    let domains = VirtualHost { domains: vec![], ..host(vec![]) };
    assert_eq!(found(&domains), ["domains: repeated.min_items = 1"]);
    let header = HeaderValue { key: "a".into(), ..Default::default() };
    let option = proto::pb::envoy::config::core::v3::HeaderValueOption { header: Some(header), ..Default::default() };
    let many = VirtualHost { request_headers_to_add: vec![option; 1001], ..host(vec![]) };
    assert_eq!(found(&many), ["request_headers_to_add: repeated.max_items = 1000"]);
    let codes = InternalRedirectPolicy { redirect_response_codes: vec![302; 6], ..Default::default() };
    assert_eq!(found(&codes), ["redirect_response_codes: repeated.max_items = 5"]);
    let twice = ["a", "b", "a"].map(str::to_owned).to_vec();
    let copied = InternalRedirectPolicy { response_headers_to_copy: twice, ..Default::default() };
    assert_eq!(found(&copied), ["response_headers_to_copy[2]: repeated.unique"]);
}

#[test]
fn keys_of_maps_are_checked_and_name_the_entry() {
    let metadata = Metadata { filter_metadata: [(String::new(), Struct::default())].into(), ..Default::default() };
    assert_eq!(found(&metadata), [r#"filter_metadata[""]: string.min_len = 1"#]);

    let bad = Any { type_url: Cluster::type_url(), value: vec![] };
    let mut with_config = host(vec![]);
    with_config.typed_per_filter_config = [("envoy.x".to_owned(), bad)].into();
    assert_eq!(found(&with_config), [r#"typed_per_filter_config["envoy.x"].name: string.min_len = 1"#]);
}

#[test]
fn the_default_value_of_an_entry_is_checked() {
    // An entry with a key and without a value: the value is an empty `ClusterLoadAssignment.named_endpoints` message, which lacks
    // nothing, and an empty `Endpoint`; but in `MatchMap.map` it is an `OnMatch`, which has to be something.
    let entry = [0x0a, 3, 0x0a, 1, b'k'];
    let name = "xds.type.matcher.v3.Matcher.MatcherTree.MatchMap";
    assert_eq!(found_in_bytes(name, &entry), [r#"map["k"].on_match: required"#]);
    assert_eq!(found_in_bytes(name, &[]), ["map: map.min_pairs = 1"]);
}

#[test]
fn the_contents_of_an_any_are_checked() {
    let manager = HttpConnectionManager::default();
    let typed_config = Any { type_url: HttpConnectionManager::type_url(), value: manager.encode_to_vec() };
    let hcm = Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(filter::ConfigType::TypedConfig(typed_config)),
    };
    let chain = FilterChain { filters: vec![hcm], ..Default::default() };
    let listener = Listener { name: "l".into(), filter_chains: vec![chain], ..Default::default() };
    let path = "filter_chains[0].filters[0].typed_config";
    assert_eq!(
        found(&listener),
        [format!("{path}.stat_prefix: string.min_len = 1"), format!("{path}.route_specifier: required")]
    );
}

#[test]
fn an_any_may_be_required() {
    let extension = TypedExtensionConfig { name: "x".into(), typed_config: None };
    assert_eq!(found(&extension), ["typed_config: required"]);
}

#[test]
#[allow(deprecated)]
fn a_message_that_is_to_be_skipped_is_skipped() {
    use proto::pb::envoy::config::core::v3::{KeyValue, KeyValueAppend};
    let append = KeyValueAppend { entry: Some(KeyValue::default()), ..Default::default() };
    assert!(!found(&append).iter().any(|f| f.starts_with("entry.")), "{:?}", found(&append));
    assert_eq!(found(&KeyValue::default()), ["key: string.min_len = 1"]);
}

#[test]
fn sensitive_values_are_not_shown() {
    let key = DataSource { specifier: Some(data_source::Specifier::Filename(String::new())), ..Default::default() };
    let certificate = TlsCertificate { private_key: Some(key), ..Default::default() };
    let secret = Secret { r#type: Some(secret::Type::TlsCertificate(certificate)), ..Default::default() };
    let message = Message::of_resource(ResourceType::Secret);
    let violations = message.check(&secret.encode_to_vec()).unwrap_err();
    let found: Vec<_> = violations.iter().map(|v| (v.path.as_str(), v.rule.as_str(), v.value.as_str())).collect();
    assert_eq!(found, [("tls_certificate.private_key.filename", "string.min_len = 1", "[redacted]")]);
}

#[test]
fn malformed_bytes_are_a_violation_with_the_path_to_the_message() {
    assert_eq!(found_in_bytes("envoy.config.cluster.v3.Cluster", &[0xff]), [": malformed"]);
    // Field 4 of a cluster is `connect_timeout`; its contents end within a number.
    let cut = [0x0a, 1, b'c', 0x22, 2, 0x08, 0x80];
    assert_eq!(found_in_bytes("envoy.config.cluster.v3.Cluster", &cut), ["connect_timeout: malformed"]);
    // A name as a number, and a name that is no text.
    assert_eq!(found_in_bytes("envoy.config.cluster.v3.Cluster", &[0x08, 1]), ["name: malformed"]);
    assert_eq!(found_in_bytes("envoy.config.cluster.v3.Cluster", &[0x0a, 1, 0xff]), ["name: malformed"]);
    // A message without rules is read to its end as well: `Struct` below `filter_metadata`.
    let metadata = [0x0a, 6, 0x0a, 1, b'k', 0x12, 1, 0xff];
    assert_eq!(found_in_bytes("envoy.config.core.v3.Metadata", &metadata), [r#"filter_metadata["k"]: malformed"#]);
}

#[test]
fn violations_are_limited_in_number() {
    let all = VirtualHost { routes: vec![route(None); 1000], ..host(vec![]) };
    assert_eq!(found(&all).len(), 100);
}

#[test]
fn violations_read_as_sentences() {
    let violation =
        |rule: &str, value: &str| Violation { path: "a.b".into(), rule: rule.into(), value: value.into() }.to_string();
    assert_eq!(violation("string.min_len = 1", "\"\""), r#"a.b: "" breaks the rule string.min_len = 1"#);
    assert_eq!(violation("required", ""), "a.b: nothing there breaks the rule required");
    assert_eq!(violation("malformed", "cut short"), "a.b: malformed: cut short");
}

#[test]
fn long_values_are_shortened() {
    let assignment = ClusterLoadAssignment { cluster_name: "c".into(), ..Default::default() };
    assert_eq!(found(&assignment), NOTHING);
    let bytes = HeaderValue { key: "k".into(), value: "é\n".repeat(500), ..Default::default() }.encode_to_vec();
    let violations = Message::of("envoy.config.core.v3.HeaderValue").unwrap().check(&bytes).unwrap_err();
    assert!(violations[0].value.ends_with("... (1500 bytes)"), "{}", violations[0].value);
}
