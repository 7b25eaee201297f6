//! The units of compilation.

mod clusters;
mod edge;
mod grpc;
mod guards;
mod hosts;
mod inbound;
mod raw;
mod reach;

use world::{Hostname, Reader};

pub(super) use hosts::catch_all;
pub(super) use inbound::served;

use super::Role;
use super::output::Output;
use super::resolver::Resolver;
use crate::{Audience, Options, Proxy, Served};

/// What is compiled in one go. The order is the order of building; it does not matter for the result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Unit {
    /// The clusters and listeners that are always there.
    Statics,
    /// The clusters of a host's ports and subsets.
    Clusters(Hostname),
    /// Their endpoints.
    Assignments(Hostname),
    /// The virtual hosts of a host's HTTP ports.
    VirtualHosts(Hostname),
    /// The virtual host of a host or pattern that only a VirtualService names.
    RouteHost(Hostname),
    /// The filter chains of a host's ports that are not plain HTTP, and the request for listeners of those that are.
    Chains(Hostname),
    /// Listeners and routes of a host for gRPC clients.
    ApiListeners(Hostname),
    /// Everything towards the client's own workload.
    Inbound,
    /// Listeners and routes of a gateway.
    Edge,
    /// Resources that were written down as they are.
    Raw,
}

impl Unit {
    /// The units that every layer of a role has.
    pub(super) fn fixed(role: Role) -> impl Iterator<Item = Unit> {
        let units: &[Unit] = match role {
            Role::Outbound => &[Unit::Statics],
            Role::Inbound => &[Unit::Inbound],
            Role::Edge => &[Unit::Edge],
            Role::Raw => &[Unit::Raw],
        };
        units.iter().cloned()
    }

    /// The units of a host that has a service.
    pub(super) fn of_host(host: &Hostname, audience: &Audience) -> impl Iterator<Item = Unit> + use<> {
        let mut units = vec![Unit::Clusters(host.clone()), Unit::Assignments(host.clone())];
        match audience.proxy {
            Proxy::Sidecar { .. } => units.extend([Unit::VirtualHosts(host.clone()), Unit::Chains(host.clone())]),
            Proxy::Grpc => units.push(Unit::ApiListeners(host.clone())),
            Proxy::Gateway => {}
        }
        units.into_iter()
    }

    /// The units of a host that a mesh VirtualService names.
    pub(super) fn of_route_host(host: &Hostname, audience: &Audience) -> impl Iterator<Item = Unit> + use<> {
        matches!(audience.proxy, Proxy::Sidecar { .. }).then(|| Unit::RouteHost(host.clone())).into_iter()
    }

    /// Builds what the unit is about, for this audience; with the ports of its workload that are held.
    pub(super) fn run(&self, reader: &Reader<'_>, audience: &Audience, options: &Options, held: &[Served]) -> Output {
        let resolver = Resolver::new(reader, audience, options);
        match self {
            Unit::Statics => clusters::statics(&resolver),
            Unit::Clusters(host) => clusters::clusters(&resolver, host),
            Unit::Assignments(host) => clusters::assignments(&resolver, host),
            Unit::VirtualHosts(host) => hosts::of_service(&resolver, host),
            Unit::RouteHost(host) => hosts::of_routes(&resolver, host),
            Unit::Chains(host) => hosts::chains(&resolver, host),
            Unit::ApiListeners(host) => grpc::of_service(&resolver, host),
            Unit::Inbound if audience.is_grpc() => grpc::servers(&resolver, held),
            Unit::Inbound => inbound::inbound(&resolver, held),
            Unit::Edge => edge::edge(&resolver),
            Unit::Raw => raw::raw(&resolver),
        }
    }
}
