//! How a cluster's endpoints are found.

use world::api::istio::SimpleLoadBalancer;
use world::{Address, Resolution};

use super::ClusterInput;
use crate::Interception;
use crate::policy::Policy;

/// How a client learns the endpoints of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// It asks for the assignment of the cluster's name.
    Eds,
    /// It resolves names and uses all their addresses; they are in the cluster.
    StrictDns,
    /// It resolves one name and uses one address at a time; the name is in the cluster.
    LogicalDns,
    /// It takes the destination that the connection had before it was intercepted.
    OriginalDestination,
    /// There are none, and never will be: one that should be resolved but has no name.
    Nothing,
}

/// The discovery of a cluster.
///
/// Without interception there is no original destination to take: headless services, and entries that resolve nothing,
/// then go to the endpoints that are known. gRPC takes EDS, or one name (rule G-05).
pub(super) fn of(input: &ClusterInput<'_>, policy: &Policy<'_>) -> Discovery {
    let resolution = input.service.resolution;
    if input.audience.is_grpc() {
        return of_grpc(input, resolution);
    }
    let intercepted = input.audience.interception() != Interception::None;
    if intercepted && (resolution == Resolution::Passthrough || asks_passthrough(policy)) {
        return Discovery::OriginalDestination;
    }
    match resolution {
        Resolution::Static | Resolution::Passthrough => Discovery::Eds,
        Resolution::Dns => Discovery::StrictDns,
        Resolution::DnsRoundRobin => match super::dns::selection(input).is_empty() {
            // Envoy refuses the kind unless there is exactly one name.
            true => Discovery::Nothing,
            false => Discovery::LogicalDns,
        },
    }
}

fn of_grpc(input: &ClusterInput<'_>, resolution: Resolution) -> Discovery {
    match resolution {
        Resolution::Static | Resolution::Passthrough => Discovery::Eds,
        Resolution::Dns | Resolution::DnsRoundRobin => {
            let mut endpoints = super::dns::endpoints(input);
            match endpoints.any(|endpoint| matches!(endpoint.address, Address::Name(_))) {
                true => Discovery::LogicalDns,
                // Addresses need no resolving, and without any there is nothing to resolve.
                false => Discovery::Eds,
            }
        }
    }
}

/// Whether the policy says `simple: PASSTHROUGH`.
pub(super) fn asks_passthrough(policy: &Policy<'_>) -> bool {
    policy.load_balancer.is_some_and(|part| {
        part.value.consistent_hash.is_none() && part.value.simple == Some(SimpleLoadBalancer::Passthrough)
    })
}
