//! What clients do wrong, and that nobody else suffers.

use std::time::Duration;

use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use server::{Config, Deadlines, Limits};
use testkit::wire::{Exchange, Wire, WireError, node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::fixture::{NODE, REVIEWS, Running, SOON, config, deadlines, eventually, serving};

const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

type Raw = Exchange<DiscoveryRequest, DiscoveryResponse>;

async fn ended(stream: &mut Raw) -> Status {
    match stream.next(SOON).await {
        Err(WireError::Refused(status)) => status,
        other => panic!("{other:?}"),
    }
}

/// That a well-behaved client is served, on this connection.
async fn is_served(wire: &Wire) {
    let mut stream = wire.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    assert!(!stream.next(SOON).await.unwrap().resources.is_empty());
}

fn request() -> DiscoveryRequest {
    let type_url = ResourceType::Cluster.type_url().to_owned();
    DiscoveryRequest { type_url, node: Some(node(NODE, "client")), ..DiscoveryRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_request_without_a_node_id_is_an_invalid_argument() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    for no_node in [None, Some(Node::default())] {
        let mut stream: Raw = wire.open(ADS);
        stream.send(DiscoveryRequest { node: no_node, ..request() }).await;
        assert_eq!(ended(&mut stream).await.code(), Code::InvalidArgument);
    }
    is_served(&wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_type_that_is_not_served_is_told_so() {
    let server = serving(config(), REVIEWS).await;
    let mut stream: Raw = server.wire().await.open(ADS);
    let node = Some(node("ztunnel~10.0.0.1~a.b~b.svc.cluster.local", ""));
    stream.send(DiscoveryRequest { node, ..request() }).await;
    let status = ended(&mut stream).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("\"ztunnel\""), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregated_request_without_a_type_is_an_invalid_argument_and_an_unknown_type_is_not() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    let mut missing: Raw = wire.open(ADS);
    missing.send(DiscoveryRequest { type_url: String::new(), ..request() }).await;
    assert_eq!(ended(&mut missing).await.code(), Code::InvalidArgument);

    let mut unknown: Raw = wire.open(ADS);
    unknown.send(DiscoveryRequest { type_url: "type.googleapis.com/no.such.Type".to_owned(), ..request() }).await;
    unknown.send(DiscoveryRequest { node: None, ..request() }).await;
    assert!(!unknown.next(SOON).await.unwrap().resources.is_empty());
    assert_eq!(server.metric("pointsman_unknown_types").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_ten_megabytes_ends_its_stream_and_leaves_the_connection_to_others() {
    let limits = Limits { max_request_bytes: 1024 * 1024, ..Limits::default() };
    let server = serving(Config { limits, ..config() }, REVIEWS).await;
    let wire = server.wire().await;
    let mut other = wire.sotw(node(NODE, "client"));
    other.subscribe(ResourceType::Cluster, &[]).await;
    let response = other.next(SOON).await.unwrap();

    let mut large: Raw = wire.open(ADS);
    large.send(DiscoveryRequest { resource_names: vec!["x".repeat(10 * 1024 * 1024)], ..request() }).await;
    let status = ended(&mut large).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("at most 1048576 are taken"), "{}", status.message());

    other.ack(&response).await;
    server.apply(crate::fixture::RATINGS).await;
    other.next(SOON).await.unwrap();
    is_served(&wire).await;
}

fn impatient() -> Config {
    // Long enough for a client that has something to say, also on a busy machine.
    let deadlines = Deadlines { first_request: Duration::from_secs(3), ..deadlines() };
    Config { deadlines, ..config() }
}

/// Reads to the end of a connection; what HTTP/2 says first does not matter.
async fn is_closed_soon(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // An abrupt end is an end, too.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_are_closed_and_delay_nobody() {
    let server = serving(impatient(), REVIEWS).await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(TcpStream::connect(server.tcp()).await.unwrap());
    }
    // Half of HTTP/2's preface is not a word either.
    silent[0].write_all(b"PRI * HTTP").await.unwrap();
    is_served(&server.wire().await).await;
    for stream in &mut silent {
        is_closed_soon(stream).await;
    }
    let closed = || server.metric("pointsman_connections_closed{reason=\"silent\"}");
    eventually(closed, |count| *count == Some(500.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_connections_run_out_the_silent_ones_make_room() {
    let limits = Limits { max_connections: Some(20), ..Limits::default() };
    let server = serving(Config { limits, ..config() }, REVIEWS).await;
    let wire = server.wire().await;
    let mut kept = wire.sotw(node(NODE, "client"));
    kept.subscribe(ResourceType::Cluster, &[]).await;
    let response = kept.next(SOON).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(server.tcp()).await.unwrap());
    }
    // They have thirty seconds, but a client with something to say does not wait for that.
    is_served(&server.wire().await).await;
    kept.ack(&response).await;
    server.apply(crate::fixture::RATINGS).await;
    kept.next(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_asks_nothing_ends_in_time() {
    let server = serving(impatient(), REVIEWS).await;
    let mut stream: Raw = server.wire().await.open(ADS);
    let status = ended(&mut stream).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().starts_with("no request came within"), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_on_a_connection_ends_that_connection_only() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    for junk in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\njunk junk junk junk",
    ] {
        let mut stream = TcpStream::connect(server.tcp()).await.unwrap();
        stream.write_all(junk).await.unwrap();
        is_closed_soon(&mut stream).await;
    }
    is_served(&wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_in_a_message_is_an_invalid_argument() {
    let server = serving(config(), REVIEWS).await;
    // A message of another type, whose field 1 is not a text.
    let mut stream: Exchange<proto::pb::google::protobuf::UInt32Value, DiscoveryResponse> =
        server.wire().await.open(ADS);
    stream.send(proto::pb::google::protobuf::UInt32Value { value: 7 }).await;
    match stream.next(SOON).await {
        Err(WireError::Refused(status)) => assert_eq!(status.code(), Code::InvalidArgument),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_beyond_the_first_response_limit_wait_their_turn_and_are_all_served() {
    let limits = Limits { max_first_responses: 1, ..Limits::default() };
    let server = serving(Config { limits, ..config() }, REVIEWS).await;
    let wire = server.wire().await;
    // The first one subscribes to nothing that there is, so it keeps its turn for as long as it may.
    let mut idle = wire.sotw(node(NODE, "client"));
    idle.subscribe(ResourceType::Endpoints, &["none"]).await;
    for _ in 0..20 {
        is_served(&wire).await;
    }
    assert_eq!(streams(&server).await, 21.0);
}

async fn streams(server: &Running) -> f64 {
    server.metric("pointsman_first_response_wait_seconds_count").await.unwrap()
}
