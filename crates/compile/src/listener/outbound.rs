//! Listeners for what a sidecar's workload calls.

use std::net::{IpAddr, Ipv4Addr};

use proto::pb::envoy::config::core::v3::TrafficDirection;
use proto::pb::envoy::config::listener::v3::Listener;
use proto::{Extension, Extensions};

use super::merge::{Merged, merge};
use super::{
    Application, Assembly, CONNECTION_MANAGER, Chain, ConnectionManagerInput, Contribution, Inspection, Key, Matching,
    Place, Reading, Routes, Side, TcpProxyInput, Transport, assemble, connection_manager, connection_manager_filter,
    server_access_log, tcp_proxy, wildcards,
};
use crate::pack::{boolean, network_filter, uint32};
use crate::{Audience, Built, Interception, Options, OutboundPolicy, names};

/// Port that outbound connections are redirected to.
const VIRTUAL_OUTBOUND_PORT: u16 = 15001;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// All that an outbound listener depends on.
#[derive(Clone, Debug)]
pub(crate) struct OutboundInput<'a> {
    /// The client, a sidecar.
    pub(crate) audience: &'a Audience,
    /// Which listener.
    pub(crate) key: Key,
    /// What services want of it, all with this key, in any order. At least one.
    pub(crate) contributions: &'a [&'a Contribution],
    /// What unknown destinations do.
    pub(crate) options: &'a Options,
    /// File that requests are logged to.
    pub(crate) access_log: Option<&'a str>,
}

/// The listener that is really bound where interception redirects to. It hands each connection to the listener of its
/// original destination, and keeps those that have none. `None` without interception.
pub(crate) fn virtual_outbound(audience: &Audience, options: &Options) -> Option<Built<Listener>> {
    let interception = audience.interception();
    if interception == Interception::None {
        return None;
    }
    let (address, more) = wildcards(audience);
    let to_itself = Matching { destination_port: Some(VIRTUAL_OUTBOUND_PORT), ..Matching::default() };
    let built = assemble(Assembly {
        name: names::VIRTUAL_OUTBOUND.to_owned(),
        place: Place { address, more, port: VIRTUAL_OUTBOUND_PORT, bind: true },
        direction: TrafficDirection::Outbound,
        // A connection to the port itself would come back for ever.
        chains: vec![forward("virtualOutbound-blackhole", names::BLACK_HOLE).matching(to_itself)],
        default: Some(forward("virtualOutbound-catchall-tcp", unknown_destination(options))),
        inspection: Inspection::default(),
        filters: Vec::new(),
    });
    Some(built.map(|listener| Listener {
        use_original_dst: Some(boolean(true)),
        transparent: (interception == Interception::Tproxy).then(|| boolean(true)),
        max_connections_to_accept_per_socket_event: Some(uint32(1)),
        ..listener
    }))
}

/// A listener for one port, of one address or of all.
///
/// With interception it is not bound: `virtualOutbound` hands it connections. What is neither HTTP nor anybody's TCP
/// goes on to where it wanted to go (or is refused, by `options`), because on a shared port it may be for a host that
/// is not in the mesh.
///
/// Without interception it is bound, on `127.0.0.1`: the workload calls its own proxy there, nobody else has to reach
/// it, and any wider address would offer the workload's rights to the network. Its name stays the same. Nothing passes
/// through, because there is no original destination.
pub(crate) fn outbound(input: &OutboundInput<'_>) -> Built<Listener> {
    let intercepted = input.audience.interception() != Interception::None;
    let mut built = Built::new(());
    let Merged { http_route, grpc_web, logged, reading, mut chains, mut default } =
        built.absorb(merge(input.contributions));
    let (wildcard, more) = wildcards(input.audience);
    let address = input.key.address.unwrap_or(wildcard);
    let name = super::listener_name(address, input.key.port);
    if intercepted && input.key.address.is_none() && default.is_none() {
        default = Some(forward("PassthroughFilterChain", unknown_destination(input.options)));
    }
    if let Some(route) = &http_route {
        let mut manager = connection_manager(&ConnectionManagerInput {
            side: Side::Outbound,
            stat_prefix: &format!("outbound_{name}"),
            routes: Routes::Discovered(route),
            lacks: input.audience.lacks,
            grpc_web,
            reading,
            guards: &[],
            access_log: input.access_log,
        });
        if logged && !input.audience.lacks.contains(Extension::AccessLogService) {
            manager.access_log.push(server_access_log());
        }
        let filter = network_filter(CONNECTION_MANAGER, &manager);
        let alone = chains.is_empty() && default.is_none();
        let http = Matching { transport: Transport::Plain, application: Application::Http, ..Matching::default() };
        let matching = if alone { Matching::default() } else { http };
        chains.insert(0, Chain::new("", filter).matching(matching));
    }
    if chains.is_empty() {
        chains.extend(default.take());
    }
    let place = match (intercepted, input.key.address) {
        (false, _) => Place { address: LOOPBACK, more: Vec::new(), port: input.key.port, bind: true },
        (true, Some(address)) => Place { address, more: Vec::new(), port: input.key.port, bind: false },
        (true, None) => Place { address: wildcard, more, port: input.key.port, bind: false },
    };
    let listener = built.absorb(assemble(Assembly {
        name,
        place,
        direction: TrafficDirection::Outbound,
        chains,
        default,
        // As in Istio: a client that opens a connection before it needs it must not lose its routing for that.
        inspection: Inspection::default(),
        filters: Vec::new(),
    }));
    built.map(|()| listener)
}

/// The listener for clients that are told to use an HTTP proxy.
pub(crate) fn http_proxy(port: u16, lacks: Extensions, reading: Reading, access_log: Option<&str>) -> Built<Listener> {
    let filter = connection_manager_filter(&ConnectionManagerInput {
        side: Side::Outbound,
        stat_prefix: &format!("outbound_{LOOPBACK}_{port}"),
        routes: Routes::Discovered(names::HTTP_PROXY),
        lacks,
        grpc_web: false,
        reading,
        guards: &[],
        access_log,
    });
    assemble(Assembly {
        name: names::HTTP_PROXY.to_owned(),
        place: Place { address: LOOPBACK, more: Vec::new(), port, bind: true },
        direction: TrafficDirection::Outbound,
        chains: vec![Chain::new("", filter)],
        default: None,
        inspection: Inspection::default(),
        filters: Vec::new(),
    })
}

fn unknown_destination(options: &Options) -> &'static str {
    match options.outbound_policy {
        OutboundPolicy::AllowAny => names::PASSTHROUGH,
        OutboundPolicy::RegistryOnly => names::BLACK_HOLE,
    }
}

/// Everything to one of the fixed clusters.
pub(super) fn forward(name: &str, cluster: &str) -> Chain {
    let shares = [(cluster.into(), 1)];
    let filter = tcp_proxy(&TcpProxyInput { stat_prefix: cluster, shares: &shares, policy: None });
    Chain::new(name, filter).naming([cluster.into()])
}
