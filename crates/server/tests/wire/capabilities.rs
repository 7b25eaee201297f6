//! What a client says it was built without is not sent to it, and can be seen.

use proto::pb::envoy::config::core::v3::{Extension, Node};
use proto::{ResourceType, pb};
use server::view::Nodes;

use crate::fixture::{NODE, REVIEWS, SOON, config, serving};

/// A node that lists these extensions.
fn built_with(id: &str, names: &[&str]) -> Node {
    let extension = |name: &&str| Extension { name: (*name).to_owned(), ..Extension::default() };
    Node { extensions: names.iter().map(extension).collect(), ..testkit::wire::node(id, "client") }
}

/// Whether a name stands anywhere in the resources.
fn names(resources: &[pb::google::protobuf::Any], name: &str) -> bool {
    resources.iter().any(|any| any.value.windows(name.len()).any(|window| window == name.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_filter_gets_listeners_without_it_and_is_shown_to_lack_it() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    let (fault, log) = ("envoy.filters.http.fault", "envoy.access_loggers.http_grpc");
    let listed = ["envoy.filters.http.router", "envoy.filters.http.cors", "envoy.filters.http.grpc_stats"];
    for (id, listed, lacks) in [
        (NODE, &[][..], &[][..]),
        (
            "sidecar~10.9.0.2~bare.default~default.svc.cluster.local",
            &listed,
            &["envoy.filters.http.grpc_web", fault, log, "envoy.filters.network.set_filter_state"],
        ),
    ] {
        let mut stream = wire.sotw(built_with(id, listed));
        stream.subscribe(ResourceType::Listener, &[]).await;
        let response = stream.next(SOON).await.unwrap();
        assert!(names(&response.resources, "envoy.filters.http.router"));
        assert_eq!(names(&response.resources, fault), lacks.is_empty(), "{id}");
        let nodes: Nodes = server.json(&format!("/api/v1/nodes?id_prefix={id}")).await;
        assert_eq!(nodes.nodes[0].missing_extensions, lacks);
    }
}
