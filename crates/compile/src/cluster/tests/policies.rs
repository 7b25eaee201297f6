//! Policies of every kind, odd ones included.

use std::time::Duration;

use proptest::option;
use proptest::prelude::*;
use world::api::istio::{
    ClientTls, ConnectionPool, ConsistentHash, HttpPool, LoadBalancer, Maglev, OutlierDetection, RingHash,
    SimpleLoadBalancer, TcpKeepalive, TcpPool, TrafficPolicy,
};

fn any_duration() -> BoxedStrategy<Option<Duration>> {
    option::of(any::<u64>().prop_flat_map(|n| {
        prop_oneof![Just(Duration::ZERO), Just(Duration::from_millis(n % 100_000)), Just(Duration::from_nanos(n))]
    }))
    .boxed()
}

fn any_integer() -> BoxedStrategy<Option<i32>> {
    option::of(prop_oneof![Just(0), -3..200, any::<i32>()]).boxed()
}

fn any_size() -> BoxedStrategy<Option<u64>> {
    option::of(prop_oneof![Just(65_537), 0u64..9_000_000, any::<u64>()]).boxed()
}

fn any_load_balancer() -> BoxedStrategy<LoadBalancer> {
    let simple = prop::sample::select(vec![
        SimpleLoadBalancer::Unspecified,
        SimpleLoadBalancer::Random,
        SimpleLoadBalancer::Passthrough,
        SimpleLoadBalancer::RoundRobin,
        SimpleLoadBalancer::LeastRequest,
        SimpleLoadBalancer::LeastConn,
    ]);
    let hash =
        (option::of("[a-z]{0,3}"), any::<Option<bool>>(), any_size(), option::of(any_size()), option::of(any_size()))
            .prop_map(|(http_header_name, use_source_ip, minimum_ring_size, ring, maglev)| ConsistentHash {
                http_header_name,
                use_source_ip,
                minimum_ring_size,
                ring_hash: ring.map(|minimum_ring_size| RingHash { minimum_ring_size }),
                maglev: maglev.map(|table_size| Maglev { table_size }),
                ..ConsistentHash::default()
            });
    (option::of(simple), option::of(hash), any_duration())
        .prop_map(|(simple, consistent_hash, warmup_duration_secs)| LoadBalancer {
            simple,
            consistent_hash,
            warmup_duration_secs,
        })
        .boxed()
}

fn any_pool() -> BoxedStrategy<ConnectionPool> {
    let keepalive = (option::of(0u32..200), any_duration(), any_duration())
        .prop_map(|(probes, time, interval)| TcpKeepalive { probes, time, interval });
    let tcp = (any_integer(), any_duration(), option::of(keepalive), any_duration(), any_duration()).prop_map(
        |(max_connections, connect_timeout, tcp_keepalive, max_connection_duration, idle_timeout)| TcpPool {
            max_connections,
            connect_timeout,
            tcp_keepalive,
            max_connection_duration,
            idle_timeout,
        },
    );
    let upgrade = option::of(prop::sample::select(vec!["", "UPGRADE", "DO_NOT_UPGRADE", "nonsense"]));
    let counts = (any_integer(), any_integer(), any_integer(), any_integer(), any_integer());
    let http = (counts, any_duration(), upgrade, any::<Option<bool>>()).prop_map(
        |((pending, requests, per_connection, retries, streams), idle_timeout, upgrade, use_client_protocol)| {
            HttpPool {
                http1_max_pending_requests: pending,
                http2_max_requests: requests,
                max_requests_per_connection: per_connection,
                max_retries: retries,
                idle_timeout,
                h2_upgrade_policy: upgrade.map(str::to_owned),
                use_client_protocol,
                max_concurrent_streams: streams,
            }
        },
    );
    (option::of(tcp), option::of(http)).prop_map(|(tcp, http)| ConnectionPool { tcp, http }).boxed()
}

fn any_outlier() -> BoxedStrategy<OutlierDetection> {
    let counts = (any::<Option<u32>>(), option::of(0u32..5), any_integer(), any::<bool>(), option::of(0u32..5));
    (counts, any_duration(), any_duration(), any_integer(), any_integer())
        .prop_map(|((fives, gateway, errors, split, local), interval, base, ejection, health)| OutlierDetection {
            consecutive_5xx_errors: fives,
            consecutive_gateway_errors: gateway,
            consecutive_errors: errors,
            split_external_local_origin_errors: split,
            consecutive_local_origin_failures: local,
            interval,
            base_ejection_time: base,
            max_ejection_percent: ejection,
            min_health_percent: health,
        })
        .boxed()
}

fn any_tls() -> BoxedStrategy<ClientTls> {
    let modes = vec!["", "DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL", "nonsense"];
    let file = || option::of("(/[a-z]{1,3})?");
    let files = (file(), file(), file(), file());
    let names = prop::collection::vec("[a-z]{0,3}", 0..3);
    (option::of(prop::sample::select(modes)), files, names, file(), any::<Option<bool>>())
        .prop_map(|(mode, (chain, key, authorities, credential), names, sni, insecure)| ClientTls {
            mode: mode.map(str::to_owned),
            client_certificate: chain,
            private_key: key,
            ca_certificates: authorities,
            credential_name: credential,
            subject_alt_names: names,
            sni,
            insecure_skip_verify: insecure,
        })
        .boxed()
}

pub(super) fn any_policy() -> BoxedStrategy<TrafficPolicy> {
    (option::of(any_load_balancer()), option::of(any_pool()), option::of(any_outlier()), option::of(any_tls()))
        .prop_map(|(load_balancer, connection_pool, outlier_detection, tls)| TrafficPolicy {
            load_balancer,
            connection_pool,
            outlier_detection,
            tls,
            port_level_settings: Vec::new(),
        })
        .boxed()
}
