//! What canonical bytes and the check of the API's rules cost for the resources of a mesh.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::{Message as _, Name};
use proto::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use proto::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, OutlierDetection, circuit_breakers::Thresholds};
use proto::pb::envoy::config::core::v3::address::Address as Kind;
use proto::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use proto::pb::envoy::config::core::v3::transport_socket::ConfigType;
use proto::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ConfigSource, Locality, Metadata, SocketAddress, TransportSocket,
};
use proto::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use proto::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use proto::pb::envoy::config::route::v3::route::Action;
use proto::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use proto::pb::envoy::config::route::v3::route_match::PathSpecifier;
use proto::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use proto::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{CommonTlsContext, UpstreamTlsContext};
use proto::pb::google::protobuf::{Any, Struct, UInt32Value, Value, value};
use proto::wire::{self, Message};

fn metadata(keys: &[&str]) -> Metadata {
    let text = |t: &str| Value { kind: Some(value::Kind::StringValue(t.to_owned())) };
    let fields = keys.iter().map(|k| ((*k).to_owned(), text("reviews"))).collect();
    Metadata { filter_metadata: [("istio".to_owned(), Struct { fields })].into(), ..Default::default() }
}

fn cluster() -> Cluster {
    let tls = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext { alpn_protocols: vec!["istio".into()], ..Default::default() }),
        sni: "outbound_.9080_.v1_.reviews.default.svc.cluster.local".into(),
        ..Default::default()
    };
    let threshold = Thresholds {
        max_connections: Some(UInt32Value { value: u32::MAX }),
        max_pending_requests: Some(UInt32Value { value: u32::MAX }),
        max_requests: Some(UInt32Value { value: u32::MAX }),
        max_retries: Some(UInt32Value { value: u32::MAX }),
        track_remaining: true,
        ..Default::default()
    };
    Cluster {
        name: "outbound|9080|v1|reviews.default.svc.cluster.local".into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ConfigSource {
                config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
                ..Default::default()
            }),
            service_name: "outbound|9080|v1|reviews.default.svc.cluster.local".into(),
        }),
        connect_timeout: Some(proto::pb::google::protobuf::Duration { seconds: 10, nanos: 0 }),
        circuit_breakers: Some(CircuitBreakers { thresholds: vec![threshold], ..Default::default() }),
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: Some(UInt32Value { value: 5 }),
            max_ejection_percent: Some(UInt32Value { value: 50 }),
            ..Default::default()
        }),
        metadata: Some(metadata(&["services", "default_original_port"])),
        transport_socket: Some(TransportSocket {
            name: "envoy.transport_sockets.tls".into(),
            config_type: Some(ConfigType::TypedConfig(Any {
                type_url: UpstreamTlsContext::type_url(),
                value: tls.encode_to_vec(),
            })),
        }),
        ..Default::default()
    }
}

fn assignment(endpoints: u32) -> ClusterLoadAssignment {
    let endpoint = |i: u32| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(Address {
                address: Some(Kind::SocketAddress(SocketAddress {
                    address: format!("10.0.{}.{}", i / 256, i % 256),
                    port_specifier: Some(PortSpecifier::PortValue(9080)),
                    ..Default::default()
                })),
            }),
            ..Default::default()
        })),
        metadata: Some(metadata(&["workload"])),
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        health_status: 1,
    };
    ClusterLoadAssignment {
        cluster_name: "outbound|9080|v1|reviews.default.svc.cluster.local".into(),
        endpoints: vec![LocalityLbEndpoints {
            locality: Some(Locality { region: "eu".into(), zone: "a".into(), ..Default::default() }),
            lb_endpoints: (0..endpoints).map(endpoint).collect(),
            load_balancing_weight: Some(UInt32Value { value: endpoints.max(1) }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn virtual_host(index: usize) -> VirtualHost {
    let weight = |version: &str, weight| ClusterWeight {
        name: format!("outbound|9080|{version}|reviews-{index}.default.svc.cluster.local"),
        weight: Some(UInt32Value { value: weight }),
        ..Default::default()
    };
    VirtualHost {
        name: format!("reviews-{index}.default.svc.cluster.local:9080"),
        domains: vec![format!("reviews-{index}.default.svc.cluster.local"), format!("reviews-{index}")],
        routes: vec![Route {
            name: "default".into(),
            r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() }),
            action: Some(Action::Route(RouteAction {
                cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
                    clusters: vec![weight("v1", 80), weight("v2", 20)],
                    ..Default::default()
                })),
                ..Default::default()
            })),
            metadata: Some(metadata(&["config"])),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn benches(c: &mut Criterion) {
    wire::warm_up();
    let routes = RouteConfiguration { virtual_hosts: (0..100).map(virtual_host).collect(), ..Default::default() };
    let inputs = [
        ("cluster", Cluster::full_name(), cluster().encode_to_vec()),
        ("endpoints-10", ClusterLoadAssignment::full_name(), assignment(10).encode_to_vec()),
        ("endpoints-100", ClusterLoadAssignment::full_name(), assignment(100).encode_to_vec()),
        ("virtual-host", VirtualHost::full_name(), virtual_host(1).encode_to_vec()),
        ("routes-100", RouteConfiguration::full_name(), routes.encode_to_vec()),
    ];
    for (name, message, bytes) in &inputs {
        let message = Message::of(message).unwrap();
        let bytes = message.canonicalized(bytes.clone());
        message.check(&bytes).unwrap();
        let mut group = c.benchmark_group(format!("{name}/{}B", bytes.len()));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("check", |b| b.iter(|| message.check(black_box(&bytes)).is_ok()));
        group.bench_function("canonicalize-sorted", |b| b.iter(|| message.canonicalize(black_box(&bytes)).len()));
        group.finish();
    }

    let unsorted = {
        let metadata = metadata(&["a", "b", "c", "d", "e", "f", "g", "h"]);
        let message = Message::of("envoy.config.core.v3.Metadata").unwrap();
        (message, std::iter::repeat_with(|| metadata.clone().encode_to_vec()).next().unwrap())
    };
    let mut reversed = unsorted.1.clone();
    // Encoded anew until prost's random order is one that has to be sorted.
    while matches!(unsorted.0.canonicalize(&reversed), std::borrow::Cow::Borrowed(_)) {
        reversed = metadata(&["a", "b", "c", "d", "e", "f", "g", "h"]).encode_to_vec();
    }
    c.bench_function("metadata-8-keys/canonicalize-unsorted", |b| {
        b.iter(|| unsorted.0.canonicalize(black_box(&reversed)).len())
    });
}

criterion_group! {
    name = wire_benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(wire_benches);
