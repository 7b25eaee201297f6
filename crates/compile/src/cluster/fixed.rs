//! Clusters that do not lead to services of others: the fixed ones, and those to the workload itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use proto::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use proto::pb::envoy::config::core::v3::{BindConfig, ExtraSourceAddress, SocketAddress};
use world::{Address, Endpoint, Health, Labels, Locality, Protocol, Service};

use super::http::{self, Upstream};
use super::{connection_pool, identity};
use crate::endpoints::{self, Receiver, Selection};
use crate::{Interception, names, pack};

/// Where connections of a sidecar to its own workload come from, so that interception lets them through.
const INBOUND_SOURCE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)), IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6))];

/// `BlackHoleCluster`: no endpoints, so every connection to it ends.
pub fn black_hole() -> Cluster {
    Cluster {
        name: names::BLACK_HOLE.to_owned(),
        alt_stat_name: stat_name(names::BLACK_HOLE),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        connect_timeout: Some(pack::duration(connection_pool::CONNECT_TIMEOUT)),
        ..Cluster::default()
    }
}

/// The same for gRPC clients, which take no static clusters: its assignment, which must be there and empty, makes calls
/// fail at once as UNAVAILABLE.
pub fn black_hole_for_grpc() -> Cluster {
    Cluster {
        name: names::BLACK_HOLE.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(identity::by_discovery(names::BLACK_HOLE)),
        ..Cluster::default()
    }
}

/// `PassthroughCluster`: to where the connection was going, speaking what the client speaks.
pub fn passthrough() -> Cluster {
    original_destination(names::PASSTHROUGH, Upstream::Same)
}

/// `InboundPassthroughCluster`: to where the connection was going on the workload itself.
pub fn inbound_passthrough() -> Cluster {
    Cluster {
        upstream_bind_config: Some(inbound_source()),
        ..original_destination(names::INBOUND_PASSTHROUGH, Upstream::Same)
    }
}

/// All that a cluster to the workload's own port may depend on.
#[derive(Clone, Copy, Debug)]
pub struct InboundInput<'a> {
    /// The workload's port, which gives the cluster its name.
    pub target_port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// How traffic gets in.
    pub interception: Interception,
    /// Where the application listens, when that is not the port on the address that the connection was for, or on
    /// 127.0.0.1 without interception. The port is not used for Unix sockets.
    pub default_endpoint: Option<(&'a Address, u16)>,
    /// The services that lead to the port, for the metadata.
    pub services: &'a [&'a Service],
}

/// `inbound|<port>||`: the application's own port.
///
/// With interception it is the connection's original destination, reached from an address that interception lets
/// through. Without, the sidecar holds the port on the workload's address, and the application has to have it on
/// 127.0.0.1.
pub fn inbound(input: &InboundInput<'_>) -> Cluster {
    let name = names::inbound_cluster(input.target_port);
    let upstream = match input.protocol {
        Protocol::Auto => Upstream::Same,
        protocol if protocol.is_http2() => Upstream::Http2,
        protocol if protocol.is_http() => Upstream::Http1,
        _ => Upstream::Opaque,
    };
    let intercepted = input.interception != Interception::None;
    let mut cluster = match input.default_endpoint {
        None if intercepted => original_destination(&name, upstream),
        None => {
            let localhost = Address::Ip(Ipv4Addr::LOCALHOST.into());
            local(&name, upstream, (&localhost, input.target_port), Receiver::Envoy)
        }
        Some(endpoint) => local(&name, upstream, endpoint, Receiver::Envoy),
    };
    if intercepted && input.default_endpoint.is_none() {
        cluster.upstream_bind_config = Some(inbound_source());
    }
    if !input.services.is_empty() {
        cluster.metadata = Some(identity::of_services(input.services));
    }
    cluster
}

fn original_destination(name: &str, upstream: Upstream) -> Cluster {
    let mut cluster = Cluster {
        name: name.to_owned(),
        alt_stat_name: stat_name(name),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..Cluster::default()
    };
    connection_pool::set_default(&mut cluster);
    http::set_default(&mut cluster, upstream);
    cluster
}

/// A cluster of one endpoint that does not change.
pub(super) fn local(name: &str, upstream: Upstream, (address, port): (&Address, u16), receiver: Receiver) -> Cluster {
    let endpoint = Endpoint {
        address: address.clone(),
        port,
        labels: Labels::new().into(),
        locality: Locality::default(),
        weight: 1,
        health: Health::Healthy,
        workload: None,
        service_account: None,
        mutual_tls: false,
    };
    let selection = Selection::new([&endpoint], receiver);
    let mut cluster = Cluster {
        name: name.to_owned(),
        alt_stat_name: stat_name(name),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        load_assignment: Some(endpoints::message(name, &selection)),
        ..Cluster::default()
    };
    connection_pool::set_default(&mut cluster);
    http::set_default(&mut cluster, upstream);
    cluster
}

/// Envoy binds to the source of the same family as the destination.
fn inbound_source() -> BindConfig {
    let [first, second] = INBOUND_SOURCE.map(|ip| SocketAddress {
        address: ip.to_string(),
        port_specifier: Some(PortSpecifier::PortValue(0)),
        ..SocketAddress::default()
    });
    BindConfig {
        source_address: Some(first),
        extra_source_addresses: vec![ExtraSourceAddress { address: Some(second), socket_options: None }],
        ..BindConfig::default()
    }
}

/// The `;` ends the name for the expressions that take labels out of names of statistics.
fn stat_name(name: &str) -> String {
    format!("{name};")
}
