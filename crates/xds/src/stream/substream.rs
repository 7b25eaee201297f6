//! One type on a stream: an independent exchange with its own subscription, versions and acknowledgements (rule P-03).

mod heartbeats;
mod rejection;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use proto::{ResourceType, xdstp};
use snapshot::{Cell, Name, Snapshot, Version};

use self::heartbeats::Heartbeats;
pub(crate) use self::rejection::Applied;
use super::flight::{Contents, Flight};
use super::hosts::Scope;
use super::interest::Interest;
use super::isolation::{Content, Hold, Isolation, Turn, Wanted};
use super::subscription::{Amendment, Subscription};
use super::view::{Held, View};
use crate::standing::Reduced;
use crate::{HeldBack, HoldingState, Outcome, Rejection, Settings, Standing, Summary, Verdict, Wait, Waiting};

/// Responses that are remembered while none of them is acknowledged. All but the last are overdue, so the oldest has
/// had several times as long as anything may wait for it.
const MOST_FLIGHTS: usize = 8;

/// The state of one type.
#[derive(Debug)]
pub(crate) struct Substream {
    resource_type: ResourceType,
    pub(crate) subscription: Subscription,
    pub(crate) view: View,
    /// Versions that the client says it holds from an earlier stream, until the first snapshot is there to compare.
    claims: BTreeMap<Name, Option<Version>>,
    /// The client has had nothing but what is known here, once: before that it may hold anything from an earlier stream.
    pub(crate) known: bool,
    /// Collections that were asked for since the last response: all of each is sent.
    collections_asked: Vec<Name>,
    /// The wildcard, or a collection, must be answered, with nothing if need be (rule P-42).
    pub(crate) must_answer: bool,
    /// Oldest first; all but the last are overdue.
    pub(crate) flights: Vec<Flight>,
    /// The client asks in state-of-the-world with the version of an earlier stream, so it may hold anything.
    pub(crate) returning: bool,
    /// What the client refuses; `None` if it is nothing.
    pub(crate) isolation: Option<Box<Isolation>>,
    /// Listeners whose replacement was accepted, and when: they serve until the replacement has its routes.
    pub(crate) lingering: Vec<(Arc<Cell>, Instant)>,
    pub(crate) waits: BTreeMap<Name, (Instant, Wait)>,
    pub(crate) responses: u64,
    heartbeats: Option<Box<Heartbeats>>,
    sent: Option<Version>,
    accepted: Option<Version>,
    last_rejection: Option<Rejection>,
}

impl Substream {
    pub(crate) fn new(resource_type: ResourceType) -> Self {
        Self {
            resource_type,
            subscription: Subscription::default(),
            view: View::default(),
            claims: BTreeMap::new(),
            known: false,
            collections_asked: Vec::new(),
            must_answer: false,
            flights: Vec::new(),
            returning: false,
            isolation: None,
            lingering: Vec::new(),
            waits: BTreeMap::new(),
            responses: 0,
            heartbeats: None,
            sent: None,
            accepted: None,
            last_rejection: None,
        }
    }

    pub(crate) fn resource_type(&self) -> ResourceType {
        self.resource_type
    }

    /// Sends a subscribed name again, whatever its version.
    pub(crate) fn repeat_name(&mut self, name: Name) {
        self.view.again(self.resource_type, name);
    }

