//! What a part of a layer, held in some way, means for the objects that it came from.

use std::collections::HashMap;
use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Cell, Name, Origin, Snapshot, Version};
use xds::{Comparison, HeldBack, HoldingState, Standing, Verdict as Fault};

use crate::view::ResourceState;

/// Things that are not accepted that are remembered for each object of a unit.
const OPEN: usize = 8;

/// How those who hold something in one way stand to one object: the worst of what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: ResourceState,
    /// The oldest generation of the object among what is held and accepted; 0 when something is held of none.
    pub(super) generation: i64,
    /// What is not accepted, at most [`OPEN`].
    pub(super) open: Vec<Open>,
}

/// A resource, or a part of one, that is not accepted in its newest form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) resource_type: ResourceType,
    pub(super) name: Name,
    pub(super) version: Version,
    pub(super) why: Why,
}

/// Why it is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It was not sent in its newest form.
    NotSent,
    /// It was sent and not answered.
    Unanswered,
    /// It is to be given up, and was not yet.
    Leaving,
    /// The client refused it in these words.
    Rejected(Arc<str>),
}

impl Verdict {
    /// Joins what another resource of the same object has met with.
    pub(super) fn worsen(&mut self, other: &Verdict) {
        self.state = self.state.max(other.state);
        self.generation = self.generation.min(other.generation);
        let room = OPEN.saturating_sub(self.open.len());
        self.open.extend(other.open.iter().take(room).cloned());
    }
}

/// Verdicts by the object's path, for the layer at `position` of `target` as far as the standing goes; on the one
/// object only, if one is given.
pub(super) fn join(
    standing: &Standing,
    target: &Snapshot,
    position: usize,
    only: Option<&[String]>,
) -> HashMap<Arc<str>, Verdict> {
    let mut verdicts = Verdicts { only, by_object: HashMap::new() };
    for comparison in standing.compare(target, position) {
        verdicts.take(&comparison);
    }
    verdicts.by_object
}

struct Verdicts<'a> {
    only: Option<&'a [String]>,
    by_object: HashMap<Arc<str>, Verdict>,
}

/// What a resource as a whole has met with, for those of its parts and origins for which that is true.
struct Reception<'a> {
    cell: &'a Cell,
    state: ResourceState,
    why: Option<Why>,
}

impl Verdicts<'_> {
    fn take(&mut self, comparison: &Comparison<'_>) {
        let Comparison { wanted, held, state, accepted, refused_parts, is_reduced } = comparison;
        let Some(wanted) = *wanted else {
            if let Some(old) = held.or(*accepted) {
                let left = Reception { cell: old, state: ResourceState::Pending, why: Some(Why::Leaving) };
                old.origins().for_each(|origin| self.note(origin, origin.generation, &left));
            }
            return;
        };
        let is_newest = *is_reduced || held.is_some_and(|held| held.says_the_same(wanted));
        let (worst, why) = match state {
            _ if !is_newest => (ResourceState::Pending, Some(Why::NotSent)),
            HoldingState::Accepted => (ResourceState::Accepted, None),
            HoldingState::Sent => (ResourceState::Pending, Some(Why::Unanswered)),
            HoldingState::Rejected { message, verdict, .. } => judge(*verdict, message),
        };
        let reception = Reception { cell: wanted, state: worst, why };
        let is_accepted = reception.state == ResourceState::Accepted;
        let before = accepted.map_or(&[][..], |cell| cell.own_origins());
        for origin in wanted.own_origins() {
            let generation = if is_accepted { origin.generation } else { generation_of(origin, before) };
            self.note(origin, generation, &reception);
        }
        if !is_accepted {
            self.note_left(wanted.own_origins(), before, wanted);
        }
        self.take_parts(wanted, *accepted, refused_parts, &reception);
    }

    /// A part that the client has in its newest form is accepted, and one that it refuses is refused, whatever became of
    /// the others.
    fn take_parts(
        &mut self,
        wanted: &Arc<Cell>,
        accepted: Option<&Arc<Cell>>,
        refused: &[HeldBack],
        reception: &Reception<'_>,
    ) {
        let Some(parts) = wanted.parts() else { return };
        let before = accepted.and_then(|cell| cell.parts());
        let taken = Reception { cell: wanted, state: ResourceState::Accepted, why: None };
        for (name, part) in parts.iter() {
            let old = before.and_then(|before| before.get(name));
            let old_origins = old.map_or(&[][..], |old| old.origins());
            let refusal = refused.iter().find(|refused| refused.part.as_ref() == Some(name));
            let refused = refusal.map(|refusal| {
                let (state, why) = judge(refusal.verdict, &refusal.message);
                Reception { cell: wanted, state, why }
            });
            let is_held = refused.is_none()
                && (reception.state == ResourceState::Accepted
                    || old.is_some_and(|old| old.version() == part.version()));
            for origin in part.origins() {
                if is_held {
                    self.note(origin, origin.generation, &taken);
                } else {
                    self.note(origin, generation_of(origin, old_origins), refused.as_ref().unwrap_or(reception));
                }
            }
            if !is_held {
                self.note_left(part.origins(), old_origins, wanted);
            }
        }
        if reception.state != ResourceState::Accepted {
            let gone =
                before.into_iter().flat_map(|before| before.iter()).filter(|(name, _)| parts.get(name).is_none());
            for (_, part) in gone {
                self.note_left(&[], part.origins(), wanted);
            }
        }
    }

    /// Objects that something came from before and no longer comes from.
    fn note_left(&mut self, now: &[Origin], before: &[Origin], cell: &Cell) {
        let left = Reception { cell, state: ResourceState::Pending, why: Some(Why::Leaving) };
        for origin in before.iter().filter(|old| !now.iter().any(|new| new.object == old.object)) {
            self.note(origin, origin.generation, &left);
        }
    }

    fn note(&mut self, origin: &Origin, generation: i64, reception: &Reception<'_>) {
        if self.only.is_some_and(|only| !only.iter().any(|path| **path == *origin.object)) {
            return;
        }
        let Reception { cell, state, why } = reception;
        let open = why.iter().map(|why| Open {
            resource_type: cell.resource_type(),
            name: cell.name().clone(),
            version: cell.version(),
            why: why.clone(),
        });
        match self.by_object.get_mut(&origin.object) {
            Some(known) => {
                known.state = known.state.max(*state);
                known.generation = known.generation.min(generation);
                if known.open.len() < OPEN {
                    known.open.extend(open.filter(|open| !known.open.contains(open)).collect::<Vec<_>>());
                }
            }
            None => {
                let verdict = Verdict { state: *state, generation, open: open.collect() };
                self.by_object.insert(origin.object.clone(), verdict);
            }
        }
    }
}

/// What a refusal means for the objects behind it: nothing yet while they are some of several suspects.
fn judge(verdict: Fault, message: &Arc<str>) -> (ResourceState, Option<Why>) {
    match verdict {
        Fault::Suspect => (ResourceState::Pending, Some(Why::Unanswered)),
        Fault::Untried | Fault::Culprit => (ResourceState::Rejected, Some(Why::Rejected(message.clone()))),
    }
}

/// The generation of the same object among these.
fn generation_of(origin: &Origin, among: &[Origin]) -> i64 {
    among.iter().find(|other| other.object == origin.object).map_or(0, |other| other.generation)
}
