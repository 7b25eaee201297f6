#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use prost::Message;
use proto::pb::envoy::config::core::v3::data_source::Specifier;
use proto::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::JwksSourceSpecifier;
use proto::pb::envoy::extensions::filters::http::jwt_authn::v3::{JwtAuthentication, JwtProvider};
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use source::text::{Options, parse};
use world::{Fetched, KeySet, KeySource, Object, Problem};

use super::*;

const KEYS: &str = r#"{"keys":[{"e":"AQAB","kid":"a","kty":"RSA","n":"AQ"}]}"#;

fn policy(name: &str, rules: &str) -> Arc<Object> {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{jwtRules: [{rules}]}}"
    );
    let parsed = parse("policy.yaml", text.as_bytes(), &Options::default());
    assert_eq!(parsed.problems, [], "{text}");
    parsed.objects[0].clone()
}

fn compiled(
    policies: &[&Arc<Object>],
    keys: &dyn Fn(&KeySource) -> Option<Fetched>,
) -> (JwtAuthentication, Vec<Problem>) {
    let built = authentication(&AuthenticationInput { policies, keys, routes_by_claims: false });
    let Some(ConfigType::TypedConfig(any)) = built.value.unwrap().config_type else { panic!("a configuration") };
    (JwtAuthentication::decode(&*any.value).unwrap(), built.problems)
}

fn inline(provider: &JwtProvider) -> &str {
    let Some(JwksSourceSpecifier::LocalJwks(source)) = &provider.jwks_source_specifier else { panic!("local keys") };
    let Some(Specifier::InlineString(keys)) = &source.specifier else { panic!("inline keys") };
    keys
}

#[test]
fn nothing_is_checked_without_a_rule() {
    let none = AuthenticationInput { policies: &[], keys: &|_| None, routes_by_claims: false };
    assert!(authentication(&none).value.is_none());
    let policy = policy("empty", "");
    let empty = AuthenticationInput { policies: &[&policy], ..none };
    assert!(authentication(&empty).value.is_none());
}

#[test]
fn every_field_of_a_rule_is_carried_over() {
    let policy = policy(
        "all",
        "{issuer: a, audiences: [one, two], jwks: '{\"keys\":[{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"AQ\",\"kid\":\"a\"}]}', \
         fromHeaders: [{name: x-token, prefix: 'Token '}], fromParams: [token], fromCookies: [session], \
         outputPayloadToHeader: x-payload, outputClaimToHeaders: [{header: x-sub, claim: realm.sub}], \
         forwardOriginalToken: true, timeout: 3s, spaceDelimitedClaims: [roles, scope]}",
    );
    let (config, problems) = compiled(&[&policy], &|_| None);
    assert_eq!(problems, []);
    assert!(config.bypass_cors_preflight);
    let JwtProvider { audiences, from_headers, from_params, from_cookies, claim_to_headers, .. } =
        &config.providers["origins-0"];
    let provider = &config.providers["origins-0"];
    assert_eq!((provider.issuer.as_str(), &audiences[..]), ("a", &["one".to_owned(), "two".to_owned()][..]));
    assert_eq!((from_headers[0].name.as_str(), from_headers[0].value_prefix.as_str()), ("x-token", "Token "));
    assert_eq!((&from_params[..], &from_cookies[..]), (&["token".to_owned()][..], &["session".to_owned()][..]));
    assert_eq!(provider.forward_payload_header, "x-payload");
    assert_eq!(
        (claim_to_headers[0].header_name.as_str(), claim_to_headers[0].claim_name.as_str()),
        ("x-sub", "realm.sub")
    );
    assert!(provider.forward && !provider.clear_route_cache);
    assert_eq!(provider.payload_in_metadata, "payload");
    let lists = &provider.normalize_payload_in_metadata.as_ref().unwrap().space_delimited_claims;
    assert_eq!(lists, &["permission", "scope", "roles"]);
    assert_eq!(inline(provider), KEYS);
}

