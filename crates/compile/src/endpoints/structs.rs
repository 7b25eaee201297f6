//! The same assignment in prost's types, for clusters that carry theirs inside.

use std::collections::HashMap;

use proto::pb::envoy::config::core::v3::address::Address as AnyAddress;
use proto::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use proto::pb::envoy::config::core::v3::{Address, Locality, Metadata, Pipe, SocketAddress};
use proto::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use proto::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};

use super::selection::Selection;
use crate::{pack, security};

/// What [`super::write`] writes.
pub(crate) fn message(cluster: &str, selection: &Selection<'_>) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: selection.localities().map(|group| locality(group, selection)).collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn locality(group: &[&world::Endpoint], selection: &Selection<'_>) -> LocalityLbEndpoints {
    let place = group.first().map(|first| &first.locality).cloned().unwrap_or_default();
    let weight = group.iter().fold(0u32, |sum, endpoint| sum.saturating_add(selection.weight(endpoint)));
    LocalityLbEndpoints {
        locality: Some(Locality {
            region: place.region.to_string(),
            zone: place.zone.to_string(),
            sub_zone: place.sub_zone.to_string(),
        }),
        lb_endpoints: group.iter().map(|endpoint| lb_endpoint(endpoint, selection.weight(endpoint))).collect(),
        load_balancing_weight: Some(pack::uint32(weight)),
        ..LocalityLbEndpoints::default()
    }
}

fn lb_endpoint(endpoint: &world::Endpoint, weight: u32) -> LbEndpoint {
    LbEndpoint {
        health_status: super::health(endpoint.health) as i32,
        load_balancing_weight: Some(pack::uint32(weight)),
        metadata: endpoint.mutual_tls.then(mutual_tls),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(&endpoint.address, endpoint.port)),
            ..Endpoint::default()
        })),
    }
}

/// What a cluster chooses its transport socket by.
fn mutual_tls() -> Metadata {
    Metadata {
        filter_metadata: HashMap::from([("envoy.transport_socket_match".to_owned(), security::mutual_tls_mark())]),
        ..Metadata::default()
    }
}

fn address(address: &world::Address, port: u16) -> Address {
    let socket = |text: String| {
        AnyAddress::SocketAddress(SocketAddress {
            address: text,
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })
    };
    let address = match address {
        world::Address::Ip(ip) => socket(ip.to_string()),
        world::Address::Name(name) => socket(name.to_string()),
        world::Address::Unix(path) => AnyAddress::Pipe(Pipe { path: path.to_string(), ..Pipe::default() }),
    };
    Address { address: Some(address) }
}
