//! How one type stands on a stream, in a form that is cheap to take and can be compared with that of other streams.
//!
//! A stream that is in step says no more than which snapshot it was sent. What it holds by name, and how that differs
//! from what it is to have, is worked out by whoever asks, once for all streams that stand alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Cell, Layer, Name, Snapshot};

use crate::stream::{Contents, Interest};
use crate::{HeldBack, Holding, HoldingState};

/// What a client was sent of one type, and how it took it.
#[derive(Clone, Debug)]
pub struct Standing {
    pub(crate) resource_type: ResourceType,
    pub(crate) interest: Interest,
    /// Under every subscribed name without an exception the client holds what this has; `None` before the first response.
    pub(crate) base: Option<Snapshot>,
    /// What it holds instead.
    pub(crate) exceptions: BTreeMap<Name, Option<Arc<Cell>>>,
    /// What was sent and not answered, oldest first.
    pub(crate) flights: Vec<Contents>,
    /// What is held back as a whole. It was sent last, so it is among the exceptions.
    pub(crate) refused: BTreeMap<Name, HeldBack>,
    /// Resources of which parts are held back.
    pub(crate) reduced: BTreeMap<Name, Reduced>,
    /// What the client may go on with until it accepts what is in `flights` or held back; the newest last.
    pub(crate) replaced: Vec<Arc<Cell>>,
}

/// A resource of which parts are held back.
#[derive(Clone, Debug)]
pub(crate) struct Reduced {
    /// The published form that the client holds but for these parts; `None` if it lacks more.
    pub(crate) of: Option<Arc<Cell>>,
    pub(crate) refused: Vec<HeldBack>,
}

/// Equal for streams that hold the same part of a layer in the same state. Only of use while the snapshots that it
/// was made from are alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signature {
    resource_type: ResourceType,
    target: usize,
    base: Vec<usize>,
    /// `None` for all.
    interest: Option<[(usize, u64); 2]>,
    parents: Option<Arc<BTreeSet<Name>>>,
    wholes: Vec<usize>,
    departures: Vec<(Name, usize, Option<HoldingState>, usize)>,
}

/// One resource as it is to be and as a client holds it.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    /// What the client is to have under the name; `None` for what it should no longer have.
    pub wanted: Option<&'a Arc<Cell>>,
    /// What it was sent last under the name.
    pub held: Option<&'a Arc<Cell>>,
    /// How it took that; meaningless when it holds nothing.
    pub state: HoldingState,
    /// What it accepted last under the name, as far as that is known: what it goes on with until it accepts what it
    /// holds, or that it is taken away.
    pub accepted: Option<&'a Arc<Cell>>,
    /// Parts that it refused: what it holds has them in the form that it accepted last, or not at all.
    pub refused_parts: &'a [HeldBack],
    /// What it holds is what it is to have but for `refused_parts`.
    pub is_reduced: bool,
}

impl Standing {
    /// The type.
    pub fn resource_type(&self) -> ResourceType {
        self.resource_type
    }

    /// What the client was sent and still subscribes to: first what it has in common with others, in the order of the
    /// snapshot, then the exceptions in order of name.
    pub fn holdings(&self) -> Vec<Holding> {
        let from_base: Box<dyn Iterator<Item = &Arc<Cell>>> = match &self.base {
            None => Box::new(std::iter::empty()),
            Some(base) => self.interest.of_snapshot(self.resource_type, base),
        };
        from_base
            .filter(|cell| !self.exceptions.contains_key(cell.name()))
            .chain(self.exceptions.values().flatten())
            .map(|cell| self.holding(cell))
            .collect()
    }

    fn holding(&self, cell: &Arc<Cell>) -> Holding {
        let reduced = self.reduced.get(cell.name());
        let of = reduced.and_then(|reduced| reduced.of.as_ref());
        Holding {
            cell: cell.clone(),
            state: self.state(cell),
            in_force: self.accepted(cell.name()).cloned(),
            stands_for: of.unwrap_or(cell).version(),
            refused_parts: reduced.map(|reduced| reduced.refused.clone()).unwrap_or_default(),
        }
    }

    /// Whether the client was sent, of this type, all that `target` has for it, and nothing else.
    pub fn is_up_to_date(&self, target: &Snapshot) -> bool {
        let Some(base) = &self.base else { return self.interest.is_empty() };
        if !self.exceptions.is_empty() {
            return false;
        }
        if self.interest.wildcard || base.version(self.resource_type) == target.version(self.resource_type) {
            return base.version(self.resource_type) == target.version(self.resource_type);
        }
        let wanted = |of| self.interest.of_snapshot(self.resource_type, of);
        wanted(base).eq(wanted(target))
    }

    /// What tells whether another stream has exactly the same of the layer at `position` of `target`.
    pub fn signature(&self, target: &Snapshot, position: usize) -> Signature {
        let layer = &target.layers()[position];
        let resource_type = self.resource_type;
        let pointer = |cell: Option<&Arc<Cell>>| cell.map_or(0, |cell| Arc::as_ptr(cell) as usize);
        let departures = self.departures().filter(|name| self.belongs(target, position, name)).map(|name| {
            let held = self.held(name);
            let state = held.map(|cell| self.state(cell));
            (name.clone(), pointer(held), state, pointer(self.accepted(name)))
        });
        let whole = |contents: &Contents| match contents {
            Contents::Whole(snapshot) => identities(snapshot, target, position, resource_type),
            Contents::Cells(_) => Vec::new(),
        };
        Signature {
            resource_type,
            target: layer.identity(resource_type),
            base: self.base.iter().flat_map(|base| identities(base, target, position, resource_type)).collect(),
            interest: self.interest.fingerprint(),
            parents: self.interest.parents.clone(),
            wholes: self.flights.iter().flat_map(whole).collect(),
            departures: departures.collect(),
        }
    }