#[test]
fn the_rules_of_all_policies_count_in_order_of_issuer() {
    let first = policy("first", "{issuer: b, jwksUri: 'http://b.test/k'}");
    let second =
        policy("second", "{issuer: a, jwksUri: 'http://a.test/k'}, {issuer: b, jwksUri: 'http://b.test/more'}");
    let set = |source: &KeySource| {
        let keys = KeySet::parse(&KEYS.replace("\"a\"", &format!("\"{source}\""))).unwrap();
        Some(Fetched { keys: Some(Arc::new(keys)), failure: None })
    };
    let (config, problems) = compiled(&[&first, &second], &set);
    assert_eq!(problems, []);
    let kids: Vec<_> = (0..3).map(|n| inline(&config.providers[&format!("origins-{n}")])).collect();
    assert!(
        kids[0].contains("a.test/k") && kids[1].contains("b.test/k") && kids[2].contains("b.test/more"),
        "{kids:?}"
    );
    // A token of any, or of each a token or none.
    let text = format!("{:?}", config.rules[0]);
    assert_eq!(text.matches("ProviderName").count(), 6, "{text}");
    assert_eq!(text.matches("AllowMissing").count(), 3, "{text}");
}

#[test]
fn an_issuer_without_keys_has_keys_of_nobody_and_is_reported() {
    let policy = policy("down", "{issuer: 'http://a.test', timeout: 1s}");
    let (config, problems) = compiled(&[&policy], &|_| None);
    assert_eq!(problems, [], "it is being asked");
    let nobodys = inline(&config.providers["origins-0"]).to_owned();
    assert!(KeySet::parse(&nobodys).is_ok_and(|set| set.left_out.is_empty()), "{nobodys}");

    let failed = Fetched { keys: None, failure: Some("connection refused".into()) };
    let (config, problems) = compiled(&[&policy], &|_| Some(failed.clone()));
    assert_eq!(inline(&config.providers["origins-0"]), nobodys);
    let said = problems[0].to_string();
    assert!(said.contains("spec.jwtRules[0].issuer") && said.contains("connection refused"), "{said}");
    assert!(said.contains("every token of this issuer is refused"), "{said}");

    let stale = Fetched { keys: Some(Arc::new(KeySet::parse(KEYS).unwrap())), ..failed };
    let (config, problems) = compiled(&[&policy], &|_| Some(stale.clone()));
    assert_eq!(inline(&config.providers["origins-0"]), KEYS);
    assert_eq!(problems[0].severity, world::Severity::Warning);
}

#[test]
fn equal_rules_give_equal_bytes() {
    use proto::ResourceType;
    use proto::pb::envoy::config::listener::v3::Listener;

    use crate::listener::{ConnectionManagerInput, Reading, Routes, Side, connection_manager_filter};

    let rules: Vec<String> = (0..9).map(|n| format!("{{issuer: i{n}, jwksUri: 'http://a.test/{n}'}}")).collect();
    let policy = policy("many", &rules.join(", "));
    let canonical = || {
        let filter =
            authentication(&AuthenticationInput { policies: &[&policy], keys: &|_| None, routes_by_claims: true });
        let guards: Vec<_> = filter.value.into_iter().collect();
        let manager = connection_manager_filter(&ConnectionManagerInput {
            side: Side::Inbound,
            stat_prefix: "inbound",
            routes: Routes::Discovered("80"),
            lacks: proto::Extensions::default(),
            grpc_web: false,
            reading: Reading::default(),
            guards: &guards,
            access_log: None,
        });
        let chain = crate::listener::Chain::new("", manager).into_proto();
        let listener = Listener { filter_chains: vec![chain], ..Listener::default() };
        proto::wire::Message::of_resource(ResourceType::Listener).canonicalize(&listener.encode_to_vec()).to_vec()
    };
    let first = canonical();
    assert!((0..20).all(|_| canonical() == first));
}
