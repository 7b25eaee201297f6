//! Clients that do what they should not, against the real binary: each gets an answer, and nobody else notices.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use testkit::load::Load;
use testkit::wait;
use testkit::wire::{Exchange, Wire, WireError, node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, marked, split};
use crate::raw::client_hello;

const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";
const CDS: &str = "/envoy.service.cluster.v3.ClusterDiscoveryService/";
const SIDECAR: &str = "sidecar~127.0.0.1~raw.default~default.svc.cluster.local";

type StateOfTheWorld = Exchange<DiscoveryRequest, DiscoveryResponse>;
type Delta = Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/// A mesh with traffic through one well-behaved Envoy, which must not notice anything.
struct Watched {
    mesh: Mesh,
    load: Load,
    begun: Instant,
    // Held for its drop.
    _client: testkit::envoy::Envoy,
    _reviews: Reviews,
}

impl Watched {
    async fn start() -> Watched {
        let reviews = Reviews::start();
        let objects = reviews.objects();
        let files = [("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &*split(1, 1))];
        let mesh = Mesh::start(&files).await;
        let client = mesh.client(Variant::Delta, "client").await;
        answering(reviews.plan()).await;
        let load = Load::start(reviews.plan().per_second(500.0)).unwrap();
        Watched { mesh, load, begun: Instant::now(), _client: client, _reviews: reviews }
    }

    async fn wire(&self) -> Wire {
        Wire::connect(format!("http://{}", self.mesh.xds)).await.unwrap()
    }

    /// Changes the split so many times; returns how long the slowest change took to reach the traffic.
    async fn slowest_change(&self, changes: u64) -> Duration {
        let mut slowest = Duration::ZERO;
        for _ in 0..changes {
            // A mark of its own each time.
            static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
            let next = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            let written = self.mesh.write("routes.yaml", &split(next, next));
            slowest = slowest.max(marked(&self.load, written, &format!("{next}/{next}")).await - written);
        }
        slowest
    }

    /// Nobody has noticed.
    async fn assert_unharmed(mut self) {
        self.slowest_change(1).await;
        self.load.next(50, PATIENCE).await.unwrap();
        self.load.since(self.begun).await.assert_no_failures();
        self.mesh.server.process().expect_running().unwrap();
        let log = self.mesh.server.output();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// The name of the gRPC status that a stream ends with, and its words.
async fn end<Request, Response>(stream: &mut Exchange<Request, Response>) -> (String, String)
where
    Request: prost::Message + Send + Sync + 'static,
    Response: prost::Message + Default + std::fmt::Debug + Send + 'static,
{
    match stream.next(PATIENCE).await {
        Err(WireError::Refused(status)) => (format!("{:?}", status.code()), status.message().to_owned()),
        other => panic!("the stream goes on with {other:?}"),
    }
}

fn clusters() -> DiscoveryRequest {
    let type_url = ResourceType::Cluster.type_url().to_owned();
    DiscoveryRequest { type_url, node: Some(node(SIDECAR, "raw")), ..DiscoveryRequest::default() }
}

fn delta_clusters() -> DeltaDiscoveryRequest {
    let type_url = ResourceType::Cluster.type_url().to_owned();
    DeltaDiscoveryRequest { type_url, node: Some(node(SIDECAR, "raw")), ..DeltaDiscoveryRequest::default() }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_the_status_that_says_why() {
    let watched = Watched::start().await;
    let wire = watched.wire().await;
    let (sotw, delta) = (format!("{ADS}StreamAggregatedResources"), format!("{ADS}DeltaAggregatedResources"));
    for nobody in [None, Some(Node::default()), Some(node("", "cluster-only"))] {
        let mut stream: StateOfTheWorld = wire.open(&sotw);
        stream.send(DiscoveryRequest { node: nobody.clone(), ..clusters() }).await;
        let (code, words) = end(&mut stream).await;
        assert!(code == "InvalidArgument" && words.contains("node"), "{code}: {words}");
        let mut stream: Delta = wire.open(&delta);
        stream.send(DeltaDiscoveryRequest { node: nobody, ..delta_clusters() }).await;
        let (code, words) = end(&mut stream).await;
        assert!(code == "InvalidArgument" && words.contains("node"), "{code}: {words}");
    }
    // No type at all, and another type than the service's own.
    let mut stream: StateOfTheWorld = wire.open(&sotw);
    stream.send(DiscoveryRequest { type_url: String::new(), ..clusters() }).await;
    assert_eq!(end(&mut stream).await.0, "InvalidArgument");
    let mut stream: StateOfTheWorld = wire.open(&format!("{CDS}StreamClusters"));
    let type_url = ResourceType::Listener.type_url().to_owned();
    stream.send(DiscoveryRequest { type_url, ..clusters() }).await;
    assert_eq!(end(&mut stream).await.0, "InvalidArgument");
    // A type that nobody knows does not cost the stream its other types.
    let mut stream: Delta = wire.open(&delta);
    let type_url = "type.googleapis.com/no.such.Type".to_owned();
    stream.send(DeltaDiscoveryRequest { type_url, ..delta_clusters() }).await;
    stream.send(DeltaDiscoveryRequest { node: None, ..delta_clusters() }).await;
    let answer = stream.next(PATIENCE).await.unwrap();
    assert_eq!(answer.type_url, ResourceType::Cluster.type_url());
    // A method that does not exist.
    let mut stream: StateOfTheWorld = wire.open("/envoy.service.nothing.v3.Nothing/Stream");
    stream.send(clusters()).await;
    assert_eq!(end(&mut stream).await.0, "Unimplemented");
    // The stream that behaved well is alive after all of that, on the same connection.
    watched.slowest_change(1).await;
    watched.assert_unharmed().await;
}

#[tokio::test]
async fn large_requests_are_served_up_to_the_limit_and_refused_beyond_it() {
    let watched = Watched::start().await;
    let wire = watched.wire().await;
    let ads = format!("{ADS}StreamAggregatedResources");
    // Ten megabytes are an honest request of a client with many resources, though these do not exist.
    let names = |bytes: usize| (0..bytes / 100).map(|n| format!("{n:0100}")).collect::<Vec<_>>();
    let endpoints = ResourceType::Endpoints.type_url().to_owned();
    let mut stream: StateOfTheWorld = wire.open(&ads);
    let request = DiscoveryRequest { type_url: endpoints, resource_names: names(10 << 20), ..clusters() };
    stream.send(request).await;
    stream.send(DiscoveryRequest { node: None, ..clusters() }).await;
    let until_clusters = async {
        loop {
            let answer = stream.next(PATIENCE).await.unwrap();
            if answer.type_url == ResourceType::Cluster.type_url() {
                return answer.resources.len();
            }
        }
    };
    let count = tokio::time::timeout(PATIENCE, until_clusters).await.unwrap();
    assert!(count > 0, "no cluster came");
    let mut stream: StateOfTheWorld = wire.open(&ads);
    stream.send(DiscoveryRequest { resource_names: names(40 << 20), ..clusters() }).await;
    let (code, words) = end(&mut stream).await;
    assert!(code == "ResourceExhausted" && words.contains("at most 16777216"), "{code}: {words}");
    let usual = watched.slowest_change(3).await;
    assert!(usual < Duration::from_secs(2), "a change takes {usual:?} after a large request");
    watched.assert_unharmed().await;
}

#[tokio::test]
async fn bytes_that_are_no_requests_end_their_connection_and_nothing_else() {
    let watched = Watched::start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    for garbage in [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        client_hello("xds.example.com"),
        noise.clone(),
        [preface, &noise[..]].concat(),
        // Settings that are too long, and a frame of 16 MB that never comes.
        [&preface[..], &[0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0]].concat(),
    ] {
        let mut stream = TcpStream::connect(watched.mesh.xds).await.unwrap();
        // The server may hang up before it has read it all.
        let _ = stream.write_all(&garbage).await;
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after {:?}", &garbage[..20]);
    }
    // Garbage in gRPC's own framing: the message is no DiscoveryRequest.
    let wire = watched.wire().await;
    let mut stream: Exchange<proto::pb::google::protobuf::UInt64Value, DiscoveryResponse> =
        wire.open(&format!("{ADS}StreamAggregatedResources"));
    stream.send(proto::pb::google::protobuf::UInt64Value { value: u64::MAX }).await;
    assert_eq!(end(&mut stream).await.0, "InvalidArgument");
    watched.assert_unharmed().await;
}

/// Ten thousand, or half of what this process may have open.
fn as_many_as_can_be() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX);
    10_000.min(soft / 2)
}

#[tokio::test]
async fn thousands_of_connections_that_say_nothing_delay_nobody() {
    let watched = Watched::start().await;
    let count = as_many_as_can_be();
    let usual = watched.slowest_change(5).await;
    let mut silent = Vec::with_capacity(count);
    for number in 0..count {
        // From addresses of their own, to leave the ephemeral ports of 127.0.0.1 to others.
        let socket = TcpSocket::new_v4().unwrap();
        let host = Ipv4Addr::new(127, 3, 0, u8::try_from(1 + number / 5_000).unwrap());
        socket.bind(SocketAddr::new(IpAddr::V4(host), 0)).unwrap();
        silent.push(socket.connect(watched.mesh.xds).await.unwrap_or_else(|e| panic!("connection {number}: {e}")));
    }
    // The server has taken them all in: it holds a descriptor for each.
    let mut mesh_server = watched;
    let pid = mesh_server.mesh.server.process().pid();
    wait::until("all connections to be accepted", PATIENCE, async || {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        if open >= count { Ok(()) } else { Err(format!("{open} descriptors are open")) }
    })
    .await
    .unwrap();
    let watched = mesh_server;
    let crowded = watched.slowest_change(5).await;
    // Twice the usual, and room for one hiccup of a shared machine.
    let bound = 2 * usual + Duration::from_millis(300);
    assert!(crowded <= bound, "a change took {crowded:?} beside {count} silent connections, {usual:?} without");
    // New clients get in, too.
    let mut stream = watched.wire().await.delta(node(SIDECAR, "raw"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    assert!(!stream.next(PATIENCE).await.unwrap().resources.is_empty());
    drop(silent);
    watched.assert_unharmed().await;
}
