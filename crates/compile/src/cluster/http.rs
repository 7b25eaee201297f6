//! Which HTTP is spoken to the endpoints, and how long connections for it live.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as Common, KeepaliveSettings,
    UpstreamHttpProtocolOptions,
};
use proto::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use proto::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use proto::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use proto::pb::google::protobuf::Any;
use world::api::istio::{ConnectionPool, HttpPool, TcpPool};
use world::{Problem, Protocol};

use super::tls::Tls;
use super::{ClusterInput, number};
use crate::pack;
use crate::policy::{Part, Policy};
use crate::{Audience, Proxy};

/// Where Envoy looks for the options of a cluster.
const EXTENSION: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// As in the bootstraps that we print.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is spoken to the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upstream {
    /// Not HTTP as far as the proxy is concerned.
    Opaque,
    /// HTTP/1.1, Envoy's default.
    Http1,
    /// HTTP/2 from the first byte.
    Http2,
    /// What the client of the proxy speaks.
    Same,
}

impl Upstream {
    /// Undeclared ports take what the client speaks; but a gateway does not look at the first bytes, and its clients'
    /// HTTP/2 says nothing of the service.
    pub(super) fn of(protocol: Protocol, audience: &Audience) -> Self {
        match protocol {
            Protocol::Http => Upstream::Http1,
            Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => Upstream::Http2,
            Protocol::Auto if audience.proxy == Proxy::Gateway => Upstream::Http1,
            Protocol::Auto => Upstream::Same,
            Protocol::Https | Protocol::Tls | Protocol::Tcp | Protocol::Udp => Upstream::Opaque,
        }
    }
}

/// What the cluster of `input` speaks: its port's protocol, unless the policy says otherwise. `useClientProtocol` goes
/// before `h2UpgradePolicy`, as Istio's reference has it; neither turns an opaque port into HTTP.
pub(super) fn upstream(input: &ClusterInput<'_>, policy: &Policy<'_>) -> Upstream {
    let declared = Upstream::of(input.port.protocol, input.audience);
    let Some(http) = policy.connection_pool.and_then(|part| part.value.http.as_ref()) else { return declared };
    match declared {
        Upstream::Opaque => Upstream::Opaque,
        _ if http.use_client_protocol == Some(true) => Upstream::Same,
        Upstream::Http1 | Upstream::Same if http.h2_upgrade_policy.as_deref() == Some("UPGRADE") => Upstream::Http2,
        Upstream::Http1 | Upstream::Http2 | Upstream::Same => declared,
    }
}

/// Sets the options of a cluster towards a service.
pub(super) fn set(
    cluster: &mut Cluster,
    input: &ClusterInput<'_>,
    policy: &Policy<'_>,
    tls: Option<&Tls>,
    problems: &mut Vec<Problem>,
) {
    let upstream = upstream(input, policy);
    let pool = policy.connection_pool;
    let limits = pool.map(|part| Limits::of(&part, problems)).unwrap_or_default();
    let automatic = tls.and_then(|tls| tls.automatic.clone());
    let is_plain = limits.common.is_none() && automatic.is_none();
    match upstream {
        Upstream::Opaque => {}
        Upstream::Http1 if is_plain => {}
        Upstream::Http2 | Upstream::Same if is_plain && limits.max_concurrent_streams.is_none() => {
            set_default(cluster, upstream);
        }
        Upstream::Http1 | Upstream::Http2 | Upstream::Same => {
            put(cluster, pack::any(&options(upstream, &limits, automatic)));
        }
    }
}

/// Sets the options of a cluster without a policy.
pub(super) fn set_default(cluster: &mut Cluster, upstream: Upstream) {
    static HTTP2: LazyLock<Any> = LazyLock::new(|| pack::any(&options(Upstream::Http2, &Limits::default(), None)));
    static SAME: LazyLock<Any> = LazyLock::new(|| pack::any(&options(Upstream::Same, &Limits::default(), None)));
    match upstream {
        Upstream::Opaque | Upstream::Http1 => {}
        Upstream::Http2 => put(cluster, HTTP2.clone()),
        Upstream::Same => put(cluster, SAME.clone()),
    }
}

