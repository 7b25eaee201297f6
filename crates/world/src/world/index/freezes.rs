//! What a freeze names has to be there, or nothing is frozen by it.

use super::Objects;
use crate::{Kind, Object, ObjectRef, Problem, Settings, Spec};

/// Says of each name that is no service's.
pub(super) fn unknown_services(object: &Object, objects: &Objects, settings: &Settings, problems: &mut Vec<Problem>) {
    let Spec::Freeze(freeze) = &object.spec else { return };
    let namespace = &*object.reference.namespace;
    // One of the root namespace means services of every namespace.
    if namespace == &*settings.root_namespace {
        return;
    }
    for (at, name) in freeze.services.iter().enumerate() {
        let is_there = |kind| objects.contains_key(&ObjectRef::new(kind, namespace, name));
        if !is_there(Kind::Service) && !is_there(Kind::ServiceEntry) {
            let message = format!("there is no service \"{name}\" in namespace \"{namespace}\"");
            let problem = Problem::warning(&object.reference, format!("spec.services[{at}]"), message);
            let problem = problem.consequence("nothing is frozen by this entry");
            problems.push(problem.at(object.meta.location.clone()));
        }
    }
}
