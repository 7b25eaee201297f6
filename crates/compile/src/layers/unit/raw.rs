//! Resources that were written down as they are.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use proto::pb::envoy::config::route::v3::VirtualHost;
use proto::{RawResource, ResourceType};
use snapshot::{Cell, Name};
use world::{Object, ObjectRef, Problem, Spec};

use crate::layers::output::{Made, Output};
use crate::layers::resolver::Resolver;

/// The resources of all objects that select the client. Of two with one name the first counts: that of the root
/// namespace, then that of the older object.
pub(in crate::layers) fn raw(resolver: &Resolver<'_, '_>) -> Output {
    let mut output = Output::default();
    let mut owners: BTreeMap<(ResourceType, Name), &ObjectRef> = BTreeMap::new();
    for object in resolver.reader.xds_resources(&resolver.scope, &resolver.audience.labels) {
        let Spec::XdsResource(spec) = &object.spec else { continue };
        for (at, value) in spec.resources.iter().enumerate() {
            let field = format!("spec.resources[{at}]");
            let resource = match RawResource::from_json(value) {
                Ok(resource) => resource,
                Err(wrong) => {
                    output.problems.extend(wrong.into_iter().map(|wrong| {
                        let path = format!("{field}.{}", wrong.path);
                        let problem = Problem::error(&object.reference, path.trim_end_matches('.'), wrong.reason);
                        problem.consequence("the resource is not sent").hint(wrong.hint)
                    }));
                    continue;
                }
            };
            let name: Name = resource.name.as_str().into();
            match owners.get(&(resource.resource_type, name.clone())) {
                Some(owner) => output.problems.push(taken(object, &field, &resource, &format!("{owner}"))),
                None => {
                    owners.insert((resource.resource_type, name.clone()), &object.reference);
                    output.cells.push(made(object, name, &resource, resource.ttl.or(spec.ttl)));
                }
            }
        }
    }
    output
}

fn made(object: &Object, name: Name, resource: &RawResource, ttl: Option<Duration>) -> Made {
    let references = proto::references(resource.resource_type.type_url(), &resource.bytes);
    let cell = Cell::new(resource.resource_type, name, &resource.bytes)
        .referring_to(references.into_iter().map(|(to, name)| (to, name.into())));
    let cell = cell.also_known_as(aliases(resource));
    let cell = match ttl {
        Some(ttl) => cell.with_ttl(ttl),
        None => cell,
    };
    Made { cell, origins: [object.reference.clone()].into() }
}

/// What a virtual host is asked for by on demand: the domains that it serves.
fn aliases(resource: &RawResource) -> Vec<Name> {
    if resource.resource_type != ResourceType::VirtualHost {
        return Vec::new();
    }
    let host = VirtualHost::decode(&*resource.bytes).unwrap_or_default();
    host.domains.iter().map(|domain| domain.as_str().into()).collect()
}

fn taken(object: &Object, field: &str, resource: &RawResource, owner: &str) -> Problem {
    let kind = resource.resource_type.short().to_uppercase();
    Problem::error(&object.reference, field, format!("{kind} \"{}\" is already that of {owner}", resource.name))
        .consequence("this one is not sent")
        .hint("Give it another name, or remove one of the two.")
}
