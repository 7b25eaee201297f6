//! What the client was sent, of one type: a snapshot, and the few resources for which it is not true.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Cell, Name, Snapshot, Version};

/// What a client holds, as far as it was sent. For every subscribed name without an exception, that is what `base`
/// holds under it. So a stream that is in step with the mesh remembers one shared snapshot and no names.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// `None` before the first response.
    pub(crate) base: Option<Snapshot>,
    pub(crate) exceptions: BTreeMap<Name, Held>,
}

/// What a client holds under one name.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// Nothing, and it knows.
    Nothing,
    /// This.
    Cell(Arc<Cell>),
    /// By its own account something from an earlier stream: of this version, if that is one of ours. Its content is not
    /// known here.
    Foreign(Option<Version>),
    /// It must be told, whatever the versions are. It may hold this.
    Again(Option<Arc<Cell>>),
}

impl Held {
    pub(crate) fn cell(&self) -> Option<&Arc<Cell>> {
        match self {
            Held::Cell(cell) | Held::Again(Some(cell)) => Some(cell),
            Held::Nothing | Held::Foreign(_) | Held::Again(None) => None,
        }
    }
}

impl View {
    /// What the client holds under a subscribed name.
    pub(crate) fn held(&self, resource_type: ResourceType, name: &str) -> Held {
        if let Some(held) = self.exceptions.get(name) {
            return held.clone();
        }
        match self.base.as_ref().and_then(|base| base.get(resource_type, name)) {
            Some(cell) => Held::Cell(cell.clone()),
            None => Held::Nothing,
        }
    }

    /// The resource that the client was last sent under a subscribed name.
    pub(crate) fn cell(&self, resource_type: ResourceType, name: &str) -> Option<&Arc<Cell>> {
        match self.exceptions.get(name) {
            Some(held) => held.cell(),
            None => self.base.as_ref()?.get(resource_type, name),
        }
    }

    /// Marks a name that was subscribed before as to be told again.
    pub(crate) fn again(&mut self, resource_type: ResourceType, name: Name) {
        let held = self.cell(resource_type, &name).cloned();
        self.exceptions.insert(name, Held::Again(held));
    }

    /// Whether nothing is owed: the client has what `target` holds.
    pub(crate) fn matches(&self, resource_type: ResourceType, target: &Snapshot) -> bool {
        self.exceptions.is_empty()
            && self.base.as_ref().is_some_and(|base| base.version(resource_type) == target.version(resource_type))
    }
}
