//! What one stream costs: from a published snapshot to the response, and for the acknowledgement, in meshes of three
//! sizes.
//!
//! The stream is that of an Envoy that has everything. The two snapshots that are published in turn are compared and
//! encoded by the first stream that asks; what is shown is each further stream, which shares that. Nothing is sent.

#![allow(missing_docs, clippy::disallowed_methods)]

mod meshes;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use meshes::{ENDPOINTS, Mesh, SIZES};
use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use snapshot::Snapshot;
use world::{Change, Object};
use xds::{Request, Response, Service, Settings, Stream, Variant};

/// An Envoy's end of a stream, and the stream.
struct Client {
    stream: Stream,
    variant: Variant,
    names: HashMap<ResourceType, Vec<String>>,
    now: Instant,
}

impl Client {
    /// A client that asked for everything and acknowledged it.
    fn with(variant: Variant, snapshot: &Snapshot) -> Client {
        let stream = Stream::new(variant, Service::Aggregated, Settings::default());
        let names = |of| snapshot.iter(of).map(|cell| cell.name().to_string()).collect();
        let names = HashMap::from([
            (ResourceType::Endpoints, names(ResourceType::Endpoints)),
            (ResourceType::Route, names(ResourceType::Route)),
        ]);
        let mut client = Client { stream, variant, names, now: Instant::now() };
        client.stream.handle_snapshot(client.now, snapshot.clone());
        for of in [ResourceType::Cluster, ResourceType::Endpoints, ResourceType::Listener, ResourceType::Route] {
            let request = client.request(of, None);
            client.tell(request);
            for response in client.responses() {
                client.tell(client.request(response.resource_type, Some(&response)));
            }
        }
        client
    }

    /// The first request for a type, or the acknowledgement of a response.
    fn request(&self, of: ResourceType, response: Option<&Response>) -> Request {
        let names = self.names.get(&of).cloned().unwrap_or_default();
        let node = Node { id: "client".to_owned(), ..Node::default() };
        let type_url = of.type_url().to_owned();
        let response_nonce = response.map(|response| response.nonce.clone()).unwrap_or_default();
        match self.variant {
            Variant::StateOfTheWorld => Request::StateOfTheWorld(DiscoveryRequest {
                node: response.is_none().then_some(node),
                type_url,
                response_nonce,
                version_info: response.map(|response| response.version.to_string()).unwrap_or_default(),
                resource_names: names,
                ..DiscoveryRequest::default()
            }),
            Variant::Delta => Request::Delta(DeltaDiscoveryRequest {
                node: response.is_none().then_some(node),
                type_url,
                response_nonce,
                resource_names_subscribe: if response.is_none() { names } else { Vec::new() },
                ..DeltaDiscoveryRequest::default()
            }),
        }
    }

    fn tell(&mut self, request: Request) {
        self.stream.handle_request(self.now, request).expect("the request is a proper one");
    }

    fn responses(&mut self) -> Vec<Response> {
        let responses = std::iter::from_fn(|| self.stream.poll_response(self.now)).collect();
        while self.stream.poll_outcome().is_some() {}
        responses
    }
}

/// Two snapshots that differ in one object.
fn pair(mesh: Mesh, versions: [Arc<Object>; 2]) -> [Snapshot; 2] {
    let mut plane = mesh.plane();
    plane.attach(&meshes::node()).expect("the node is one that is served");
    versions.map(|version| {
        plane.apply([Change::Apply(version)], Vec::new());
        let snapshots = plane.snapshots();
        (*snapshots.values().next().expect("a node is attached")).clone()
    })
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for services in SIZES {
        let mesh = Mesh { services };
        let at = services / 2;
        let weights = pair(mesh, [mesh.weight(at, 80), mesh.weight(at, 20)]);
        let scaled = pair(mesh, [meshes::endpoints(at, ENDPOINTS), meshes::endpoints(at, ENDPOINTS - 1)]);
        for (variant, of_variant) in [(Variant::Delta, "delta"), (Variant::StateOfTheWorld, "sotw")] {
            for (change, snapshots) in [("weight", &weights), ("endpoint", &scaled)] {
                let mut client = Client::with(variant, &snapshots[1]);
                let mut at = 1;
                let mut step = |iterations: u64| {
                    let (mut publishing, mut acknowledging) = (Duration::ZERO, Duration::ZERO);
                    for _ in 0..iterations {
                        at = 1 - at;
                        let snapshot = snapshots[at].clone();
                        let begin = Instant::now();
                        client.stream.handle_snapshot(client.now, snapshot);
                        let responses = black_box(client.responses());
                        publishing += begin.elapsed();
                        assert_eq!(responses.len(), 1, "{change} {of_variant}");
                        let request = client.request(responses[0].resource_type, Some(&responses[0]));
                        let begin = Instant::now();
                        client.tell(request);
                        let none = client.responses();
                        acknowledging += begin.elapsed();
                        assert!(none.is_empty());
                    }
                    (publishing, acknowledging)
                };
                // Once around, so that what all streams share is there.
                step(2);
                group.bench_function(BenchmarkId::new(format!("publish-{change}-{of_variant}"), services), |bench| {
                    bench.iter_custom(|iterations| step(iterations).0);
                });
                group.bench_function(BenchmarkId::new(format!("accept-{change}-{of_variant}"), services), |bench| {
                    bench.iter_custom(|iterations| step(iterations).1);
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
