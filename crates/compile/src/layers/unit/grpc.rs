//! What gRPC has without a proxy: listeners and routes of a host for clients, which ask for them by the name of their
//! target, and listeners for servers, which ask for them by the address that they listen on.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use proto::ResourceType;
use world::{Hostname, PolicyKind, Protocol};

use super::hosts;
use crate::layers::encode;
use crate::layers::output::Output;
use crate::layers::resolver::Resolver;
use crate::listener::{self, GrpcServerInput, Served};
use crate::security::Peer;
use crate::{Audience, names, route};

/// For each port a route configuration named like the service's cluster, as Istio does, and a listener for each name
/// by which a client in this namespace may call the service, with the port.
pub(in crate::layers) fn of_service(resolver: &Resolver<'_, '_>, host: &Hostname) -> Output {
    let mut output = Output::default();
    let Some(service) = resolver.own_service(host) else { return output };
    let settings = resolver.reader.settings();
    for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp && !port.protocol.is_tls()) {
        let domains = route::domains_for(service, port.number, resolver.audience, settings);
        let suffix = format!(":{}", port.number);
        let names = domains.iter().filter_map(|domain| domain.strip_suffix(&suffix));
        let targets: BTreeSet<Arc<str>> = names
            .filter(|name| is_its_own(resolver, host, name))
            .map(|name| format!("{name}{suffix}").into())
            .collect();
        if targets.is_empty() {
            continue;
        }
        let built = hosts::virtual_host(resolver, host, Some(service), port.number, domains);
        let name = names::outbound_cluster(port.number, "", &service.host);
        let configuration = encode::route_configuration(&name, resolver.audience, &built.value);
        let clusters = hosts::clusters(&built.clusters);
        output.add_encoded(ResourceType::Route, name.clone(), &configuration, clusters, &built.origins);
        output.problems.extend(built.problems);
        let origins = BTreeSet::from([service.origin.clone()]);
        for target in targets {
            let listener = listener::api_listener(&target, &name);
            output.add(ResourceType::Listener, target, &listener, [(ResourceType::Route, name.clone())], &origins);
        }
    }
    output
}

/// Listeners for the ports that services lead to, and for those that are held.
pub(in crate::layers) fn servers(resolver: &Resolver<'_, '_>, held: &[Served]) -> Output {
    let mut output = Output::default();
    let Audience { namespace, labels, addresses, .. } = resolver.audience;
    let built = listener::served(&resolver.reader.served_by(namespace, labels, addresses));
    output.problems.extend(built.problems);
    output.served = built.value;
    let served = listener::with_held(&output.served, held);
    if served.is_empty() {
        return output;
    }
    let policies = resolver.reader.policies(PolicyKind::PeerAuthentication, namespace, labels);
    let peer = Peer::of(&policies);
    let guards = super::guards::guards_of_grpc(resolver);
    output.problems.extend(guards.problems.iter().cloned());
    let trust_domains = super::guards::trust_domains(resolver);
    for served in &served {
        let input = GrpcServerInput {
            audience: resolver.audience,
            served,
            peer: &peer,
            guards: &guards,
            trust_domains: &trust_domains,
        };
        let listeners = listener::grpc_server(&input);
        output.problems.extend(listeners.problems);
        for listener in &listeners.value {
            output.add(ResourceType::Listener, listener.name.as_str().into(), listener, [], &listeners.origins);
        }
    }
    output
}

/// Whether `name` means this host and no other: an address may be shared, and a short name may be the whole name of
/// another service.
fn is_its_own(resolver: &Resolver<'_, '_>, host: &Hostname, name: &str) -> bool {
    let name_as_host = Hostname::new(name);
    name.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
        && (name_as_host == *host || resolver.own_service(&name_as_host).is_none())
}
