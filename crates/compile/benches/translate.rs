//! What it costs to turn one cluster or one endpoint into bytes, in nanoseconds per item.
//!
//! istiod publishes 7.6 µs per cluster and 2.04 µs per endpoint for the same steps (its own Go benchmarks, without
//! its cache; istio/istio pull request 54425), on another machine: the ratio is a guide, not a race.

use std::hint::black_box;
use std::sync::Arc;

use compile::cluster::{self, ClusterInput};
use compile::{Audience, Interception, Proxy, endpoints, names};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use proto::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use world::api::istio::{ConnectionPool, HttpPool, OutlierDetection, TcpPool, TrafficPolicy};
use world::{
    Address, EffectiveRule, Endpoint, Export, Health, Hostname, Kind, Labels, Locality, ObjectRef, Protocol,
    Resolution, Service, ServicePort, Subset, TargetPort,
};

fn audience() -> Audience {
    Audience {
        proxy: Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None },
        namespace: "default".into(),
        labels: Arc::default(),
        addresses: Vec::new(),
    }
}

fn service(protocol: Protocol) -> Service {
    Service {
        host: Hostname::new("service-1234.default.svc.cluster.local"),
        namespace: "default".into(),
        name: "service-1234".into(),
        origin: ObjectRef::new(Kind::Service, "default", "service-1234"),
        created: "".into(),
        kubernetes: true,
        ports: vec![ServicePort { name: "http".into(), number: 80, protocol, target: TargetPort::Number(8080) }],
        addresses: vec![[10, 96, 0, 1].into()],
        ranges: Vec::new(),
        resolution: Resolution::Static,
        headless: false,
        external: false,
        alias_of: None,
        selector: Labels::new(),
        publish_not_ready: false,
        export: Export::All,
    }
}

fn rule(policy: Option<TrafficPolicy>) -> EffectiveRule {
    let origin = ObjectRef::new(Kind::DestinationRule, "default", "service-1234");
    EffectiveRule {
        policy_origin: policy.is_some().then(|| origin.clone()),
        policy,
        subsets: vec![Subset {
            name: "v1".into(),
            labels: Labels::from([("version".to_owned(), "v1".to_owned())]),
            policy: None,
            origin: origin.clone(),
        }],
        origins: vec![origin],
        ..EffectiveRule::default()
    }
}

fn policy() -> TrafficPolicy {
    TrafficPolicy {
        connection_pool: Some(ConnectionPool {
            tcp: Some(TcpPool { max_connections: Some(100), ..TcpPool::default() }),
            http: Some(HttpPool { http2_max_requests: Some(1000), ..HttpPool::default() }),
        }),
        outlier_detection: Some(OutlierDetection { consecutive_5xx_errors: Some(7), ..OutlierDetection::default() }),
        ..TrafficPolicy::default()
    }
}

fn clusters(criterion: &mut Criterion) {
    let audience = audience();
    let none = EffectiveRule::default();
    let (with_subset, with_policy) = (rule(None), rule(Some(policy())));
    let cases = [
        ("plain", Protocol::Http, &none, None),
        ("http2", Protocol::Http2, &none, None),
        ("subset", Protocol::Http, &with_subset, with_subset.subsets.first()),
        ("policy", Protocol::Http, &with_policy, None),
    ];
    let mut group = criterion.benchmark_group("cluster");
    group.throughput(Throughput::Elements(1));
    for (case, protocol, rule, subset) in cases {
        let service = service(protocol);
        let name = names::outbound_cluster(80, subset.map_or("", |subset| &subset.name), &service.host);
        let port = &service.ports[0];
        let input =
            ClusterInput { audience: &audience, name: &name, service: &service, port, subset, rule, endpoints: &[] };
        group.bench_function(BenchmarkId::new("bytes", case), |bench| {
            bench.iter(|| cluster::encoded(black_box(&input)));
        });
        group.bench_function(BenchmarkId::new("prost", case), |bench| {
            bench.iter(|| cluster::outbound(black_box(&input)).value.encode_to_vec());
        });
    }
    group.finish();
}

fn assignments(criterion: &mut Criterion) {
    let proxy = audience().proxy;
    let mut group = criterion.benchmark_group("endpoints");
    for count in [10u32, 100, 1000] {
        let endpoints: Vec<_> = (0..count).map(endpoint).collect();
        let name = "outbound|80||service-1234.default.svc.cluster.local";
        let built = ClusterLoadAssignment::decode(&endpoints::assignment(name, &endpoints, &proxy)[..]);
        let built = built.expect("what is written is a message");
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::new("bytes", count), |bench| {
            bench.iter(|| endpoints::assignment(name, black_box(&endpoints), &proxy));
        });
        group.bench_function(BenchmarkId::new("prost-encode-only", count), |bench| {
            bench.iter(|| black_box(&built).encode_to_vec());
        });
    }
    group.finish();
}

/// One of three zones, as in a cluster of that kind.
fn endpoint(index: u32) -> Endpoint {
    let [_, _, high, low] = index.to_be_bytes();
    Endpoint {
        address: Address::Ip([10, 244, high, low].into()),
        port: 8080,
        labels: Arc::default(),
        locality: Locality::parse(["eu-west-1/a", "eu-west-1/b", "eu-west-1/c"][index as usize % 3]),
        weight: 1,
        health: Health::Healthy,
        workload: None,
        service_account: None,
    }
}

criterion_group!(benches, clusters, assignments);
criterion_main!(benches);
