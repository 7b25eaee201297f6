//! A change of endpoints is told at once to those who ask for them, and later to all others.

use proto::ResourceType;
use proto::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use server::view::NodeObjects;
use testkit::wire::{Delta, node, unpack};

use crate::fixture::{CLUSTER, NODE, RATINGS, REVIEWS, Running, SOON, config, eventually, serving};

const OTHER: &str = "sidecar~10.9.0.2~client-2.default~default.svc.cluster.local";
const OTHER_CLUSTER: &str = "outbound|80||ratings.default.svc.cluster.local";

/// A client that has its clusters, and the endpoints of one.
async fn client(server: &Running, id: &str, cluster: &str) -> Delta {
    let mut stream = server.wire().await.delta(node(id, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let clusters = stream.next(SOON).await.unwrap();
    stream.ack(&clusters).await;
    stream.subscribe(ResourceType::Endpoints, &[cluster]).await;
    let endpoints = stream.next(SOON).await.unwrap();
    stream.ack(&endpoints).await;
    stream
}

async fn is_settled(server: &Running, id: &str, generation: u64) {
    let path = format!("/api/v1/nodes/{id}");
    let is_settled = |node: &NodeObjects| node.connections[0].accepted_generation == generation;
    eventually(|| server.json::<NodeObjects>(&path), is_settled).await;
}

/// Moves the endpoint of reviews to `10.2.1.<last>`.
fn moved(last: u8) -> String {
    REVIEWS.replace("10.2.0.1", &format!("10.2.1.{last}"))
}

/// Reads, and acknowledges, until the endpoint of reviews is `10.2.1.<last>`.
async fn has_moved(stream: &mut Delta, last: u8) {
    loop {
        let response = stream.next(SOON).await.unwrap();
        stream.ack(&response).await;
        let cells = response.resources.into_iter().filter_map(|resource| resource.resource).collect::<Vec<_>>();
        let assignments = unpack::<ClusterLoadAssignment>(&cells).unwrap();
        if assignments.iter().any(|assignment| format!("{assignment:?}").contains(&format!("10.2.1.{last}\""))) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_endpoints_is_not_counted_for_those_who_do_not_ask_for_them() {
    let server = serving(config(), &format!("{REVIEWS}---{RATINGS}")).await;
    let mut concerned = client(&server, NODE, CLUSTER).await;
    let _other = client(&server, OTHER, OTHER_CLUSTER).await;
    for id in [NODE, OTHER] {
        is_settled(&server, id, 1).await;
    }
    server.apply(&moved(1)).await;
    has_moved(&mut concerned, 1).await;
    let change: server::view::Change = server.json("/api/v1/changes/2").await;
    assert_eq!((change.audiences, change.streams), (2, 1), "{change:?}");
    // Nothing is owed to it, which it is told in the end.
    is_settled(&server, OTHER, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_begins_to_ask_for_endpoints_gets_the_newest_ones() {
    let server = serving(config(), &format!("{REVIEWS}---{RATINGS}")).await;
    let mut stream = client(&server, OTHER, OTHER_CLUSTER).await;
    is_settled(&server, OTHER, 1).await;
    for last in 1..6 {
        server.apply(&moved(last)).await;
        stream.subscribe(ResourceType::Endpoints, &[CLUSTER]).await;
        has_moved(&mut stream, last).await;
        stream.unsubscribe(ResourceType::Endpoints, &[CLUSTER]).await;
    }
}
