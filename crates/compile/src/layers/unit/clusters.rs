//! Clusters and their endpoints.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::ResourceType;
use world::{Endpoint, Hostname, Protocol, Resolution, Service, ServicePort, Subset};

use crate::cluster::{self, ClusterInput, Discovery};
use crate::layers::output::Output;
use crate::layers::resolver::Resolver;
use crate::{Interception, Proxy, endpoints, listener, names};

/// The clusters and listeners that are always there.
pub(in crate::layers) fn statics(resolver: &Resolver<'_, '_>) -> Output {
    let mut output = Output::default();
    let audience = resolver.audience;
    let mut clusters = vec![cluster::black_hole()];
    match audience.proxy {
        Proxy::Sidecar { .. } if audience.interception() != Interception::None => {
            clusters.extend([cluster::passthrough(), cluster::inbound_passthrough()]);
        }
        Proxy::Sidecar { .. } => clusters.push(cluster::passthrough()),
        Proxy::Gateway => {}
        Proxy::Grpc => {
            let name: Arc<str> = names::BLACK_HOLE.into();
            let nothing = endpoints::assignment(&name, &[], &audience.proxy);
            let assignment = [(ResourceType::Endpoints, name.clone())];
            let (cluster, origins) = (cluster::black_hole_for_grpc(), BTreeSet::new());
            output.add(ResourceType::Cluster, name.clone(), &cluster, assignment, &origins);
            output.add_encoded(ResourceType::Endpoints, name, &nothing, None, &origins);
            return output;
        }
    }
    for cluster in clusters {
        output.add(ResourceType::Cluster, cluster.name.as_str().into(), &cluster, [], &BTreeSet::new());
    }
    if let Some(listener) = listener::virtual_outbound(audience, resolver.options) {
        output.add_listener(listener, []);
    }
    if let Proxy::Sidecar { http_proxy_port: Some(port), .. } = audience.proxy {
        output.add_listener(
            listener::http_proxy(port, resolver.audience.lacks, None),
            [(ResourceType::Route, names::HTTP_PROXY.into())],
        );
    }
    output
}

/// The clusters of a host: for each port one of the whole service and one of each subset.
pub(in crate::layers) fn clusters(resolver: &Resolver<'_, '_>, host: &Hostname) -> Output {
    let mut output = Output::default();
    each_cluster(resolver, host, |input| {
        let built = cluster::encoded(input);
        let by_eds = input.discovery() == Discovery::Eds;
        let assignment = by_eds.then(|| (ResourceType::Endpoints, input.name.clone()));
        output.problems.extend(built.problems);
        output.add_encoded(ResourceType::Cluster, input.name.clone(), &built.value, assignment, &built.origins);
    });
    output
}

/// The assignments of those clusters of a host that ask for one.
pub(in crate::layers) fn assignments(resolver: &Resolver<'_, '_>, host: &Hostname) -> Output {
    let mut output = Output::default();
    let proxy = &resolver.audience.proxy;
    let mut known: Option<(u16, Vec<Endpoint>)> = None;
    each_cluster(resolver, host, |input| {
        if input.discovery() != Discovery::Eds {
            return;
        }
        let port = input.port.number;
        if known.as_ref().is_none_or(|(of, _)| *of != port) {
            let found = resolver.reader.endpoints(input.service, port);
            output.problems.extend(endpoints::problems(&input.service.origin, &found, proxy));
            known = Some((port, found));
        }
        let all = known.as_ref().map(|(_, all)| all.as_slice()).unwrap_or_default();
        let bytes = match input.subset {
            Some(subset) => endpoints::assignment(input.name, endpoints::of_subset(all, &subset.labels), proxy),
            None => endpoints::assignment(input.name, all, proxy),
        };
        let mut origins = BTreeSet::from([input.service.origin.clone()]);
        origins.extend(resolver.reader.endpoint_objects(input.service));
        output.add_encoded(ResourceType::Endpoints, input.name.clone(), &bytes, None, &origins);
    });
    output
}

/// Calls `with` for every cluster of a host, ports outside, subsets inside, the whole service first.
fn each_cluster(resolver: &Resolver<'_, '_>, host: &Hostname, mut with: impl FnMut(&ClusterInput<'_>)) {
    let Some(service) = resolver.own_service(host) else { return };
    let rule = resolver.rule(service);
    let subsets = resolver.subsets(service, &rule);
    for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
        let inline = inline_endpoints(resolver, service, port);
        let variants = std::iter::once(None).chain(subsets.iter().map(Some));
        for subset in variants {
            let name = subset.map_or("", |subset: &Subset| &subset.name);
            let name: Arc<str> = names::outbound_cluster(port.number, name, &service.host);
            let audience = resolver.audience;
            with(&ClusterInput { audience, name: &name, service, port, subset, rule: &rule, endpoints: &inline });
        }
    }
}

/// Endpoints that are part of the cluster itself.
fn inline_endpoints(resolver: &Resolver<'_, '_>, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
    match service.resolution {
        Resolution::Dns | Resolution::DnsRoundRobin => resolver.reader.endpoints(service, port.number),
        Resolution::Static | Resolution::Passthrough => Vec::new(),
    }
}
