//! From filter chains to a listener: address, inspectors, timeouts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use prost::{Message, Name};
use proto::pb::envoy::config::core::v3::TrafficDirection;
use proto::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use proto::pb::envoy::config::listener::v3::{
    AdditionalAddress, Listener, ListenerFilter, ListenerFilterChainMatchPredicate, listener_filter,
};
use proto::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use proto::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use proto::pb::envoy::r#type::v3::Int32Range;

use super::{Application, Chain, Transport};
use crate::pack::{any, boolean, duration, socket_address, uint32};
use crate::{Audience, Built};

/// First read of `tls_inspector`, in bytes: most handshakes start with less.
const CLIENT_HELLO_BYTES: u32 = 512;

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The address.
    pub(crate) address: IpAddr,
    /// More addresses with the same port.
    pub(crate) more: Vec<IpAddr>,
    /// The port.
    pub(crate) port: u16,
    /// Whether the port is really bound; otherwise connections come from `virtualOutbound`.
    pub(crate) bind: bool,
}

/// How long, and where not, the first bytes of a connection are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// How long to wait for first bytes. Zero is for ever, so a protocol in which the server speaks first hangs on a
    /// port of undeclared protocol; after a positive time the connection is taken for one that is not HTTP and not TLS.
    pub(crate) timeout: Duration,
    /// Destination ports on which nobody asks whether it is TLS, in order.
    pub(crate) no_tls: Vec<u16>,
    /// Destination ports on which nobody asks whether it is HTTP, in order.
    pub(crate) no_http: Vec<u16>,
}

/// The parts of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Assembly {
    /// Its name.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) place: Place,
    /// Towards the workload or away from it.
    pub(crate) direction: TrafficDirection,
    /// Its chains; no two share a [`super::Leaf`].
    pub(crate) chains: Vec<Chain>,
    /// What takes connections that no chain takes.
    pub(crate) default: Option<Chain>,
    /// How the first bytes are looked at, if any chain asks for that.
    pub(crate) inspection: Inspection,
    /// Listener filters that come before the inspectors.
    pub(crate) filters: Vec<ListenerFilter>,
}

/// Puts a listener together, with the inspectors that its chains need.
pub(crate) fn assemble(assembly: Assembly) -> Built<Listener> {
    let Assembly { name, place, direction, chains, default, inspection, mut filters } = assembly;
    let all = || chains.iter().chain(&default);
    let by_tls = |chain: &Chain| !chain.matching.server_names.is_empty() || chain.matching.transport == Transport::Tls;
    let by_http = |chain: &Chain| chain.matching.application == Application::Http;
    let ends_tls = |chain: &Chain| chain.transport_socket.is_some();
    let mut timeout = Duration::ZERO;
    if all().any(by_tls) {
        filters.push(tls_inspector(&inspection.no_tls));
    }
    if all().any(by_http) {
        filters.push(http_inspector(&inspection.no_http));
    }
    if all().any(|chain| by_http(chain) || ends_tls(chain)) {
        timeout = inspection.timeout;
    }
    let clusters = all().flat_map(|chain| chain.clusters.iter().cloned()).collect();
    let origins = all().flat_map(|chain| chain.origins.iter().cloned()).collect();
    let more = place.more.iter().map(|address| AdditionalAddress {
        address: Some(socket_address(*address, place.port)),
        ..AdditionalAddress::default()
    });
    let listener = Listener {
        name,
        address: Some(socket_address(place.address, place.port)),
        additional_addresses: more.collect(),
        filter_chains: chains.into_iter().map(Chain::into_proto).collect(),
        default_filter_chain: default.map(Chain::into_proto),
        listener_filters: filters,
        listener_filters_timeout: Some(duration(timeout)),
        continue_on_listener_filters_timeout: true,
        traffic_direction: direction.into(),
        bind_to_port: (!place.bind).then(|| boolean(false)),
        ..Listener::default()
    };
    Built { value: listener, problems: Vec::new(), clusters, origins }
}

/// `0.0.0.0_80`.
pub(crate) fn listener_name(address: IpAddr, port: u16) -> String {
    format!("{address}_{port}")
}

/// The address that stands for all, and the one of the other IP version where the audience has both. An audience
/// without addresses has IPv4.
pub(crate) fn wildcards(audience: &Audience) -> (IpAddr, Vec<IpAddr>) {
    let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match (audience.addresses.iter().any(IpAddr::is_ipv4), audience.addresses.iter().any(IpAddr::is_ipv6)) {
        (true, true) => (v4, vec![v6]),
        (false, true) => (v6, Vec::new()),
        (_, false) => (v4, Vec::new()),
    }
}

/// A listener filter with its configuration.
pub(super) fn listener_filter<M: Message + Name>(name: &str, config: &M, not_on: &[u16]) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled: ports(not_on),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any(config))),
    }
}

fn tls_inspector(not_on: &[u16]) -> ListenerFilter {
    let config = TlsInspector { initial_read_buffer_size: Some(uint32(CLIENT_HELLO_BYTES)), ..TlsInspector::default() };
    listener_filter("envoy.filters.listener.tls_inspector", &config, not_on)
}

fn http_inspector(not_on: &[u16]) -> ListenerFilter {
    listener_filter("envoy.filters.listener.http_inspector", &HttpInspector {}, not_on)
}

/// A predicate that holds on these ports; `or_match` takes no fewer than two.
fn ports(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let one = |port: &u16| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range { start: (*port).into(), end: i32::from(*port) + 1 })),
    };
    match ports {
        [] => None,
        [only] => Some(one(only)),
        several => Some(ListenerFilterChainMatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet { rules: several.iter().map(one).collect() })),
        }),
    }
}
