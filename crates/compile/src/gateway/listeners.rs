//! The listeners of a gateway.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::pb::envoy::config::core::v3::TrafficDirection;
use proto::pb::envoy::config::listener::v3::Listener;
use world::{Hostname, Object, Problem, Spec};

use super::GatewayInput;
use super::ports::{Class, Server, Socket, ports};
use super::tls::Termination;
use crate::Built;
use crate::listener::{
    Assembly, Chain, ConnectionManagerInput, Inspection, L4Input, Leaf, Place, Routes, Side, assemble,
    connection_manager_filter, listener_name, names_matching, tcp_chains, tls_chains, wildcards,
};

/// One listener for each address and port, in order: `0.0.0.0_<port>`, or `<bind>_<port>`.
///
/// Ports are the proxy's: a server's port is translated when a Service of the proxy maps it. HTTP servers always have a
/// listener, which answers 404 for what nobody routes; a port with TCP or TLS servers that lead nowhere is not opened.
pub(crate) fn listeners(input: &GatewayInput<'_>) -> Built<Vec<Listener>> {
    let mut built = Built::new(Vec::new());
    for (socket, servers) in built.absorb(ports(input)) {
        let chains = match servers.first().map(|server| server.class) {
            Some(Class::Http) => vec![built.absorb(http_chain(input, socket, &servers))],
            Some(Class::Tls) => built.absorb(tls_server_chains(input, socket, &servers)),
            Some(Class::Tcp) | None => servers.iter().flat_map(|s| built.absorb(tcp_server_chains(input, s))).collect(),
        };
        if !chains.is_empty() {
            let listener = built.absorb(listener(input, socket, chains));
            built.value.push(listener);
        }
    }
    built
}

fn listener(input: &GatewayInput<'_>, socket: Socket, mut chains: Vec<Chain>) -> Built<Listener> {
    let (wildcard, more) = wildcards(input.audience);
    let place = match socket.bind {
        None => Place { address: wildcard, more, port: socket.port, bind: true },
        Some(address) => Place { address, more: Vec::new(), port: socket.port, bind: true },
    };
    let rest = chains.iter().position(|chain| chains.len() > 1 && chain.matching.is_everything());
    let default = rest.map(|at| chains.remove(at));
    assemble(Assembly {
        name: name(input, socket),
        place,
        direction: TrafficDirection::Outbound,
        chains,
        default,
        inspection: Inspection::default(),
        filters: Vec::new(),
    })
}

fn name(input: &GatewayInput<'_>, socket: Socket) -> String {
    listener_name(socket.bind.unwrap_or_else(|| wildcards(input.audience).0), socket.port)
}

fn manager(input: &GatewayInput<'_>, socket: Socket, route: &str, grpc_web: bool) -> Chain {
    let filter = connection_manager_filter(&ConnectionManagerInput {
        side: Side::Gateway,
        stat_prefix: &format!("outbound_{}", name(input, socket)),
        routes: Routes::Discovered(route),
        lacks: input.audience.lacks,
        grpc_web,
        reading: input.reading,
        guards: &input.guards.http,
        access_log: input.access_log,
    });
    Chain::new("", filter).guarded_within(input.guards)
}

/// All HTTP servers of a socket share one chain and one route configuration.
fn http_chain(input: &GatewayInput<'_>, socket: Socket, servers: &[Server<'_>]) -> Built<Chain> {
    let grpc_web = servers.iter().any(|server| server.spec.port.protocol.eq_ignore_ascii_case("GRPC-WEB"));
    let route = servers.first().map(|server| server.route_name(socket)).unwrap_or_default();
    let mut chain = manager(input, socket, &route, grpc_web);
    chain.origins.extend(servers.iter().map(|server| server.gateway.reference.clone()));
    Built::new(chain)
}

