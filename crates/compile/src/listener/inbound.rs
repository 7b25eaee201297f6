//! Listeners for what reaches a sidecar's workload.
//!
//! Which connections a port takes, and which TLS ends at the proxy, `PeerAuthentication` says. A proxy that has no
//! certificate ends none: what arrives by TLS goes to the workload as it is, and where nothing but TLS of the mesh may be
//! taken, nothing is.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::pb::envoy::config::core::v3::{TrafficDirection, TransportSocket};
use proto::pb::envoy::config::listener::v3::{Filter, Listener, ListenerFilter};
use proto::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use proto::pb::envoy::config::route::v3::{
    RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_match,
};
use proto::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use proto::pb::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use world::{Problem, Protocol, Settings};

use super::assemble::listener_filter;
use super::outbound::forward;
use super::served::{Treatment, treatment};
use super::{
    Application, Assembly, Chain, ConnectionManagerInput, Inspection, Matching, Place, Reading, Routes, Served, Side,
    TcpProxyInput, Transport, assemble, connection_manager_filter, listener_name, tcp_proxy, wildcards,
};
use crate::pack::{boolean, duration, uint32};
use crate::security::{self, Guards, Mtls, Peer, Stated};
use crate::{Audience, Built, Interception, Secrets, names};

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
    /// Which connections its ports take.
    pub(crate) peer: &'a Peer,
    /// The trust domain, whose workloads are let in.
    pub(crate) settings: &'a Settings,
    /// How requests are read.
    pub(crate) reading: Reading,
    /// What everything passes first.
    pub(crate) guards: &'a Guards,
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
    let mut problems = Vec::new();
    let served = input.served.iter().map(|served| Port::of(served, address, Some(served.target)));
    let is_served = |port: &u16| input.served.iter().any(|served| served.target == *port);
    let others = input.peer.ports().filter(|port| !is_served(port)).map(|port| Port::undeclared(Some(port)));
    for port in served.chain(others) {
        let Some(target) = port.destination else { continue };
        let treated = port.treated(input, &mut problems);
        if !treated.rows.iter().any(|row| row.transport == Transport::Tls) {
            inspection.no_tls.push(target);
        }
        if !treated.rows.iter().any(|row| row.application == Application::Http) {
            inspection.no_http.push(target);
        }
        chains.extend(port.chains(input, &treated));
    }
    inspection.no_tls.sort_unstable();
    inspection.no_http.sort_unstable();
    let rest = Port::undeclared(None);
    let treated = rest.treated(input, &mut problems);
    let mut default = None;
    if input.is_open() {
        // Every port takes every connection, so what comes here is for none of them.
        let of_rest = rest.chains(input, &treated);
        chains.extend(of_rest.into_iter().filter(|chain| chain.matching.application == Application::Http));
        default = Some(forward(names::VIRTUAL_INBOUND, names::INBOUND_PASSTHROUGH).guarded(input.guards));
    } else {
        // Envoy gives to the default whatever a port's own chains do not take, and that must end.
        chains.extend(rest.chains(input, &treated));
    }
    let mut built = assemble(Assembly {
        name: names::VIRTUAL_INBOUND.to_owned(),
        place: Place { address, more, port: VIRTUAL_INBOUND_PORT, bind: true },
        direction: TrafficDirection::Inbound,
        chains,
        default,
        inspection,
        filters: redirect_filters(interception),
    });
    built.origins.extend(input.peer.all().filter_map(|stated| stated.origin().cloned()));
    built.problems.extend(problems);
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
        let port = Port::of(served, *address, None);
        let mut problems = Vec::new();
        let treated = port.treated(input, &mut problems);
        let mut built = assemble(Assembly {
            name: listener_name(*address, served.target),
            place: Place { address: *address, more: more.to_vec(), port: served.target, bind: true },
            direction: TrafficDirection::Inbound,
            chains: port.chains(input, &treated),
            default: None,
            inspection,
            filters: Vec::new(),
        });
        built.origins.extend(treated.stated.origin().cloned());
        built.problems.extend(problems);
        built
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

