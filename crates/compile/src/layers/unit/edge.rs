//! Listeners and route configurations of a gateway.

use std::sync::Arc;

use proto::ResourceType;
use world::api::istio::Destination;
use world::{Hostname, Object, ObjectRef};

use super::hosts;
use crate::gateway::{self, ExposedHost, GatewayInput, RouteTable};
use crate::layers::output::{HostPart, Output, Rank};
use crate::layers::resolver::Resolver;
use crate::layers::rollout::Via;
use crate::route::{self, EncodedHost, VirtualHostInput};
use crate::{Audience, Built, Target};

/// What the Gateways that select the proxy make it serve.
pub(in crate::layers) fn edge(resolver: &Resolver<'_, '_>) -> Output {
    let mut output = Output::default();
    let Audience { namespace, labels, addresses, .. } = resolver.audience;
    let gateways = resolver.reader.gateways(labels);
    let served = resolver.reader.served_by(namespace, labels, addresses);
    let bound = |gateway: &ObjectRef| -> Vec<Arc<Object>> {
        resolver.reader.gateway_routes(gateway).into_iter().cloned().collect()
    };
    let guards = super::guards::guards(resolver, &mut output);
    let input = GatewayInput {
        audience: resolver.audience,
        gateways: &gateways,
        served: &served,
        routes: &bound,
        resolve: &|namespace, destination, port| resolver.resolve(namespace, destination, port, &[], Via::Connections),
        policies: &|namespace, destination, port| resolver.policy(namespace, destination, port),
        options: resolver.options,
        settings: resolver.reader.settings(),
        secrets: &|name| resolver.reader.secret(namespace, &name.into()),
        reading: resolver.reading(),
        guards: &guards,
        access_log: None,
    };
    let tables = gateway::hosts(&input);
    output.problems.extend(tables.problems);
    let names: Vec<_> = tables.value.iter().map(|table| (ResourceType::Route, table.name.clone())).collect();
    for table in &tables.value {
        add_table(resolver, table, &mut output);
    }
    let listeners = gateway::listeners(&input);
    output.problems.extend(listeners.problems);
    for value in listeners.value {
        // What all listeners together refer to: each of them is there, and so all of it is.
        let (clusters, origins) = (listeners.clusters.clone(), listeners.origins.clone());
        output.add_listener(Built { value, problems: Vec::new(), clusters, origins }, names.iter().cloned());
    }
    output
}

fn add_table(resolver: &Resolver<'_, '_>, table: &RouteTable, output: &mut Output) {
    for host in &table.hosts {
        let built = virtual_host(resolver, table, host);
        output.problems.extend(built.problems.iter().cloned());
        let owner = host.routes.first().map(|routes| routes.object.reference.clone());
        output.hosts.push(part(table, host.domains.clone(), built, owner));
    }
    if table.hosts.is_empty() {
        let domains = vec!["*".into()];
        output.hosts.push(part(table, domains, Built::new(route::blackhole(table.port)), None));
    }
}

fn part(table: &RouteTable, domains: Vec<Arc<str>>, built: Built<EncodedHost>, owner: Option<ObjectRef>) -> HostPart {
    HostPart {
        table: table.name.clone(),
        name: built.value.name.as_str().into(),
        rank: Rank::Routes,
        domains,
        rest: built.value.rest.into_boxed_slice().into(),
        references: hosts::clusters(&built.clusters).collect(),
        origins: built.origins.iter().cloned().collect(),
        generations: Arc::default(),
        owner,
    }
}

fn virtual_host(resolver: &Resolver<'_, '_>, table: &RouteTable, host: &ExposedHost) -> Built<EncodedHost> {
    let objects: Vec<&Arc<Object>> = host.routes.iter().map(|routes| &routes.object).collect();
    let name = |gateway: &ObjectRef| format!("{}/{}", gateway.namespace, gateway.name);
    let gateways: Vec<String> = host.routes.iter().map(|routes| name(&routes.gateway)).collect();
    let wanted: Vec<(Hostname, String)> =
        objects.iter().flat_map(|object| hosts::subsets_wanted(resolver, object)).collect();
    route::virtual_host(&VirtualHostInput {
        audience: resolver.audience,
        gateways: &gateways.iter().map(String::as_str).collect::<Vec<_>>(),
        port: table.port,
        name: &host.name,
        domains: host.domains.iter().map(|domain| domain.to_string()).collect(),
        virtual_services: &objects,
        delegate: &|namespace, name| resolver.reader.virtual_service(namespace, name).cloned(),
        default: None,
        resolve: &|namespace: &str, destination: &Destination, port: u16| -> Target {
            resolver.resolve(namespace, destination, port, &wanted, Via::Gateways(&gateways))
        },
        options: resolver.options,
        service: None,
        https_redirect: host.https_redirect,
    })
}
