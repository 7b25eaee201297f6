//! What the client refuses of one type: it is held back, alone, until it changes.
//!
//! ```text
//!  response refused ──▶ suspect ──▶ tried, accepted ─────────────▶ free
//!                          │  ▲ in ever smaller groups
//!                          │  └───────────── tried, refused
//!                          ├──▶ nothing else can be at fault ────▶ culprit ──▶ free when its content changes
//!                          └──▶ the search was given up ─────────▶ untried ──▶ free when its content changes; suspect
//!                                                                               again when what it must go with changes
//! ```
//!
//! Whatever is held back has its last accepted form in the client, or is not there if it never had one. A resource
//! made of parts is not held back as a whole: what goes out instead is the resource with the refused parts in their
//! last accepted form, or without them. Other resources, and other parts, go on as if nothing had happened.

mod search;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use proto::ResourceType;
use snapshot::{Cell, Name, Origin, Parts, Snapshot};

use self::search::{Findings, Search};
pub(crate) use self::unit::{Content, Hold, Unit};
use super::view::Held;
use crate::{HeldBack, Outcome, Verdict};

/// What is held back of one type, and the search for what is at fault.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    held: BTreeMap<Unit, Hold>,
    search: Search,
    /// Whether the next response is a trial if there is anything to try; else what is owed goes first.
    trial_first: bool,
    /// The snapshot against which everything here was last compared; `None` when all has to be, because the client has
    /// use for others than before.
    judged: Option<Snapshot>,
    /// Resources of which something has been held back, or let go of, since.
    stirred: BTreeSet<Name>,
}

/// What the next response is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// To bring what changed, without what is held back.
    Ordinary,
    /// To try one group of suspects, and nothing else.
    Trial,
}

/// What a resource is to be at the client.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// As it is published.
    Published(Arc<Cell>),
    /// With parts in an older form, or without them.
    Reduced(Arc<Cell>),
    /// As the client has it.
    HeldBack,
}

impl Isolation {
    /// Nothing is held back and nothing is open.
    pub(crate) fn is_over(&self) -> bool {
        self.held.is_empty() && self.search.trial().is_none()
    }

    /// Whether nothing here changes before the client answers, or what is published does.
    pub(crate) fn rests(&self) -> bool {
        self.judged.is_some()
            && self.stirred.is_empty()
            && self.search.candidate().is_none()
            && self.search.trial().is_none()
    }

    /// The client has use for others than before.
    pub(crate) fn review(&mut self) {
        self.judged = None;
    }

