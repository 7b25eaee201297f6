//! A port that a workload loses stays until its clients know, and no longer than allowed.

use std::time::Duration;

use proto::ResourceType;
use server::Config;
use server::view::{Changes, EventKind, NodeObjects, ObjectChange, ObjectNodes};
use testkit::wire::{Delta, node};

use crate::fixture::{CLUSTER, NODE, REVIEWS, Running, SOON, config, eventually, serving};

/// The sidecar of the service's only endpoint.
const WORKLOAD: &str = "sidecar~10.2.0.1~reviews-1.default~default.svc.cluster.local";

fn retargeted() -> String {
    REVIEWS.replace("port: 8080 }]", "port: 9090 }]").replace("targetPort: 8080", "targetPort: 9090")
}

/// A client that has its clusters and the endpoints of one.
async fn client(server: &Running) -> Delta {
    let mut stream = server.wire().await.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let clusters = stream.next(SOON).await.unwrap();
    stream.ack(&clusters).await;
    stream.subscribe(ResourceType::Endpoints, &[CLUSTER]).await;
    let endpoints = stream.next(SOON).await.unwrap();
    stream.ack(&endpoints).await;
    stream
}

/// A workload's proxy that has its clusters; nobody sends requests from there.
async fn workload(server: &Running) -> Delta {
    let mut stream = server.wire().await.delta(node(WORKLOAD, "reviews"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let clusters = stream.next(SOON).await.unwrap();
    assert!(clusters.resources.iter().any(|resource| resource.name == "inbound|8080||"), "{clusters:?}");
    stream.ack(&clusters).await;
    stream
}

/// Both run what there is.
async fn settled(server: &Running) {
    for id in [NODE, WORKLOAD] {
        let path = format!("/api/v1/nodes/{id}");
        let is_settled = |node: &NodeObjects| node.connections[0].accepted_generation == 1;
        eventually(|| server.json::<NodeObjects>(&path), is_settled).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_goes_when_the_last_client_has_answered_and_everybody_can_see_why_not_before() {
    let server = serving(config(), REVIEWS).await;
    let (mut client, mut workload) = (client(&server).await, workload(&server).await);
    settled(&server).await;
    let mut events = server.events("/api/v1/events", None).await;
    server.apply(&retargeted()).await;
    let held = events.until(EventKind::Held).await;
    assert_eq!((&*held.objects, held.generation, held.count), (&["service/default/reviews".to_owned()][..], 2, 1));
    let added = workload.next(SOON).await.unwrap();
    assert!(added.resources.iter().any(|resource| resource.name == "inbound|9090||"), "{added:?}");
    assert!(added.removed_resources.is_empty(), "{added:?}");
    workload.ack(&added).await;
    let why = |waiting: &[String]| {
        let start = "inbound port 8080 of default/reviews may still be used by 1 node (";
        waiting.len() == 1 && waiting[0].starts_with(&format!("{start}{NODE}): it has not acknowledged generation 2"))
    };
    for id in [WORKLOAD, NODE] {
        let path = format!("/api/v1/nodes/{id}");
        eventually(|| server.json::<NodeObjects>(&path), |node| why(&node.connections[0].waiting)).await;
    }
    let object: ObjectNodes = server.json("/api/v1/objects/service/default/reviews").await;
    assert!(why(&object.object.waiting), "{object:?}");
    assert_eq!(server.metric("pointsman_waits{reason=\"still_used\"}").await, Some(1.0));

    loop {
        let response = client.next(SOON).await.unwrap();
        client.ack(&response).await;
        if response.type_url == ResourceType::Endpoints.type_url() {
            break;
        }
    }
    let released = events.until(EventKind::Released).await;
    assert!(released.seconds.is_some_and(|seconds| seconds >= 2.0), "{released:?}");
    let removed = workload.next(SOON).await.unwrap();
    assert_eq!(removed.removed_resources, ["inbound|8080||"]);
    let changes: Changes = server.json("/api/v1/changes").await;
    let last = &changes.changes[0];
    assert_eq!((last.generation, last.objects[0].change), (3, ObjectChange::Released));
    assert_eq!(last.objects[0].object, "service/default/reviews");
    assert_eq!(server.metric("pointsman_waits_expired{reason=\"still_used\"}").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_answers_keeps_a_port_no_longer_than_allowed_and_is_named() {
    let streams = xds::Settings { order_wait: Duration::from_millis(100), ..config().streams };
    let server = serving(Config { streams, ..config() }, REVIEWS).await;
    let (_client, mut workload) = (client(&server).await, workload(&server).await);
    settled(&server).await;
    let mut events = server.events("/api/v1/events?event=held,released,wait_expired", None).await;
    server.apply(&retargeted()).await;
    assert_eq!(events.next().await.kind, EventKind::Held);
    // On a busy machine the wait may be over before the new port is sent: then both come together.
    loop {
        let response = workload.next(SOON).await.unwrap();
        workload.ack(&response).await;
        if response.removed_resources == ["inbound|8080||"] {
            break;
        }
        assert_eq!(response.removed_resources, [""; 0]);
    }
    let expired = events.next().await;
    assert!(expired.kind == EventKind::WaitExpired && expired.message.contains(NODE), "{expired:?}");
    assert_eq!(server.metric("pointsman_waits_expired{reason=\"still_used\"}").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_not_waited_for() {
    let server = serving(config(), REVIEWS).await;
    let (client, mut workload) = (client(&server).await, workload(&server).await);
    settled(&server).await;
    let mut events = server.events("/api/v1/events?event=held,released,wait_expired", None).await;
    server.apply(&retargeted()).await;
    assert_eq!(events.next().await.kind, EventKind::Held);
    let added = workload.next(SOON).await.unwrap();
    workload.ack(&added).await;
    drop(client);
    assert_eq!(events.next().await.kind, EventKind::Released);
}