    /// Follows what a request changed in the subscription.
    pub(crate) fn follow(&mut self, amendment: Amendment, claims: BTreeMap<Name, Option<Version>>) {
        if self.subscription.is_empty() {
            // Rule P-17: nobody is left to acknowledge anything.
            self.flights.clear();
            self.isolation = None;
            self.lingering.clear();
            self.waits.clear();
            self.claims.clear();
            self.heartbeats = None;
            self.collections_asked = Vec::new();
            self.view = View::default();
            self.must_answer = false;
            return;
        }
        if let Some(isolation) = &mut self.isolation {
            isolation.review();
        }
        if amendment.wildcard_asked && !amendment.wildcard_before {
            self.widen();
        } else if amendment.wildcard_asked {
            self.repeat();
        }
        if !self.subscription.wildcard() && amendment.wildcard_before || amendment.collections_dropped {
            self.narrow();
        }
        for name in amendment.unsubscribed {
            if self.subscription.covers(&name) {
                // Rule P-35: the client cannot know whether the wildcard still holds it.
                self.view.again(self.resource_type, name);
            } else {
                self.view.exceptions.remove(&name);
                self.waits.remove(&name);
            }
        }
        for (name, already) in amendment.subscribed {
            if claims.contains_key(&name) {
                // What is to be sent of it follows from the claim.
                continue;
            }
            // Rules P-33 and P-34: what is named is sent, whatever was sent before. A name that was not covered until
            // now is not held, even if it was once.
            if amendment.wildcard_before || already {
                self.view.again(self.resource_type, name);
            } else {
                // It was given up, but a response that is on its way finds it asked for. Should that be refused, there is
                // nothing that the client could go on with.
                for flight in &mut self.flights {
                    flight.replaced.retain(|before| *before.name() != name);
                }
                let on_its_way = self.flights.iter().rev().find_map(|flight| flight.contents.named(&name)).cloned();
                self.view.exceptions.insert(name, Held::Again(on_its_way));
            }
        }
        self.collections_asked.extend(amendment.collections_asked);
        if !claims.is_empty() {
            self.claims = claims;
        }
    }

    /// Marks the members of collections that were asked for as to be sent; of one without members its own name, so that
    /// delta clients are told that there is nothing. What a returning client says it holds stays as it was told.
    pub(crate) fn resolve_collections(&mut self, target: &Snapshot) {
        if self.collections_asked.is_empty() {
            return;
        }
        let asked: BTreeSet<_> = std::mem::take(&mut self.collections_asked).into_iter().collect();
        let mut empty = asked.clone();
        for cell in target.iter(self.resource_type) {
            let collection = xdstp::collection_of(cell.name());
            if let Some(collection) = collection.filter(|collection| asked.contains(&**collection)) {
                empty.remove(&*collection);
                self.view.exceptions.insert_if_absent(cell.name().clone(), || Held::Again(None));
            }
        }
        for name in empty {
            self.view.exceptions.insert(name, Held::Again(None));
        }
        self.must_answer = true;
    }

    /// The wildcard is new: of all names but the exceptions, nothing was sent.
    fn widen(&mut self) {
        let held: Vec<_> = self.subscription.names().iter().cloned().collect();
        let base = self.view.base.take();
        for name in held {
            if !self.view.exceptions.contains(&name) {
                let cell = base.as_ref().and_then(|base| base.get(self.resource_type, &name));
                self.view.exceptions.insert(name, cell.map_or(Held::Nothing, |cell| Held::Cell(cell.clone())));
            }
        }
        self.must_answer = true;
    }

    /// The wildcard was asked for once more: everything is sent again (rule P-33).
    fn repeat(&mut self) {
        let names: Vec<_> = match &self.view.base {
            Some(base) => base.iter(self.resource_type).map(|cell| cell.name().clone()).collect(),
            None => Vec::new(),
        };
        for name in names {
            self.view.again(self.resource_type, name);
        }
        self.must_answer = true;
    }

    /// The wildcard or a collection is gone: what it alone held is given up.
    fn narrow(&mut self) {
        let Self { subscription, view, waits, .. } = self;
        view.exceptions.retain(|name| subscription.covers(name));
        waits.retain(|name, _| subscription.covers(name));
        self.must_answer = false;
    }

