//! What one type is owed now: the difference between what the client was sent and the newest snapshot, less what has
//! to wait.

mod names;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use proto::{ResourceType, xdstp};
use snapshot::{Body, Cell, Changes, Name, Snapshot, Version};

use super::flight::{Contents, Fresh};
use super::hosts::Scope;
use super::isolation::{Turn, Wanted};
use super::order::Order;
use super::substream::Substream;
use super::view::Held;
use crate::{Settings, Variant, Wait};

/// The next response of a type, and what is true of the client once it is sent.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) send: Vec<Arc<Cell>>,
    pub(crate) remove: Vec<Name>,
    /// Names asked for that do not exist, where that cannot be said by a removal.
    pub(crate) missing: Vec<Name>,
    /// Exceptions that remain of those that were looked at: what waits, and what did not fit.
    pub(crate) keep: BTreeMap<Name, Held>,
    /// Those of them of which nothing comes by itself.
    resting: BTreeSet<Name>,
    /// Exceptions that were looked at, beside those that are looked at in every ordinary turn: what is due.
    looked_at: BTreeSet<Name>,
    pub(crate) waits: BTreeMap<Name, (Instant, Wait)>,
    pub(crate) expired: Vec<Wait>,
    /// Waits that began now.
    pub(crate) begun: Vec<Wait>,
    pub(crate) replaced: Vec<Arc<Cell>>,
    pub(crate) doubtful: Vec<Arc<Cell>>,
    /// `send` stands for all of the target.
    whole: bool,
    /// The entries of all of `send`, shared.
    shared: Option<Body>,
    fresh: BTreeSet<Name>,
    /// The aliases by which resources of `send` were asked for.
    asked: BTreeMap<Name, BTreeSet<Name>>,
    bytes: usize,
}

/// Works out a plan.
pub(crate) struct Planner<'a> {
    pub(crate) variant: Variant,
    pub(crate) resource_type: ResourceType,
    pub(crate) substream: &'a Substream,
    /// What of all this the client has use for.
    pub(crate) scope: Scope<'a>,
    pub(crate) order: Order<'a>,
    pub(crate) target: &'a Snapshot,
    pub(crate) settings: &'a Settings,
    pub(crate) now: Instant,
    /// Whether the client is told TTLs.
    pub(crate) ttls: bool,
    /// Whether the client understands resource errors.
    pub(crate) tell_missing: bool,
    pub(crate) turn: Turn,
    /// Domains that virtual hosts have, or are to have, that a trial is about.
    pub(crate) tried_domains: OnceCell<HashSet<(String, String)>>,
}

