//! What one service port wants of the outbound listeners of a sidecar.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use world::api::istio::TrafficPolicy;
use world::{Address, Endpoint, Hostname, Object, ObjectRef, Problem, Protocol, Service, ServicePort};

use super::chain::{Range, network};
use super::l4::{L4Input, is_whole, names_matching, tcp_chains, tls_chains};
use super::{Chain, Matching, Policies, Reading, TcpProxyInput, Transport, listener_name, mark, tcp_proxy};
use crate::{Audience, Built, Interception, Options, Resolve, names};

/// Well-known ports on which the server speaks first: SMTP, MySQL, MongoDB.
const SERVER_FIRST_PORTS: [u16; 3] = [25, 3306, 27017];

/// Which outbound listener: those of all services without an address of their own share one for each port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The address; `None` stands for all.
    pub(crate) address: Option<IpAddr>,
    /// The port.
    pub(crate) port: u16,
}

impl Key {
    /// The listener's name: `10.0.0.1_80`, `0.0.0.0_80`.
    pub(crate) fn name(&self) -> Arc<str> {
        listener_name(self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), self.port).into()
    }
}

/// One service port's share in a listener.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Contribution {
    /// The listener.
    pub(crate) key: Key,
    /// The service's host.
    pub(crate) host: Hostname,
    /// The object that defines the service.
    pub(crate) origin: ObjectRef,
    /// Its age, see [`world::Meta::created`]: of two contributions that cannot both be had, the older one's is.
    pub(crate) created: Arc<str>,
    /// Index in `spec.ports`, for problems.
    pub(crate) port_index: usize,
    /// Wants a connection manager with the route configuration of this name.
    pub(crate) http_route: Option<Arc<str>>,
    /// Wants gRPC-Web to be translated.
    pub(crate) grpc_web: bool,
    /// Wants requests to be logged to the server.
    pub(crate) logged: bool,
    /// How its requests are read.
    pub(crate) reading: Reading,
    /// Its server speaks first, so nobody can wait for the client's first bytes.
    pub(crate) server_first: bool,
    /// Wants these chains, in this order.
    pub(crate) chains: Vec<Chain>,
}

/// All that the contributions of a service port depend on.
pub(crate) struct ContributionInput<'a> {
    /// The client, a sidecar.
    pub(crate) audience: &'a Audience,
    /// The service.
    pub(crate) service: &'a Service,
    /// One of its ports.
    pub(crate) port: &'a ServicePort,
    /// The VirtualService that governs the host for mesh traffic.
    pub(crate) routes: Option<&'a Object>,
    /// The effective policy of the service as a whole on this port.
    pub(crate) policy: &'a TrafficPolicy,
    /// The endpoints behind the port; looked at only when [`ContributionInput::per_endpoint`].
    pub(crate) endpoints: &'a [Endpoint],
    /// Follows destinations.
    pub(crate) resolve: &'a Resolve<'a>,
    /// Policies of destinations.
    pub(crate) policies: &'a Policies<'a>,
    /// Whether requests are to be logged to the server.
    pub(crate) logged: bool,
    /// How requests are read.
    pub(crate) reading: Reading,
    /// What to do with destinations that do not exist.
    pub(crate) options: &'a Options,
    /// The cluster's DNS domain.
    pub(crate) domain: &'a str,
}

impl ContributionInput<'_> {
    /// Whether this port of a service needs its endpoints: a listener for each address of a headless service, which
    /// has no address of its own. Only with interception: an address of another workload cannot be bound.
    pub(crate) fn per_endpoint(audience: &Audience, service: &Service, port: &ServicePort) -> bool {
        service.headless && !port.protocol.is_http() && audience.interception() != Interception::None
    }
}

/// What a service port wants: one contribution for each listener that takes its traffic.
///
/// - Ports declared HTTP share `0.0.0.0_<port>` and the route configuration `<port>`.
/// - Others have a listener for each address of the service, `<address>_<port>`; without an address they share
///   `0.0.0.0_<port>`, told apart by SNI or address range where that is possible; headless services have one for each
///   endpoint, except the client's own.
/// - Undeclared ports want both: HTTP with the route configuration `<host>:<port>` (`<port>` where they share), and TCP.
/// - Without interception nothing but `127.0.0.1` can be bound, so all services of a port share its listener.
/// - UDP ports and other names of services (`ExternalName`) want nothing.
pub(crate) fn contributions(input: &ContributionInput<'_>) -> Built<Vec<Contribution>> {
    let ContributionInput { service, port, .. } = input;
    let mut built = Built::new(Vec::new());
    built.origins.insert(service.origin.clone());
    if port.protocol == Protocol::Udp || service.alias_of.is_some() {
        return built;
    }
    if port.protocol.is_http() {
        built.value.push(contribution(input, Key { address: None, port: port.number }, Vec::new()));
        return built;
    }
    let places = places(input);
    for (ranges, addresses) in places {
        let shared = addresses.contains(&None);
        let chains = built.absorb(chains(input, &ranges, shared));
        let keys = addresses.into_iter().map(|address| Key { address, port: port.number });
        built.value.extend(keys.map(|key| contribution(input, key, chains.clone())));
    }
    built
}