    /// Every subscribed resource of the layer at `position` of `target`, and what the client still holds of those that
    /// the layer no longer has. What belongs to no layer counts to the first.
    pub fn compare<'a>(&'a self, target: &'a Snapshot, position: usize) -> Vec<Comparison<'a>> {
        let (layer, resource_type) = (&target.layers()[position], self.resource_type);
        let wanted = self.interest.of_layer(resource_type, layer);
        let mut all: Vec<_> = wanted.map(|cell| self.comparison(cell.name(), Some(cell))).collect();
        let is_left = |name: &Name| self.covers(name) && target.get(resource_type, name).is_none();
        let gone = self.base.iter().flat_map(|base| gone(base, target, position, resource_type));
        let gone = gone.map(|cell| cell.name()).filter(|name| !self.exceptions.contains_key(*name));
        let exceptional = self.exceptions.keys().filter(|name| self.belongs(target, position, name));
        let taken_away = self.replaced.iter().map(|cell| cell.name());
        let own = exceptional.chain(taken_away.filter(|name| self.belongs(target, position, name)));
        let left: BTreeSet<&Name> = gone.chain(own).filter(|name| is_left(name)).collect();
        let left = left.into_iter().map(|name| self.comparison(name, None));
        all.extend(left.filter(|left| left.held.is_some() || left.accepted.is_some()));
        all
    }

    fn comparison<'a>(&'a self, name: &str, wanted: Option<&'a Arc<Cell>>) -> Comparison<'a> {
        let held = self.held(name);
        let state = held.map_or(HoldingState::Sent, |cell| self.state(cell));
        let reduced = self.reduced.get(name);
        let of = reduced.and_then(|reduced| reduced.of.as_ref());
        Comparison {
            wanted,
            held,
            state,
            accepted: self.accepted(name),
            refused_parts: reduced.map_or(&[], |reduced| &reduced.refused),
            is_reduced: of.zip(wanted).is_some_and(|(of, wanted)| of.says_the_same(wanted)),
        }
    }

    fn covers(&self, name: &str) -> bool {
        self.interest.covers(name)
    }

    /// The names of which it may not be true that the client holds and has accepted what the base has, unless those are
    /// all.
    fn departures(&self) -> impl Iterator<Item = &Name> {
        let cells = self.flights.iter().filter_map(|contents| match contents {
            Contents::Whole(_) => None,
            Contents::Cells(cells) => Some(cells.iter().map(|cell| cell.name())),
        });
        let replaced = self.replaced.iter().map(|cell| cell.name());
        let all: BTreeSet<&Name> = self.exceptions.keys().chain(cells.flatten()).chain(replaced).collect();
        all.into_iter()
    }

    /// Whether a name is looked at together with this layer.
    fn belongs(&self, target: &Snapshot, position: usize, name: &str) -> bool {
        let has = |snapshot: &Snapshot| {
            snapshot.layers().iter().position(|layer| layer.get(self.resource_type, name).is_some())
        };
        let home = has(target).or_else(|| self.base.as_ref().and_then(has));
        home.filter(|home| *home < target.layers().len()).unwrap_or(0) == position
    }

    fn held(&self, name: &str) -> Option<&Arc<Cell>> {
        match self.exceptions.get(name) {
            Some(held) => held.as_ref(),
            None if self.covers(name) => self.base.as_ref()?.get(self.resource_type, name),
            None => None,
        }
    }

    fn accepted(&self, name: &str) -> Option<&Arc<Cell>> {
        match self.held(name) {
            Some(held) if self.state(held) == HoldingState::Accepted => Some(held),
            _ => self.replaced.iter().rev().find(|cell| &**cell.name() == name),
        }
    }

    /// How the client took a resource: what is in the air is not answered, whatever was said of it before.
    fn state(&self, cell: &Cell) -> HoldingState {
        if self.flights.iter().any(|contents| contents.contains(cell)) {
            return HoldingState::Sent;
        }
        match self.refused.get(cell.name()) {
            Some(HeldBack { message, since, verdict, version, .. }) if *version == cell.version() => {
                HoldingState::Rejected { message: message.clone(), since: *since, verdict: *verdict }
            }
            Some(_) | None => HoldingState::Accepted,
        }
    }
}

/// Names the part of `snapshot` that is compared with the layer at `position` of `target`: the layer there, or all when
/// the stacks are of different heights.
fn identities(snapshot: &Snapshot, target: &Snapshot, position: usize, resource_type: ResourceType) -> Vec<usize> {
    counterparts(snapshot, target, position).iter().map(|layer| layer.identity(resource_type)).collect()
}

fn counterparts<'a>(snapshot: &'a Snapshot, target: &Snapshot, position: usize) -> &'a [Arc<Layer>] {
    if snapshot.layers().len() == target.layers().len() {
        &snapshot.layers()[position..=position]
    } else {
        snapshot.layers()
    }
}

/// What `base` had in the place of the layer at `position` of `target`, and the layer has not. For stacks of different
/// heights everything is looked at with the first layer.
fn gone<'a>(
    base: &'a Snapshot,
    target: &'a Snapshot,
    position: usize,
    resource_type: ResourceType,
) -> Box<dyn Iterator<Item = &'a Arc<Cell>> + 'a> {
    let layer = &target.layers()[position];
    match counterparts(base, target, position) {
        [old] => Box::new(layer.gone(old, resource_type)),
        _ if position > 0 => Box::new(std::iter::empty()),
        all => Box::new(all.iter().flat_map(move |old| old.iter(resource_type))),
    }
}
