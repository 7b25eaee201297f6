//! Limits on connections and requests, and how connections are kept.

use std::time::Duration;

use proto::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use proto::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, UpstreamConnectionOptions};
use proto::pb::envoy::config::core::v3::TcpKeepalive;
use world::Problem;
use world::api::istio::{self, ConnectionPool, HttpPool, TcpPool};

use super::number;
use crate::pack;
use crate::policy::{Part, Policy};

/// Istio's default, `MeshConfig.connectTimeout`.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// No limit. Envoy's own defaults (1024 connections and requests, 3 retries) would make a cluster refuse requests that
/// nobody asked it to refuse; Istio sets the same.
const UNLIMITED: u32 = u32::MAX;

/// Largest idle time, interval and number of probes that Linux takes (`MAX_TCP_KEEPIDLE`, `MAX_TCP_KEEPINTVL`,
/// `MAX_TCP_KEEPCNT` in `include/net/tcp.h`); beyond them, and with 0, no connection could be made.
const LONGEST_KEEPALIVE: u32 = 32_767;
const MOST_PROBES: u32 = 127;

/// Sets the timeout of connecting, the circuit breakers and TCP keepalive.
pub(super) fn set(cluster: &mut Cluster, policy: &Policy<'_>, problems: &mut Vec<Problem>) {
    let default = ConnectionPool::default();
    let part = policy.connection_pool;
    let pool = part.map_or(&default, |part| part.value);
    let (no_tcp, no_http) = (TcpPool::default(), HttpPool::default());
    let tcp = pool.tcp.as_ref().unwrap_or(&no_tcp);
    let http = pool.http.as_ref().unwrap_or(&no_http);
    let mut limit = |field: &str, value: Option<i32>| {
        let limit = part.and_then(|part| number::count(&part, field, value, "there is no limit", problems));
        Some(pack::uint32(limit.unwrap_or(UNLIMITED)))
    };
    let thresholds = Thresholds {
        max_connections: limit("tcp.maxConnections", tcp.max_connections),
        max_pending_requests: limit("http.http1MaxPendingRequests", http.http1_max_pending_requests),
        max_requests: limit("http.http2MaxRequests", http.http2_max_requests),
        max_retries: limit("http.maxRetries", http.max_retries),
        track_remaining: true,
        ..Thresholds::default()
    };
    cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: Vec::new() });
    let timeout = part.and_then(|part| {
        number::duration(&part, "tcp.connectTimeout", tcp.connect_timeout, "connecting may take 10s", problems)
    });
    cluster.connect_timeout = Some(pack::duration(timeout.unwrap_or(CONNECT_TIMEOUT)));
    if let (Some(part), Some(keepalive)) = (&part, &tcp.tcp_keepalive) {
        cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(tcp_keepalive(part, keepalive, problems)),
            ..UpstreamConnectionOptions::default()
        });
    }
}

/// What [`set`] sets without any policy.
pub(super) fn set_default(cluster: &mut Cluster) {
    set(cluster, &Policy::default(), &mut Vec::new());
}

/// gRPC counts only requests, and takes 1024 for the limit when there is none (gRFC A32).
pub(super) fn set_for_grpc(cluster: &mut Cluster, policy: &Policy<'_>, problems: &mut Vec<Problem>) {
    let limit = policy.connection_pool.and_then(|part| {
        let asked = part.value.http.as_ref()?.http2_max_requests;
        number::count(&part, "http.http2MaxRequests", asked, "there is no limit", problems)
    });
    let thresholds =
        Thresholds { max_requests: Some(pack::uint32(limit.unwrap_or(UNLIMITED))), ..Thresholds::default() };
    cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: Vec::new() });
}

fn tcp_keepalive(
    part: &Part<'_, ConnectionPool>,
    keepalive: &istio::TcpKeepalive,
    problems: &mut Vec<Problem>,
) -> TcpKeepalive {
    let mut within = |field: &str, asked: Option<u64>, most: u32, unit: &str| {
        let asked = asked?;
        match u32::try_from(asked) {
            Ok(value) if (1..=most).contains(&value) => Some(pack::uint32(value)),
            Ok(_) | Err(_) => {
                let message = format!("{asked} is not a number of {unit} from 1 to {most}");
                problems.push(part.error(field, message, "the operating system's default holds"));
                None
            }
        }
    };
    // Whole seconds, rounded up: half a second is not none.
    let seconds = |time: Option<Duration>| time.map(|t| t.as_secs() + u64::from(t.subsec_nanos() > 0));
    TcpKeepalive {
        keepalive_probes: within("tcp.tcpKeepalive.probes", keepalive.probes.map(u64::from), MOST_PROBES, "probes"),
        keepalive_time: within("tcp.tcpKeepalive.time", seconds(keepalive.time), LONGEST_KEEPALIVE, "seconds"),
        keepalive_interval: within(
            "tcp.tcpKeepalive.interval",
            seconds(keepalive.interval),
            LONGEST_KEEPALIVE,
            "seconds",
        ),
    }
}
