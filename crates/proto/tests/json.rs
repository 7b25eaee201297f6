//! Any message as JSON, from JSON, and without its secrets.
#![allow(clippy::unwrap_used)]

use prost::{Message as _, Name};
use proto::descriptor::{self, InvalidJson, from_json, redact, to_json, to_redacted_json};
use proto::pb::envoy::config::core::v3::{DataSource, HeaderValue, Metadata, TypedExtensionConfig, data_source};
use proto::pb::envoy::config::listener::v3::Listener;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret};
use proto::pb::google::protobuf::{Any, Struct, Value, value};
use serde_json::json;

fn listener() -> serde_json::Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "0.0.0.0_15001",
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": 15001 } },
        "filter_chains": [{
            "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type":
                        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "outbound",
                    "rds": { "config_source": { "ads": {}, "initial_fetch_timeout": "0s" }, "route_config_name": "9080" },
                    "stream_idle_timeout": "1.500s",
                    "use_remote_address": false,
                    "tracing": { "random_sampling": { "value": 0.1 } }
                }
            }]
        }],
        "metadata": { "filter_metadata": { "a": { "b": [1.0, "c", null, { "d": true }] }, "e": {} } },
        "per_connection_buffer_limit_bytes": 32768,
        "traffic_direction": "OUTBOUND"
    })
}

fn without_type(mut value: serde_json::Value) -> serde_json::Value {
    value.as_object_mut().unwrap().remove("@type");
    value
}

#[test]
fn json_makes_the_round_trip() {
    let bytes = from_json(&Listener::type_url(), &without_type(listener())).unwrap();
    assert_eq!(Listener::decode(&*bytes).unwrap().name, "0.0.0.0_15001");
    assert_eq!(to_json(&Listener::type_url(), &bytes), listener());
    assert_eq!(to_redacted_json(&Listener::type_url(), &bytes), listener(), "nothing in it is sensitive");
    assert_eq!(from_json(&Listener::type_url(), &without_type(listener())).unwrap(), bytes, "bytes are canonical");
}

#[test]
fn an_any_is_made_from_json_with_its_type() {
    let bytes = from_json("google.protobuf.Any", &listener()).unwrap();
    let any = Any::decode(&*bytes).unwrap();
    assert_eq!(any.type_url, Listener::type_url());
    assert_eq!(to_json(&any.type_url, &any.value), listener());
    assert_eq!(to_json("type.googleapis.com/google.protobuf.Any", &bytes)["value"], listener());
}

#[test]
fn camel_case_names_are_understood() {
    let value = json!({ "perConnectionBufferLimitBytes": 1 });
    let bytes = from_json(&Listener::type_url(), &value).unwrap();
    assert_eq!(Listener::decode(&*bytes).unwrap().per_connection_buffer_limit_bytes.unwrap().value, 1);
}

