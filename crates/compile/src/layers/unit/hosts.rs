//! Virtual hosts of the mesh, and the listeners that lead to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::ResourceType;
use world::api::istio::{Destination, PortSelector};
use world::{EffectiveRule, Hostname, Object, ObjectRef, Protocol, Service, Spec};

use crate::layers::encode;
use crate::layers::output::{HostPart, Output, Rank};
use crate::layers::resolver::Resolver;
use crate::layers::rollout::Via;
use crate::listener::{ContributionInput, contributions};
use crate::route::{self, EncodedHost, VirtualHostInput};
use crate::{Audience, Built, Interception, Options, OutboundPolicy, Proxy, Target, names, policy};

/// The port whose route configuration also takes hosts that no service has.
const ROUTE_HOST_PORT: u16 = 80;

/// The virtual hosts of a service's HTTP ports. A port that declares nothing has a route configuration of its own
/// besides its place in the port's, because it depends on its neighbours which of the two its listener asks for.
pub(in crate::layers) fn of_service(resolver: &Resolver<'_, '_>, host: &Hostname) -> Output {
    let mut output = Output::default();
    let Some(service) = resolver.own_service(host) else { return output };
    let settings = resolver.reader.settings();
    for port in service.ports.iter().filter(|port| port.protocol.is_http() || port.protocol == Protocol::Auto) {
        let domains = route::domains_for(service, port.number, resolver.audience, settings);
        if domains.is_empty() {
            continue;
        }
        let built = virtual_host(resolver, host, Some(service), port.number, domains);
        if port.protocol == Protocol::Auto {
            own_configuration(resolver, service, port.number, &built, &mut output);
        }
        add(resolver.audience, built, port.number, Rank::Service, &service.origin, &mut output);
    }
    output
}

/// The virtual host of a host or pattern that a VirtualService names and no service has.
pub(in crate::layers) fn of_routes(resolver: &Resolver<'_, '_>, host: &Hostname) -> Output {
    let mut output = Output::default();
    if resolver.own_service(host).is_some() {
        return output;
    }
    let Some(object) = resolver.reader.mesh_routes(host, &resolver.scope) else { return output };
    if matches!(&object.spec, Spec::VirtualService(spec) if spec.http.is_empty()) {
        return output;
    }
    let built = virtual_host(resolver, host, None, ROUTE_HOST_PORT, vec![host.to_string()]);
    if built.value.has_routes {
        add(resolver.audience, built, ROUTE_HOST_PORT, Rank::Routes, &object.reference, &mut output);
    }
    output
}

/// What the ports of a service want of listeners.
pub(in crate::layers) fn chains(resolver: &Resolver<'_, '_>, host: &Hostname) -> Output {
    let mut output = Output::default();
    let Some(service) = resolver.own_service(host) else { return output };
    for port in &service.ports {
        // A plain HTTP port needs its listener, whatever is routed behind it: what is not read is not depended on.
        let http = port.protocol.is_http();
        let object = if http { None } else { resolver.reader.mesh_routes(host, &resolver.scope) };
        let rule = if http { EffectiveRule::default() } else { resolver.rule(service) };
        let endpoints = if ContributionInput::per_endpoint(resolver.audience, service, port) {
            resolver.reader.endpoints(service, port.number)
        } else {
            Vec::new()
        };
        let wanted = object.map(|object| subsets_wanted(resolver, object)).unwrap_or_default();
        let built = contributions(&ContributionInput {
            audience: resolver.audience,
            service,
            port,
            routes: object.map(|object| &**object),
            policy: &policy::effective(&rule, None, port.number),
            endpoints: &endpoints,
            resolve: &|namespace, destination, port| {
                resolver.resolve(namespace, destination, port, &wanted, Via::Connections)
            },
            policies: &|namespace, destination, port| resolver.policy(namespace, destination, port),
            logged: resolver.reader.is_logged(host, port.number),
            reading: resolver.reading(),
            options: resolver.options,
            domain: &resolver.reader.settings().domain,
        });
        output.problems.extend(built.problems);
        output.chains.extend(built.value);
    }
    output
}

/// What takes the requests of a sidecar's route configuration that no host takes; `None` for other clients, whose
/// requests then are answered 404.
///
/// Without interception there is no original destination to pass a request on to.
pub(in crate::layers) fn catch_all(table: &Arc<str>, audience: &Audience, options: &Options) -> Option<HostPart> {
    if !matches!(audience.proxy, Proxy::Sidecar { .. }) {
        return None;
    }
    let pass = options.outbound_policy == OutboundPolicy::AllowAny
        && audience.interception() != Interception::None
        && **table != *names::HTTP_PROXY;
    let host = if pass { route::allow_any() } else { route::block_all() };
    let cluster = pass.then(|| (ResourceType::Cluster, Arc::from(names::PASSTHROUGH)));
    Some(HostPart {
        table: table.clone(),
        name: host.name.as_str().into(),
        rank: Rank::CatchAll,
        domains: vec!["*".into()],
        rest: host.rest.into_boxed_slice().into(),
        references: cluster.into_iter().collect(),
        origins: Arc::default(),
        generations: Arc::default(),
        owner: None,
    })
}

