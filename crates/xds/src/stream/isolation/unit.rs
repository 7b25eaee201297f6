//! What can be refused and held back on its own.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use snapshot::{Cell, Name, Part, Version};

use crate::Verdict;

/// A resource, or one part of a resource that is made of parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unit {
    /// The resource.
    pub(crate) name: Name,
    /// The part; `None` for all of the resource.
    pub(crate) part: Option<Name>,
}

/// Content that is not sent, or not again.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Of a resource.
    Cell(Arc<Cell>),
    /// Of a part, with the form in which the client has it, if it has it.
    Part { refused: Part, good: Option<Part> },
}

/// A unit that is held back.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) content: Content,
    /// The client's words.
    pub(crate) message: Arc<str>,
    /// When they came.
    pub(crate) since: Instant,
    /// How many responses of the type had been sent then.
    pub(crate) after: u64,
    pub(crate) verdict: Verdict,
}

impl Hold {
    pub(crate) fn version(&self) -> Version {
        match &self.content {
            Content::Cell(cell) => cell.version(),
            Content::Part { refused, .. } => refused.version(),
        }
    }
}

/// The units of one resource among others, in order of part.
pub(crate) fn of<'a, T>(units: &'a BTreeMap<Unit, T>, name: &Name) -> impl Iterator<Item = (&'a Unit, &'a T)> {
    let first = Unit { name: name.clone(), part: None };
    let name = name.clone();
    units.range((Bound::Included(first), Bound::Unbounded)).take_while(move |(unit, _)| unit.name == name)
}
