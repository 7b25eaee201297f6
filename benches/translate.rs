//! What it costs to turn one VirtualService, one cluster or one endpoint into bytes.
//!
//! istiod publishes 10.3 µs per VirtualService, 7.6 µs per cluster and 2.04 µs per endpoint for the same steps (its own
//! Go benchmarks, without its cache; istio/istio pull request 54425), on another machine: the ratio is a guide, not a
//! race. "bytes" is what the product does; "checked" adds the check against the rules of Envoy's descriptors and the
//! canonical order, which istiod does not do; "prost" is the same by way of prost's types.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use compile::cluster::{self, ClusterInput};
use compile::route::{self, VirtualHostInput};
use compile::{Audience, Interception, Options, Proxy, Target, endpoints, names};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use proto::wire;
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
        hosts: compile::HostDelivery::Inline,
        lacks: compile::Extensions::default(),
        secrets: Default::default(),
        control_plane: None,
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
        selector: Arc::default(),
        subject_alt_names: Arc::default(),
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
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (case, protocol, rule, subset) in cases {
        let service = service(protocol);
        let name = names::outbound_cluster(80, subset.map_or("", |subset| &subset.name), &service.host);
        let port = &service.ports[0];
        let input = ClusterInput {
            audience: &audience,
            name: &name,
            service: &service,
            port,
            subset,
            rule,
            rollout: None,
            mutual_tls: None,
            endpoints: &[],
        };
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
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
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
        mutual_tls: false,
    }
}

/// 80/20 between two subsets, as most VirtualServices are.
const SPLIT: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: service-1234, namespace: default}
spec:
  hosts: [service-1234]
  http:
    - route:
        - {destination: {host: service-1234, subset: v1}, weight: 80}
        - {destination: {host: service-1234, subset: v2}, weight: 20}
";

/// Several entries with matches, a timeout, retries and header operations.
const RICH: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: service-1234, namespace: default}
spec:
  hosts: [service-1234]
  http:
    - match:
        - headers: {end-user: {exact: jason}}
          uri: {prefix: /reviews}
      rewrite: {uri: /v2/reviews}
      route:
        - {destination: {host: service-1234, subset: v2}}
    - headers: {response: {set: {x-served-by: mesh}}, request: {remove: [x-debug]}}
      timeout: 3s
      retries: {attempts: 3, perTryTimeout: 1s, retryOn: 'gateway-error,connect-failure'}
      route:
        - {destination: {host: service-1234, subset: v1}, weight: 80}
        - {destination: {host: service-1234, subset: v2}, weight: 20}
";

/// The shape of istiod's own benchmark: two matches, one of them an expression, and a rewrite; so two routes.
const TWO_MATCHES: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: service-1234, namespace: default}
spec:
  hosts: [service-1234]
  http:
    - name: matched
      match:
        - uri: {prefix: /reviews}
        - uri: {regex: /ratings}
      rewrite: {uri: /v2}
      route:
        - {destination: {host: service-1234}}
";

fn virtual_services(criterion: &mut Criterion) {
    let audience = audience();
    let service = service(Protocol::Http);
    let options = Options::default();
    let host = wire::Message::of_resource(ResourceType::VirtualHost);
    let mut group = criterion.benchmark_group("virtual-service");
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (case, text) in [("split", SPLIT), ("two-matches", TWO_MATCHES), ("rich", RICH)] {
        let parsed = source::text::parse("routes.yaml", text.as_bytes(), &source::text::Options::default());
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        let object = &parsed.objects[0];
        let build = || {
            let input = VirtualHostInput {
                audience: &audience,
                gateways: &["mesh"],
                port: 80,
                name: "service-1234.default.svc.cluster.local:80",
                domains: vec!["service-1234.default.svc.cluster.local".to_owned(), "service-1234".to_owned()],
                virtual_services: &[black_box(object)],
                delegate: &|_, _| None,
                default: None,
                resolve: &|_, destination, port| {
                    let name = names::outbound_cluster(port, &destination.subset, &service.host);
                    Target::Cluster { name, hash: None, protocol: world::Protocol::Http, rollout: None }
                },
                options: &options,
                service: Some(&service),
                https_redirect: false,
            };
            let built = route::virtual_host(&input);
            assert!(built.problems.is_empty());
            built.value.encode()
        };
        group.bench_function(BenchmarkId::new("bytes", case), |bench| bench.iter(build));
        group.bench_function(BenchmarkId::new("checked", case), |bench| {
            bench.iter(|| {
                let bytes = build();
                assert!(host.check(&bytes).is_ok());
                host.canonicalize(&bytes).len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, virtual_services, clusters, assignments);
criterion_main!(benches);
