//! Every field of a policy, as Envoy is told.

use proto::pb::google::protobuf::Any;
use serde_json::{Map, Value, json};

use super::*;

/// The configuration of a filter as JSON.
pub(super) fn shown(filter: &HttpFilter) -> Value {
    use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
    match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => json!({"name": filter.name, "config": config(any)}),
        other => panic!("{other:?}"),
    }
}

/// The same of a network filter.
pub(super) fn shown_network(filter: &Filter) -> Value {
    use proto::pb::envoy::config::listener::v3::filter::ConfigType;
    match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => json!({"name": filter.name, "config": config(any)}),
        other => panic!("{other:?}"),
    }
}

fn config(any: &Any) -> Value {
    let name = any.type_url.rsplit('/').next().unwrap();
    let message = proto::wire::Message::of_type_url(&any.type_url).unwrap();
    let violations = message.check(&any.value);
    assert!(violations.is_ok(), "{name}: {violations:?}");
    let canonical = message.canonicalize(&any.value);
    proto::descriptor::to_json(&any.type_url, &canonical)
}

/// One rule for each field and its `not` form, and one for each condition.
#[test]
fn every_field_and_every_condition_is_translated() {
    let values = [
        ("principals", r#"["mesh.example/ns/shop/sa/web", "foreign.example/ns/a/sa/b", "a/*", "*/sa/web", "*"]"#),
        ("requestPrincipals", r#"["https://issuer.example/alice", "issuer/*", "*/alice", "*"]"#),
        ("namespaces", r#"["bank", "dev-*"]"#),
        ("serviceAccounts", r#"["bank/teller", "web"]"#),
        ("trustDomains", r#"["mesh.example", "*.example", "old*", "*"]"#),
        ("ipBlocks", r#"["10.0.0.0/8", "2001:db8::1"]"#),
        ("remoteIpBlocks", r#"["192.0.2.7"]"#),
    ];
    let operations = [
        ("hosts", r#"["shop.example", "*.example", "shop.*", "*"]"#),
        ("ports", r#"["80", "8080"]"#),
        ("methods", r#"["GET", "P*", "*"]"#),
        ("paths", r#"["/a", "/b/*", "*.html", "*", "/c/{*}/d/{**}"]"#),
    ];
    let conditions = [
        ("request.headers[X-User]", r#"["a", "b*", "*"]"#),
        ("source.ip", r#"["10.0.0.0/8"]"#),
        ("remote.ip", r#"["10.0.0.0/8"]"#),
        ("source.namespace", r#"["shop"]"#),
        ("source.principal", r#"["old.example/ns/shop/sa/web"]"#),
        ("source.serviceAccount", r#"["shop/web"]"#),
        ("source.trustDomain", r#"["mesh.example"]"#),
        ("request.auth.principal", r#"["issuer/alice"]"#),
        ("request.auth.audiences", r#"["shop"]"#),
        ("request.auth.presenter", r#"["app"]"#),
        ("request.auth.claims[realm][roles]", r#"["admin*"]"#),
        ("destination.ip", r#"["10.0.0.1"]"#),
        ("destination.port", r#"["80"]"#),
        ("connection.sni", r#"["*.example"]"#),
        ("experimental.envoy.filters.network.mysql_proxy[shop.orders]", r#"["[insert]", "select"]"#),
    ];
    let negated = |name: &str| format!("not{}{}", name[..1].to_uppercase(), &name[1..]);
    let mut rules: Vec<(String, String)> = Vec::new();
    for (part, inner, fields) in [("from", "source", &values[..]), ("to", "operation", &operations[..])] {
        for (name, list) in fields {
            for name in [(*name).to_owned(), negated(name)] {
                let rule = format!(r#"{{"{part}": [{{"{inner}": {{"{name}": {list}}}}}]}}"#);
                rules.push((name, rule));
            }
        }
    }
    for (key, list) in conditions {
        for name in ["values", "notValues"] {
            rules.push((format!("{key} {name}"), format!(r#"{{"when": [{{"key": "{key}", "{name}": {list}}}]}}"#)));
        }
    }
    for (traffic, of_http) in [("http", true), ("tcp", false)] {
        let mut all = Map::new();
        for (name, rule) in &rules {
            let spec = format!(r#"{{"action": "DENY", "rules": [{rule}]}}"#);
            let built = built(&[policy("p", &spec)]);
            let config = match of_http {
                true => shown(&built.value.rules[0]),
                false => shown_network(&built.value.network[0]),
            };
            let policy = &config["config"]["rules"]["policies"]["ns[shop]-policy[p]-rule[0]"];
            assert!(policy.is_object(), "{name}: {config}");
            all.insert(name.clone(), policy.clone());
        }
        crate::listener::tests::compare(&format!("authorization/fields-{traffic}"), &all.into());
    }
}

#[test]
fn parts_of_a_rule_are_joined() {
    let spec = r#"{"rules": [{
        "from": [
            {"source": {"namespaces": ["shop"], "notPrincipals": ["mesh.example/ns/shop/sa/guest"]}},
            {"source": {"ipBlocks": ["10.0.0.0/8"]}}
        ],
        "to": [
            {"operation": {"methods": ["GET"], "paths": ["/a", "/b"], "notPaths": ["/b"]}},
            {"operation": {"ports": ["9000"]}}
        ],
        "when": [
            {"key": "request.headers[x-user]", "values": ["a"], "notValues": ["b"]},
            {"key": "destination.ip", "values": ["10.0.0.1"]}
        ]
    }]}"#;
    let built = built(&[policy("p", spec)]);
    let all = json!({
        "http": shown(&built.value.rules[0]),
        "tcp": shown_network(&built.value.network[0]),
    });
    crate::listener::tests::compare("authorization/joined", &all);
}