    /// Compares what the client says it holds with the first snapshot; nothing was sent before. `trusted` tells for
    /// which names an equal version means that nothing need be sent, and `current` is given the resources that it holds
    /// in their newest form. Mostly those are all there are, so the snapshot becomes what the client holds, and what
    /// differs from it an exception.
    pub(crate) fn resolve_claims(
        &mut self,
        target: &Snapshot,
        trusted: impl Fn(&str) -> bool,
        mut current: impl FnMut(&Arc<Cell>),
    ) {
        let Self { resource_type, subscription, view, claims, .. } = self;
        let claims = std::mem::take(claims);
        if claims.is_empty() {
            return;
        }
        let mut found = 0;
        let has_several = target.layers().iter().filter(|layer| layer.len(*resource_type) > 0).count() > 1;
        for cell in subscription.interest().of_snapshot(*resource_type, target) {
            let name = cell.name();
            if has_several && target.get(*resource_type, name).is_none_or(|first| !Arc::ptr_eq(first, cell)) {
                // The layer before has another one of this name.
                continue;
            }
            let held = match claims.get(name) {
                Some(version) => {
                    found += 1;
                    let is_equal = *version == Some(cell.version());
                    if is_equal {
                        current(cell);
                    }
                    match (is_equal, is_equal && trusted(name)) {
                        (true, true) => {
                            view.exceptions.remove(name);
                            continue;
                        }
                        (true, false) => Held::Again(Some(cell.clone())),
                        (false, _) => Held::Foreign(*version),
                    }
                }
                None if view.exceptions.contains(name) => continue,
                None => Held::Nothing,
            };
            view.exceptions.insert(name.clone(), held);
        }
        if found < claims.len() {
            for (name, version) in claims {
                if subscription.covers(&name) && target.get(*resource_type, &name).is_none() {
                    view.exceptions.insert(name, Held::Foreign(version));
                }
            }
        }
        view.base = Some(target.clone());
    }

    /// Whether the client says that it holds resources from an earlier stream, and that was not looked at yet.
    pub(crate) fn has_claims(&self) -> bool {
        !self.claims.is_empty()
    }

    /// Whether nothing can have changed for this type since it was looked at last: it is the same snapshot, and the
    /// client has asked for nothing and misses nothing but what rests. Asked for every type whenever anything happens on the stream.
    pub(crate) fn is_in_step(&self, target: &Snapshot) -> bool {
        !self.must_answer
            && self.view.exceptions.due().is_empty()
            && self.claims.is_empty()
            && self.collections_asked.is_empty()
            && self.isolation.as_ref().is_none_or(|isolation| isolation.rests())
            && self.view.base.as_ref().is_some_and(|base| base.same_as(target))
    }

    /// Whether nothing is owed of this type before something happens to it.
    pub(crate) fn rests(&self, target: &Snapshot) -> bool {
        self.subscription.is_empty()
            || self.is_in_step(target) && self.lingering.is_empty() && self.heartbeats.is_none()
    }

    /// Whether a response is awaited that keeps the next one back.
    pub(crate) fn is_blocked(&self) -> bool {
        self.flights.iter().any(|flight| !flight.overdue)
    }

    /// Whether the client has accepted all of `target`, as far as it subscribed.
    pub(crate) fn is_settled(&self, target: &Snapshot) -> bool {
        !self.is_blocked() && self.claims.is_empty() && self.view.matches(self.resource_type, target)
    }

    /// Whether the client may not have this resource under its name in any form: it was introduced by a response
    /// that is awaited.
    pub(crate) fn is_unproven(&self, cell: &Cell) -> bool {
        self.flights.iter().any(|flight| !flight.overdue && flight.introduces(cell))
    }

    /// Whether the client has accepted the newest form of a resource that it asked for.
    pub(crate) fn is_accepted(&self, name: &str) -> bool {
        self.subscription.covers(name)
            && self.view.cell(self.resource_type, name).is_some_and(|cell| self.state(cell) == HoldingState::Accepted)
    }

    /// All that the client may hold under a name: what it was sent last, and what that was to replace if it was not
    /// accepted. Each once, and of many the newest: responses that are never acknowledged replace the same resources
    /// again and again.
    pub(crate) fn possibly_held(&self, name: &str) -> Vec<Arc<Cell>> {
        let replaced = self.flights.iter().rev();
        let cells = self
            .view
            .cell(self.resource_type, name)
            .into_iter()
            .chain(self.lingering.iter().map(|(cell, _)| cell).filter(|cell| &**cell.name() == name))
            .chain(replaced.flat_map(|flight| &flight.replaced).filter(|cell| &**cell.name() == name));
        let mut held: Vec<Arc<Cell>> = Vec::new();
        for cell in cells {
            if held.len() < MOST_FLIGHTS && !held.contains(cell) {
                held.push(cell.clone());
            }
        }
        held
    }

