//! Listeners for what reaches a sidecar's workload, in plaintext.
//!
//! TLS that arrives is not terminated: on every port it goes to the workload as it is.

use std::net::IpAddr;
use std::time::Duration;

use proto::pb::envoy::config::core::v3::TrafficDirection;
use proto::pb::envoy::config::listener::v3::{Listener, ListenerFilter};
use proto::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use proto::pb::envoy::config::route::v3::{
    RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_match,
};
use proto::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use proto::pb::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use world::Protocol;

use super::assemble::listener_filter;
use super::outbound::forward;
use super::served::{Treatment, treatment};
use super::{
    Assembly, Chain, ConnectionManagerInput, Inspection, Matching, Place, Routes, Served, Side, TcpProxyInput,
    Transport, assemble, connection_manager_filter, listener_name, tcp_proxy, wildcards,
};
use crate::pack::{boolean, duration, uint32};
use crate::{Audience, Built, Interception, names};

/// Port that inbound connections are redirected to.
const VIRTUAL_INBOUND_PORT: u16 = 15006;
/// Mark of packets that carry the client's address, which routing rules of TPROXY know.
const ORIGINAL_SOURCE_MARK: u32 = 1337;
/// A connection that says nothing for this long is forwarded as TCP: it ends at the same place, and protocols in which
/// the server speaks first work, if late.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// All that inbound listeners depend on.
#[derive(Clone, Debug)]
pub(crate) struct InboundInput<'a> {
    /// The workload's sidecar.
    pub(crate) audience: &'a Audience,
    /// What it serves, one for each target port, from [`super::served()`].
    pub(crate) served: &'a [Served],
    /// File that requests are logged to.
    pub(crate) access_log: Option<&'a str>,
}

/// The listener that is bound where interception redirects inbound connections to. `None` without interception.
pub(crate) fn virtual_inbound(input: &InboundInput<'_>) -> Option<Built<Listener>> {
    let interception = input.audience.interception();
    if interception == Interception::None {
        return None;
    }
    let (address, more) = wildcards(input.audience);
    let to_itself = Matching { destination_port: Some(VIRTUAL_INBOUND_PORT), ..Matching::default() };
    let mut chains = vec![forward("virtualInbound-blackhole", names::BLACK_HOLE).matching(to_itself)];
    let mut inspection = Inspection { timeout: DETECTION_TIMEOUT, ..Inspection::default() };
    for served in input.served {
        chains.extend(chains_of(input, served, address, Some(served.target)));
        match treatment(served.protocol) {
            Some(Treatment::Tcp) => {
                inspection.no_tls.push(served.target);
                inspection.no_http.push(served.target);
            }
            Some(Treatment::Http) => inspection.no_http.push(served.target),
            Some(Treatment::Auto) | None => {}
        }
    }
    let plain_http = Matching { transport: Transport::Plain, http: true, ..Matching::default() };
    let undeclared = connection_manager_filter(&ConnectionManagerInput {
        side: Side::Inbound,
        stat_prefix: names::INBOUND_PASSTHROUGH,
        routes: Routes::Inline(Box::new(routes(names::INBOUND_PASSTHROUGH, 0, false))),
        lacks: input.audience.lacks,
        grpc_web: false,
        guards: &[],
        access_log: input.access_log,
    });
    chains.push(
        Chain::new("virtualInbound-catchall-http", undeclared)
            .matching(plain_http)
            .naming([names::INBOUND_PASSTHROUGH.into()]),
    );
    let built = assemble(Assembly {
        name: names::VIRTUAL_INBOUND.to_owned(),
        place: Place { address, more, port: VIRTUAL_INBOUND_PORT, bind: true },
        direction: TrafficDirection::Inbound,
        chains,
        default: Some(forward(names::VIRTUAL_INBOUND, names::INBOUND_PASSTHROUGH)),
        inspection,
        filters: redirect_filters(interception),
    });
    Some(built.map(|listener| Listener {
        transparent: (interception == Interception::Tproxy).then(|| boolean(true)),
        max_connections_to_accept_per_socket_event: Some(uint32(1)),
        ..listener
    }))
}

