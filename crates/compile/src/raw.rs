//! How resources that were written down meet those that were compiled.
//!
//! Layers are shared by many stacks, so whether a raw resource has the name of a compiled one is found for each stack:
//! the compiled one counts, and the raw layer without the others takes the raw layer's place.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Cell, Layer, Name, Snapshot};
use world::{Kind, ObjectRef, Problem};

/// The raw layer as one stack has it. A copy is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawLayer {
    whole: Option<Arc<Layer>>,
    /// Resources that have the names of compiled ones.
    shadowed: Vec<Arc<Cell>>,
    /// The layer without them; the same as `whole` if there are none.
    layer: Option<Arc<Layer>>,
}

impl RawLayer {
    /// The snapshot of a stack whose last layer is the raw one. Equal input gives the very same layers again.
    pub(crate) fn stack(&mut self, mut layers: Vec<Arc<Layer>>) -> Snapshot {
        let Some(whole) = layers.pop() else { return Snapshot::default() };
        let is_compiled = |cell: &&Arc<Cell>| layers.iter().any(|l| l.get(cell.resource_type(), cell.name()).is_some());
        let shadowed: Vec<_> =
            if whole.is_empty() { Vec::new() } else { all(&whole).filter(is_compiled).cloned().collect() };
        let is_known = self.whole.as_ref().is_some_and(|known| Arc::ptr_eq(known, &whole)) && self.shadowed == shadowed;
        let layer = match &self.layer {
            Some(layer) if is_known => layer.clone(),
            Some(_) | None if shadowed.is_empty() => whole.clone(),
            Some(_) | None => {
                let mut edit = whole.edit();
                shadowed.iter().for_each(|cell| edit.remove(cell.resource_type(), cell.name()));
                edit.finish()
            }
        };
        *self = Self { whole: Some(whole), shadowed, layer: Some(layer.clone()) };
        layers.push(layer);
        Snapshot::new(layers)
    }

    /// Resources that are not sent, and references that lead nowhere in `snapshot`, which this stack has.
    pub(crate) fn problems(&self, snapshot: &Snapshot) -> Vec<Problem> {
        let mut problems: Vec<_> = self.shadowed.iter().filter_map(|cell| shadow_problem(cell)).collect();
        for cell in self.layer.iter().flat_map(|layer| all(layer)) {
            let missing: BTreeSet<_> =
                cell.references().filter(|(to, name)| snapshot.get(*to, name).is_none()).cloned().collect();
            problems.extend(missing.iter().filter_map(|to| dangling_problem(cell, to)));
        }
        problems
    }
}

fn all(layer: &Layer) -> impl Iterator<Item = &Arc<Cell>> {
    ResourceType::ALL.into_iter().flat_map(|resource_type| layer.iter(resource_type))
}

/// The object that a raw resource came from: it has one, and its path is `xdsresource/<namespace>/<name>`.
fn owner(cell: &Cell) -> Option<ObjectRef> {
    let (_, rest) = cell.origins().next()?.object.split_once('/')?;
    let (namespace, name) = rest.split_once('/')?;
    Some(ObjectRef::new(Kind::XdsResource, namespace, name))
}

fn said(resource_type: ResourceType, name: &Name) -> String {
    format!("{} \"{name}\"", resource_type.short().to_uppercase())
}

fn shadow_problem(cell: &Cell) -> Option<Problem> {
    let own = said(cell.resource_type(), cell.name());
    let message = format!("{own} has the name of a resource that is compiled from other objects");
    let problem = Problem::error(&owner(cell)?, "spec.resources", message);
    Some(problem.consequence("clients that get the compiled one do not get this one").hint("Give it another name."))
}

fn dangling_problem(cell: &Cell, (to, name): &(ResourceType, Name)) -> Option<Problem> {
    let message = format!("{} names {}, which is not served", said(cell.resource_type(), cell.name()), said(*to, name));
    let problem = Problem::warning(&owner(cell)?, "spec.resources", message);
    Some(
        problem
            .consequence("it is sent as it is")
            .hint("Nothing is wrong if the client has it from its own bootstrap."),
    )
}
