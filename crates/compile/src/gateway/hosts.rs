//! Which virtual hosts a gateway's route configurations have.

use std::collections::BTreeMap;
use std::sync::Arc;

use world::{Hostname, Object, ObjectRef, Problem, Spec};

use super::GatewayInput;
use super::ports::{Server, Socket, exposed, ports, server_hosts};
use crate::{Built, names};

/// One route configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteTable {
    /// Its name: `http.<port>`, or `https.<port>.<port name>.<gateway>.<namespace>` after TLS.
    pub(crate) name: Arc<str>,
    /// The port that the servers declare (of several the oldest): the one that routes match and that virtual hosts
    /// are named after. The proxy may listen on another.
    pub(crate) port: u16,
    /// Its virtual hosts, in order of host; a table without any answers 404.
    pub(crate) hosts: Vec<ExposedHost>,
}

/// One virtual host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExposedHost {
    /// Its name, `<host>:<port>`.
    pub(crate) name: Arc<str>,
    /// Its domains. The port is not in them, because it is ignored when hosts are matched.
    pub(crate) domains: Vec<Arc<str>>,
    /// The VirtualServices whose routes it has, one after the other; empty for a host that only redirects to HTTPS.
    pub(crate) routes: Vec<ExposedRoutes>,
    /// Whether requests in the clear are redirected to HTTPS: the servers with this host ask for it.
    pub(crate) https_redirect: bool,
}

/// A VirtualService as one Gateway exposes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExposedRoutes {
    /// The VirtualService.
    pub(crate) object: Arc<Object>,
    /// The Gateway that `match.gateways` has to name.
    pub(crate) gateway: ObjectRef,
}

/// The route configurations of a gateway's HTTP servers, in order of name: each host that both a server and a
/// VirtualService with `http` routes that is bound to its Gateway name, as far as their patterns agree. A VirtualService of
/// which no host is on any server of a Gateway that it names is told so (Istio's IST0132).
///
/// A VirtualService comes once for each virtual host, unless it matches by Gateway and several Gateways expose it.
pub(crate) fn hosts(input: &GatewayInput<'_>) -> Built<Vec<RouteTable>> {
    let mut built = Built::new(());
    let ports = built.absorb(ports(input));
    let mut tables: BTreeMap<Arc<str>, Table> = BTreeMap::new();
    for gateway in input.gateways {
        let routes = (input.routes)(&gateway.reference);
        let of_gateway = ports.iter().flat_map(|(socket, servers)| servers.iter().map(|server| (*socket, server)));
        let mut servers: Vec<_> =
            of_gateway.filter(|(_, server)| server.gateway.reference == gateway.reference).collect();
        servers.sort_by_key(|(_, server)| server.index);
        for (socket, server) in servers.iter().filter(|(_, server)| server.speaks_http) {
            expose(input, *socket, server, &routes, &mut tables);
        }
        let lost = routes.iter().filter(|object| !is_exposed(input, gateway, object));
        built.problems.extend(lost.map(|object| not_exposed(gateway, object)));
        built.origins.extend(routes.iter().map(|object| object.reference.clone()));
    }
    built.map(|()| tables.into_iter().map(|(name, table)| table.finish(name)).collect())
}

/// A route table while it is filled.
#[derive(Debug)]
struct Table {
    port: u16,
    hosts: BTreeMap<Hostname, (Vec<ExposedRoutes>, bool)>,
}

impl Table {
    fn finish(self, name: Arc<str>) -> RouteTable {
        let port = self.port;
        let host = |(host, (routes, https_redirect)): (Hostname, (Vec<ExposedRoutes>, bool))| ExposedHost {
            name: names::virtual_host(&host, port),
            domains: vec![host.as_str().into()],
            routes,
            https_redirect,
        };
        RouteTable { name, port, hosts: self.hosts.into_iter().map(host).collect() }
    }
}

fn expose(
    input: &GatewayInput<'_>,
    socket: Socket,
    server: &Server<'_>,
    routes: &[Arc<Object>],
    tables: &mut BTreeMap<Arc<str>, Table>,
) {
    let new = || Table { port: server.spec.port.number, hosts: BTreeMap::new() };
    let table = tables.entry(server.route_name(socket)).or_insert_with(new);
    let redirect = server.termination.is_none() && server.spec.tls.as_ref().is_some_and(|tls| tls.https_redirect);
    if redirect {
        for host in &server.hosts {
            table.hosts.entry(host.host.clone()).or_default().1 = true;
        }
    }
    for object in routes {
        let Spec::VirtualService(spec) = &object.spec else { continue };
        if spec.http.is_empty() {
            continue;
        }
        for host in server.exposed(object, spec, &input.settings.domain) {
            let (routes, redirects) = table.hosts.entry(host).or_default();
            *redirects |= redirect;
            let by_gateway = spec.http.iter().flat_map(|route| &route.matches).any(|m| !m.gateways.is_empty());
            let known = |e: &ExposedRoutes| {
                e.object.reference == object.reference && (!by_gateway || e.gateway == server.gateway.reference)
            };
            if !routes.iter().any(known) {
                let gateway = server.gateway.reference.clone();
                routes.push(ExposedRoutes { object: object.clone(), gateway });
            }
        }
    }
}

/// Whether any server of the Gateway names a host of the VirtualService, also one that cannot be opened: that has been
/// said already.
fn is_exposed(input: &GatewayInput<'_>, gateway: &Object, object: &Object) -> bool {
    let (Spec::Gateway(servers), Spec::VirtualService(routes)) = (&gateway.spec, &object.spec) else { return true };
    let mut hosts = servers.servers.iter().map(|server| server_hosts(server, &gateway.reference));
    hosts.any(|hosts| !exposed(&hosts, object, routes, &input.settings.domain).is_empty())
}

fn not_exposed(gateway: &Object, object: &Object) -> Problem {
    Problem::error(
        &object.reference,
        "spec.hosts",
        format!("no server of {} is open to this object and has one of its hosts", gateway.reference),
    )
    .consequence(format!("{} does not serve its routes", gateway.reference))
    .hint("Add the host to a server of the Gateway (as `host`, or `namespace/host` for this namespace), or correct it.")
    .at(object.meta.location.clone())
}