impl Planner<'_> {
    /// The plan; `None` when the whole response has to wait, with the waits.
    pub(crate) fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        let (view, subscription) = (&self.substream.view, &self.substream.subscription);
        let changes = match &view.base {
            None if !subscription.wildcard() => Changes::default(),
            None if view.exceptions.is_empty()
                && self.substream.isolation.is_none()
                && self.order.is_free_to_send()
                && self.can_share_all()
                && self.scope.holds_all(self.resource_type, self.target)
                && self.fits_whole() =>
            {
                plan.whole = true;
                return plan;
            }
            None => self.target.changes(&Snapshot::default(), self.resource_type),
            Some(base) if subscription.is_short() && !self.has_aliases() => {
                self.target.changes_of(base, self.resource_type, subscription.names().iter())
            }
            Some(base) => self.target.changes(base, self.resource_type),
        };
        self.look_at_exceptions(&mut plan);
        let names = changes.changed.iter().map(|cell| cell.name()).chain(&changes.removed);
        let asked = self.aliases_in(self.target);
        let asked_before = view.base.as_ref().map(|base| self.aliases_in(base)).unwrap_or_default();
        let is_asked = |name: &Name| asked.contains_key(name) || asked_before.contains_key(name);
        for name in names {
            if view.exceptions.is_resting(name) {
                self.look_at_resting(&mut plan, name);
            } else if !view.exceptions.contains(name)
                && (is_asked(name) || subscription.covers(name) && self.is_owed(name))
            {
                self.decide(&mut plan, name, view.held(self.resource_type, name));
            }
        }
        plan.asked = asked;
        self.keep_first_hosts_together(&mut plan);
        self.keep_domains_together(&mut plan);
        let is_asked = |cell: &Arc<Cell>| plan.asked.contains_key(cell.name());
        // With nothing left out, put off or reduced, and nothing that only some clients are told.
        let can_share = view.exceptions.due().is_empty()
            && plan.looked_at.is_empty()
            && plan.keep.is_empty()
            && !plan.send.iter().any(|cell| self.ttls && cell.ttl().is_some() || is_asked(cell));
        if plan.send.len() == changes.changed.len() && view.base.is_some() && can_share {
            plan.shared = Some(changes.delta_body());
        }
        plan.send.sort_by(|a, b| a.name().cmp(b.name()));
        // Several names may stand for one resource.
        plan.send.dedup_by(|a, b| a.name() == b.name());
        plan
    }

    /// Decides on the exceptions that something may come of in this turn.
    fn look_at_exceptions(&self, plan: &mut Plan) {
        let exceptions = &self.substream.view.exceptions;
        let is_for = |name: &Name| self.turn == Turn::Ordinary || self.shares_tried_domain(name);
        for (name, held) in exceptions.due().iter().filter(|(name, _)| is_for(name) && !self.is_tried(name)) {
            self.look_at(plan, name, held);
        }
        if self.turn == Turn::Ordinary {
            return;
        }
        let tried = self.substream.isolation.iter().flat_map(|isolation| isolation.tried());
        for name in tried {
            if let Some(held) = exceptions.get(name)
                && !plan.looked_at.contains(name)
            {
                self.look_at(plan, name, held);
            }
        }
    }

    fn look_at(&self, plan: &mut Plan, name: &Name, held: &Held) {
        if self.turn == Turn::Trial {
            plan.looked_at.insert(name.clone());
        }
        if self.is_owed(name) {
            self.decide(plan, name, held.clone());
        }
    }

    /// Decides on an exception that rested until it changed.
    fn look_at_resting(&self, plan: &mut Plan, name: &Name) {
        let Some(held) = self.substream.view.exceptions.get(name) else { return };
        if plan.looked_at.insert(name.clone()) && self.is_owed(name) {
            self.decide(plan, name, held.clone());
        }
    }

    /// Whether the client has use for hearing of this name, which it has subscribed to.
    fn is_owed(&self, name: &Name) -> bool {
        match self.scope {
            Scope::All => true,
            Scope::Routes(_) if self.substream.subscription.names().contains(name) => true,
            Scope::Routes(_) if self.target.get(self.resource_type, name).is_some() => self.scope.holds(name),
            Scope::Routes(_) => self.scope.tells_removal(name, self.target),
        }
    }

    /// Whether state-of-the-world responses of this type are the whole set (rule P-41).
    pub(crate) fn is_full_state(&self) -> bool {
        self.variant == Variant::StateOfTheWorld && self.resource_type.has_wildcard()
    }

    /// Whether this is a full state for a client whose holdings are not known. It must not be sent in part: what is left
    /// out is deleted.
    pub(crate) fn is_first_full_state(&self) -> bool {
        self.is_full_state() && self.substream.view.base.is_none()
    }

    /// Whether the sections that all streams share say to this client what is to be said.
    fn can_share_all(&self) -> bool {
        !self.ttls || !self.target.has_ttl(self.resource_type)
    }

    /// Whether what does not fit into one response may follow in another (rule P-46). Virtual hosts may not, because a
    /// domain that goes from one to another must do so at once; inline they would be one resource.
    fn can_split(&self) -> bool {
        !self.is_full_state() && self.resource_type != ResourceType::VirtualHost
    }

    fn delta_entry(&self, cell: &Cell, asked: Option<&BTreeSet<Name>>) -> Bytes {
        let entry = if self.ttls { cell.delta_entry_with_ttl() } else { cell.delta_entry().clone() };
        asked.map_or_else(|| entry.clone(), |asked| snapshot::with_aliases(&entry, asked))
    }

    fn join_sotw<'c>(&self, cells: impl Iterator<Item = &'c Arc<Cell>>) -> Body {
        let entry = |cell: &Arc<Cell>| if self.ttls { cell.sotw_entry_with_ttl() } else { cell.sotw_entry() };
        Body::join(&cells.map(entry).collect::<Vec<_>>())
    }

    fn fits_whole(&self) -> bool {
        let body = match self.variant {
            _ if !self.can_split() => return true,
            Variant::StateOfTheWorld => self.target.all_sotw(self.resource_type),
            Variant::Delta => self.target.all_delta(self.resource_type),
        };
        body.len() <= self.settings.max_response_bytes
    }

    fn decide(&self, plan: &mut Plan, name: &Name, held: Held) {
        #[cfg(test)]
        visits::count();
        let published = self.published(name);
        match (published, &held) {
            (Some(want), Held::Cell(have)) if want.says_the_same(have) => return,
            // The mesh came back to it while its replacement waited.
            (Some(want), Held::Foreign(Some(version))) if want.version() == *version => return,
            (None, Held::Nothing) => return,
            (Some(_) | None, _) => {}
        }
        let wanted = self.wanted(published, name, &held).map(|wanted| self.spare(plan, name, wanted, &held));
        match (wanted, &held) {
            (None, _) if !self.is_for(name) => self.defer(plan, name, held),
            (None, Held::Nothing) => {}
            (None, Held::Again(None)) => self.answer_missing(plan, name),
            (
                None,
                Held::Cell(_) | Held::Foreign(_) | Held::Again(Some(_)) | Held::Doubtful { .. } | Held::Probable { .. },
            ) => match self.wait(plan, name, self.order.before_removing(name)) {
                When::Later => _ = plan.keep.insert(name.clone(), held),
                When::Now => {
                    plan.doubtful.extend(held.doubtful().cloned());
                    self.remove(plan, name);
                }
            },
            (Some(_), Held::Probable { cell, .. }) if self.turn == Turn::Ordinary => {
                self.send(plan, name, &cell.clone(), held);
            }
            // What the client goes on with is told again like anything else (rule P-33).
            (Some(Wanted::HeldBack), Held::Again(Some(have))) if self.turn == Turn::Ordinary => {
                self.send(plan, name, &have.clone(), held);
            }
            (Some(Wanted::HeldBack), _) => self.defer(plan, name, held),
            (Some(Wanted::Reduced(want)), Held::Cell(have) | Held::Doubtful { before: Some(have), .. })
                if have.says_the_same(&want) =>
            {
                // The new one is not encoded, so the bytes of the old one are let go of.
                let is_doubtful = held.doubtful().is_some();
                self.defer(plan, name, if is_doubtful { held } else { Held::Cell(want) });
            }
            (Some(Wanted::Published(want) | Wanted::Reduced(want)), _) => {
                // What is tried waits for no other type: all of it was sent before.
                let wait = self.order.before_sending(&want, held.cell()).filter(|_| !self.is_tried(name));
                match (self.wait(plan, name, wait), &held) {
                    // A cluster that warms waits for any assignment (rule P-55).
                    (When::Later, Held::Again(Some(have))) if self.resource_type == ResourceType::Endpoints => {
                        self.send(plan, name, &have.clone(), held);
                    }
                    (When::Later, _) => _ = plan.keep.insert(name.clone(), held),
                    (When::Now, _) => self.send(plan, name, &want, held),
                }
            }
        }
    }

    /// What is to be sent under this name, if it is this turn's.
    fn wanted(&self, published: Option<&Arc<Cell>>, name: &Name, held: &Held) -> Option<Wanted> {
        let published = published?;
        match &self.substream.isolation {
            None => Some(Wanted::Published(published.clone())),
            Some(_) if !self.is_for(name) => Some(Wanted::HeldBack),
            Some(isolation) if self.is_tried(name) => Some(isolation.wanted(Turn::Trial, published, held)),
            Some(isolation) => Some(isolation.wanted(Turn::Ordinary, published, held)),
        }
    }

    /// Keeps a virtual host as the client has it while it would use a new cluster that the client refuses: that share of
    /// its requests would fail. What is new to the client goes out all the same, as it has nothing better, and so does a
    /// listener, or a route configuration that is not made of parts: there too much would be kept back along with it.
    fn spare(&self, plan: &mut Plan, name: &Name, wanted: Wanted, held: &Held) -> Wanted {
        let (Wanted::Published(want) | Wanted::Reduced(want)) = &wanted else { return wanted };
        let Some(have) = held.cell().filter(|_| self.order.refuses_clusters() && !self.is_tried(name)) else {
            return wanted;
        };
        let order = &self.order;
        let (spared, cluster) = match (self.resource_type, want.parts(), have.parts()) {
            (ResourceType::VirtualHost, _, _) if !matches!(held, Held::Again(_)) => {
                let cluster = order.refused_cluster(want.references());
                let spared = cluster.filter(|_| order.refused_cluster(have.references()).is_none());
                (Wanted::HeldBack, spared.cloned())
            }
            (ResourceType::Route, Some(parts), Some(old)) => {
                let (mut spared, mut cluster) = (parts.clone(), None);
                for (part, now) in parts.iter() {
                    let Some(refused) = order.refused_cluster(now.references()) else { continue };
                    let old = old.get(part).filter(|old| order.refused_cluster(old.references()).is_none());
                    if let Some(old) = old {
                        spared.set(part.clone(), old.clone());
                        cluster.get_or_insert_with(|| refused.clone());
                    }
                }
                (want.with_parts(spared).map_or(Wanted::HeldBack, |cell| Wanted::Reduced(Arc::new(cell))), cluster)
            }
            _ => return wanted,
        };
        match cluster {
            Some(cluster) => {
                self.wait(plan, name, Some(Wait::ClusterRefused { cluster }));
                spared
            }
            None => wanted,
        }
    }

    fn is_tried(&self, name: &str) -> bool {
        self.turn == Turn::Trial && self.substream.isolation.as_ref().is_some_and(|isolation| isolation.tries(name))
    }

    /// Whether this turn is for this name. A trial brings nothing but what is tried, so that nothing else can be the
    /// reason for its refusal; but a virtual host may have to go together with another that gives it a domain.
    fn is_for(&self, name: &str) -> bool {
        self.turn == Turn::Ordinary || self.is_tried(name) || self.shares_tried_domain(name)
    }

    /// Leaves the client with what it holds. What waited when a trial came between goes on waiting; what is held back
    /// waits for nothing, least of all for a time that passes without anything being sent then.
    fn defer(&self, plan: &mut Plan, name: &Name, held: Held) {
        if self.may_rest(plan, name, &held) {
            plan.resting.insert(name.clone());
        }
        plan.keep.insert(name.clone(), held);
        if self.turn == Turn::Trial
            && let Some(wait) = self.substream.waits.get(name)
        {
            plan.waits.entry(name.clone()).or_insert_with(|| wait.clone());
        }
    }

    /// Whether nothing comes of what is left as it is until it changes, or what the client refuses does. Virtual hosts
    /// that are still under suspicion are not alone in the question of their domains.
    fn may_rest(&self, plan: &Plan, name: &Name, held: &Held) -> bool {
        self.turn == Turn::Ordinary
            && !plan.waits.contains_key(name)
            && !matches!(held, Held::Foreign(_))
            && self.target.get(self.resource_type, name).is_some()
            && (self.resource_type != ResourceType::VirtualHost || self.is_refused(name))
    }

    /// Books a wait, unless it has lasted as long as it may.
    fn wait(&self, plan: &mut Plan, name: &Name, wait: Option<Wait>) -> When {
        let Some(wait) = wait else { return When::Now };
        let waits = &self.substream.waits;
        // A first full state goes all at once, so all of it has waited as long as the first of it.
        let since = if self.is_first_full_state() {
            waits.values().map(|(since, _)| *since).min()
        } else {
            // A wait without a bound is another one: what comes after it has its own time.
            let is_bounded = |wait: &Wait| wait.bound(self.settings).is_some();
            waits.get(name).filter(|(_, old)| is_bounded(old) == is_bounded(&wait)).map(|(since, _)| *since)
        };
        let since = since.unwrap_or(self.now);
        if wait.bound(self.settings).is_some_and(|bound| self.now >= since + bound) {
            plan.expired.push(wait);
            return When::Now;
        }
        if !self.substream.waits.contains_key(name) {
            plan.begun.push(wait.clone());
        }
        plan.waits.insert(name.clone(), (since, wait));
        When::Later
    }

    fn send(&self, plan: &mut Plan, name: &Name, want: &Arc<Cell>, held: Held) {
        let len = want.delta_entry().len();
        if self.can_split() && !plan.send.is_empty() && plan.bytes + len > self.settings.max_response_bytes {
            plan.keep.insert(name.clone(), held);
            return;
        }
        plan.bytes += len;
        let is_new = match &held {
            Held::Foreign(_) => false,
            Held::Nothing | Held::Again(None) => true,
            Held::Cell(have) | Held::Again(Some(have)) => self.substream.is_unproven(have),
            // What it may hold only if it took what it refused counts for nothing.
            Held::Doubtful { before, refused, .. } => {
                let sure = before.as_ref().filter(|before| before.version() != refused.version());
                sure.is_none_or(|before| self.substream.is_unproven(before))
            }
            Held::Probable { before, .. } => before.is_none(),
        };
        if is_new {
            plan.fresh.insert(want.name().clone());
        }
        plan.doubtful.extend(held.doubtful().filter(|cell| cell.version() != want.version()).cloned());
        if let Held::Probable { before, .. } = &held {
            plan.replaced.extend(before.clone());
        }
        // What is only repeated is there before, too.
        let is_repeated = matches!(held, Held::Again(Some(_)));
        let before = self.substream.possibly_held(want.name()).into_iter();
        plan.replaced.extend(before.filter(|cell| is_repeated || cell.version() != want.version()));
        if self.target.get(self.resource_type, want.name()).is_some_and(|cell| cell.version() != want.version()) {
            plan.keep.insert(want.name().clone(), Held::Cell(want.clone()));
        }
        plan.send.push(want.clone());
    }

    fn remove(&self, plan: &mut Plan, name: &Name) {
        let said = match self.variant {
            Variant::StateOfTheWorld => self.is_full_state(),
            // Rule P-48: the removal of a filter's configuration breaks the listener that names it.
            Variant::Delta => self.resource_type != ResourceType::ExtensionConfig,
        };
        if said {
            plan.replaced.extend(self.substream.possibly_held(name));
            plan.remove.push(name.clone());
        } else if self.variant == Variant::StateOfTheWorld && self.tell_missing {
            // Rule P-38: absence says nothing here, so it is said once that the name exists no more.
            plan.missing.push(name.clone());
        }
    }

    /// Rule P-38: a name that does not exist is answered at once, where there is a way to say so.
    fn answer_missing(&self, plan: &mut Plan, name: &Name) {
        match (self.variant, self.resource_type) {
            (Variant::StateOfTheWorld, _) if self.tell_missing && !xdstp::is_collection(name) => {
                plan.missing.push(name.clone());
            }
            (Variant::StateOfTheWorld, _) | (Variant::Delta, ResourceType::ExtensionConfig) => {}
            (Variant::Delta, ResourceType::VirtualHost) if self.substream.subscription.names().contains(name) => {
                plan.missing.push(name.clone());
            }
            (Variant::Delta, _) => plan.remove.push(name.clone()),
        }
    }
}

