//! From what clients say about themselves to the audience that they belong to.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::net::IpAddr;
use std::time::Instant;

use compile::{Audience, ControlPlane, Interception, Options, Proxy, Secrets};
use plane::{Node, NodeError, Plane};
use serde_json::{Map, Value, json};
use world::{Change, Reader, Settings};

fn plane(yaml: &str) -> Plane {
    let parsed = source::text::parse("test.yaml", yaml.as_bytes(), &source::Options::default());
    let mut plane = Plane::new(Settings::default(), Options::default());
    plane.apply(parsed.objects.into_iter().map(Change::Apply), parsed.problems);
    plane
}

fn node(id: &str, metadata: Value) -> Node {
    let metadata = metadata.as_object().cloned().unwrap_or_default();
    Node { id: id.to_owned(), metadata, user_agent: "envoy".to_owned(), ..Node::default() }
}

fn audience(plane: &Plane, node: &Node) -> Audience {
    node.audience(&Reader::new(plane.world())).unwrap()
}

#[test]
fn a_node_of_istios_form_is_placed_by_its_id_and_metadata() {
    let plane = plane("");
    let metadata = json!({"NAMESPACE": "shop", "LABELS": {"app": "web"}, "INSTANCE_IPS": "10.0.0.7,10.0.0.6"});
    let found = audience(&plane, &node("sidecar~10.0.0.7~web-1.shop~shop.svc.cluster.local", metadata));
    assert_eq!(found.proxy, Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None });
    assert_eq!(&*found.namespace, "shop");
    assert_eq!(found.labels.get("app").map(String::as_str), Some("web"));
    assert_eq!(found.addresses, [IpAddr::from([10, 0, 0, 6]), IpAddr::from([10, 0, 0, 7])]);
    let found = audience(&plane, &node("router~10.0.0.9~edge.infra~infra.svc.cluster.local", json!({})));
    assert_eq!((found.proxy, &*found.namespace), (Proxy::Gateway, "infra"));
}

#[test]
fn the_labels_of_a_pod_that_is_known_count_and_not_what_the_node_says() {
    let plane =
        plane("apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, labels: {app: real}}\nstatus: {podIP: 10.0.0.7}\n");
    let metadata = json!({"LABELS": {"app": "claimed"}});
    let found = audience(&plane, &node("sidecar~10.0.0.7~web-1.default~default.svc.cluster.local", metadata));
    assert_eq!(found.labels.get("app").map(String::as_str), Some("real"));
}

#[test]
fn grpc_clients_are_known_by_their_user_agent_or_generator() {
    let plane = plane("");
    let mut by_agent = node("some-client", json!({}));
    by_agent.user_agent = "gRPC C-core linux Python".to_owned();
    assert_eq!(audience(&plane, &by_agent).proxy, Proxy::Grpc);
    let by_generator = node("sidecar~10.0.0.7~a.b~b.svc.cluster.local", json!({"GENERATOR": "grpc"}));
    assert_eq!(audience(&plane, &by_generator).proxy, Proxy::Grpc);
}

#[test]
fn whoever_has_a_certificate_may_say_where_it_reaches_the_control_plane() {
    let plane = plane("");
    let metadata = json!({"PROXY_CONFIG": {"discoveryAddress": "istiod.istio-system.svc:15012"}});
    let id = "sidecar~10.0.0.7~a.b~b.svc.cluster.local";
    let proved = Node { secrets: Secrets::Agent, ..node(id, metadata.clone()) };
    let expected = ControlPlane::parse("istiod.istio-system.svc:15012", None);
    assert!(expected.is_some());
    assert_eq!(audience(&plane, &proved).control_plane, expected);
    assert_eq!(audience(&plane, &node(id, metadata)).control_plane, None, "it has none");
    for metadata in [json!({"PROXY_CONFIG": 7}), json!({"PROXY_CONFIG": {"discoveryAddress": ["x:1"]}}), json!({})] {
        let proved = Node { secrets: Secrets::Stream, ..node(id, metadata) };
        assert_eq!(audience(&plane, &proved).control_plane, None);
    }
}