fn contribution(input: &ContributionInput<'_>, key: Key, chains: Vec<Chain>) -> Contribution {
    let ContributionInput { service, port, .. } = input;
    let http_route = match port.protocol {
        Protocol::Auto if key.address.is_some() => Some(names::virtual_host(&service.host, port.number)),
        Protocol::Auto | Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => {
            Some(port.number.to_string().into())
        }
        Protocol::Https | Protocol::Tls | Protocol::Tcp | Protocol::Udp => None,
    };
    let declared = ["mysql", "mongo"].iter().any(|name| port.name.to_ascii_lowercase().starts_with(name));
    Contribution {
        key,
        host: service.host.clone(),
        origin: service.origin.clone(),
        created: service.created.clone(),
        port_index: service.ports.iter().position(|p| p.number == port.number).unwrap_or(0),
        http_route,
        grpc_web: port.protocol == Protocol::GrpcWeb,
        logged: input.logged,
        reading: input.reading,
        server_first: port.protocol == Protocol::Tcp && (declared || SERVER_FIRST_PORTS.contains(&port.number)),
        chains,
    }
}

/// The addresses of listeners, with the ranges that chains have to match in them.
fn places(input: &ContributionInput<'_>) -> Vec<(Vec<Range>, Vec<Option<IpAddr>>)> {
    let ContributionInput { audience, service, port, endpoints, .. } = input;
    let everywhere = vec![(Vec::new(), vec![None])];
    if audience.interception() == Interception::None {
        return everywhere;
    }
    if ContributionInput::per_endpoint(audience, service, port) {
        let ip = |endpoint: &Endpoint| match endpoint.address {
            Address::Ip(ip) if !audience.addresses.contains(&ip) => Some(Some(ip)),
            _ => None,
        };
        let mut addresses: Vec<_> = endpoints.iter().filter_map(ip).collect();
        addresses.sort();
        addresses.dedup();
        return vec![(Vec::new(), addresses)];
    }
    let mut places = Vec::new();
    let (unspecified, own): (Vec<_>, Vec<_>) = service.addresses.iter().partition(|a| a.is_unspecified());
    if !own.is_empty() {
        places.push((Vec::new(), own.into_iter().copied().map(Some).collect()));
    }
    let ranges: Vec<Range> = service.ranges.iter().filter_map(|(address, bits)| network(*address, *bits)).collect();
    if !ranges.is_empty() {
        places.push((ranges, vec![None]));
    }
    if places.is_empty() || !unspecified.is_empty() {
        places.extend(everywhere);
    }
    places
}

fn chains(input: &ContributionInput<'_>, ranges: &[Range], shared: bool) -> Built<Vec<Chain>> {
    let l4 = |object| L4Input {
        audience: input.audience,
        gateway: "mesh",
        port: input.port.number,
        object,
        resolve: input.resolve,
        policies: input.policies,
        options: input.options,
        domain: input.domain,
    };
    let mut built = Built::new(Vec::new());
    if input.port.protocol.is_tls() {
        if let Some(object) = input.routes {
            built.value = built.absorb(tls_chains(&l4(object), ranges, None));
        }
        if built.value.is_empty() && is_whole(&input.service.host) {
            built.value.push(default_tls(input, ranges, shared));
        } else if built.value.is_empty() {
            built.problems.push(
                Problem::error(
                    &input.service.origin,
                    "spec.hosts",
                    format!("\"{}\" cannot be told from other hosts by SNI", input.service.host),
                )
                .consequence("its TLS connections are not routed")
                .hint("A wildcard is `*`, or `*.` and a domain."),
            );
        }
        return built;
    }
    let mut complete = false;
    if let Some(object) = input.routes {
        let tcp = built.absorb(tcp_chains(&l4(object), ranges));
        complete = tcp.complete;
        built.value = tcp.chains;
    }
    if !complete {
        let mut matching = Matching { ranges: ranges.to_vec(), ..Matching::default() };
        let taken: Vec<_> = built.value.iter().flat_map(|chain| chain.matching.leaves()).collect();
        if matching.remove(|leaf| taken.contains(leaf)) {
            built.value.push(default_chain(input).matching(matching));
        }
    }
    built
}

/// A TLS port without routes: SNI is the host where only that can tell services apart.
fn default_tls(input: &ContributionInput<'_>, ranges: &[Range], shared: bool) -> Chain {
    let host = &input.service.host;
    let by_name = shared && host.as_str() != "*";
    let mut matching = if by_name { names_matching(vec![host.clone()]) } else { Matching::default() };
    matching.ranges = ranges.to_vec();
    if host.as_str() == "*" && shared {
        matching.transport = Transport::Tls;
    }
    let mut chain = default_chain(input).matching(matching);
    chain.server_name_when_shared = (host.as_str() != "*").then(|| host.to_string());
    chain
}

/// To the service as a whole.
fn default_chain(input: &ContributionInput<'_>) -> Chain {
    let cluster = names::outbound_cluster(input.port.number, "", &input.service.host);
    let filter = tcp_proxy(&TcpProxyInput {
        stat_prefix: &cluster,
        shares: &[(cluster.clone(), 1)],
        policy: Some(input.policy),
    });
    let mut chain = Chain::new("", filter).naming([cluster]);
    chain.origins.push(input.service.origin.clone());
    let place = mark::Place { protocol: input.port.protocol, policy: input.policy };
    if mark::is_needed(input.audience, &[place]) { chain.marked_as_bytes() } else { chain }
}
