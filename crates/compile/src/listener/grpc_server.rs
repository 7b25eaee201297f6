//! The listeners that a gRPC server without a proxy asks for, by the address that it listens on (gRPC proposal A36).
//!
//! A server has no way to look at the first bytes of a connection: a port takes mutual TLS only, or no TLS. So it takes
//! TLS where `PeerAuthentication` says STRICT, and plaintext where it says PERMISSIVE, as Istio has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use proto::pb::envoy::config::core::v3::TrafficDirection;
use proto::pb::envoy::config::listener::v3::{FilterChain, Listener};
use proto::pb::envoy::config::route::v3::{
    NonForwardingAction, Route, RouteConfiguration, RouteMatch, VirtualHost, route, route_match,
};
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use world::Problem;

use super::{ConnectionManagerInput, Reading, Routes, Served, Side, connection_manager_filter};
use crate::pack::socket_address;
use crate::security::{self, Mtls, Peer};
use crate::{Audience, Built, Secrets};

/// What stands before the address in the listener's name, as the server's bootstrap says it: Istio's form and ours, and
/// that of gRPC's documentation.
const NAMES: [&str; 2] = ["xds.istio.io/grpc/lds/inbound/", "grpc/server?xds.resource.listening_address="];

/// All that the listeners of one port depend on.
#[derive(Clone, Debug)]
pub(crate) struct GrpcServerInput<'a> {
    /// The server.
    pub(crate) audience: &'a Audience,
    /// The port.
    pub(crate) served: &'a Served,
    /// Which connections the server's ports take.
    pub(crate) peer: &'a Peer,
    /// What every request passes first, by policies.
    pub(crate) guards: &'a Built<Vec<HttpFilter>>,
    /// Of these workloads come, where they have to prove who they are.
    pub(crate) trust_domains: &'a [Arc<str>],
}

/// A listener for each address that the server may listen on at this port, under each of its names: the workload's own
/// addresses, and all addresses of either family.
pub(crate) fn grpc_server(input: &GrpcServerInput<'_>) -> Built<Vec<Listener>> {
    let GrpcServerInput { audience, served, peer, guards, .. } = input;
    let mut built = Built::new(Vec::new());
    let stated = peer.at(served.target);
    built.origins.insert(served.service.origin.clone());
    built.origins.extend(stated.origin().cloned());
    built.origins.extend(guards.origins.iter().cloned());
    let is_strict = stated.mode == Mtls::Strict;
    let has_certificate = audience.secrets == Secrets::Provider;
    built.problems.extend(mislabelled(input));
    if is_strict && !has_certificate {
        built.problems.extend(stated.error(
            "a workload that this is for is a gRPC server without a proxy whose bootstrap names no certificate provider",
            "it refuses all calls",
        ).map(|problem| {
            problem.hint("Keep certificates for it with `pointsman certificate`, and name them by `pointsman bootstrap --kind grpc --certificates DIRECTORY`.")
        }));
    }
    // Whoever has not proved who he is passes no filter of the mesh, so without a certificate nobody does.
    let mesh = is_strict.then(|| security::of_the_mesh(input.trust_domains));
    let filters: Vec<HttpFilter> = mesh.into_iter().chain(guards.value.iter().cloned()).collect();
    let manager = connection_manager_filter(&ConnectionManagerInput {
        side: Side::GrpcServer,
        stat_prefix: &format!("inbound_{}", served.target),
        routes: Routes::Inline(Box::new(routes(served.port))),
        lacks: audience.lacks,
        grpc_web: false,
        reading: Reading::default(),
        guards: &filters,
        access_log: None,
    });
    let chain = FilterChain {
        filters: vec![manager],
        transport_socket: (is_strict && has_certificate).then(security::provided_downstream),
        ..FilterChain::default()
    };
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    for address in everywhere.iter().chain(&audience.addresses) {
        for before in NAMES {
            built.value.push(Listener {
                name: format!("{before}{}", SocketAddr::new(*address, served.target)),
                address: Some(socket_address(*address, served.target)),
                filter_chains: vec![chain.clone()],
                traffic_direction: TrafficDirection::Inbound.into(),
                ..Listener::default()
            });
        }
    }
    built
}

/// Clients look at the workload's label, and there is no port that takes both.
fn mislabelled(input: &GrpcServerInput<'_>) -> Option<Problem> {
    const LABEL: &str = "security.istio.io/tlsMode: istio";
    let origin = &input.served.service.origin;
    let port = input.served.target;
    let warning = |message: String, consequence: &str, hint: &str| {
        Some(Problem::warning(origin, "", message).consequence(consequence).hint(hint))
    };
    match (input.peer.at(port).mode, security::is_labelled(&input.audience.labels)) {
        (Mtls::Strict, true) | (Mtls::Permissive, false) | (Mtls::Disable, _) => None,
        (Mtls::Strict, false) => warning(
            format!("a gRPC server without a proxy takes mutual TLS only at port {port}, and has no label {LABEL}"),
            "clients call it in the clear, and are refused",
            "Label the workload.",
        ),
        (Mtls::Permissive, true) => warning(
            format!("a gRPC server without a proxy takes plaintext at port {port}, and has the label {LABEL}"),
            "sidecars call it by mutual TLS, and fail",
            "Say STRICT by a PeerAuthentication, as a gRPC server cannot take both; or remove the label.",
        ),
    }
}

/// Every request is the server's own to answer.
fn routes(service_port: u16) -> RouteConfiguration {
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::NonForwardingAction(NonForwardingAction {})),
        ..Route::default()
    };
    RouteConfiguration {
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|grpc|{service_port}"),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}
