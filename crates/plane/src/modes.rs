//! Changes of what workloads take: plaintext, mutual TLS, or both.
//!
//! Whoever is sent to and whoever sends hear of a change in no particular order. So one that leads from plaintext to TLS
//! or back goes by steps, for all workloads together:
//!
//! ```text
//!            workloads take     clients send      ends when
//!  change ─▶ both               as before         every workload's proxy has settled it
//!         ─▶ both               as it says now    every client has settled it
//!         ─▶ what it says now   as it says now
//! ```
//!
//! Each step ends at the latest after [`Patience::longest`]. Another change meanwhile begins the steps again, for both.
//! This keeps the books; who publishes what follows is the [`Plane`](crate::Plane).

use std::collections::BTreeSet;
use std::time::Instant;

use world::{Change, Key, Kind, ObjectRef, PeerPolicies, PolicyKind, World};

use crate::waits::{Missing, Wait, Waits};
use crate::{MemberId, Patience};

/// The books.
#[derive(Debug)]
pub(crate) struct Modes {
    /// What was said before changes that were taken in and not compiled yet, and which objects they are of.
    taken_in: Option<(PeerPolicies, BTreeSet<ObjectRef>)>,
    turnover: Option<Turnover>,
    /// Who is waited for.
    pub(crate) waits: Waits,
}

/// A change under way.
#[derive(Debug)]
struct Turnover {
    step: Step,
    /// The generation with which the step began.
    generation: u64,
    /// The policies that have changed.
    policies: BTreeSet<ObjectRef>,
    /// What depends on them.
    touched: BTreeSet<Key>,
}

/// Whom a change waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Workloads, to take both.
    Workloads,
    /// Clients, to send as they are told now.
    Clients,
}

/// A policy whose change is under way.
#[derive(Clone, Debug)]
pub(crate) struct ModesEntry<'a> {
    pub(crate) policy: &'a ObjectRef,
    pub(crate) generation: u64,
    pub(crate) wait: &'a Wait,
}

impl Modes {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { taken_in: None, turnover: None, waits: Waits::new(patience) }
    }

    /// The world is about to take this in.
    pub(crate) fn look(&mut self, world: &World, change: &Change) {
        let reference = match change {
            Change::Apply(object) => &object.reference,
            Change::Remove(reference) => reference,
        };
        if reference.kind == Kind::PeerAuthentication {
            let (_, changed) = self.taken_in.get_or_insert_with(|| (world.peer_policies(), BTreeSet::new()));
            changed.insert(reference.clone());
        }
    }

    /// What was taken in counts at once.
    pub(crate) fn pass_over(&mut self) {
        self.taken_in = None;
    }

    /// Begins the steps for what was taken in, if it needs them. Whether it does; then [`Modes::wait_for`] says for whom.
    pub(crate) fn begin(&mut self, world: &mut World, touched: &BTreeSet<Key>, generation: u64) -> bool {
        let Some((before, policies)) = self.taken_in.take() else { return false };
        let is_about = |key: &&Key| match key {
            Key::Policies(kind, _) | Key::PoliciesIn(kind, _) => *kind == PolicyKind::PeerAuthentication,
            Key::SelectingPolicies(..) => true,
            _ => false,
        };
        let now = world.peer_policies();
        if now == before || !before.disable_any() && !now.disable_any() {
            return false;
        }
        world.go_on_with(before);
        let mut turnover = Turnover { step: Step::Workloads, generation, policies, touched: BTreeSet::new() };
        turnover.touched.extend(touched.iter().filter(is_about).cloned());
        if let Some(under_way) = self.turnover.take() {
            turnover.policies.extend(under_way.policies);
            turnover.touched.extend(under_way.touched);
        }
        self.turnover = Some(turnover);
        true
    }

    /// The step that began at this generation waits for these members.
    pub(crate) fn wait_for(
        &mut self,
        generation: u64,
        now: Instant,
        missing: impl IntoIterator<Item = (MemberId, Missing)>,
    ) {
        self.waits.begin(generation, now, missing);
        self.waits.retain(&self.turnover.iter().map(|turnover| turnover.generation).collect());
    }

    /// Goes on to the next step at this generation, if that is due. Returns the step that has ended, and what to compile
    /// for.
    pub(crate) fn advance(
        &mut self,
        world: &mut World,
        generation: u64,
        now: Instant,
    ) -> Option<(Step, BTreeSet<Key>)> {
        if self.waits.due_at(now).is_empty() {
            return None;
        }
        self.waits.retain(&BTreeSet::new());
        let mut turnover = self.turnover.take()?;
        let touched = turnover.touched.clone();
        let ended = turnover.step;
        match ended {
            Step::Workloads => {
                world.tell_clients();
                (turnover.step, turnover.generation) = (Step::Clients, generation);
                self.turnover = Some(turnover);
            }
            Step::Clients => world.forget_former(),
        }
        Some((ended, touched))
    }

    /// The policies whose change is under way, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = ModesEntry<'_>> {
        let waiting = |turnover: &'_ Turnover| self.waits.get(turnover.generation);
        let under_way = self.turnover.iter().filter_map(move |turnover| Some((turnover, waiting(turnover)?)));
        under_way.flat_map(|(Turnover { policies, generation, .. }, wait)| {
            policies.iter().map(move |policy| ModesEntry { policy, generation: *generation, wait })
        })
    }
}
