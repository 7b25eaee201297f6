//! How a server begins and ends.

use std::time::Duration;

use proto::ResourceType;
use server::{Config, Deadlines, Error, Listen, Server};
use testkit::wire::{Wire, WireError, node};
use tokio::net::TcpStream;
use tonic::Code;

use crate::fixture::{NODE, REVIEWS, SOON, config, deadlines, serving, socket_path};

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_streams_as_unavailable_and_closes_the_port() {
    let server = serving(config(), REVIEWS).await;
    let address = server.tcp();
    let mut stream = server.wire().await.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let response = stream.next(SOON).await.unwrap();
    stream.ack(&response).await;
    let input = server.input.clone();

    server.stop().await.unwrap();
    match stream.next(SOON).await {
        Err(WireError::Refused(status)) => {
            assert_eq!((status.code(), status.message()), (Code::Unavailable, "shutting down"));
        }
        other => panic!("{other:?}"),
    }
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(input.set_synced().await, Err(server::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_does_not_hold_up_the_end_beyond_the_deadline() {
    let deadlines = Deadlines { drain: Duration::from_millis(300), ..deadlines() };
    let server = serving(Config { deadlines, ..config() }, REVIEWS).await;
    // A health watch that nobody reads, and a connection that speaks no HTTP/2.
    let _silent = TcpStream::connect(server.tcp()).await.unwrap();
    let channel = tonic::transport::Endpoint::from_shared(server.xds()).unwrap().connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let _watch = health.watch(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_and_its_file_is_gone_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let path = socket_path(&directory);
    let config = Config { xds_listen: vec![Listen::Unix(path.clone())], ..config() };
    let server = serving(config, REVIEWS).await;
    let mut stream = Wire::connect(server.xds()).await.unwrap().sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    assert!(!stream.next(SOON).await.unwrap().resources.is_empty());
    let nodes: server::view::Nodes = server.json("/api/v1/nodes").await;
    assert_eq!(nodes.nodes[0].address, "unix:");
    server.stop().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_named_in_the_error() {
    let server = serving(config(), REVIEWS).await;
    let plane = plane::Plane::new(world::Settings::default(), compile::Options::default());
    let config = Config { xds_listen: vec![Listen::Tcp(server.tcp())], ..Config::default() };
    let error = Server::bind(config, plane).await.unwrap_err();
    assert!(matches!(error, Error::Bind { .. }), "{error:?}");
    assert!(error.to_string().starts_with(&format!("cannot listen at {}: ", server.tcp())), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_connects_at_once_is_not_put_off() {
    let plane = plane::Plane::new(world::Settings::default(), compile::Options::default());
    // It does not run, so nothing is accepted: all that connects waits.
    let server = Server::bind(config(), plane).await.unwrap();
    let Listen::Tcp(address) = server.addresses().xds[0].clone() else { panic!() };
    let kernel: usize = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let mut fleet = Vec::new();
    for _ in 0..kernel.min(1000) {
        fleet.push(tokio::time::timeout(SOON, TcpStream::connect(address)).await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_runtime_with_one_thread_is_enough() {
    let server = serving(config(), REVIEWS).await;
    let mut stream = server.wire().await.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    assert!(!stream.next(SOON).await.unwrap().resources.is_empty());
    server.stop().await.unwrap();
}
