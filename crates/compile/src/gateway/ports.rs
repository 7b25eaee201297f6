//! Which servers there are, on which ports, and which of them clash.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use world::api::istio::{GatewayServer, VirtualService};
use world::{Hostname, Object, ObjectRef, Problem, Spec};

use super::tls::{Termination, termination};
use super::{GatewayInput, secrets};
use crate::listener::{is_whole, narrower};
use crate::{Built, Secrets, names, security};

/// An address and port that the proxy listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Socket {
    /// `bind` of the servers; `None` stands for all addresses.
    pub(super) bind: Option<IpAddr>,
    /// The port that is bound.
    pub(super) port: u16,
}

/// What servers of one socket have in common; others clash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// HTTP in the clear: told apart by host.
    Http,
    /// TLS, terminated or not: told apart by SNI.
    Tls,
    /// Bytes: there can be only one.
    Tcp,
}

/// One usable server of a Gateway.
#[derive(Clone, Debug)]
pub(super) struct Server<'a> {
    /// The Gateway.
    pub(super) gateway: &'a Arc<Object>,
    /// Index in `spec.servers`.
    pub(super) index: usize,
    /// The server.
    pub(super) spec: &'a GatewayServer,
    /// What it may share its socket with.
    pub(super) class: Class,
    /// Whether the proxy reads HTTP, after TLS if there is any.
    pub(super) speaks_http: bool,
    /// What is done with TLS; `None` for plaintext.
    pub(super) termination: Option<Termination>,
    /// Hosts, with the namespaces whose VirtualServices may route them.
    pub(super) hosts: Vec<ServerHost>,
}

/// One entry of `servers[].hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerHost {
    /// Namespace of VirtualServices; `None` for any.
    pub(super) namespace: Option<Arc<str>>,
    /// Name or pattern.
    pub(super) host: Hostname,
}

impl Server<'_> {
    /// `spec.servers[2].port`.
    pub(super) fn field(&self, part: &str) -> String {
        field(self.index, part)
    }

    /// The hosts of a VirtualService that this server exposes, in its order, each as far as the server's patterns go.
    pub(super) fn exposed(&self, object: &Object, routes: &VirtualService, domain: &str) -> Vec<Hostname> {
        exposed(&self.hosts, object, routes, domain)
    }

    /// The route configuration of an HTTP server on `socket`.
    pub(super) fn route_name(&self, socket: Socket) -> Arc<str> {
        let name = match self.termination {
            None => names::gateway_route(socket.port),
            Some(_) => names::gateway_tls_route(socket.port, &self.spec.port.name, &self.gateway.reference),
        };
        match socket.bind {
            None => name,
            Some(bind) => format!("{name}.{bind}").into(),
        }
    }
}

/// The hosts of a VirtualService that these hosts of a server expose.
pub(super) fn exposed(hosts: &[ServerHost], object: &Object, routes: &VirtualService, domain: &str) -> Vec<Hostname> {
    let namespace = &object.reference.namespace;
    let open = || hosts.iter().filter(|host| host.namespace.as_ref().is_none_or(|n| n == namespace));
    let mut exposed: Vec<Hostname> = Vec::new();
    for host in &routes.hosts {
        let host = Hostname::qualified(host, namespace, domain);
        for both in open().filter_map(|server| narrower(&server.host, &host)) {
            if !exposed.contains(&both) {
                exposed.push(both);
            }
        }
    }
    exposed
}

/// The servers of each socket, oldest first, all of one [`Class`].
pub(super) type Ports<'a> = BTreeMap<Socket, Vec<Server<'a>>>;

/// Sorts the servers of all Gateways by socket, and leaves out what cannot be served.
pub(super) fn ports<'a>(input: &GatewayInput<'a>) -> Built<Ports<'a>> {
    let mut built = Built::new(Ports::new());
    for gateway in input.gateways {
        let Spec::Gateway(spec) = &gateway.spec else { continue };
        built.origins.insert(gateway.reference.clone());
        for (index, server) in spec.servers.iter().enumerate() {
            let Some((server, bind)) = usable(input, gateway, index, server, &mut built.problems) else { continue };
            let port = bound_port(input, server.spec);
            add(&mut built, Socket { bind, port }, server);
        }
    }
    built
}

fn add<'a>(built: &mut Built<Ports<'a>>, socket: Socket, server: Server<'a>) {
    let others = built.value.entry(socket).or_default();
    let Some(first) = others.first() else { return others.push(server) };
    if first.class == server.class && server.class != Class::Tcp {
        return others.push(server);
    }
    let problem = Problem::error(
        &server.gateway.reference,
        server.field("port"),
        format!(
            "port {} is already taken by {} (spec.servers[{}], {})",
            server.spec.port.number, first.gateway.reference, first.index, first.spec.port.protocol
        ),
    )
    .consequence("the server is not opened")
    .hint("Servers share a port if all are HTTP, or all are HTTPS or TLS. Give this one another port.")
    .at(server.gateway.meta.location.clone());
    built.problems.push(problem);
}

