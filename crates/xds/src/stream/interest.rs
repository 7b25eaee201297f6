//! The names that a client wants to have, of one type.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::{ResourceType, xdstp};
use snapshot::{Cell, Layer, Name, Snapshot};

use super::name_set::NameSet;

/// Everything, or resources one by one and by collection. A copy is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interest {
    /// All resources.
    pub(crate) wildcard: bool,
    /// Resources one by one.
    pub(crate) names: NameSet,
    /// Collections of `xdstp` names: each is a wildcard of its own (rule P-72).
    pub(crate) collections: NameSet,
    /// Of virtual hosts under the wildcard only those of these route configurations; `None` for all.
    pub(crate) parents: Option<Arc<BTreeSet<Name>>>,
}

impl Interest {
    pub(crate) fn covers(&self, name: &str) -> bool {
        self.wildcard && self.has_use(name) || self.names.contains(name) || self.covers_by_collection(name)
    }

    fn has_use(&self, name: &str) -> bool {
        match (&self.parents, snapshot::parent(name)) {
            (None, _) | (Some(_), None) => true,
            (Some(parents), Some(parent)) => parents.contains(parent),
        }
    }

    fn covers_by_collection(&self, name: &str) -> bool {
        !self.collections.is_empty()
            && xdstp::collection_of(name).is_some_and(|collection| self.collections.contains(&*collection))
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.wildcard && self.len() == 0
    }

    /// Names and collections that were asked for one by one.
    pub(crate) fn len(&self) -> usize {
        self.names.len() + self.collections.len()
    }

    /// Bytes of those names.
    pub(crate) fn bytes(&self) -> usize {
        self.names.bytes() + self.collections.bytes()
    }

    /// The wanted resources of a snapshot.
    pub(crate) fn of_snapshot<'s>(
        &'s self,
        resource_type: ResourceType,
        snapshot: &'s Snapshot,
    ) -> Box<dyn Iterator<Item = &'s Arc<Cell>> + 's> {
        self.select(|| snapshot.iter(resource_type), move |name| snapshot.get(resource_type, name))
    }

    /// The wanted resources of a layer.
    pub(crate) fn of_layer<'s>(
        &'s self,
        resource_type: ResourceType,
        layer: &'s Layer,
    ) -> Box<dyn Iterator<Item = &'s Arc<Cell>> + 's> {
        self.select(|| layer.iter(resource_type), move |name| layer.get(resource_type, name))
    }

    fn select<'s, I: Iterator<Item = &'s Arc<Cell>> + 's>(
        &'s self,
        all: impl FnOnce() -> I,
        get: impl Fn(&str) -> Option<&'s Arc<Cell>> + 's,
    ) -> Box<dyn Iterator<Item = &'s Arc<Cell>> + 's> {
        if self.wildcard && self.parents.is_none() {
            Box::new(all())
        } else if !self.wildcard && self.collections.is_empty() {
            Box::new(self.names.iter().filter_map(move |name| get(name)))
        } else {
            Box::new(all().filter(|cell| self.covers(cell.name())))
        }
    }

    /// Equal for equal interests, and for no others but by an accident of hashing; `None` for all.
    pub(crate) fn fingerprint(&self) -> Option<[(usize, u64); 2]> {
        (!self.wildcard).then(|| [self.names.fingerprint(), self.collections.fingerprint()])
    }
}