impl InboundInput<'_> {
    /// Whether every port takes every connection.
    fn is_open(&self) -> bool {
        let is_open = |stated: &Stated| match stated.mode {
            Mtls::Disable => true,
            Mtls::Permissive => self.audience.secrets == Secrets::None,
            Mtls::Strict => false,
        };
        self.peer.all().all(is_open)
    }
}

/// A port of the workload, or all that nobody declares.
struct Port<'a> {
    /// The service that leads there.
    served: Option<&'a Served>,
    /// The port, where chains have to tell it from others.
    destination: Option<u16>,
    /// The names of its chains for HTTP and for everything else.
    names: [String; 2],
    /// Where its connections go.
    cluster: Arc<str>,
    treatment: Treatment,
}

/// How the connections of a port are treated, by its mode and by what the proxy can do.
struct Treated<'a> {
    stated: &'a Stated,
    rows: &'static [Row],
    /// Whether its connections end here, because it may not take them.
    is_refused: bool,
    /// For chains that end TLS.
    socket: Option<TransportSocket>,
}

impl<'a> Port<'a> {
    fn of(served: &'a Served, address: IpAddr, destination: Option<u16>) -> Self {
        let name = listener_name(address, served.target);
        Self {
            served: Some(served),
            destination,
            names: [name.clone(), name],
            cluster: names::inbound_cluster(served.target),
            treatment: treatment(served.protocol).unwrap_or(Treatment::Tcp),
        }
    }

    fn undeclared(destination: Option<u16>) -> Self {
        Self {
            served: None,
            destination,
            names: ["virtualInbound-catchall-http".to_owned(), names::VIRTUAL_INBOUND.to_owned()],
            cluster: names::INBOUND_PASSTHROUGH.into(),
            treatment: Treatment::Auto,
        }
    }

    fn treated<'i>(&self, input: &'i InboundInput<'_>, problems: &mut Vec<Problem>) -> Treated<'i> {
        let target = self.served.map(|served| served.target).or(self.destination);
        let stated = target.map_or(input.peer.elsewhere(), |port| input.peer.at(port));
        let socket = match stated.mode {
            Mtls::Disable => None,
            Mtls::Permissive | Mtls::Strict => security::downstream(input.audience.secrets, input.settings),
        };
        let mut mode = stated.mode;
        if socket.is_none() && mode == Mtls::Strict {
            problems.extend(stated.error(
                "a workload that this is for has a proxy without a certificate, because it has not proved who it is",
                "the proxy refuses all connections to it",
            ).map(|problem| problem.hint("Let the proxy connect to the address of --xds-tls-listen, with a token or a certificate.")));
            return Treated { stated, rows: REFUSED, is_refused: true, socket };
        }
        if socket.is_none() {
            mode = Mtls::Disable;
        }
        Treated { stated, rows: rows(mode, self.treatment), is_refused: false, socket }
    }

    /// The chains of the port. Envoy does not come back from a more specific match that leads nowhere, so each of them
    /// says all that it wants instead of leaving it to the next.
    fn chains(&self, input: &InboundInput<'_>, treated: &Treated<'_>) -> Vec<Chain> {
        let [http_name, tcp_name] = &self.names;
        let cluster = if treated.is_refused { names::BLACK_HOLE.into() } else { self.cluster.clone() };
        let shares = [(cluster.clone(), 1)];
        let tcp = tcp_proxy(&TcpProxyInput { stat_prefix: &cluster, shares: &shares, policy: None });
        let http = || self.connection_manager(input);
        let chain = |row: &Row| {
            let matching = Matching {
                destination_port: self.destination,
                transport: row.transport,
                application: row.application,
                ..Matching::default()
            };
            let (name, filter) = if row.is_http { (http_name, http()) } else { (tcp_name, tcp.clone()) };
            let mut chain = Chain::new(&**name, filter).matching(matching).naming([cluster.clone()]);
            chain.transport_socket = treated.socket.clone().filter(|_| row.ends_tls);
            chain.origins.extend(self.served.map(|served| served.service.origin.clone()));
            if row.is_http { chain.guarded_within(input.guards) } else { chain.guarded(input.guards) }
        };
        treated.rows.iter().map(chain).collect()
    }