    /// The turns to try, in order.
    pub(crate) fn turns(&self) -> &'static [Turn] {
        match (self.search.candidate(), self.trial_first) {
            (None, _) => &[Turn::Ordinary],
            (Some(_), true) => &[Turn::Trial, Turn::Ordinary],
            (Some(_), false) => &[Turn::Ordinary, Turn::Trial],
        }
    }

    /// Whether a trial is about this resource.
    pub(crate) fn tries(&self, name: &str) -> bool {
        self.search.candidate().is_some_and(|units| {
            let first = Unit { name: name.into(), part: None };
            units.range(first..).next().is_some_and(|unit| *unit.name == *name)
        })
    }

    /// The resources that a trial is about, those with several parts several times.
    pub(crate) fn tried(&self) -> impl Iterator<Item = &Name> {
        self.search.candidate().into_iter().flatten().map(|unit| &unit.name)
    }

    /// What a published resource is to be at a client that holds `held`.
    pub(crate) fn wanted(&self, turn: Turn, published: &Arc<Cell>, held: &Held) -> Wanted {
        match turn {
            Turn::Ordinary => self.reduced(published, held),
            Turn::Trial => self.with_tried_parts(published, held),
        }
    }

    fn reduced(&self, published: &Arc<Cell>, held: &Held) -> Wanted {
        let mut parts: Option<Parts> = None;
        for (unit, hold) in unit::of(&self.held, published.name()) {
            match (&hold.content, &unit.part) {
                (Content::Part { refused, good }, Some(part)) => {
                    let current = published.parts().and_then(|parts| parts.get(part));
                    if current.is_none_or(|current| current.version() != refused.version()) {
                        continue;
                    }
                    let parts = parts.get_or_insert_with(|| published.parts().cloned().unwrap_or_default());
                    match good {
                        Some(good) => parts.set(part.clone(), good.clone()),
                        None => parts.remove(part),
                    }
                }
                (Content::Cell(_) | Content::Part { .. }, _) if hold.version() == published.version() => {
                    return Wanted::HeldBack;
                }
                (Content::Cell(_) | Content::Part { .. }, _) => {}
            }
        }
        // Nothing of it could be sent, and the client has none of it: a resource without any part would only make it
        // answer that there is nothing.
        match parts {
            None => Wanted::Published(published.clone()),
            Some(parts) if parts.is_empty() && held.cell().is_none() => Wanted::HeldBack,
            Some(parts) => published
                .with_parts(parts)
                .map_or_else(|| Wanted::Published(published.clone()), |cell| Wanted::Reduced(Arc::new(cell))),
        }
    }

    /// What the client holds, and nothing new but what is tried.
    fn with_tried_parts(&self, published: &Arc<Cell>, held: &Held) -> Wanted {
        let tried = self.search.candidate().into_iter().flatten().filter(|unit| unit.name == *published.name());
        let Some(now) = published.parts() else { return Wanted::Published(published.clone()) };
        let mut parts = held.cell().and_then(|cell| cell.parts().cloned()).unwrap_or_default();
        for part in tried {
            let Some(name) = &part.part else { return Wanted::Published(published.clone()) };
            if let Some(part) = now.get(name) {
                parts.set(name.clone(), part.clone());
            }
        }
        match published.with_parts(parts) {
            Some(cell) if cell.version() != published.version() => Wanted::Reduced(Arc::new(cell)),
            _ => Wanted::Published(published.clone()),
        }
    }

    /// Whether this very version is held back because it is at fault, or may be and will not be tried again.
    pub(crate) fn has_refused(&self, cell: &Cell) -> bool {
        self.whole(cell.name()).is_some_and(|hold| hold.verdict != Verdict::Suspect && hold.version() == cell.version())
    }

    /// Whether the client is to keep an older form of this resource, or of parts of it, for as long as it takes.
    pub(crate) fn keeps(&self, name: &Name) -> bool {
        unit::of(&self.held, name).any(|(_, hold)| hold.verdict != Verdict::Suspect)
    }

    /// The hold of a resource as a whole.
    pub(crate) fn whole(&self, name: &Name) -> Option<&Hold> {
        self.held.get(&Unit { name: name.clone(), part: None })
    }

    /// Whether something was taken for refused after response number `number` had been sent.
    pub(crate) fn is_newer_than(&self, number: u64) -> bool {
        self.held.values().any(|hold| hold.after >= number)
    }

    /// All that is held back, by name and part.
    pub(crate) fn iter(&self, resource_type: ResourceType) -> impl Iterator<Item = HeldBack> + '_ {
        self.held.iter().map(move |(unit, hold)| describe(resource_type, unit, hold))
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Notes which units of a refused response were new to the client. `named` are those that its words seem to mean;
    /// without `words` something else may have been at fault.
    pub(crate) fn refuse(
        &mut self,
        resource_type: ResourceType,
        nonce: &str,
        suspects: Vec<(Unit, Hold)>,
        named: &BTreeSet<Unit>,
        words: Option<Arc<str>>,
    ) -> Vec<Outcome> {
        let units = self.hold(suspects);
        let findings = self.search.refuse(nonce, units, named, words);
        self.conclude(resource_type, findings)
    }

    /// Notes that one of these units, or several, are at fault for certain.
    pub(crate) fn blame(
        &mut self,
        resource_type: ResourceType,
        suspects: Vec<(Unit, Hold)>,
        message: &Arc<str>,
    ) -> Vec<Outcome> {
        let units = self.hold(suspects);
        let findings = self.search.refuse("", units, &BTreeSet::new(), Some(message.clone()));
        self.conclude(resource_type, findings)
    }

    /// Holds suspects back without a search.
    pub(crate) fn hold_untried(&mut self, resource_type: ResourceType, suspects: Vec<(Unit, Hold)>) -> Vec<Outcome> {
        let untried = self.hold(suspects).into_iter().collect();
        self.conclude(resource_type, Findings { untried, ..Findings::default() })
    }

    fn hold(&mut self, suspects: Vec<(Unit, Hold)>) -> BTreeSet<Unit> {
        self.trial_first = true;
        let units = suspects.iter().map(|(unit, _)| unit.clone()).collect();
        self.stirred.extend(suspects.iter().map(|(unit, _)| unit.name.clone()));
        self.held.extend(suspects);
        units
    }

    /// Notes that a response with these resources goes out.
    pub(crate) fn depart(&mut self, turn: Turn, nonce: &str, cells: &[Arc<Cell>]) {
        self.trial_first = turn == Turn::Ordinary;
        if turn == Turn::Ordinary {
            return;
        }
        let is_sent = |unit: &&Unit| cells.iter().any(|cell| *cell.name() == unit.name);
        let sent: BTreeSet<_> = self.search.candidate().into_iter().flatten().filter(is_sent).cloned().collect();
        for unit in &sent {
            self.held.remove(unit);
        }
        self.search.depart(nonce, &sent);
    }

    /// What was to be tried cannot be sent by itself: a virtual host may have to wait for another that has its domain.
    pub(crate) fn skip_trial(&mut self, resource_type: ResourceType) -> Vec<Outcome> {
        let untried = self.search.skip().into_iter().collect();
        self.conclude(resource_type, Findings { untried, ..Findings::default() })
    }

    /// Notes that the client accepted the response `nonce`.
    pub(crate) fn accept(&mut self, resource_type: ResourceType, nonce: &str) -> Vec<Outcome> {
        let findings = self.search.accept(nonce);
        // What could not be tried without others may be possible now that those are something else at the client.
        let freed = self.search.unstick();
        self.suspect(freed);
        self.conclude(resource_type, findings)
    }

    /// Notes that the client accepted some of what is held back after all, as a whole. Returns those resources.
    pub(crate) fn accept_where(
        &mut self,
        resource_type: ResourceType,
        is_accepted: impl Fn(&Hold, &Cell) -> bool,
    ) -> (Vec<Arc<Cell>>, Vec<Outcome>) {
        let (mut cells, mut gone) = (Vec::new(), BTreeSet::new());
        for (unit, hold) in &self.held {
            if let Content::Cell(cell) = &hold.content
                && is_accepted(hold, cell)
            {
                cells.push(cell.clone());
                gone.insert(unit.clone());
            }
        }
        let outcomes = self.release(resource_type, &gone);
        (cells, outcomes)
    }

    /// The response that is a trial at the moment.
    pub(crate) fn trial(&self) -> Option<&str> {
        self.search.trial()
    }

    /// The answer to the trial will not come, or not in time.
    pub(crate) fn lose_trial(&mut self) {
        self.search.lose_trial();
    }

    /// Lets go of what has changed or is gone, and of what the client has no use for any more.
    pub(crate) fn judge(
        &mut self,
        resource_type: ResourceType,
        target: &Snapshot,
        is_owed: impl Fn(&str) -> bool,
    ) -> Vec<Outcome> {
        let is_current = |unit: &Unit, hold: &Hold| {
            let published = target.get(resource_type, &unit.name);
            let version = match &unit.part {
                None => published.map(|cell| cell.version()),
                Some(part) => published.and_then(|cell| cell.parts()?.get(part)).map(|part| part.version()),
            };
            version == Some(hold.version()) && is_owed(&unit.name)
        };
        let is_gone = |(unit, hold): &(&Unit, &Hold)| !is_current(unit, hold);
        let gone: BTreeSet<_> = match self.judged.replace(target.clone()) {
            Some(before) => {
                let changes = target.changes(&before, resource_type);
                let changed = changes.changed.iter().map(|cell| cell.name()).chain(&changes.removed);
                let units = changed.chain(&self.stirred).flat_map(|name| unit::of(&self.held, name));
                units.filter(is_gone).map(|(unit, _)| unit.clone()).collect()
            }
            None => self.held.iter().filter(is_gone).map(|(unit, _)| unit.clone()).collect(),
        };
        self.release(resource_type, &gone)
    }

    /// Takes the resources of which something has been held back, or let go of, since this was asked last.
    pub(crate) fn take_stirred(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.stirred)
    }

    fn release(&mut self, resource_type: ResourceType, gone: &BTreeSet<Unit>) -> Vec<Outcome> {
        if gone.is_empty() {
            return Vec::new();
        }
        let freed = self.search.forget(gone);
        self.suspect(freed);
        let released = gone.iter().filter_map(|unit| {
            let hold = self.held.remove(unit)?;
            self.stirred.insert(unit.name.clone());
            (hold.verdict == Verdict::Culprit).then(|| Outcome::Cleared(describe(resource_type, unit, &hold)))
        });
        released.collect()
    }

    fn suspect(&mut self, units: BTreeSet<Unit>) {
        for unit in units {
            if let Some(hold) = self.held.get_mut(&unit) {
                hold.verdict = Verdict::Suspect;
                self.stirred.insert(unit.name);
            }
        }
    }

    fn conclude(&mut self, resource_type: ResourceType, findings: Findings) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for (unit, message) in findings.culprits {
            if let Some(hold) = self.held.get_mut(&unit) {
                (hold.verdict, hold.message) = (Verdict::Culprit, message);
                outcomes.push(Outcome::Isolated(describe(resource_type, &unit, hold)));
            }
        }
        if !findings.untried.is_empty() {
            outcomes.push(Outcome::SearchGivenUp { resource_type, untried: findings.untried.len() });
        }
        for unit in findings.untried {
            if let Some(hold) = self.held.get_mut(&unit) {
                hold.verdict = Verdict::Untried;
            }
        }
        outcomes
    }
}