/// HTTP/2 on connections that are asked whether they live still: on one that does not, requests would be lost until TCP
/// finds out.
pub(super) fn keep_alive(cluster: &mut Cluster) {
    let keepalive = KeepaliveSettings {
        interval: Some(pack::duration(KEEPALIVE_INTERVAL)),
        timeout: Some(pack::duration(KEEPALIVE_TIMEOUT)),
        ..KeepaliveSettings::default()
    };
    let http2 = Http2ProtocolOptions { connection_keepalive: Some(keepalive), ..Http2ProtocolOptions::default() };
    let explicit = ExplicitHttpConfig { protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2)) };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    };
    put(cluster, pack::any(&options));
}

fn put(cluster: &mut Cluster, options: Any) {
    cluster.typed_extension_protocol_options = HashMap::from([(EXTENSION.to_owned(), options)]);
}

fn options(upstream: Upstream, limits: &Limits, automatic: Option<UpstreamHttpProtocolOptions>) -> HttpProtocolOptions {
    let http2 = Http2ProtocolOptions {
        max_concurrent_streams: limits.max_concurrent_streams.map(pack::uint32),
        ..Http2ProtocolOptions::default()
    };
    let http1 = Http1ProtocolOptions::default();
    let explicit =
        |config| UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) });
    let protocol = match upstream {
        Upstream::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
        Upstream::Opaque | Upstream::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1)),
        Upstream::Same => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(http1),
            http2_protocol_options: Some(http2),
            http3_protocol_options: None,
        }),
    };
    HttpProtocolOptions {
        common_http_protocol_options: limits.common,
        upstream_http_protocol_options: automatic,
        upstream_protocol_options: Some(protocol),
        ..HttpProtocolOptions::default()
    }
}

/// What a connection pool says of HTTP connections.
#[derive(Debug, Default)]
struct Limits {
    common: Option<Common>,
    max_concurrent_streams: Option<u32>,
}

impl Limits {
    fn of(part: &Part<'_, ConnectionPool>, problems: &mut Vec<Problem>) -> Self {
        let (no_tcp, no_http) = (TcpPool::default(), HttpPool::default());
        let tcp = part.value.tcp.as_ref().unwrap_or(&no_tcp);
        let http = part.value.http.as_ref().unwrap_or(&no_http);
        let known = ["", "DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"];
        if let Some(policy) = http.h2_upgrade_policy.as_deref().filter(|policy| !known.contains(policy)) {
            problems.push(part.error(
                "http.h2UpgradePolicy",
                format!("\"{policy}\" is none of DEFAULT, DO_NOT_UPGRADE, UPGRADE"),
                "connections are not upgraded",
            ));
        }
        // HTTP connections are TCP connections: without a word on the former, the latter's time holds.
        let (idle_field, idle) = match http.idle_timeout {
            Some(idle) => ("http.idleTimeout", Some(idle)),
            None => ("tcp.idleTimeout", tcp.idle_timeout),
        };
        let hour = "idle connections are kept for an hour";
        let idle = number::duration_or_never(part, idle_field, idle, hour, problems);
        let forever = "connections may live as long as they are used";
        let age = number::duration(part, "tcp.maxConnectionDuration", tcp.max_connection_duration, forever, problems);
        let requests = number::count(
            part,
            "http.maxRequestsPerConnection",
            http.max_requests_per_connection,
            "there is no limit",
            problems,
        );
        let streams = number::count(
            part,
            "http.maxConcurrentStreams",
            http.max_concurrent_streams,
            "Envoy's default holds",
            problems,
        );
        let common = Common {
            idle_timeout: idle.map(pack::duration),
            max_connection_duration: age.map(pack::duration),
            max_requests_per_connection: requests.map(pack::uint32),
            ..Common::default()
        };
        Self { common: (common != Common::default()).then_some(common), max_concurrent_streams: streams }
    }
}
