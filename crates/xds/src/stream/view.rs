//! What the client was sent, of one type: a snapshot, and the few resources for which it is not true.

mod exceptions;

use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Cell, Name, Snapshot, Version};

pub(crate) use self::exceptions::Exceptions;

/// What a client holds, as far as it was sent. For every subscribed name without an exception, that is what `base`
/// holds under it. So a stream that is in step with the mesh remembers one shared snapshot and no names.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// `None` before the first response.
    pub(crate) base: Option<Snapshot>,
    pub(crate) exceptions: Exceptions,
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
    /// It refused a response that was to bring this: it may hold it, or still what it had before. Or it refused one that
    /// was to take this away, which is then both.
    Doubtful {
        before: Option<Arc<Cell>>,
        refused: Arc<Cell>,
        /// How many responses of the type had been sent when it refused.
        after: u64,
    },
    /// It refused a response that brought `cell`, but only for others that it named, as far as its words could be read:
    /// so it will have taken this, unless there was more to name. Only another response can tell, and until then it
    /// must neither be left out nor replaced, or nobody could say what the client goes on with.
    Probable {
        before: Option<Arc<Cell>>,
        cell: Arc<Cell>,
        /// How many responses of the type had been sent when it refused.
        after: u64,
    },
}

impl Held {
    pub(crate) fn cell(&self) -> Option<&Arc<Cell>> {
        match self {
            Held::Cell(cell) | Held::Again(Some(cell)) | Held::Probable { cell, .. } => Some(cell),
            Held::Doubtful { before, .. } => before.as_ref(),
            Held::Nothing | Held::Foreign(_) | Held::Again(None) => None,
        }
    }

    /// A resource that the client may hold besides.
    pub(crate) fn doubtful(&self) -> Option<&Arc<Cell>> {
        match self {
            Held::Doubtful { refused, .. } => Some(refused),
            Held::Probable { before, .. } => before.as_ref(),
            Held::Nothing | Held::Cell(_) | Held::Foreign(_) | Held::Again(_) => None,
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
        if matches!(self.exceptions.get(&name), Some(Held::Probable { .. })) {
            return;
        }
        let held = self.cell(resource_type, &name).cloned();
        let is_doubtful = self.exceptions.get(&name).is_some_and(|held| held.doubtful().is_some());
        if held.is_some() || !is_doubtful {
            self.exceptions.insert(name, Held::Again(held));
        }
    }

    /// The client accepted the whole set in response number `number`: what it had refused before is not in it.
    pub(crate) fn settle(&mut self, number: u64) {
        for held in self.exceptions.values_mut() {
            match held {
                Held::Doubtful { before, after, .. } if *after < number => {
                    *held = before.take().map_or(Held::Nothing, Held::Cell);
                }
                Held::Probable { cell, after, .. } if *after < number => *held = Held::Cell(cell.clone()),
                Held::Nothing
                | Held::Cell(_)
                | Held::Foreign(_)
                | Held::Again(_)
                | Held::Doubtful { .. }
                | Held::Probable { .. } => {}
            }
        }
    }

    /// Whether nothing is owed: the client has what `target` holds.
    pub(crate) fn matches(&self, resource_type: ResourceType, target: &Snapshot) -> bool {
        self.exceptions.is_empty() && self.is_of_content(resource_type, target)
    }

    /// Whether nothing can be owed: there is nothing new, and of what the client does not have nothing is due.
    pub(crate) fn rests(&self, resource_type: ResourceType, target: &Snapshot) -> bool {
        self.exceptions.due().is_empty() && self.is_of_content(resource_type, target)
    }

    /// Whether the snapshot that was sent last has all that `target` has, whatever became of it.
    pub(crate) fn is_of_content(&self, resource_type: ResourceType, target: &Snapshot) -> bool {
        self.base.as_ref().is_some_and(|base| base.version(resource_type) == target.version(resource_type))
    }
}
