//! What happens below gRPC: windows, pings, resets, age. The client is the `h2` crate's, so that it can do what a
//! well-behaved one does not.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, StatusCode};
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::service::discovery::v3::DiscoveryRequest;
use server::{Config, Deadlines};
use testkit::wire::node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::fixture::{NODE, REVIEWS, Running, SOON, config, deadlines, eventually, serving};

const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// A connection that is moved by a task until this is dropped.
pub struct Client {
    requests: SendRequest<Bytes>,
    connection: JoinSet<Result<(), h2::Error>>,
}

impl Client {
    pub async fn connect(server: &Running, builder: &Builder) -> Client {
        let socket = TcpStream::connect(server.tcp()).await.unwrap();
        let (requests, connection) = builder.handshake(socket).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Client { requests, connection: tasks }
    }

    /// Calls, and returns the answer's head with both ways.
    async fn call(&mut self, path: &str, content_type: &str) -> (StatusCode, SendStream<Bytes>, RecvStream) {
        let uri = format!("http://pointsman{path}");
        let request = Request::post(uri).header("content-type", content_type).body(()).unwrap();
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (answer, send) = requests.send_request(request, false).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
        (answer.status(), send, answer.into_body())
    }

    pub async fn ads(&mut self) -> (SendStream<Bytes>, RecvStream) {
        let (status, send, receive) = self.call(ADS, "application/grpc").await;
        assert_eq!(status, StatusCode::OK);
        (send, receive)
    }

    /// How the connection ends.
    async fn end(&mut self) -> Result<(), h2::Error> {
        tokio::time::timeout(SOON, self.connection.join_next()).await.unwrap().unwrap().unwrap()
    }
}

/// Sends data as the server's windows allow, as long as it wants any.
pub async fn send_all(send: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| send.poll_capacity(cx));
        let Ok(Some(Ok(room))) = tokio::time::timeout(SOON, room).await else { return };
        if send.send_data(data.split_to(room.min(data.len())), false).is_err() {
            // The server has ended the stream.
            return;
        }
    }
}

fn clusters() -> Bytes {
    let type_url = ResourceType::Cluster.type_url().to_owned();
    let request = DiscoveryRequest { type_url, node: Some(node(NODE, "client")), ..DiscoveryRequest::default() };
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(request.encoded_len()).unwrap());
    request.encode(&mut bytes).unwrap();
    bytes.freeze()
}

/// Waits for the first bytes of an answer.
async fn is_answered(receive: &mut RecvStream) {
    assert!(!tokio::time::timeout(SOON, receive.data()).await.unwrap().unwrap().unwrap().is_empty());
}

async fn closed(server: &Running, reason: &str) -> f64 {
    server.metric(&format!("pointsman_connections_closed{{reason=\"{reason}\"}}")).await.unwrap_or(0.0)
}

fn with(deadlines: Deadlines) -> Config {
    Config { deadlines, ..config() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_windows_stay_shut_loses_its_connection_and_others_are_served() {
    let deadlines = Deadlines { send: Duration::from_millis(300), ..deadlines() };
    let server = serving(with(deadlines), REVIEWS).await;
    let mut shut = Client::connect(&server, Builder::new().initial_window_size(0)).await;
    let (mut send, _receive) = shut.ads().await;
    send.send_data(clusters(), false).unwrap();

    let mut other = Client::connect(&server, &Builder::new()).await;
    let (mut send, mut receive) = other.ads().await;
    send.send_data(clusters(), false).unwrap();
    is_answered(&mut receive).await;

    let _ = shut.end().await;
    eventually(|| closed(&server, "cut_off"), |count| *count == 1.0).await;
    let (_send, _receive) = other.ads().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_answer_pings_loses_its_connection_and_one_that_does_keeps_it() {
    // The one that answers has as much time, however slow the machine is.
    let (keepalive_interval, keepalive_timeout) = (Duration::from_millis(200), Duration::from_secs(5));
    let deadlines = Deadlines { keepalive_interval, keepalive_timeout, ..deadlines() };
    let server = serving(with(deadlines), REVIEWS).await;
    let mut alive = Client::connect(&server, &Builder::new()).await;
    let (mut send, mut receive) = alive.ads().await;
    // What looks like a client and then is gone without a word.
    let mut dead = TcpStream::connect(server.tcp()).await.unwrap();
    dead.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(SOON, dead.read_to_end(&mut said)).await.unwrap().unwrap();
    assert!(said.windows(9).any(|head| head == b"\0\0\x08\x06\0\0\0\0\0"), "it was asked before");
    eventually(|| closed(&server, "unanswered"), |count| *count == 1.0).await;
    send.send_data(clusters(), false).unwrap();
    is_answered(&mut receive).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_at_its_age_but_not_before_something_was_sent() {
    let deadlines = Deadlines { connection_age: Some(Duration::from_secs(3)), ..deadlines() };
    let server = serving(with(deadlines), REVIEWS).await;
    let mut client = Client::connect(&server, &Builder::new()).await;
    let (mut send, mut receive) = client.ads().await;
    // It is told to open no more streams.
    eventually(async || client.requests.clone().ready().await.is_err(), |is_over| *is_over).await;
    send.send_data(clusters(), false).unwrap();
    is_answered(&mut receive).await;
    let trailers = tokio::time::timeout(SOON, receive.trailers()).await.unwrap().unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
    drop((send, receive));
    client.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_of_one_connection_are_served() {
    let server = serving(config(), REVIEWS).await;
    // All answers have room at one time.
    let mut client = Client::connect(&server, Builder::new().initial_connection_window_size(64 << 20)).await;
    let mut streams = Vec::new();
    for _ in 0..1_000 {
        let (mut send, receive) = client.ads().await;
        send.send_data(clusters(), false).unwrap();
        streams.push((send, receive));
    }
    for (_, receive) in &mut streams {
        is_answered(receive).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_the_middle_of_a_message_hurts_that_stream_only() {
    let server = serving(config(), REVIEWS).await;
    let mut client = Client::connect(&server, &Builder::new()).await;
    let (mut other, mut received) = client.ads().await;
    for _ in 0..100 {
        let (mut send, _receive) = client.ads().await;
        send.send_data(clusters().slice(..20), false).unwrap();
        send.send_reset(Reason::CANCEL);
    }
    other.send_data(clusters(), false).unwrap();
    is_answered(&mut received).await;
    let streams = async || server.metric("pointsman_streams{service=\"ads\",variant=\"sotw\"}").await;
    eventually(streams, |count| *count == Some(1.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_grpc_is_told_what_this_port_is_for() {
    let server = serving(config(), REVIEWS).await;
    let mut client = Client::connect(&server, &Builder::new()).await;
    let (status, _send, mut receive) = client.call("/", "text/html").await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let text = receive.data().await.unwrap().unwrap();
    assert!(text.starts_with(b"this port speaks gRPC"), "{text:?}");
}
