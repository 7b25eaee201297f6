#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use testkit::wire::{Delta, Wire, node};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::fan_out::FanOut;
use super::recording::{Recording, Variant, framed};

const PATIENCE: Duration = Duration::from_secs(120);

fn response(kind: ResourceType, nonce: &str, bytes: usize) -> Bytes {
    let resource = Resource { name: "x".repeat(bytes), ..Resource::default() };
    framed(
        &DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            nonce: nonce.to_owned(),
            resources: vec![resource],
            ..DeltaDiscoveryResponse::default()
        }
        .encode_to_vec(),
    )
}

async fn serving(recording: Recording) -> (Rc<FanOut>, Vec<Delta>) {
    let fan_out = FanOut::new(Variant::Delta, recording);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = fan_out.clone();
    tokio::task::spawn_local(async move { accepting.accept(listener).await });
    let mut clients = Vec::new();
    for name in ["a", "b"] {
        clients.push(Wire::connect(format!("http://{address}")).await.unwrap().delta(node(name, "test")));
    }
    (fan_out, clients)
}

#[tokio::test]
async fn every_stream_is_sent_what_was_taken_down_and_then_each_change() {
    let first = HashMap::from([(
        ResourceType::Cluster.type_url().to_owned(),
        // More than a window and a frame of HTTP/2.
        response(ResourceType::Cluster, "first", 300_000),
    )]);
    let changes = HashMap::from([("weight", response(ResourceType::Route, "change", 500))]);
    let check = async {
        let (fan_out, mut clients) = serving(Recording { first, changes }).await;
        for client in &mut clients {
            client.subscribe(ResourceType::Cluster, &[]).await;
            let response = client.next(PATIENCE).await.unwrap();
            assert_eq!((&*response.nonce, response.resources[0].name.len()), ("first", 300_000));
            // An acknowledgement is not taken for a subscription.
            client.ack(&response).await;
        }
        for _ in 0..3 {
            assert_eq!(fan_out.send("weight"), 2);
            assert_eq!(fan_out.send("unknown"), 0);
            for client in &mut clients {
                let response = client.next(PATIENCE).await.unwrap();
                assert_eq!(response.nonce, "change");
                client.ack(&response).await;
            }
        }
    };
    LocalSet::new().run_until(check).await;
}

#[tokio::test]
async fn a_steady_fan_out_delivers_each_change_to_so_many_streams_in_turn() {
    let first = HashMap::from([(
        ResourceType::Endpoints.type_url().to_owned(),
        response(ResourceType::Endpoints, "first", 10),
    )]);
    let changes = HashMap::from([("endpoints", response(ResourceType::Endpoints, "change", 500))]);
    let check = async {
        let (fan_out, mut clients) = serving(Recording { first, changes }).await;
        for client in &mut clients {
            client.subscribe(ResourceType::Endpoints, &["x"]).await;
            client.next(PATIENCE).await.unwrap();
        }
        let sent = fan_out.churn("endpoints", 1000, Duration::from_millis(20), 1).await;
        assert_eq!((sent.changes, sent.deliveries, sent.skipped), (20, 20, 0));
        for client in &mut clients {
            for _ in 0..10 {
                assert_eq!(client.next(PATIENCE).await.unwrap().nonce, "change");
            }
        }
    };
    LocalSet::new().run_until(check).await;
}
