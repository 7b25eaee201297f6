//! Responses that were handed out and not answered yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use proto::ResourceType;
use snapshot::{Cell, Name, Snapshot, Version};

use super::view::Held;

/// A response that was not acknowledged yet.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) nonce: String,
    /// Which response of its type it is, from 1 on.
    pub(crate) number: u64,
    pub(crate) version: Version,
    pub(crate) sent_at: Instant,
    /// New and changed resources in it.
    pub(crate) contents: Contents,
    /// Those of them that the client did not have before.
    pub(crate) fresh: Fresh,
    /// What the client may hold until it accepts this: the resources that it replaces or takes away.
    pub(crate) replaced: Vec<Arc<Cell>>,
    /// What it may hold besides, because it refused it.
    pub(crate) doubtful: Vec<Arc<Cell>>,
    /// Names that it takes away, by naming them or by being the whole set without them, and what the client held.
    pub(crate) removed: Vec<(Name, Held)>,
    /// Its acknowledgement did not come in time.
    pub(crate) overdue: bool,
    /// It is the whole set of its type, so that its acceptance accepts everything.
    pub(crate) full_state: bool,
    /// The first response of its type on this stream.
    pub(crate) first: bool,
}

/// The resources that changed with a response. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) enum Contents {
    /// All of a snapshot.
    Whole(Snapshot),
    /// These, in order of name.
    Cells(Arc<[Arc<Cell>]>),
}

/// Names that a client did not have before.
#[derive(Debug)]
pub(crate) enum Fresh {
    /// All names of the response.
    All,
    /// These.
    Names(BTreeSet<Name>),
}

impl Contents {
    /// Whether this very version of a resource is in it.
    pub(crate) fn contains(&self, cell: &Cell) -> bool {
        let found = match self {
            Contents::Whole(snapshot) => snapshot.get(cell.resource_type(), cell.name()),
            Contents::Cells(cells) => {
                cells.binary_search_by(|other| other.name().cmp(cell.name())).ok().map(|at| &cells[at])
            }
        };
        found.is_some_and(|found| found.version() == cell.version())
    }

    /// The resource of this name, if it is one of those that are told one by one.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Cell>> {
        match self {
            Contents::Whole(_) => None,
            Contents::Cells(cells) => {
                cells.binary_search_by(|cell| (**cell.name()).cmp(name)).ok().map(|at| &cells[at])
            }
        }
    }

    /// Its resources.
    pub(crate) fn iter(&self, resource_type: ResourceType) -> Box<dyn Iterator<Item = &Arc<Cell>> + '_> {
        match self {
            Contents::Whole(snapshot) => Box::new(snapshot.iter(resource_type)),
            Contents::Cells(cells) => Box::new(cells.iter()),
        }
    }

    pub(crate) fn len(&self, resource_type: ResourceType) -> usize {
        match self {
            Contents::Whole(snapshot) => snapshot.len(resource_type),
            Contents::Cells(cells) => cells.len(),
        }
    }
}

impl Flight {
    /// Whether it holds this version of a resource, and the client had nothing under its name before.
    pub(crate) fn introduces(&self, cell: &Cell) -> bool {
        let fresh = match &self.fresh {
            Fresh::All => true,
            Fresh::Names(names) => names.contains(cell.name()),
        };
        fresh && self.contents.contains(cell)
    }
}
