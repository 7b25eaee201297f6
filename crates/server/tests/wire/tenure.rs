//! A stream ends with the proof that it began with.

use std::time::Duration;

use identity::Uses;
use server::StateDirectory;
use testkit::wire::{Delta, ResourceType, Wire, WireError, node};
use tonic::Code;

use crate::fixture::{NODE, SOON, eventually};
use crate::identity::{Guarded, clusters};

/// A stream that has been served.
async fn served(wire: &Wire) -> Delta {
    let mut stream = wire.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let first = stream.next(SOON).await.unwrap();
    stream.ack(&first).await;
    stream
}

/// How it ends.
async fn end(stream: &mut Delta) -> (Code, String) {
    match stream.next(SOON).await {
        Err(WireError::Refused(status)) => (status.code(), status.message().to_owned()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_by_a_join_token_ends_when_the_token_is_revoked() {
    let server = Guarded::start().await;
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let mut stream = served(&wire).await;
    let state = StateDirectory::open(server.state.path()).unwrap();
    let id = state.list_tokens().unwrap()[0].id.clone();
    let other = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let mut untouched = served(&other).await;
    assert!(state.revoke_token(&id).unwrap());
    let (code, message) = end(&mut stream).await;
    assert!(code == Code::Unauthenticated && message.contains("revoked"), "{code:?} {message}");
    assert_eq!(clusters(&wire, NODE).await.unwrap_err().0, Code::Unauthenticated, "it is not taken again");
    untouched.exchange().silence(Duration::from_millis(200)).await.unwrap();
    assert!(clusters(&other, NODE).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_by_a_join_token_ends_when_the_token_is_over() {
    let server = Guarded::start().await;
    let state = StateDirectory::open(server.state.path()).unwrap();
    // Long enough to be served on a busy machine.
    let lifetime = Duration::from_secs(6);
    let mut streams = Vec::new();
    for uses in [Uses::Many, Uses::Once] {
        let token = state.create_token(&"default/client".parse().unwrap(), uses, lifetime).unwrap();
        let wire = server.wire().await.with_token(&token.reveal()).unwrap();
        streams.push(served(&wire).await);
    }
    for mut stream in streams {
        let (code, message) = end(&mut stream).await;
        assert!(code == Code::Unauthenticated && message.contains("expired"), "{code:?} {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_by_a_certificate_ends_when_the_certificate_is_over() {
    let server = Guarded::start_with(|settings| settings.workload_ttl = Duration::from_secs(8)).await;
    let wire = server.wire_with(server.certificate("default/client").await).await.unwrap();
    let mut stream = served(&wire).await;
    let (code, message) = end(&mut stream).await;
    assert!(code == Code::Unauthenticated && message.contains("certificate has expired"), "{code:?} {message}");
    // The connection went with it: whoever comes with a new certificate makes a new one.
    let connections = || async { server.running.metric("pointsman_connections").await };
    eventually(connections, |open| *open == Some(0.0)).await;
    let wire = server.wire_with(server.certificate("default/client").await).await.unwrap();
    assert!(clusters(&wire, NODE).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_lasts_ends_with_its_proof() {
    use proto::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
    let server = Guarded::start().await;
    let wire = server.wire().await.with_token(&server.token("default/client", Uses::Many)).unwrap();
    let method = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";
    // One that need not be told its clusters is answered at once.
    let client_features = vec!["envoy.lrs.supports_send_all_clusters".to_owned()];
    let reporting = proto::pb::envoy::config::core::v3::Node { client_features, ..node(NODE, "client") };
    let mut exchange = wire.open::<LoadStatsRequest, LoadStatsResponse>(method);
    exchange.send(LoadStatsRequest { node: Some(reporting), cluster_stats: Vec::new() }).await;
    let admin = server.running.addresses.admin.unwrap();
    let often = serde_json::json!({ "interval_seconds": 1 });
    testkit::http::put_json(admin, "/api/v1/load/settings", &often).await.unwrap();
    exchange.next(SOON).await.unwrap();
    let state = StateDirectory::open(server.state.path()).unwrap();
    assert!(state.revoke_token(&state.list_tokens().unwrap()[0].id).unwrap());
    match exchange.next(SOON).await {
        Err(WireError::Refused(status)) => assert_eq!(status.code(), Code::Unauthenticated),
        other => panic!("{other:?}"),
    }
}