#[test]
fn errors_name_the_path() {
    let broken = |pointer: &str, with: serde_json::Value| {
        let mut value = without_type(listener());
        *value.pointer_mut(pointer).unwrap() = with;
        match from_json(&Listener::type_url(), &value).unwrap_err() {
            InvalidJson::Value { path, reason } => (path, reason),
            unknown @ InvalidJson::UnknownType(_) => panic!("{unknown}"),
        }
    };
    let config = "/filter_chains/0/filters/0/typed_config";
    let (path, _) = broken(&format!("{config}/stream_idle_timeout"), json!("soon"));
    assert_eq!(path, "filter_chains[0].filters[0].typed_config.stream_idle_timeout");
    let (path, reason) = broken("/address/socket_address", json!({ "port": 1 }));
    assert_eq!(path, "address.socket_address");
    assert!(reason.contains("unrecognized field name 'port'"), "{reason}");
    let (path, reason) = broken("/traffic_direction", json!("SIDEWAYS"));
    assert_eq!(path, "traffic_direction");
    assert!(reason.contains("SIDEWAYS"), "{reason}");
    let (path, reason) = broken(config, json!({ "@type": "type.googleapis.com/nobody.Knows" }));
    assert!(path.starts_with("filter_chains[0].filters[0].typed_config"), "{path}");
    assert!(reason.contains("nobody.Knows"), "{reason}");
    let unknown = from_json("type.googleapis.com/nobody.Knows", &json!({})).unwrap_err();
    assert_eq!(unknown.to_string(), r#"the message type "type.googleapis.com/nobody.Knows" is not known"#);
}

#[test]
fn what_cannot_be_decoded_is_shown_in_base64() {
    let unknown = Any { type_url: "type.googleapis.com/nobody.Knows".into(), value: vec![1, 2, 3] };
    let malformed = Any { type_url: Listener::type_url(), value: vec![0xff] };
    for any in [unknown, malformed] {
        let shown = json!({ "@type": any.type_url, "value": if any.value.len() == 3 { "AQID" } else { "/w==" } });
        assert_eq!(to_json(&any.type_url, &any.value), shown);
        let extension = TypedExtensionConfig { name: "x".into(), typed_config: Some(any.clone()) };
        let whole = to_json(&TypedExtensionConfig::type_url(), &extension.encode_to_vec());
        assert_eq!(whole["typed_config"], shown);
        let redacted = to_redacted_json(&TypedExtensionConfig::type_url(), &extension.encode_to_vec());
        assert_eq!(redacted["typed_config"]["value"], "[redacted]");
    }
}

#[test]
fn values_that_json_does_not_have_are_shown_nevertheless() {
    let number = |n| Value { kind: Some(value::Kind::NumberValue(n)) };
    let structure = Struct { fields: [("a".to_owned(), number(f64::NAN))].into() };
    let metadata = Metadata { filter_metadata: [("m".to_owned(), structure)].into(), ..Default::default() };
    let shown = to_json(&Metadata::type_url(), &metadata.encode_to_vec());
    assert_eq!(shown["filter_metadata"]["m"]["fields"]["a"]["number_value"], "NaN");
}

fn secret() -> Secret {
    let inline = |text: &str| DataSource {
        specifier: Some(data_source::Specifier::InlineString(text.into())),
        ..Default::default()
    };
    let bytes =
        DataSource { specifier: Some(data_source::Specifier::InlineBytes(b"hush".to_vec())), ..Default::default() };
    let certificate = TlsCertificate {
        certificate_chain: Some(inline("PUBLIC")),
        private_key: Some(inline("hush")),
        password: Some(bytes),
        ..Default::default()
    };
    Secret { name: "default".into(), r#type: Some(secret::Type::TlsCertificate(certificate)) }
}

#[test]
fn private_keys_are_redacted_also_within_an_any() {
    let direct = (Secret::type_url(), secret().encode_to_vec());
    let any = Any { type_url: Secret::type_url(), value: secret().encode_to_vec() };
    let wrapped = TypedExtensionConfig { name: "x".into(), typed_config: Some(any) };
    let wrapped = (TypedExtensionConfig::type_url(), wrapped.encode_to_vec());
    for (type_url, bytes) in [direct, wrapped] {
        assert!(to_json(&type_url, &bytes).to_string().contains("hush"));
        let shown = to_redacted_json(&type_url, &bytes);
        let certificate = shown.pointer("/tls_certificate").or(shown.pointer("/typed_config/tls_certificate")).unwrap();
        assert_eq!(certificate["private_key"], "[redacted]");
        assert_eq!(certificate["password"], "[redacted]");
        assert_eq!(certificate["certificate_chain"]["inline_string"], "PUBLIC");

        let clean = redact(&type_url, &bytes);
        assert!(!clean.windows(4).any(|w| w == b"hush"));
        assert!(clean.windows(6).any(|w| w == b"PUBLIC"));
        assert!(!to_json(&type_url, &clean).to_string().contains("hush"));
    }
    let clean = Secret::decode(&*redact(&Secret::type_url(), &secret().encode_to_vec())).unwrap();
    let Some(secret::Type::TlsCertificate(certificate)) = clean.r#type else { panic!("{clean:?}") };
    let inline = data_source::Specifier::InlineString("[redacted]".into());
    assert_eq!(certificate.private_key.unwrap().specifier, Some(inline));
}

#[test]
fn what_is_not_known_is_not_in_redacted_bytes() {
    assert_eq!(redact("type.googleapis.com/nobody.Knows", b"hush"), b"");
    assert_eq!(redact(&Secret::type_url(), b"hush"), b"");
    // Field 1000 is unknown to headers.
    let mut bytes = HeaderValue { key: "k".into(), ..Default::default() }.encode_to_vec();
    bytes.extend([0xc2, 0x3e, 4]);
    bytes.extend(b"hush");
    assert_eq!(redact(&HeaderValue::type_url(), &bytes), [0x0a, 1, b'k']);
    let any = Any { type_url: "type.googleapis.com/nobody.Knows".into(), value: b"hush".to_vec() };
    let clean = Any::decode(&*redact(&Any::type_url(), &any.encode_to_vec())).unwrap();
    assert_eq!(clean, Any { value: vec![], ..any });
}

#[test]
fn messages_that_are_nested_too_deeply_are_shown_as_far_as_they_go() {
    let mut any = Any { type_url: Struct::type_url(), value: vec![] };
    for _ in 0..1000 {
        any = Any { type_url: Any::type_url(), value: any.encode_to_vec() };
    }
    let bytes = any.encode_to_vec();
    assert!(to_json(&Any::type_url(), &bytes).to_string().len() > bytes.len() / 4);
    assert!(redact(&Any::type_url(), &bytes).len() < bytes.len());
}

#[test]
fn the_descriptors_hold_envoys_api_and_ours() {
    let pool = descriptor::pool();
    for message in ["envoy.config.listener.v3.Listener", "pointsman.admin.v1.Node", "google.protobuf.Any"] {
        assert!(pool.get_message_by_name(message).is_some(), "{message}");
    }
    for service in ["envoy.service.discovery.v3.AggregatedDiscoveryService", "pointsman.admin.v1.Admin"] {
        assert!(pool.get_service_by_name(service).is_some(), "{service}");
    }
}

#[test]
fn our_own_messages_have_json_too() {
    use proto::admin::{Node, Subscription};
    let node = Node {
        id: "sidecar~10.0.0.1~a.b~b.svc".into(),
        connected_since: Some(proto::pb::google::protobuf::Timestamp { seconds: 1, nanos: 500_000_000 }),
        subscriptions: vec![Subscription { subscribed_count: 3, ..Default::default() }],
        ..Default::default()
    };
    let shown = to_json("type.googleapis.com/pointsman.admin.v1.Node", &node.encode_to_vec());
    assert_eq!(shown["connected_since"], "1970-01-01T00:00:01.500Z");
    assert_eq!(shown["subscriptions"][0]["subscribed_count"], 3);
}