    /// All that the client may hold although `target` does not want it any more.
    pub(crate) fn leftovers(&self, target: &Snapshot) -> Vec<Arc<Cell>> {
        let mut found = Vec::new();
        if let Some(base) = &self.view.base
            && !base.same_as(target)
        {
            let changes = target.changes(base, self.resource_type);
            let names = changes.changed.iter().map(|cell| cell.name()).chain(&changes.removed);
            for name in names.filter(|name| self.subscription.covers(name)) {
                found.extend(self.view.cell(self.resource_type, name).cloned());
            }
        }
        found.extend(self.lingering.iter().map(|(cell, _)| cell.clone()));
        found.extend(self.view.exceptions.iter().filter_map(|(_, held)| held.cell()).cloned());
        found.extend(self.view.exceptions.iter().filter_map(|(_, held)| held.doubtful()).cloned());
        found.extend(
            self.flights.iter().filter(|f| !f.overdue).flat_map(|f| f.replaced.iter().chain(&f.doubtful).cloned()),
        );
        // What was given up while a response brings it may be asked for again before that arrives.
        if !self.subscription.wildcard() {
            let contents = self.flights.iter().filter(|f| !f.overdue).map(|f| &f.contents);
            let is_given_up = |cell: &&Arc<Cell>| !self.subscription.covers(cell.name());
            found.extend(contents.flat_map(|c| c.iter(self.resource_type)).filter(is_given_up).cloned());
        }
        let is_lingering = |cell: &Arc<Cell>| self.lingering.iter().any(|(other, _)| Arc::ptr_eq(cell, other));
        found.retain(|cell| {
            is_lingering(cell)
                || target.get(self.resource_type, cell.name()).is_none_or(|new| new.version() != cell.version())
        });
        found
    }

    /// Books a response that was handed out for the sake of `turn`.
    pub(crate) fn depart(&mut self, turn: Turn, flight: Flight) {
        self.sent = Some(flight.version);
        self.responses = flight.number;
        self.must_answer = false;
        if let Some(isolation) = &mut self.isolation
            && let Contents::Cells(cells) = &flight.contents
        {
            isolation.depart(turn, &flight.nonce, cells);
        }
        // One is the rule, and there are several types on each of thousands of streams.
        self.flights.reserve_exact(1);
        self.flights.push(flight);
        if self.flights.len() > MOST_FLIGHTS {
            self.flights.remove(0);
        }
    }

    /// Books the acknowledgement of the response at `index`, and with it of the older ones. Returns the response, and
    /// what follows for what is held back.
    pub(crate) fn accept(&mut self, index: usize, now: Instant) -> (Flight, Vec<Outcome>) {
        self.flights.drain(..index);
        let mut flight = self.flights.remove(0);
        let replaced = std::mem::take(&mut flight.replaced);
        self.linger(replaced, now);
        self.accepted = Some(flight.version);
        if flight.full_state {
            self.view.settle(flight.number);
        }
        let Some(mut isolation) = self.isolation.take() else { return (flight, Vec::new()) };
        let mut outcomes = isolation.accept(self.resource_type, &flight.nonce);
        if flight.full_state {
            // All of it was accepted, also what was taken for refused when it was on its way already.
            let is_in_it = |hold: &Hold, cell: &Cell| {
                let now = self.view.cell(self.resource_type, cell.name());
                hold.after >= flight.number || now.is_some_and(|now| now.version() == cell.version())
            };
            let (cells, released) = isolation.accept_where(self.resource_type, is_in_it);
            outcomes.extend(released);
            for cell in cells {
                self.view.exceptions.insert(cell.name().clone(), Held::Cell(cell));
            }
        }
        self.keep(isolation);
        (flight, outcomes)
    }

