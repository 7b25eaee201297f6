//! The settings of a cluster: everything but its names and metadata.

use std::sync::OnceLock;

use prost::Message;
use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use proto::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, CommonLbConfig, DiscoveryType};
use proto::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::pb::envoy::config::core::v3::{ConfigSource, SelfConfigSource};
use proto::pb::envoy::r#type::v3::Percent;

use super::http::Upstream;
use super::{
    ClusterInput, Discovery, connection_pool, discovery, dns, http, load_balancer, mutual, outlier, provided, tls,
};
use crate::Built;
use crate::policy::Policy;

/// The settings of `input`'s cluster, with the problems of its policy.
pub(super) fn of(input: &ClusterInput<'_>) -> Built<Cluster> {
    build(input, &input.policy())
}

fn build(input: &ClusterInput<'_>, policy: &Policy<'_>) -> Built<Cluster> {
    let mut built = Built::new(Cluster::default());
    let discovery = discovery::of(input, policy);
    let (cluster, problems) = (&mut built.value, &mut built.problems);
    set_discovery(cluster, discovery);
    load_balancer::set(cluster, input, policy, discovery, problems);
    if input.audience.is_grpc() {
        connection_pool::set_for_grpc(cluster, policy, problems);
        outlier::refuse_for_grpc(policy, problems);
        provided::refuse(input, policy, problems);
        // Costs nothing before the server asks for reports. Envoy says in its bootstrap where it reports to.
        cluster.lrs_server = Some(own_server());
    } else {
        connection_pool::set(cluster, policy, problems);
        let tls = tls::of(input, policy, http::upstream(input, policy), problems);
        http::set(cluster, input, policy, tls.as_ref(), problems);
        cluster.transport_socket = tls.map(|tls| tls.socket).or_else(|| mutual::for_all(input, policy, discovery));
        outlier::set(cluster, policy, problems);
        set_common(cluster, input, policy, discovery);
    }
    dns::set(cluster, input, discovery, problems);
    built
}

/// The encoded settings of a cluster by EDS without any policy: the same for all services of one protocol. `None` for
/// other clusters.
pub(super) fn template(input: &ClusterInput<'_>) -> Option<&'static [u8]> {
    static GRPC: OnceLock<Vec<u8>> = OnceLock::new();
    static OPAQUE: OnceLock<Vec<u8>> = OnceLock::new();
    static HTTP1: OnceLock<Vec<u8>> = OnceLock::new();
    static HTTP2: OnceLock<Vec<u8>> = OnceLock::new();
    static SAME: OnceLock<Vec<u8>> = OnceLock::new();
    let policy = input.policy();
    let is_plain = input.rollout.is_none_or(|rollout| !rollout.by_localities);
    if !is_plain
        || !policy.is_default()
        || discovery::of(input, &policy) != Discovery::Eds
        || !input.endpoints.is_empty()
    {
        return None;
    }
    // Nothing else of the input has a say here; a test goes through every combination.
    let cell = match http::upstream(input, &policy) {
        _ if input.audience.is_grpc() => &GRPC,
        Upstream::Opaque => &OPAQUE,
        Upstream::Http1 => &HTTP1,
        Upstream::Http2 => &HTTP2,
        Upstream::Same => &SAME,
    };
    Some(cell.get_or_init(|| build(input, &policy).value.encode_to_vec()))
}

/// The server that this comes from (gRPC proposal A27).
fn own_server() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Self_(SelfConfigSource::default())),
        ..ConfigSource::default()
    }
}

fn set_discovery(cluster: &mut Cluster, discovery: Discovery) {
    let kind = match discovery {
        Discovery::Eds => DiscoveryType::Eds,
        Discovery::StrictDns => DiscoveryType::StrictDns,
        Discovery::LogicalDns => DiscoveryType::LogicalDns,
        Discovery::OriginalDestination => DiscoveryType::OriginalDst,
        Discovery::Nothing => DiscoveryType::Static,
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind as i32));
}

/// Without `minHealthPercent` unhealthy endpoints are never sent to: with few endpoints, sending to all of them when most
/// are ejected is worse than refusing. Envoy's own default is 50. Nor are they where another priority stands in.
fn set_common(cluster: &mut Cluster, input: &ClusterInput<'_>, policy: &Policy<'_>, discovery: Discovery) {
    if discovery == Discovery::OriginalDestination {
        return;
    }
    let rollout = input.rollout;
    let percent = match rollout.is_some_and(|rollout| rollout.has_fallback) {
        true => 0.0,
        false => f64::from(outlier::min_health_percent(policy)),
    };
    let by_localities = rollout.is_some_and(|rollout| rollout.by_localities);
    cluster.common_lb_config = Some(CommonLbConfig {
        healthy_panic_threshold: Some(Percent { value: percent }),
        locality_config_specifier: by_localities
            .then_some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})),
        ..CommonLbConfig::default()
    });
}