/// Without interception: a listener for each served port, bound at the workload's own addresses, so that the workload
/// itself can have the same port on `127.0.0.1`. None for an audience without addresses.
pub(crate) fn bound_inbound(input: &InboundInput<'_>) -> Vec<Built<Listener>> {
    let [address, more @ ..] = &input.audience.addresses[..] else { return Vec::new() };
    let listener = |served: &Served| {
        let inspection = Inspection { timeout: DETECTION_TIMEOUT, ..Inspection::default() };
        assemble(Assembly {
            name: listener_name(*address, served.target),
            place: Place { address: *address, more: more.to_vec(), port: served.target, bind: true },
            direction: TrafficDirection::Inbound,
            chains: chains_of(input, served, *address, None),
            default: None,
            inspection,
            filters: Vec::new(),
        })
    };
    input.served.iter().map(listener).collect()
}

fn redirect_filters(interception: Interception) -> Vec<ListenerFilter> {
    let mut filters = vec![listener_filter("envoy.filters.listener.original_dst", &OriginalDst {}, &[])];
    if interception == Interception::Tproxy {
        let source = OriginalSrc { mark: ORIGINAL_SOURCE_MARK, ..OriginalSrc::default() };
        filters.push(listener_filter("envoy.filters.listener.original_src", &source, &[]));
    }
    filters
}

/// The chains of one port. Envoy does not come back from a more specific match that leads nowhere, so each of them
/// says all that it wants instead of leaving it to the next.
fn chains_of(input: &InboundInput<'_>, served: &Served, address: IpAddr, port: Option<u16>) -> Vec<Chain> {
    let cluster = names::inbound_cluster(served.target);
    let matching = |transport, http| Matching { destination_port: port, transport, http, ..Matching::default() };
    let wildcard = if port.is_some() { wildcards(input.audience).0 } else { address };
    let name = listener_name(wildcard, served.target);
    let chain = |filter, matching| {
        let mut chain = Chain::new(&*name, filter).matching(matching).naming([cluster.clone()]);
        chain.origins.push(served.service.origin.clone());
        chain
    };
    let shares = [(cluster.clone(), 1)];
    let tcp = tcp_proxy(&TcpProxyInput { stat_prefix: &cluster, shares: &shares, policy: None });
    let http = || {
        connection_manager_filter(&ConnectionManagerInput {
            side: Side::Inbound,
            stat_prefix: &format!("inbound_{name}"),
            routes: Routes::Inline(Box::new(routes(&cluster, served.port, is_grpc(served.protocol)))),
            lacks: input.audience.lacks,
            grpc_web: served.protocol == Protocol::GrpcWeb,
            guards: &[],
            access_log: input.access_log,
        })
    };
    match treatment(served.protocol) {
        Some(Treatment::Http) => {
            vec![chain(http(), matching(Transport::Plain, false)), chain(tcp, matching(Transport::Tls, false))]
        }
        Some(Treatment::Auto) => vec![
            chain(http(), matching(Transport::Plain, true)),
            chain(tcp.clone(), matching(Transport::Plain, false)),
            chain(tcp, matching(Transport::Tls, false)),
        ],
        Some(Treatment::Tcp) | None => vec![chain(tcp, matching(Transport::Any, false))],
    }
}

fn is_grpc(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Grpc | Protocol::GrpcWeb)
}

/// Everything to one cluster, without time limits. A request that never left is tried again, except gRPC, whose
/// clients do that themselves.
fn routes(cluster: &str, service_port: u16, grpc: bool) -> RouteConfiguration {
    let retry = RetryPolicy {
        retry_on: "reset-before-request".to_owned(),
        num_retries: Some(uint32(2)),
        ..RetryPolicy::default()
    };
    let action = RouteAction {
        timeout: Some(duration(Duration::ZERO)),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: Some(duration(Duration::ZERO)),
            ..MaxStreamDuration::default()
        }),
        retry_policy: (!grpc).then_some(retry),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..RouteAction::default()
    };
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    };
    RouteConfiguration {
        name: cluster.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{service_port}"),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        validate_clusters: Some(boolean(false)),
        ..RouteConfiguration::default()
    }
}
