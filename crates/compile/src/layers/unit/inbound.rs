//! Everything towards a sidecar's own workload.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::ResourceType;
use world::Service;

use crate::layers::output::Output;
use crate::layers::resolver::Resolver;
use crate::listener::{self, InboundInput, Served};
use crate::security::Peer;
use crate::{Audience, cluster};

/// The ports that services lead to.
pub(in crate::layers) fn served(resolver: &Resolver<'_, '_>) -> Vec<Served> {
    let Audience { namespace, labels, addresses, .. } = resolver.audience;
    listener::served(&resolver.reader.served_by(namespace, labels, addresses)).value
}

/// Listeners and clusters for the ports that services lead to, and for those that are held.
pub(in crate::layers) fn inbound(resolver: &Resolver<'_, '_>, held: &[Served]) -> Output {
    let mut output = Output::default();
    let audience = resolver.audience;
    let by = resolver.reader.served_by(&audience.namespace, &audience.labels, &audience.addresses);
    let built = listener::served(&by);
    output.problems.extend(built.problems);
    output.served = built.value;
    let served = listener::with_held(&output.served, held);
    for port in &served {
        let mut services: Vec<&Arc<Service>> =
            by.iter().filter(|(_, _, t)| *t == port.target).map(|(s, _, _)| s).collect();
        if services.is_empty() {
            services.push(&port.service);
        }
        let cluster = cluster::inbound(&cluster::InboundInput {
            target_port: port.target,
            protocol: port.protocol,
            interception: audience.interception(),
            default_endpoint: None,
            services: &services.iter().map(|service| &***service).collect::<Vec<_>>(),
        });
        let origins: BTreeSet<_> = services.iter().map(|service| service.origin.clone()).collect();
        output.add(ResourceType::Cluster, cluster.name.as_str().into(), &cluster, [], &origins);
    }
    let policies = resolver.reader.peer_policies(&audience.namespace, &audience.labels);
    let peer = Peer::through(policies.iter().map(Peer::of).collect());
    output.problems.extend(super::reach::reach(resolver, &output.served, &peer));
    let settings = resolver.reader.settings();
    let guards = &super::guards::guards(resolver, &mut output);
    let reading = resolver.reading();
    let input = InboundInput { audience, served: &served, peer: &peer, settings, reading, guards, access_log: None };
    if let Some(listener) = listener::virtual_inbound(&input) {
        output.add_listener(listener, []);
    }
    if audience.interception() == crate::Interception::None {
        for listener in listener::bound_inbound(&input) {
            output.add_listener(listener, []);
        }
    }
    output
}