    /// Puts back what was taken to be looked at, if there is anything left of it.
    pub(crate) fn keep(&mut self, mut isolation: Box<Isolation>) {
        if isolation.is_over() {
            self.wake(isolation.take_stirred());
        } else {
            self.isolation = Some(isolation);
        }
    }

    /// Something has happened to these resources.
    pub(crate) fn wake(&mut self, names: BTreeSet<Name>) {
        names.iter().for_each(|name| self.view.exceptions.wake(name));
    }

    /// The client may have use for others than before, of all that it does not have.
    pub(crate) fn wake_all(&mut self) {
        self.view.exceptions.wake_all();
        if let Some(isolation) = &mut self.isolation {
            isolation.review();
        }
    }

    /// What the next response can be for, in order of preference.
    pub(crate) fn turns(&self) -> &'static [Turn] {
        match &self.isolation {
            // Until it is known what the client holds there is nothing to go back to.
            Some(isolation) if self.view.base.is_some() => isolation.turns(),
            Some(_) | None => &[Turn::Ordinary],
        }
    }

    /// There was nothing to send for a trial.
    pub(crate) fn skip_trial(&mut self) -> Vec<Outcome> {
        self.isolation.as_mut().map_or_else(Vec::new, |isolation| isolation.skip_trial(self.resource_type))
    }

    /// How many resources, or parts of them, the client refuses.
    pub(crate) fn refused(&self) -> usize {
        self.isolation.as_ref().map_or(0, |isolation| isolation.len())
    }

    /// Whether the client refused this very version, and it will not be tried again.
    pub(crate) fn has_refused(&self, cell: &Cell) -> bool {
        self.isolation.as_ref().is_some_and(|isolation| isolation.has_refused(cell))
    }

    /// Whether the client is to keep this for as long as something is held back.
    pub(crate) fn keeps(&self, cell: &Cell) -> bool {
        let name = cell.name();
        let held = self.view.cell(self.resource_type, name);
        if held.is_none_or(|held| held.version() != cell.version()) {
            return false;
        }
        self.isolation.as_ref().is_some_and(|isolation| isolation.keeps(name))
            || self
                .waits
                .get(name)
                .is_some_and(|(_, wait)| matches!(wait, Wait::KeptByHeldBack { .. } | Wait::ClusterRefused { .. }))
    }

    /// Envoy goes on with a replaced listener until the new one has its routes.
    fn linger(&mut self, replaced: Vec<Arc<Cell>>, now: Instant) {
        if self.resource_type == ResourceType::Listener {
            self.lingering.extend(replaced.into_iter().map(|cell| (cell, now)));
        }
    }

    fn state(&self, cell: &Cell) -> HoldingState {
        match self.flights.iter().any(|flight| flight.contents.contains(cell)) {
            true => HoldingState::Sent,
            false => HoldingState::Accepted,
        }
    }

    /// What the client was sent and still subscribes to.
    pub(crate) fn standing(&self, scope: Scope<'_>, target: Option<&Snapshot>) -> Standing {
        let Self { resource_type, view, flights, .. } = self;
        let mut standing = Standing {
            resource_type: *resource_type,
            interest: self.interest_held(scope.parents(*resource_type, view.base.iter().chain(target))),
            base: view.base.clone(),
            exceptions: view.exceptions.iter().map(|(name, held)| (name.clone(), held.cell().cloned())).collect(),
            flights: flights.iter().map(|flight| flight.contents.clone()).collect(),
            refused: BTreeMap::new(),
            reduced: BTreeMap::new(),
            replaced: flights.iter().flat_map(|flight| flight.replaced.iter().cloned()).collect(),
        };
        if let Some(isolation) = &self.isolation {
            self.add_held_back(isolation, &mut standing);
        }
        standing
    }

    fn add_held_back(&self, isolation: &Isolation, standing: &mut Standing) {
        for (name, held) in self.view.exceptions.iter() {
            if let Some(Hold { content: Content::Cell(refused), .. }) = isolation.whole(name) {
                let before = held.cell().filter(|before| before.version() != refused.version());
                standing.replaced.extend(before.cloned());
                standing.exceptions.insert(name.clone(), Some(refused.clone()));
            }
        }
        for held in isolation.iter(self.resource_type) {
            if held.part.is_none() {
                standing.refused.insert(held.name.clone(), held);
            } else {
                let reduced = standing.reduced.entry(held.name.clone()).or_insert_with(|| self.reduced(&held.name));
                reduced.refused.push(held);
            }
        }
    }

    /// What the client holds of a resource of which it refuses parts.
    fn reduced(&self, name: &Name) -> Reduced {
        let published = self.view.base.as_ref().and_then(|base| base.get(self.resource_type, name));
        let held = self.view.held(self.resource_type, name);
        let of = published.filter(|published| {
            let wanted = self.isolation.as_ref().map(|isolation| isolation.wanted(Turn::Ordinary, published, &held));
            match (wanted, held.cell()) {
                (Some(Wanted::Reduced(wanted)), Some(cell)) => wanted.says_the_same(cell),
                _ => false,
            }
        });
        Reduced { of: of.cloned(), refused: Vec::new() }
    }

    /// What is subscribed, as far as the client has use for it, with the names of what is held by an alias.
    fn interest_held(&self, parents: Option<BTreeSet<Name>>) -> Interest {
        let mut interest = Interest { parents: parents.map(Arc::new), ..self.subscription.interest().clone() };
        if self.resource_type == ResourceType::VirtualHost {
            let by_alias = |name: &Name| self.view.base.as_ref()?.by_alias(self.resource_type, name);
            let mut held: Vec<_> =
                self.subscription.names().iter().filter_map(by_alias).map(|c| c.name().clone()).collect();
            held.retain(|name| !interest.names.contains(name));
            interest.names.change(held, Vec::new(), None);
        }
        interest
    }

    /// The version of the last response; of nothing before the first.
    pub(crate) fn sent_version(&self) -> Version {
        self.sent.unwrap_or_default()
    }

    /// Names that are subscribed to and that nothing was sent for, once something was answered.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &Name> {
        let answered = self.view.base.is_some();
        let names = self.subscription.names().iter();
        names.filter(move |name| answered && self.view.cell(self.resource_type, name).is_none())
    }

    pub(crate) fn summary(&self) -> Summary {
        let waiting = |(name, (since, wait)): (&Name, &(Instant, Wait))| Waiting {
            resource_type: self.resource_type,
            name: name.clone(),
            since: *since,
            wait: wait.clone(),
        };
        Summary {
            resource_type: self.resource_type,
            wildcard: self.subscription.wildcard(),
            names: self.subscription.len(),
            sent: self.sent,
            accepted: self.accepted,
            unacknowledged: self.flights.len(),
            refused: self.refused(),
            culprits: self.culprits(),
            last_rejection: self.last_rejection.clone(),
            waiting: self.waits.iter().map(waiting).collect(),
        }
    }

    fn culprits(&self) -> Vec<HeldBack> {
        let held = self.isolation.iter().flat_map(|isolation| isolation.iter(self.resource_type));
        held.filter(|held| held.verdict == Verdict::Culprit).collect()
    }

    /// When something here runs out: an acknowledgement, or else a wait for another type; or when a heartbeat is due.
    pub(crate) fn deadline(&self, settings: &Settings) -> Option<Instant> {
        let heartbeat = self.heartbeats.as_ref().and_then(|heartbeats| heartbeats.deadline());
        let end = match self.flights.iter().find(|flight| !flight.overdue) {
            Some(flight) => Some(flight.sent_at + settings.acknowledgement_wait),
            None => self.waits.values().filter_map(|(since, wait)| Some(*since + wait.bound(settings)?)).min(),
        };
        end.into_iter().chain(heartbeat).min()
    }
}
