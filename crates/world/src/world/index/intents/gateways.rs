//! The Gateways that an intent is attached to: they have to be there, and to lead to the service.

use super::super::{Index, Objects};
use super::refused;
use crate::api::delivery::DeploymentIntent;
use crate::api::istio::VirtualService;
use crate::{Hostname, Kind, Object, ObjectRef, Problem, Settings, Spec};

impl Index {
    /// What is wrong with the names of Gateways, each with its place in the list.
    pub(super) fn attached_gateways(
        &self,
        object: &Object,
        intent: &DeploymentIntent,
        host: &Hostname,
        settings: &Settings,
        objects: &Objects,
        problems: &mut Vec<Problem>,
    ) {
        let own = &*object.reference.namespace;
        for (at, named) in intent.attach.gateways.iter().enumerate() {
            let field = format!("spec.attach.gateways[{at}]");
            let (namespace, name) = match named.split_once('/') {
                Some((".", name)) => (own, name),
                Some((namespace, name)) => (namespace, name),
                None => (own, &**named),
            };
            let gateway = ObjectRef::new(Kind::Gateway, namespace, name);
            if !self.gateways.contains(&gateway) {
                let message = format!("there is no Gateway \"{name}\" in namespace \"{namespace}\"");
                problems.push(refused(object, field, message).hint(self.known_gateways(named)));
                continue;
            }
            let key = (gateway.namespace.clone(), gateway.name.clone());
            let bound = self.gateway_routes.get(&key).into_iter().flatten();
            if !bound.into_iter().any(|routes| leads(&objects[routes], host, settings, objects)) {
                let message = format!("no VirtualService of Gateway {namespace}/{name} leads to {host}");
                let problem = Problem::warning(&object.reference, field, message);
                let problem = problem.consequence("nothing that comes through it is divided").hint(
                    "Bind a VirtualService with a route to the service to it (spec.gateways), or take it out here.",
                );
                problems.push(problem.at(object.meta.location.clone()));
            }
        }
    }

    fn known_gateways(&self, named: &str) -> String {
        if named == "mesh" {
            return "The mesh is meant by spec.attach.mesh.".to_owned();
        }
        let names: Vec<_> = self.gateways.iter().take(5).map(|g| format!("{}/{}", g.namespace, g.name)).collect();
        match names.is_empty() {
            true => "There is none; the gateways of an intent are named as NAME or NAMESPACE/NAME.".to_owned(),
            false => format!("There are: {}; one of another namespace is named as NAMESPACE/NAME.", names.join(", ")),
        }
    }
}

/// Whether any route of a VirtualService, or of one that it delegates to, leads to a host.
fn leads(routes: &Object, host: &Hostname, settings: &Settings, objects: &Objects) -> bool {
    let Spec::VirtualService(spec) = &routes.spec else { return false };
    let namespace = &*routes.reference.namespace;
    let delegates = spec.http.iter().filter_map(|route| route.delegate.as_ref()).filter_map(|delegate| {
        let of = if delegate.namespace.is_empty() { namespace } else { &delegate.namespace };
        objects.get(&ObjectRef::new(Kind::VirtualService, of, &delegate.name))
    });
    let of_delegate = |object: &std::sync::Arc<Object>| match &object.spec {
        Spec::VirtualService(spec) => has_route(spec, &object.reference.namespace, host, settings),
        _ => false,
    };
    has_route(spec, namespace, host, settings) || delegates.into_iter().any(of_delegate)
}

fn has_route(spec: &VirtualService, namespace: &str, host: &Hostname, settings: &Settings) -> bool {
    let http = spec.http.iter().flat_map(|route| &route.route).map(|to| &to.destination.host);
    let tls = spec.tls.iter().flat_map(|route| &route.route).map(|to| &to.destination.host);
    let tcp = spec.tcp.iter().flat_map(|route| &route.route).map(|to| &to.destination.host);
    http.chain(tls).chain(tcp).any(|named| Hostname::qualified(named, namespace, &settings.domain) == *host)
}
