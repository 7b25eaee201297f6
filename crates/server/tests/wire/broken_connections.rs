//! Connections that break where they should not, and that nobody else suffers.

use std::net::SocketAddr;
use std::time::Duration;

use proto::ResourceType;
use proto::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use server::{Config, Deadlines};
use testkit::wait;
use testkit::wire::{Exchange, Wire, node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{NODE, RATINGS, REVIEWS, SOON, config, deadlines, serving};

const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// How a connection ends once it has carried so many bytes from the client.
#[derive(Clone, Copy)]
enum Break {
    /// With a reset of TCP.
    Reset,
    /// With silence: both sides stay open, and nothing goes either way.
    Silence,
}

/// Carries one connection to `server`, up to `bytes` from the client.
async fn fragile(server: SocketAddr, bytes: usize, end: Break) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut upstream = TcpStream::connect(server).await.unwrap();
        let mut left = bytes;
        let (mut there, mut back) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
        while left > 0 {
            let room = there.len().min(left);
            tokio::select! {
                read = client.read(&mut there[..room]) => {
                    let read = read.unwrap();
                    upstream.write_all(&there[..read]).await.unwrap();
                    left -= read;
                }
                read = upstream.read(&mut back) => {
                    let read = read.unwrap();
                    client.write_all(&back[..read]).await.unwrap();
                }
            }
        }
        match end {
            Break::Reset => upstream.set_zero_linger().unwrap(),
            Break::Silence => std::future::pending().await,
        }
    });
    address
}

/// A request of a megabyte: it takes many frames.
fn large() -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: ResourceType::Endpoints.type_url().to_owned(),
        node: Some(node(NODE, "client")),
        resource_names: (0..10_000).map(|n| format!("{n:0100}")).collect(),
        ..DiscoveryRequest::default()
    }
}

async fn a_break_in_the_middle_of_a_request_harms_nobody_else(end: Break) {
    // The others have to answer in this time, too, however slow the machine is.
    let (keepalive_interval, keepalive_timeout) = (Duration::from_millis(300), Duration::from_secs(5));
    let deadlines = Deadlines { keepalive_interval, keepalive_timeout, ..deadlines() };
    let server = serving(Config { deadlines, ..config() }, REVIEWS).await;
    let mut other = server.wire().await.sotw(node(NODE, "client"));
    other.subscribe(ResourceType::Cluster, &[]).await;
    let response = other.next(SOON).await.unwrap();
    let mut broken = Vec::new();
    for bytes in [20_000, 200_000, 500_000] {
        let address = fragile(server.tcp(), bytes, end).await;
        let wire = Wire::connect(format!("http://{address}")).await.unwrap();
        let mut stream: Exchange<DiscoveryRequest, DiscoveryResponse> = wire.open(ADS);
        stream.send(large()).await;
        broken.push((wire, stream));
    }
    let open = r#"pointsman_streams{service="ads",variant="sotw"}"#;
    wait::until("the broken streams to be open", SOON, async || match (end, server.metric(open).await) {
        (Break::Silence, Some(4.0)) | (Break::Reset, Some(_)) => Ok(()),
        (_, open) => Err(format!("{open:?}")),
    })
    .await
    .unwrap();
    wait::until("the broken streams to have ended", SOON, async || match server.metric(open).await {
        Some(1.0) => Ok(()),
        open => Err(format!("{open:?}")),
    })
    .await
    .unwrap();
    other.ack(&response).await;
    server.apply(RATINGS).await;
    other.next(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_the_middle_of_a_request_harms_nobody_else() {
    a_break_in_the_middle_of_a_request_harms_nobody_else(Break::Reset).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_falls_silent_in_the_middle_of_a_request_is_found_by_its_missing_pings() {
    a_break_in_the_middle_of_a_request_harms_nobody_else(Break::Silence).await;
}
