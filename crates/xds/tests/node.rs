//! Who the client is, and when it is first answered.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::collections::HashMap;
use std::time::Instant;

use proto::ResourceType;
use proto::pb::envoy::config::core::v3::node::UserAgentVersionType;
use proto::pb::envoy::config::core::v3::{BuildVersion, Extension, Locality, Node};
use proto::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use proto::pb::envoy::r#type::v3::SemanticVersion;
use proto::pb::google::protobuf::{Struct, Value, value::Kind};
use proto::pb::xds::core::v3::ContextParams;
use snapshot::Snapshot;
use xds::{Outcome, Request, Service, Settings, Stream, Variant};

fn envoy() -> Node {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
    let labels = Struct { fields: HashMap::from([("app".into(), text("front"))]) };
    let labels = Value { kind: Some(Kind::StructValue(labels)) };
    let version = SemanticVersion { major_number: 1, minor_number: 40, patch: 0 };
    Node {
        id: "sidecar~1".into(),
        cluster: "shop".into(),
        metadata: Some(Struct { fields: HashMap::from([("labels".into(), labels)]) }),
        locality: Some(Locality { region: "r1".into(), zone: "z1".into(), sub_zone: String::new() }),
        user_agent_name: "envoy".into(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
            version: Some(version),
            metadata: None,
        })),
        extensions: ["envoy.filters.http.router", "envoy.filters.http.fault", "envoy.filters.http.grpc_stats"]
            .map(|name| Extension { name: name.into(), ..Extension::default() })
            .into(),
        ..Node::default()
    }
}

fn ask(node: Option<Node>) -> Request {
    let type_url = ResourceType::Cluster.type_url().into();
    Request::Delta(DeltaDiscoveryRequest { node, type_url, ..DeltaDiscoveryRequest::default() })
}

fn stream() -> Stream {
    Stream::new(Variant::Delta, Service::Aggregated, Settings::default())
}

#[test]
fn a_node_is_read_from_the_first_request_with_what_matters_of_its_extensions() {
    let mut stream = stream();
    stream.handle_request(Instant::now(), ask(Some(envoy()))).unwrap();
    let node = stream.node().unwrap().clone();
    assert_eq!((&*node.id, &*node.cluster), ("sidecar~1", "shop"));
    assert_eq!(node.user_agent_version, "1.40.0");
    assert_eq!(node.metadata_text(&["labels", "app"]), Some("front"));
    assert_eq!(node.metadata_text(&["labels"]), None);
    assert_eq!(node.metadata_text(&["labels", "app", "deeper"]), None);
    assert_eq!(node.locality.zone, "z1");
    assert!(!node.is_grpc());
    let lacks: Vec<_> = node.lacks.iter().map(proto::Extension::name).collect();
    assert_eq!(
        lacks,
        [
            "envoy.filters.http.grpc_web",
            "envoy.filters.http.cors",
            "envoy.access_loggers.http_grpc",
            "envoy.filters.network.set_filter_state"
        ]
    );
}

#[test]
fn changed_context_parameters_are_reported_and_the_client_stays_the_same() {
    let (mut stream, now) = (stream(), Instant::now());
    stream.handle_request(now, ask(Some(envoy()))).unwrap();
    while stream.poll_outcome().is_some() {}
    let params = ContextParams { params: HashMap::from([("zone".into(), "z2".into())]) };
    let parameters = HashMap::from([(ResourceType::Cluster.type_url().to_owned(), params)]);
    let moved = Node { id: "somebody else".into(), dynamic_parameters: parameters, ..envoy() };
    stream.handle_request(now, ask(Some(moved.clone()))).unwrap();
    let Some(Outcome::ParametersChanged(node)) = stream.poll_outcome() else { panic!("no word of the change") };
    assert_eq!(node.id, "sidecar~1");
    assert_eq!(node.dynamic_parameters[ResourceType::Cluster.type_url()]["zone"], "z2");
    stream.handle_request(now, ask(Some(moved))).unwrap();
    assert!(stream.poll_outcome().is_none(), "the same parameters again are no change");
}

#[test]
fn requests_wait_for_the_first_snapshot_and_an_empty_one_is_an_answer() {
    let (mut stream, now) = (stream(), Instant::now());
    stream.handle_request(now, ask(Some(envoy()))).unwrap();
    assert!(stream.poll_response(now).is_none());
    stream.handle_snapshot(now, Snapshot::default());
    let response = stream.poll_response(now).unwrap();
    assert!(response.body.is_empty());
    assert!(stream.poll_response(now).is_none());
}