enum When {
    Now,
    Later,
}

impl Plan {
    /// Whether there is something to say.
    pub(crate) fn is_news(&self) -> bool {
        self.whole || !self.send.is_empty() || !self.remove.is_empty() || !self.missing.is_empty()
    }

    /// Whether everything is sent, to a client that was sent nothing.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// How many resources are new or changed.
    pub(crate) fn changed(&self, planner: &Planner<'_>) -> usize {
        if self.whole { planner.target.len(planner.resource_type) } else { self.send.len() }
    }

    /// The version of the response: that of the whole type, with what the client is meant to hold for a while instead
    /// of some of it.
    pub(crate) fn version(&self, planner: &Planner<'_>) -> Version {
        let kept = self.keep.iter().chain(self.passed_over(planner));
        let forms = kept.map(|(name, held)| (name, held.cell()));
        let resting = planner.substream.view.exceptions.offset_without(&self.looked_at);
        planner.target.version_with(planner.resource_type, forms).plus(resting)
    }

    /// Exceptions that are due, but not in this turn.
    fn passed_over<'p>(&'p self, planner: &Planner<'p>) -> impl Iterator<Item = (&'p Name, &'p Held)> {
        let due = (planner.turn == Turn::Trial).then(|| planner.substream.view.exceptions.due());
        due.into_iter().flatten().filter(|(name, _)| !self.looked_at.contains(*name))
    }

    /// Exceptions that rest, and go on resting.
    fn at_rest<'p>(&'p self, planner: &Planner<'p>) -> impl Iterator<Item = (&'p Name, &'p Held)> {
        planner.substream.view.exceptions.resting().filter(|(name, _)| !self.looked_at.contains(*name))
    }

    /// Books what is true of the client from now on.
    pub(crate) fn settle(&mut self, turn: Turn, target: &Snapshot, substream: &mut Substream) {
        let resource_type = substream.resource_type();
        let exceptions = &mut substream.view.exceptions;
        for name in &self.looked_at {
            exceptions.remove(name);
            substream.waits.remove(name);
        }
        match turn {
            Turn::Ordinary => {
                exceptions.clear_due();
                substream.waits = std::mem::take(&mut self.waits);
            }
            Turn::Trial => substream.waits.append(&mut self.waits),
        }
        for (name, held) in std::mem::take(&mut self.keep) {
            let published = target.get(resource_type, &name).filter(|_| self.resting.contains(&name));
            match published {
                Some(published) => exceptions.rest(name, held, published),
                None => exceptions.insert(name, held),
            }
        }
        substream.view.base = Some(target.clone());
    }

    /// The resources of the response.
    pub(crate) fn body(&self, planner: &Planner<'_>) -> Body {
        let (target, resource_type) = (planner.target, planner.resource_type);
        match planner.variant {
            Variant::Delta if self.whole => target.all_delta(resource_type),
            Variant::Delta => match &self.shared {
                Some(body) => body.clone(),
                None => {
                    let entry = |cell: &Arc<Cell>| planner.delta_entry(cell, self.asked.get(cell.name()));
                    Body::join(&self.send.iter().map(entry).collect::<Vec<_>>())
                }
            },
            Variant::StateOfTheWorld if planner.is_full_state() => self.full_state(planner),
            Variant::StateOfTheWorld if self.whole => target.all_sotw(resource_type),
            Variant::StateOfTheWorld => planner.join_sotw(self.send.iter()),
        }
    }

    /// Every subscribed resource: the target's, but for those that wait the ones that the client holds. A removal
    /// that waits makes this the union of old and new (rule P-54).
    fn full_state(&self, planner: &Planner<'_>) -> Body {
        let (target, resource_type) = (planner.target, planner.resource_type);
        let subscription = &planner.substream.subscription;
        let kept: BTreeMap<_, _> =
            self.keep.iter().chain(self.passed_over(planner)).chain(self.at_rest(planner)).collect();
        let (changes_wait, removals_wait): (Vec<_>, Vec<_>) =
            kept.iter().partition(|(name, _)| target.get(resource_type, name).is_some());
        let kept_besides = planner.join_sotw(removals_wait.iter().filter_map(|(_, held)| held.cell()));
        if subscription.wildcard() && changes_wait.is_empty() && planner.can_share_all() {
            return target.all_sotw(resource_type).chain(&kept_besides);
        }
        let now =
            subscription.interest().of_snapshot(resource_type, target).filter_map(|cell| match kept.get(cell.name()) {
                Some(held) => held.cell(),
                None => Some(cell),
            });
        planner.join_sotw(now).chain(&kept_besides)
    }

    /// What the response is remembered by.
    pub(crate) fn contents(&mut self, target: &Snapshot) -> (Contents, Fresh) {
        if self.whole {
            return (Contents::Whole(target.clone()), Fresh::All);
        }
        let cells = std::mem::take(&mut self.send);
        (Contents::Cells(cells.into()), Fresh::Names(std::mem::take(&mut self.fresh)))
    }
}

#[cfg(test)]
pub(crate) mod visits {
    //! Counts what planners look at, so that tests can tell what a look costs.

    use std::cell::Cell;

    thread_local! {
        static VISITS: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn count() {
        VISITS.set(VISITS.get() + 1);
    }

    /// How many resources were looked at since this was asked last.
    pub(crate) fn take() -> usize {
        VISITS.take()
    }
}
