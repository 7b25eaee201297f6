//! Policies as a whole: which filters there are, in which order, and what becomes of dry runs and providers.

use world::api::mesh_config::{ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, MeshConfig, RequestBody};

use super::request::Request;
use super::*;

fn names(filters: &[HttpFilter]) -> Vec<&str> {
    filters.iter().map(|filter| filter.name.as_str()).collect()
}

fn ids(rbac: &Option<Rbac>) -> Vec<String> {
    let mut ids: Vec<String> = rbac.iter().flat_map(|rbac| rbac.policies.keys().cloned()).collect();
    ids.sort();
    ids
}

#[test]
fn there_is_one_filter_for_each_action_and_audit_comes_first_and_allow_last() {
    let policies = [
        policy("allow-1", r#"{"rules": [{}, {"to": [{"operation": {"methods": ["GET"]}}]}]}"#),
        policy("deny", r#"{"action": "DENY", "rules": [{}]}"#),
        policy("audit", r#"{"action": "AUDIT", "rules": [{}]}"#),
        policy("allow-2", r#"{"action": "ALLOW", "rules": [{}]}"#),
    ];
    let built = built(&policies);
    assert_eq!(names(&built.value.rules), [HTTP_RBAC; 3]);
    let filters = http(&built.value.rules);
    let actions: Vec<_> = filters.iter().map(|filter| filter.rules.as_ref().unwrap().action).collect();
    assert_eq!(actions, [rbac::Action::Log as i32, rbac::Action::Deny as i32, rbac::Action::Allow as i32]);
    let wanted =
        ["ns[shop]-policy[allow-1]-rule[0]", "ns[shop]-policy[allow-1]-rule[1]", "ns[shop]-policy[allow-2]-rule[0]"];
    assert_eq!(ids(&filters[2].rules), wanted);
    assert_eq!(network(&built.value.network).len(), 3);
    assert_eq!(built.origins.len(), 4);
}

#[test]
fn a_policy_that_allows_and_has_no_rules_refuses_everything() {
    let built = built(&[policy("nothing", "{}")]);
    let http = http(&built.value.rules).remove(0).rules.unwrap();
    let network = network(&built.value.network).remove(0).rules.unwrap();
    for rules in [http, network] {
        assert_eq!(rules.policies.keys().collect::<Vec<_>>(), ["ns[shop]-policy[nothing]-rule[0]"]);
        assert_eq!(envoy::passes(&rules, &Request::default()), Some(false));
    }
}

#[test]
fn a_policy_that_denies_and_has_no_rules_refuses_nothing() {
    let built = built(&[policy("nothing", r#"{"action": "DENY"}"#)]);
    let rules = http(&built.value.rules).remove(0).rules.unwrap();
    assert_eq!(envoy::passes(&rules, &Request::default()), Some(true));
}

#[test]
fn a_dry_run_is_a_shadow_that_refuses_nothing() {
    let deny = |name, dry_run: &str| {
        let spec = serde_json::from_str(r#"{"action": "DENY", "rules": [{}]}"#).unwrap();
        object(name, spec, &[("istio.io/dry-run", dry_run)])
    };
    let filters = http(&built(&[deny("tried", "true")]).value.rules);
    assert_eq!(filters.len(), 1);
    assert_eq!((&filters[0].rules, filters[0].shadow_rules_stat_prefix.as_str()), (&None, "istio_dry_run_deny_"));
    assert_eq!(ids(&filters[0].shadow_rules), ["ns[shop]-policy[tried]-rule[0]"]);

    let both = built(&[deny("tried", "T"), deny("meant", "false"), deny("mistaken", "maybe")]);
    let (http, network) = (http(&both.value.rules), network(&both.value.network));
    assert_eq!(ids(&http[0].rules), ["ns[shop]-policy[meant]-rule[0]", "ns[shop]-policy[mistaken]-rule[0]"]);
    assert_eq!(ids(&http[0].shadow_rules), ["ns[shop]-policy[tried]-rule[0]"]);
    assert_eq!(network[0].shadow_rules_stat_prefix, "istio_dry_run_deny_");

    let spec = serde_json::from_str("{}").unwrap();
    let allow = http_of(&[object("tried", spec, &[("istio.io/dry-run", "1")])]);
    assert_eq!((&allow[0].rules, allow[0].shadow_rules_stat_prefix.as_str()), (&None, "istio_dry_run_allow_"));
}

fn http_of(policies: &[Arc<Object>]) -> Vec<HttpRbac> {
    http(&built(policies).value.rules)
}

#[test]
fn what_only_requests_have_never_lets_connections_through_and_never_spares_them() {
    let methods = r#""rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]"#;
    let connection = Request::default();
    for (spec, passes) in [
        (format!(r#"{{"action": "ALLOW", {methods}}}"#), false),
        (format!(r#"{{"action": "DENY", {methods}}}"#), false),
        (format!(r#"{{"action": "DENY", {}}}"#, methods.replace("methods", "notMethods")), false),
        // What is left of the rule still counts.
        (format!(r#"{{"action": "DENY", {}}}"#, methods.replace("{\"methods", "{\"ports\": [\"9\"], \"methods")), true),
    ] {
        let rules = network(&built(&[policy("p", &spec)]).value.network).remove(0).rules.unwrap();
        assert_eq!(envoy::passes(&rules, &connection), Some(passes), "{spec}");
    }
}

/// What a policy with this action makes of a rule that only a value without a meaning keeps from matching.
fn with_mistake(action: &str, rule: &str) -> Option<bool> {
    let spec = format!(r#"{{"action": "{action}", "rules": [{rule}]}}"#);
    let rules = http_of(&[policy("p", &spec)]).remove(0).rules.unwrap();
    envoy::passes(&rules, &Request::default())
}

#[test]
fn a_value_that_makes_no_sense_lets_nothing_through() {
    for rule in [
        r#"{"from": [{"source": {"ipBlocks": ["10.0.0.0/33"]}}]}"#,
        r#"{"from": [{"source": {"notIpBlocks": ["10.0.0.0/33"]}}]}"#,
        r#"{"from": [{"source": {"ipBlocks": ["192.0.2.1", "nonsense"]}}]}"#,
        r#"{"from": [{"source": {"serviceAccounts": ["a/b/c"]}}]}"#,
        r#"{"from": [{"source": {"principals": ["spiffe://a/ns/b/sa/c"]}}]}"#,
        r#"{"from": [{"source": {}}]}"#,
        r#"{"from": []}"#,
        r#"{"to": [{"operation": {"ports": ["70000"]}}]}"#,
        r#"{"to": [{"operation": {"paths": ["/{**}/{*}"]}}]}"#,
        r#"{"to": [{"operation": {"methods": [""]}}]}"#,
        r#"{"to": []}"#,
        r#"{"when": [{"key": "request.headers", "values": ["x"]}]}"#,
        r#"{"when": [{"key": "source.ip"}]}"#,
        r#"{"when": [{"key": "source.user", "notValues": ["x"]}]}"#,
    ] {
        assert_eq!(with_mistake("ALLOW", rule), Some(false), "{rule}");
        assert_eq!(with_mistake("DENY", rule), Some(false), "{rule}");
    }
}

#[test]
fn identities_that_are_too_long_for_an_expression_are_compared_in_two_parts() {
    let account = "a".repeat(90);
    let spec = format!(r#"{{"rules": [{{"from": [{{"source": {{"serviceAccounts": ["shop/{account}"]}}}}]}}]}}"#);
    let rules = http_of(&[policy("p", &spec)]).remove(0).rules.unwrap();
    let account: &'static str = account.leak();
    let by = |peer| envoy::passes(&rules, &Request { peer, ..Request::default() });
    use super::request::Peer::{Named, Workload};
    assert_eq!(by(Workload("any.example", "shop", account)), Some(true));
    assert_eq!(by(Workload("any.example", "bank", account)), Some(false));
    assert_eq!(by(Named(format!("/ns/shop/sa/{account}").leak())), Some(false));
}

#[test]
fn a_path_template_matches_whatever_a_path_may_have_and_is_envoys_own_where_it_is_long() {
    let rules = |path: &str| {
        let rule = format!(r#"{{"action": "DENY", "rules": [{{"to": [{{"operation": {{"paths": ["{path}"]}}}}]}}]}}"#);
        http_of(&[policy("p", &rule)]).remove(0).rules.unwrap()
    };
    let passes = |rules: &Rbac, path| envoy::passes(rules, &Request::default().with(":path", path)).unwrap();
    let short = rules("/admin/{*}");
    for (path, may_pass) in [
        ("/admin/a", false),
        ("/admin/a=b", false),
        ("/admin/%22", false),
        ("/admin/a?x=/b/c", false),
        ("/admin/", true),
        ("/admin/a/b", true),
    ] {
        assert_eq!(passes(&short, path), may_pass, "{path}");
    }
    let parts = "a".repeat(120);
    let long = rules(&format!("/{parts}/{{*}}/{{**}}"));
    let path = |rest: &str| -> &'static str { format!("/{parts}/{rest}").leak() };
    assert!(!passes(&long, path("x/y/z")) && !passes(&long, path("x/")) && passes(&long, path("x")));
}

/// A mesh configuration with one provider of each kind.
fn mesh_config() -> MeshConfig {
    let http = ExtAuthzHttp {
        service: "authz.shop.svc.cluster.local".to_owned(),
        port: 8000,
        fail_open: true,
        status_on_error: "503".to_owned(),
        path_prefix: "/check".to_owned(),
        include_request_headers_in_check: vec!["X-User".to_owned(), "x-trace-*".to_owned()],
        include_additional_headers_in_check: [("x-mesh".to_owned(), "shop".to_owned())].into(),
        include_request_body_in_check: Some(RequestBody { max_request_bytes: 64, ..RequestBody::default() }),
        headers_to_upstream_on_allow: vec!["x-decided-by".to_owned()],
        headers_to_downstream_on_deny: vec!["x-reason".to_owned()],
        clear_route_cache: true,
        ..ExtAuthzHttp::default()
    };
    let grpc = ExtAuthzGrpc { service: http.service.clone(), port: 9000, ..ExtAuthzGrpc::default() };
    let provider = |name: &str| ExtensionProvider { name: name.to_owned(), ..ExtensionProvider::default() };
    MeshConfig {
        extension_providers: vec![
            ExtensionProvider { envoy_ext_authz_http: Some(http), ..provider("by-http") },
            ExtensionProvider { envoy_ext_authz_grpc: Some(grpc), ..provider("by-grpc") },
        ],
        ..MeshConfig::default()
    }
}

fn built_with_providers(policies: &[Arc<Object>]) -> Built<Authorization> {
    let config = mesh_config();
    let origin = ObjectRef::new(Kind::ConfigMap, "istio-system", "istio");
    authorization(&AuthorizationInput {
        policies: &policies.iter().collect::<Vec<_>>(),
        trust_domains: &trust_domains(),
        provider: &|name| {
            let asks = config.provider(name).and_then(|provider| provider.authorization());
            let asks = asks.ok_or_else(|| format!("there is no provider \"{name}\""))?;
            let host = "authz.shop.svc.cluster.local".to_owned();
            Ok(ResolvedProvider {
                asks,
                cluster: format!("outbound|{}||{host}", asks.port()).into(),
                host,
                origin: &origin,
            })
        },
        most_regex_instructions: crate::Options::DEFAULT_REGEX_INSTRUCTIONS,
    })
}

fn custom(name: &str, provider: &str, rules: &str) -> Arc<Object> {
    policy(name, &format!(r#"{{"action": "CUSTOM", "provider": {{"name": "{provider}"}}, "rules": {rules}}}"#))
}

#[test]
fn providers_are_asked_about_what_a_shadow_has_matched() {
    let built = built_with_providers(&[
        custom("ask", "by-grpc", r#"[{"to": [{"operation": {"paths": ["/admin*"]}}]}]"#),
        custom("ask-too", "by-http", "[{}]"),
    ]);
    assert!(built.problems.is_empty(), "{:?}", built.problems);
    // In order of their names.
    assert_eq!(names(&built.value.custom), [HTTP_RBAC, HTTP_EXT_AUTHZ, HTTP_RBAC, HTTP_EXT_AUTHZ]);
    let clusters: Vec<&str> = built.clusters.iter().map(|name| &**name).collect();
    let wanted = ["outbound|8000||authz.shop.svc.cluster.local", "outbound|9000||authz.shop.svc.cluster.local"];
    assert_eq!(clusters, wanted);
    let shown: Vec<serde_json::Value> = built.value.custom.iter().map(fields::shown).collect();
    crate::listener::tests::compare("authorization/providers-http", &shown.into());
    let shown: Vec<serde_json::Value> = built.value.network.iter().map(fields::shown_network).collect();
    crate::listener::tests::compare("authorization/providers-tcp", &shown.into());
}

#[test]
fn a_provider_that_does_not_exist_refuses_what_it_would_be_asked_about() {
    let built = built_with_providers(&[custom("ask", "nobody", r#"[{"to": [{"operation": {"paths": ["/admin"]}}]}]"#)]);
    let filters = http(&built.value.custom);
    assert_eq!(names(&built.value.custom), [HTTP_RBAC]);
    let rules = filters[0].rules.as_ref().unwrap();
    assert_eq!(envoy::passes(rules, &Request::default()), Some(true));
    assert_eq!(envoy::passes(rules, &Request::default().with(":path", "/admin")), Some(false));
    // Connections have no path, so all of them are refused.
    let rules = network(&built.value.network).remove(0).rules.unwrap();
    assert_eq!(envoy::passes(&rules, &Request::default()), Some(false));
    assert!(built.clusters.is_empty());
    assert_eq!(built.problems.len(), 1);
    assert_eq!(built.problems[0].message, "there is no provider \"nobody\"");
}

#[test]
fn nothing_is_known_of_tokens_when_a_provider_is_asked() {
    let rules = r#"[{"from": [{"source": {"requestPrincipals": ["issuer/alice"]}}]}]"#;
    let built = built_with_providers(&[custom("ask", "by-http", rules)]);
    let shadow = http(&built.value.custom[..1]).remove(0).shadow_rules.unwrap();
    assert_eq!(envoy::passes(&shadow, &Request::default()), Some(false), "it is asked whatever the token is");
}
