//! Requests that ask for too much or make no sense: bounded, answered with the right status, and felt by nobody else.

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use proto::ResourceType;
use proto::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::pb::google::rpc;
use server::{Config, Limits};
use testkit::wire::{Exchange, Wire, WireError, node};
use tonic::{Code, Status};

use crate::fixture::{CLUSTER, NODE, RATINGS, REVIEWS, Running, SOON, config, eventually, serving};

const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

type Sotw = Exchange<DiscoveryRequest, DiscoveryResponse>;
type Delta = Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

fn sotw(kind: ResourceType, names: Vec<String>) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        node: Some(node(NODE, "client")),
        resource_names: names,
        ..DiscoveryRequest::default()
    }
}

fn delta(kind: ResourceType, names: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        node: Some(node(NODE, "client")),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    }
}

fn names(range: std::ops::Range<usize>, len: usize) -> Vec<String> {
    range.map(|n| format!("{n:0len$}")).collect()
}

async fn end(stream: &mut Delta) -> Status {
    loop {
        match stream.next(SOON).await {
            Err(WireError::Refused(status)) => return status,
            Ok(_) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// A client that behaves well, and goes on being served on the same connection as one that does not.
struct Other {
    stream: testkit::wire::Sotw,
    last: DiscoveryResponse,
}

impl Other {
    async fn on(wire: &Wire) -> Other {
        let mut stream = wire.sotw(node(NODE, "client"));
        stream.subscribe(ResourceType::Cluster, &[]).await;
        let last = stream.next(SOON).await.unwrap();
        Other { stream, last }
    }

    async fn goes_on(mut self, server: &Running) {
        self.stream.ack(&self.last).await;
        server.apply(RATINGS).await;
        assert!(self.stream.next(SOON).await.unwrap().resources.len() > self.last.resources.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_names_and_names_of_ten_kilobytes_are_answered() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    let other = Other::on(&wire).await;
    for (count, len) in [(100_000, 20), (1_000, 10_000)] {
        let mut asked = names(0..count, len);
        asked.push(CLUSTER.to_owned());
        let mut stream: Sotw = wire.open(SOTW);
        stream.send(sotw(ResourceType::Endpoints, asked.clone())).await;
        assert_eq!(stream.next(SOON).await.unwrap().resources.len(), 1);
        let mut stream: Delta = wire.open(DELTA);
        stream.send(delta(ResourceType::Endpoints, asked)).await;
        let response = stream.next(SOON).await.unwrap();
        assert_eq!((response.resources.len(), response.removed_resources.len()), (1, count));
    }
    other.goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_subscriptions_are_taken_on_one_stream_and_one_more_ends_it() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    let other = Other::on(&wire).await;
    let mut stream: Delta = wire.open(DELTA);
    for part in 0..10 {
        stream.send(delta(ResourceType::Endpoints, names(part * 100_000..(part + 1) * 100_000, 8))).await;
    }
    // All of them were taken: another type of the same stream is answered behind them.
    stream.send(delta(ResourceType::Cluster, Vec::new())).await;
    while stream.next(SOON).await.unwrap().type_url != ResourceType::Cluster.type_url() {}
    stream.send(delta(ResourceType::Endpoints, vec!["one more".to_owned()])).await;
    let status = end(&mut stream).await;
    assert_eq!((status.code(), status.message().contains("at most 1000000")), (Code::ResourceExhausted, true));
    other.goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_nonces_and_refusals_of_what_was_never_sent_are_neither_answered_nor_counted() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    let other = Other::on(&wire).await;
    let mut stream: Sotw = wire.open(SOTW);
    let error = || Some(rpc::Status { code: 13, message: "no".to_owned(), details: Vec::new() });
    for n in 0..20_000 {
        let response_nonce = if n == 0 { String::new() } else { format!("stale-{n}") };
        let error_detail = if n % 2 == 0 { None } else { error() };
        let request = sotw(ResourceType::Endpoints, vec![CLUSTER.to_owned()]);
        stream.send(DiscoveryRequest { response_nonce, error_detail, ..request }).await;
    }
    let response = stream.next(SOON).await.unwrap();
    assert_eq!(response.resources.len(), 1);
    // The answer to this comes behind all of them, and nothing comes between.
    stream.send(sotw(ResourceType::Cluster, Vec::new())).await;
    assert_eq!(stream.next(SOON).await.unwrap().type_url, ResourceType::Cluster.type_url());
    assert_eq!(server.metric(r#"pointsman_responses_rejected{type="eds"}"#).await.unwrap_or(0.0), 0.0);
    other.goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_come_mixed_with_each_other_and_with_unknown_ones_have_an_answer_each() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    let other = Other::on(&wire).await;
    let mut stream: Delta = wire.open(DELTA);
    for n in 0..500 {
        for kind in ResourceType::ALL {
            stream.send(delta(kind, vec![format!("{n}")])).await;
        }
        let type_url = format!("type.googleapis.com/no.such.Type{n}");
        stream.send(DeltaDiscoveryRequest { type_url, ..delta(ResourceType::Cluster, Vec::new()) }).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    // Of a filter's configuration it is never said that there is none, nor of a virtual host.
    while seen.len() < ResourceType::ALL.len() - 1 {
        let response = stream.next(SOON).await.unwrap();
        assert!(seen.insert(response.type_url.clone()), "{} is answered before it was acknowledged", response.type_url);
    }
    eventually(|| server.metric("pointsman_unknown_types"), |count| *count == Some(500.0)).await;
    other.goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_begun_and_not_finished_are_bounded_on_a_connection() {
    let limits = Limits { max_request_bytes: 1024 * 1024, ..Limits::default() };
    let server = serving(Config { limits, ..config() }, REVIEWS).await;
    let other = Other::on(&server.wire().await).await;
    let mut hog = super::transport::Client::connect(&server, &h2::client::Builder::new()).await;
    let mut begun = Vec::new();
    for _ in 0..6 {
        let (mut send, receive) = hog.ads().await;
        // The head of a message of a megabyte, and nine tenths of it.
        let mut part = vec![0, 0, 0x10, 0, 0];
        part.resize(900 * 1024, 0);
        super::transport::send_all(&mut send, part.into()).await;
        begun.push((send, receive));
    }
    // Four megabytes are room for four of them.
    let mut ends: FuturesUnordered<_> = begun.iter_mut().map(|(_, receive)| receive.trailers()).collect();
    for _ in 0..2 {
        let trailers = tokio::time::timeout(SOON, ends.next()).await.unwrap().unwrap();
        assert_eq!(trailers.unwrap().unwrap()["grpc-status"], "8");
    }
    other.goes_on(&server).await;
    assert!(ends.next().now_or_never().is_none(), "the others may go on");
}
