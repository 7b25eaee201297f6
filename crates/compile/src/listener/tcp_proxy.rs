//! The filter that forwards bytes.

use std::sync::Arc;
use std::time::Duration;

use proto::pb::envoy::config::listener::v3::Filter;
use proto::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proto::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::weighted_cluster::ClusterWeight;
use proto::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{ClusterSpecifier, WeightedCluster};
use proto::pb::envoy::r#type::v3::HashPolicy;
use proto::pb::envoy::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};
use world::api::istio::TrafficPolicy;

use crate::pack::{duration, network_filter};

/// Smallest limit on a connection's age that Envoy takes (`tcp_proxy.proto`: `gte {nanos: 1000000}`).
const LEAST_DURATION: Duration = Duration::from_millis(1);

/// All that a TCP proxy depends on.
pub(crate) struct TcpProxyInput<'a> {
    /// Names its statistics; not empty.
    pub(crate) stat_prefix: &'a str,
    /// Clusters and weights; at least one, no weight is 0, and the sum fits into 32 bits.
    pub(crate) shares: &'a [(Arc<str>, u32)],
    /// The policy of the destination: idle timeout, age of a connection, hashing of the source address. A maximum
    /// age below a millisecond means none, because Envoy takes no such limit.
    pub(crate) policy: Option<&'a TrafficPolicy>,
}

/// The network filter `envoy.filters.network.tcp_proxy`.
pub(crate) fn tcp_proxy(input: &TcpProxyInput<'_>) -> Filter {
    let pool = input.policy.and_then(|p| p.connection_pool.as_ref()).and_then(|p| p.tcp.as_ref());
    let age = pool.and_then(|p| p.max_connection_duration).filter(|age| *age >= LEAST_DURATION);
    let hash = input.policy.and_then(|p| p.load_balancer.as_ref()).and_then(|lb| lb.consistent_hash.as_ref());
    let by_source = hash.is_some_and(|hash| hash.use_source_ip == Some(true));
    network_filter(
        "envoy.filters.network.tcp_proxy",
        &TcpProxy {
            stat_prefix: input.stat_prefix.to_owned(),
            idle_timeout: pool.and_then(|p| p.idle_timeout).map(duration),
            max_downstream_connection_duration: age.map(duration),
            hash_policy: by_source
                .then_some(HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})) })
                .into_iter()
                .collect(),
            cluster_specifier: Some(specifier(input.shares)),
            ..TcpProxy::default()
        },
    )
}

fn specifier(shares: &[(Arc<str>, u32)]) -> ClusterSpecifier {
    if let [(cluster, _)] = shares {
        return ClusterSpecifier::Cluster(cluster.to_string());
    }
    let weigh = |(name, weight): &(Arc<str>, u32)| ClusterWeight {
        name: name.to_string(),
        weight: *weight,
        metadata_match: None,
    };
    ClusterSpecifier::WeightedClusters(WeightedCluster { clusters: shares.iter().map(weigh).collect() })
}