fn describe(resource_type: ResourceType, unit: &Unit, hold: &Hold) -> HeldBack {
    let origins: Arc<[Origin]> = match &hold.content {
        Content::Cell(cell) => cell.origins().cloned().collect(),
        Content::Part { refused, .. } => refused.origins().into(),
    };
    HeldBack {
        resource_type,
        name: unit.name.clone(),
        part: unit.part.clone(),
        version: hold.version(),
        message: hold.message.clone(),
        since: hold.since,
        verdict: hold.verdict,
        origins,
    }
}

/// The units of a resource that are new to a client that had it as `before`, as suspects.
pub(crate) fn suspects(
    refused: &Arc<Cell>,
    before: Option<&Arc<Cell>>,
    message: &Arc<str>,
    since: Instant,
    after: u64,
) -> Vec<(Unit, Hold)> {
    let hold = |content| Hold { content, message: message.clone(), since, after, verdict: Verdict::Suspect };
    let name = refused.name();
    let old = before.and_then(|before| before.parts());
    if let Some(parts) = refused.parts() {
        let nothing = Parts::default();
        let changed = parts.changed_since(old.unwrap_or(&nothing)).into_iter().filter_map(|part| {
            let refused = parts.get(&part)?.clone();
            let good = old.and_then(|old| old.get(&part)).cloned();
            Some((Unit { name: name.clone(), part: Some(part) }, hold(Content::Part { refused, good })))
        });
        let changed: Vec<_> = changed.collect();
        if !changed.is_empty() {
            return changed;
        }
    }
    vec![(Unit { name: name.clone(), part: None }, hold(Content::Cell(refused.clone())))]
}
