//! Listeners and routes of a host for gRPC clients, which ask for them by the name of their target.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use proto::ResourceType;
use world::{Hostname, Protocol};

use super::hosts;
use crate::layers::encode;
use crate::layers::output::Output;
use crate::layers::resolver::Resolver;
use crate::{listener, names, route};

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

/// Whether `name` means this host and no other: an address may be shared, and a short name may be the whole name of
/// another service.
fn is_its_own(resolver: &Resolver<'_, '_>, host: &Hostname, name: &str) -> bool {
    let name_as_host = Hostname::new(name);
    name.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
        && (name_as_host == *host || resolver.own_service(&name_as_host).is_none())
}