/// The port of the proxy behind a port of its Service, as in Istio; the port itself when no Service maps it.
fn bound_port(input: &GatewayInput<'_>, server: &GatewayServer) -> u16 {
    let mapped = input.served.iter().find(|(_, port, target)| *port == server.port.number && *target != 0);
    mapped.map_or(server.port.number, |(_, _, target)| *target)
}

fn usable<'a>(
    input: &GatewayInput<'a>,
    gateway: &'a Arc<Object>,
    index: usize,
    spec: &'a GatewayServer,
    problems: &mut Vec<Problem>,
) -> Option<(Server<'a>, Option<IpAddr>)> {
    let mut refuse = |part: &str, message: String, hint: &str| {
        problems.push(
            Problem::error(&gateway.reference, field(index, part), message)
                .consequence("the server is not opened")
                .hint(hint)
                .at(gateway.meta.location.clone()),
        );
        None
    };
    if spec.port.number == 0 {
        return refuse("port.number", "a server needs a port between 1 and 65535".to_owned(), "Set port.number.");
    }
    let protocol = spec.port.protocol.to_ascii_uppercase();
    let (class, speaks_http) = match protocol.as_str() {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => (Class::Http, true),
        "HTTPS" => (Class::Tls, true),
        "TLS" => (Class::Tls, false),
        "TCP" | "MONGO" | "MYSQL" | "REDIS" => (Class::Tcp, false),
        _ => {
            let message = format!("unknown protocol \"{}\"", spec.port.protocol);
            return refuse("port.protocol", message, "Known: HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, TLS, TCP, MONGO.");
        }
    };
    if spec.hosts.is_empty() {
        return refuse("hosts", "a server needs at least one host".to_owned(), "Use \"*\" for all hosts.");
    }
    let hosts = server_hosts(spec, &gateway.reference);
    if let Some(at) = hosts.iter().position(|host| host.host.as_str().is_empty() || !is_whole(&host.host)) {
        let message = format!("\"{}\" is not a host: a wildcard is `*`, or `*.` and a domain", spec.hosts[at]);
        return refuse("hosts", message, "Write `host` or `namespace/host`.");
    }
    let bind = match spec.bind.as_deref().filter(|bind| !bind.is_empty()) {
        None => None,
        Some(bind) => match bind.parse::<IpAddr>() {
            Ok(address) => (!address.is_unspecified()).then_some(address),
            Err(_) => {
                let message = format!("\"{bind}\" is not an IP address, and nothing else is supported yet");
                return refuse("bind", message, "Leave `bind` out to listen on all addresses.");
            }
        },
    };
    let termination = if class == Class::Tls {
        match termination(spec.tls.as_ref(), input.audience.secrets, input.settings) {
            Ok((termination, warnings)) => {
                problems.extend(warnings.into_iter().map(|(part, message)| {
                    Problem::warning(&gateway.reference, field(index, part), message)
                        .consequence("it is left out")
                        .at(gateway.meta.location.clone())
                }));
                if let (Termination::Ended(ended), Some(tls)) = (&termination, &spec.tls)
                    && ended.asks_for_secrets()
                {
                    match input.audience.secrets {
                        Secrets::None => problems.push(unproved(gateway, index)),
                        Secrets::Stream | Secrets::Agent | Secrets::Provider => {
                            problems.extend(secrets::problems(input, gateway, index, tls, ended));
                        }
                    }
                }
                Some(termination)
            }
            Err((part, message, hint)) => return refuse(part, message, hint),
        }
    } else {
        None
    };
    // TLS that passes through is not read, whatever is inside.
    let speaks_http = speaks_http && !matches!(termination, Some(Termination::Passthrough));
    Some((Server { gateway, index, spec, class, speaks_http, termination, hosts }, bind))
}

/// The server waits for what does not come.
fn unproved(gateway: &Object, index: usize) -> Problem {
    let message =
        "the server has its certificates from secrets, and a gateway gets none because it has not proved who it is";
    Problem::error(&gateway.reference, field(index, "tls"), message)
        .consequence("at that gateway the server opens after 15 seconds without them, and refuses every handshake")
        .hint(security::PROVE)
        .at(gateway.meta.location.clone())
}

pub(super) fn field(index: usize, part: &str) -> String {
    format!("spec.servers[{index}].{part}")
}

/// The hosts of a server as they are written.
pub(super) fn server_hosts(spec: &GatewayServer, gateway: &ObjectRef) -> Vec<ServerHost> {
    spec.hosts.iter().map(|host| server_host(host, gateway)).collect()
}

fn server_host(text: &str, gateway: &ObjectRef) -> ServerHost {
    match text.split_once('/') {
        None | Some(("*", _)) => {
            let host = text.strip_prefix("*/").unwrap_or(text);
            ServerHost { namespace: None, host: Hostname::new(host) }
        }
        Some((".", host)) => ServerHost { namespace: Some(gateway.namespace.clone()), host: Hostname::new(host) },
        Some((namespace, host)) => ServerHost { namespace: Some(namespace.into()), host: Hostname::new(host) },
    }
}