    fn connection_manager(&self, input: &InboundInput<'_>) -> Filter {
        let (service_port, protocol) = self.served.map_or((0, Protocol::Auto), |served| (served.port, served.protocol));
        let stat_prefix = match self.served {
            Some(_) => format!("inbound_{}", self.names[0]),
            None => names::INBOUND_PASSTHROUGH.to_owned(),
        };
        connection_manager_filter(&ConnectionManagerInput {
            side: Side::Inbound,
            stat_prefix: &stat_prefix,
            routes: Routes::Inline(Box::new(routes(&self.cluster, service_port, is_grpc(protocol)))),
            lacks: input.audience.lacks,
            grpc_web: protocol == Protocol::GrpcWeb,
            reading: input.reading,
            guards: &input.guards.http,
            access_log: input.access_log,
        })
    }
}

/// One filter chain of a port.
#[derive(Debug)]
struct Row {
    transport: Transport,
    application: Application,
    ends_tls: bool,
    is_http: bool,
}

const fn row(transport: Transport, application: Application, ends_tls: bool, is_http: bool) -> Row {
    Row { transport, application, ends_tls, is_http }
}

/// Nothing is taken.
const REFUSED: &[Row] = &[row(Transport::Any, Application::Any, false, false)];

/// Which chains a port has. They are Istio's, but for one more: what comes by TLS to an HTTP port, and is not for the
/// proxy, goes to the workload as it is, where Istio closes it.
fn rows(mode: Mtls, treatment: Treatment) -> &'static [Row] {
    use Application::{Any, Http, Mesh, MeshHttp, MeshTcp};
    use Transport::{Plain, Tls};
    const HTTP: bool = true;
    const TCP: bool = false;
    const ENDS: bool = true;
    const PASSES: bool = false;
    match (mode, treatment) {
        (Mtls::Disable, Treatment::Http) => const { &[row(Plain, Any, PASSES, HTTP), row(Tls, Any, PASSES, TCP)] },
        (Mtls::Disable, Treatment::Tcp) => const { &[row(Transport::Any, Any, PASSES, TCP)] },
        (Mtls::Disable, Treatment::Auto) => {
            const { &[row(Plain, Http, PASSES, HTTP), row(Plain, Any, PASSES, TCP), row(Tls, Any, PASSES, TCP)] }
        }
        (Mtls::Permissive, Treatment::Http) => {
            const { &[row(Tls, Mesh, ENDS, HTTP), row(Plain, Any, PASSES, HTTP), row(Tls, Any, PASSES, TCP)] }
        }
        (Mtls::Permissive, Treatment::Tcp) => {
            const { &[row(Tls, Mesh, ENDS, TCP), row(Plain, Any, PASSES, TCP), row(Tls, Any, PASSES, TCP)] }
        }
        (Mtls::Permissive, Treatment::Auto) => {
            const {
                &[
                    row(Tls, MeshHttp, ENDS, HTTP),
                    row(Plain, Http, PASSES, HTTP),
                    row(Tls, MeshTcp, ENDS, TCP),
                    row(Plain, Any, PASSES, TCP),
                    row(Tls, Any, PASSES, TCP),
                ]
            }
        }
        (Mtls::Strict, Treatment::Http) => const { &[row(Tls, Any, ENDS, HTTP)] },
        (Mtls::Strict, Treatment::Tcp) => const { &[row(Tls, Any, ENDS, TCP)] },
        (Mtls::Strict, Treatment::Auto) => const { &[row(Tls, MeshHttp, ENDS, HTTP), row(Tls, Any, ENDS, TCP)] },
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
