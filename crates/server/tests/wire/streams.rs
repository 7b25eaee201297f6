//! What streams deliver.

use std::time::Duration;

use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use server::view::Objects;
use testkit::wire::{WireError, node, unpack};
use tonic::Code;

use crate::fixture::{CLUSTER, NODE, RATINGS, REVIEWS, SOON, config, eventually, serving, start};

/// Long enough to see that something is sent that should not be.
const QUIET: Duration = Duration::from_millis(200);

fn refusal(result: Result<impl std::fmt::Debug, WireError>) -> tonic::Status {
    match result {
        Err(WireError::Refused(status)) => status,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_the_world_stream_gets_clusters_then_endpoints_then_updates() {
    let server = serving(config(), REVIEWS).await;
    let mut stream = server.wire().await.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let clusters = stream.next(SOON).await.unwrap();
    assert_eq!(clusters.control_plane.as_ref().unwrap().identifier, "pointsman");
    let names: Vec<_> = unpack::<Cluster>(&clusters.resources).unwrap().into_iter().map(|c| c.name).collect();
    assert!(names.contains(&CLUSTER.to_owned()), "{names:?}");
    stream.ack(&clusters).await;

    stream.subscribe(ResourceType::Endpoints, &[CLUSTER]).await;
    let endpoints = stream.next(SOON).await.unwrap();
    let assignment = unpack::<ClusterLoadAssignment>(&endpoints.resources).unwrap().remove(0);
    assert_eq!(assignment.cluster_name, CLUSTER);
    assert_eq!(assignment.endpoints.iter().map(|locality| locality.lb_endpoints.len()).sum::<usize>(), 1);
    stream.ack(&endpoints).await;
    stream.exchange().silence(QUIET).await.unwrap();

    server.apply(RATINGS).await;
    let clusters = stream.next(SOON).await.unwrap();
    assert_eq!(clusters.type_url, ResourceType::Cluster.type_url());
    assert!(unpack::<Cluster>(&clusters.resources).unwrap().iter().any(|c| c.name.contains("ratings")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_stream_gets_only_what_changed_and_nothing_again_when_it_comes_back() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let first = stream.next(SOON).await.unwrap();
    stream.ack(&first).await;
    server.apply(RATINGS).await;
    let change = stream.next(SOON).await.unwrap();
    let names: Vec<_> = change.resources.iter().map(|resource| &*resource.name).collect();
    assert_eq!(names, ["outbound|80||ratings.default.svc.cluster.local"]);
    stream.ack(&change).await;
    let held = stream.held(ResourceType::Cluster);
    drop(stream);

    let mut again = wire.delta(node(NODE, "client"));
    again.resume(ResourceType::Cluster, &[], &held).await;
    match again.next(QUIET).await {
        // The first request of a wildcard is answered even when there is nothing to say (rule P-42).
        Ok(response) => assert_eq!((response.resources.len(), response.removed_resources.len()), (0, 0)),
        Err(WireError::Late(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_of_one_type_work_as_the_aggregated_one() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    let mut clusters = wire.delta_of(ResourceType::Cluster, node(NODE, "client"));
    clusters.subscribe(ResourceType::Cluster, &[]).await;
    assert!(clusters.next(SOON).await.unwrap().resources.iter().any(|resource| resource.name == CLUSTER));
    let mut endpoints = wire.sotw_of(ResourceType::Endpoints, node(NODE, "client"));
    endpoints.subscribe(ResourceType::Endpoints, &[CLUSTER]).await;
    assert_eq!(endpoints.next(SOON).await.unwrap().resources.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_url_of_another_service_is_an_invalid_argument() {
    let server = serving(config(), REVIEWS).await;
    let mut stream = server.wire().await.sotw_of(ResourceType::Cluster, node(NODE, "client"));
    stream.subscribe(ResourceType::Listener, &[]).await;
    let status = refusal(stream.next(SOON).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("envoy.config.listener.v3.Listener"), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_synchronisation_streams_are_unavailable_and_never_empty() {
    let server = start(config()).await;
    assert_eq!(server.get("/readyz").await.0, 503);
    assert_eq!(server.get("/healthz").await.0, 200);
    let wire = server.wire().await;
    let mut early = wire.sotw(node(NODE, "client"));
    early.subscribe(ResourceType::Cluster, &[]).await;
    let status = refusal(early.next(SOON).await);
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("not synchronised yet"), "{}", status.message());

    server.apply(REVIEWS).await;
    server.input.set_synced().await.unwrap();
    server.ready().await;
    let mut late = wire.sotw(node(NODE, "client"));
    late.subscribe(ResourceType::Cluster, &[]).await;
    assert!(!late.next(SOON).await.unwrap().resources.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_too_large_for_one_piece_arrives_as_its_parts_say() {
    use std::fmt::Write;
    let mut mesh = String::new();
    for i in 0..300 {
        write!(
            mesh,
            "{}---",
            RATINGS
                .replace("ratings", &format!("ratings-{i}"))
                .replace("10.1.0.2", &format!("10.3.{}.{}", i / 250, i % 250 + 1))
        )
        .unwrap();
    }
    let server = serving(config(), &mesh).await;
    let mut stream = server.wire().await.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let response = stream.next(SOON).await.unwrap();
    // Larger than one DATA frame and than the 64 KiB at which shared pieces are closed.
    assert!(response.encoded_len() > 64 * 1024, "{} bytes", response.encoded_len());
    let clusters = unpack::<Cluster>(&response.resources).unwrap();
    assert!((0..300).all(|i| clusters.iter().any(|c| c.name.starts_with(&format!("outbound|80||ratings-{i}.")))));
    // What prost makes of the message again is the message: nothing is lost or doubled by the way it was put together.
    let again =
        proto::pb::envoy::service::discovery::v3::DiscoveryResponse::decode(&*response.encode_to_vec()).unwrap();
    assert_eq!(again, response);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_it_has_no_more_requests_gets_its_answer_and_then_the_end() {
    let server = serving(config(), REVIEWS).await;
    let mut stream = server.wire().await.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    stream.exchange().finish();
    assert!(!stream.next(SOON).await.unwrap().resources.is_empty());
    assert!(matches!(stream.next(SOON).await, Err(WireError::Ended)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_gets_the_newest_state_when_it_does() {
    let server = serving(config(), REVIEWS).await;
    let mut stream = server.wire().await.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let first = stream.next(SOON).await.unwrap();
    for i in 0..50 {
        server
            .apply(
                &RATINGS.replace("ratings", &format!("ratings-{i}")).replace("10.1.0.2", &format!("10.3.0.{}", i + 1)),
            )
            .await;
    }
    // The fifty changes are published while nothing is acknowledged: they come as a few responses, not as fifty.
    let last = || server.json::<Objects>("/api/v1/objects?name=ratings-49");
    eventually(last, |view| view.objects.len() == 1).await;
    stream.ack(&first).await;
    let mut names = 0;
    let mut responses = 0;
    while names < 50 {
        let response = stream.next(SOON).await.unwrap();
        names += response.resources.len();
        responses += 1;
        stream.ack(&response).await;
    }
    assert_eq!(names, 50);
    assert!(responses < 25, "{responses} responses");
}