#[test]
fn certificate_providers_are_of_grpc_and_secrets_of_all_others() {
    let plane = plane("");
    for (metadata, secrets, wanted) in [
        (json!({"GENERATOR": "grpc"}), Secrets::Provider, Secrets::Provider),
        (json!({"GENERATOR": "grpc"}), Secrets::Stream, Secrets::None),
        (json!({}), Secrets::Provider, Secrets::None),
        (json!({}), Secrets::Stream, Secrets::Stream),
    ] {
        let mut node = node("sidecar~10.0.0.7~a.b~b.svc.cluster.local", metadata);
        node.secrets = secrets;
        assert_eq!(audience(&plane, &node).secrets, wanted, "{secrets:?} {:?}", node.metadata);
    }
}

#[test]
fn interception_and_the_proxy_port_come_from_metadata_as_text_or_number() {
    let plane = plane("");
    for port in [json!("3128"), json!(3128), json!(3128.0)] {
        let metadata = json!({"INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": port});
        let found = audience(&plane, &node("sidecar~10.0.0.7~a.b~b.svc.cluster.local", metadata));
        assert_eq!(found.proxy, Proxy::Sidecar { interception: Interception::None, http_proxy_port: Some(3128) });
    }
    for port in [json!("x"), json!(0), json!(70000), json!(null), json!([1])] {
        let found = audience(&plane, &node("plain", json!({"HTTP_PROXY_PORT": port})));
        assert_eq!(found.proxy, Proxy::Sidecar { interception: Interception::None, http_proxy_port: None });
    }
}

#[test]
fn a_node_without_id_or_of_an_unknown_type_is_refused_with_words() {
    let mut plane = plane("");
    assert_eq!(plane.attach(&node("", json!({}))).unwrap_err(), NodeError::NoId);
    let refused = plane.attach(&node("ztunnel~10.0.0.7~a.b~b.svc.cluster.local", json!({}))).unwrap_err();
    assert!(refused.to_string().contains("ztunnel"), "{refused}");
    let odd = Node { metadata: Map::new(), ..node("sidecar~not-an-ip~nodot~x", json!({})) };
    let audience = plane.attach(&odd).unwrap().audience;
    assert_eq!(&*plane.audience(audience).unwrap().namespace, "default");
}

#[test]
fn an_audience_is_compiled_while_somebody_uses_it() {
    let mut plane = plane("");
    let one = node("sidecar~10.0.0.7~a.b~b.svc.cluster.local", json!({}));
    let first = plane.attach(&one).unwrap();
    let second = plane.attach(&one).unwrap();
    let now = Instant::now();
    assert_eq!(plane.detach(first.member, now), None);
    assert_eq!(plane.snapshots().len(), 1);
    assert_eq!(plane.detach(second.member, now), Some(second.audience));
    assert_eq!(plane.detach(second.member, now), None);
    assert_eq!(plane.snapshots().len(), 0);
}

#[test]
fn a_node_moves_to_another_audience_when_its_pod_becomes_known_or_changes() {
    let mut plane = plane("");
    let one = node("sidecar~10.0.0.7~web-1.default~default.svc.cluster.local", json!({"LABELS": {"app": "web"}}));
    let other = node("sidecar~10.0.0.8~web-2.default~default.svc.cluster.local", json!({}));
    let attached = plane.attach(&one).unwrap();
    plane.attach(&other).unwrap();
    let pod = |version: &str| {
        let yaml = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web-1, labels: {{app: web, version: {version}}}}}\nstatus: {{podIP: 10.0.0.7}}\n"
        );
        let parsed = source::text::parse("pod.yaml", yaml.as_bytes(), &source::Options::default());
        parsed.objects.into_iter().map(Change::Apply).collect::<Vec<_>>()
    };
    for version in ["v1", "v2"] {
        let moved = plane.apply(pod(version), Vec::new()).moved;
        let [membership] = &moved[..] else { panic!("one node moves") };
        assert_eq!(membership.member, attached.member);
        assert_eq!(
            plane.audience(membership.audience).unwrap().labels.get("version").map(String::as_str),
            Some(version)
        );
        assert_eq!(plane.snapshots().len(), 2, "the audience that it left is dropped");
    }
    assert!(plane.apply(pod("v2"), Vec::new()).moved.is_empty());
}