/// The subsets of every host that an object's routes name, for suggestions that define all of them at once.
pub(in crate::layers) fn subsets_wanted(resolver: &Resolver<'_, '_>, object: &Object) -> Vec<(Hostname, String)> {
    let Spec::VirtualService(spec) = &object.spec else { return Vec::new() };
    let domain = &resolver.reader.settings().domain;
    let named = route::destinations(spec).filter(|(_, destination)| !destination.subset.is_empty());
    let qualified = |d: &Destination| Hostname::qualified(&d.host, &object.reference.namespace, domain);
    named.map(|(_, destination)| (qualified(destination), destination.subset.clone())).collect()
}

/// The virtual host of `host` on `port`, with the routes of the VirtualService that governs it.
pub(in crate::layers) fn virtual_host(
    resolver: &Resolver<'_, '_>,
    host: &Hostname,
    service: Option<&Service>,
    port: u16,
    domains: Vec<String>,
) -> Built<EncodedHost> {
    let object = resolver.reader.mesh_routes(host, &resolver.scope);
    let wanted = object.map(|object| subsets_wanted(resolver, object)).unwrap_or_default();
    let resolve = |namespace: &str, destination: &Destination, port: u16| -> Target {
        resolver.resolve(namespace, destination, port, &wanted, Via::Mesh)
    };
    let default = service.map(|service| {
        let port = Some(PortSelector { number: port });
        let whole = Destination { host: host.to_string(), subset: String::new(), port };
        resolve(&service.namespace, &whole, 0)
    });
    route::virtual_host(&VirtualHostInput {
        audience: resolver.audience,
        gateways: &["mesh"],
        port,
        name: &names::virtual_host(host, port),
        domains,
        virtual_services: object.as_slice(),
        delegate: &|namespace, name| resolver.reader.virtual_service(namespace, name).cloned(),
        default,
        resolve: &resolve,
        options: resolver.options,
        service,
        https_redirect: false,
    })
}

/// Puts a virtual host into the route configuration of its port, and of the explicit proxy where there is one.
fn add(audience: &Audience, built: Built<EncodedHost>, port: u16, rank: Rank, owner: &ObjectRef, output: &mut Output) {
    let name: Arc<str> = built.value.name.as_str().into();
    let domains: Vec<Arc<str>> = built.value.domains.iter().map(|domain| domain.as_str().into()).collect();
    let part = HostPart {
        table: port.to_string().into(),
        name,
        rank,
        domains,
        rest: built.value.rest.into_boxed_slice().into(),
        references: clusters(&built.clusters).collect(),
        origins: built.origins.iter().cloned().collect(),
        generations: Arc::default(),
        owner: Some(owner.clone()),
    };
    output.problems.extend(built.problems);
    if matches!(audience.proxy, Proxy::Sidecar { http_proxy_port: Some(_), .. }) {
        // A proxy's clients name the port with the host, unless it is 80.
        let with_port = part.domains.iter().map(|domain| Arc::from(format!("{domain}:{port}")));
        let plain = part.domains.iter().filter(|_| port == 80).cloned();
        let domains = with_port.chain(plain).collect();
        output.hosts.push(HostPart { table: names::HTTP_PROXY.into(), domains, ..part.clone() });
    }
    output.hosts.push(part);
}

/// `<host>:<port>`: the route configuration of a port that declares no protocol, for any host name.
fn own_configuration(
    resolver: &Resolver<'_, '_>,
    service: &Service,
    port: u16,
    built: &Built<EncodedHost>,
    output: &mut Output,
) {
    let name = names::virtual_host(&service.host, port);
    let host = EncodedHost { domains: vec!["*".to_owned()], ..built.value.clone() };
    let configuration = encode::route_configuration(&name, resolver.audience, &host);
    output.add_encoded(ResourceType::Route, name, &configuration, clusters(&built.clusters), &built.origins);
}

/// Clusters as references.
pub(in crate::layers) fn clusters(names: &BTreeSet<Arc<str>>) -> impl Iterator<Item = (ResourceType, Arc<str>)> + '_ {
    names.iter().map(|name| (ResourceType::Cluster, name.clone()))
}