/// A chain for each SNI; of two servers with the same SNI the older has it.
fn tls_server_chains(input: &GatewayInput<'_>, socket: Socket, servers: &[Server<'_>]) -> Built<Vec<Chain>> {
    let mut built = Built::new(Vec::new());
    let mut taken: BTreeMap<Leaf, &Server<'_>> = BTreeMap::new();
    for server in servers {
        let chains = match &server.termination {
            Some(Termination::Ended(ended)) if server.speaks_http => {
                let mut chain = manager(input, socket, &server.route_name(socket), false);
                chain.transport_socket = Some(ended.transport_socket(&["h2", "http/1.1"]));
                vec![with_server_names(chain, server)]
            }
            Some(Termination::Ended(ended)) => {
                // TLS that ends here leads to one place; a second chain could only be told apart by address.
                let chains = built.absorb(tcp_server_chains(input, server)).into_iter();
                let chains = chains.map(|mut chain| {
                    chain.transport_socket = Some(ended.transport_socket(&[]));
                    with_server_names(chain, server)
                });
                chains.collect()
            }
            Some(Termination::Passthrough) | None => built.absorb(passthrough_chains(input, server)),
        };
        for mut chain in chains {
            chain.origins.push(server.gateway.reference.clone());
            let rival = chain.matching.leaves().find_map(|leaf| taken.get(&leaf).copied());
            if let Some(rival) = rival {
                built.problems.push(clash(server, rival));
                if !chain.matching.remove(|leaf| taken.contains_key(leaf)) {
                    continue;
                }
            }
            taken.extend(chain.matching.leaves().map(|leaf| (leaf, server)));
            built.value.push(chain);
        }
    }
    built
}

fn clash(server: &Server<'_>, rival: &Server<'_>) -> Problem {
    Problem::error(
        &server.gateway.reference,
        server.field("hosts"),
        format!("a host has TLS already by spec.servers[{}] of {}", rival.index, rival.gateway.reference),
    )
    .consequence(format!("TLS for that host follows {}", rival.gateway.reference))
    .hint("Give each host of a port to one TLS server.")
    .at(server.gateway.meta.location.clone())
}

fn with_server_names(mut chain: Chain, server: &Server<'_>) -> Chain {
    let ranges = std::mem::take(&mut chain.matching.ranges);
    chain.matching = names_matching(server.hosts.iter().map(|host| host.host.clone()).collect());
    chain.matching.ranges = ranges;
    chain
}

/// TLS that passes through: a chain for each SNI that the VirtualServices of the Gateway route.
fn passthrough_chains(input: &GatewayInput<'_>, server: &Server<'_>) -> Built<Vec<Chain>> {
    let mut built = Built::new(Vec::new());
    for object in (input.routes)(&server.gateway.reference) {
        let within = exposed(input, server, &object);
        if !within.is_empty() {
            let gateway = gateway_name(server);
            let chains = built.absorb(tls_chains(&l4(input, server, &gateway, &object), &[], Some(&within)));
            built.value.extend(chains.into_iter().map(|chain| chain.guarded(input.guards)));
        }
    }
    if built.value.is_empty() {
        built.problems.push(unrouted(server, "tls"));
    }
    built
}

/// The TCP routes of the first VirtualService that has one for this server.
fn tcp_server_chains(input: &GatewayInput<'_>, server: &Server<'_>) -> Built<Vec<Chain>> {
    let mut built = Built::new(Vec::new());
    for object in (input.routes)(&server.gateway.reference) {
        if exposed(input, server, &object).is_empty() {
            continue;
        }
        let gateway = gateway_name(server);
        let mut chains = built.absorb(tcp_chains(&l4(input, server, &gateway, &object), &[])).chains;
        if !chains.is_empty() {
            for chain in &mut chains {
                chain.origins.push(server.gateway.reference.clone());
            }
            built.value = chains.into_iter().map(|chain| chain.guarded(input.guards)).collect();
            return built;
        }
    }
    built.problems.push(unrouted(server, "tcp"));
    built
}

fn unrouted(server: &Server<'_>, routes: &str) -> Problem {
    Problem::warning(
        &server.gateway.reference,
        server.field("port"),
        format!("no VirtualService has a {routes} route for this server"),
    )
    .consequence("the server is not opened")
    .hint(format!("Bind a VirtualService with `{routes}` routes to the Gateway, with a host of the server."))
    .at(server.gateway.meta.location.clone())
}

fn exposed(input: &GatewayInput<'_>, server: &Server<'_>, object: &Arc<Object>) -> Vec<Hostname> {
    match &object.spec {
        Spec::VirtualService(routes) => server.exposed(object, routes, &input.settings.domain),
        _ => Vec::new(),
    }
}

fn gateway_name(server: &Server<'_>) -> String {
    format!("{}/{}", server.gateway.reference.namespace, server.gateway.reference.name)
}

fn l4<'i>(input: &'i GatewayInput<'_>, server: &Server<'_>, gateway: &'i str, object: &'i Object) -> L4Input<'i> {
    L4Input {
        audience: input.audience,
        gateway,
        port: server.spec.port.number,
        object,
        resolve: input.resolve,
        policies: input.policies,
        options: input.options,
        domain: &input.settings.domain,
    }
}
