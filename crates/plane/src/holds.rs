//! Ports of workloads that nothing in the world leads to any more, and that nodes may still send requests to.
//!
//! A change that takes a port from workloads and points everybody elsewhere reaches the proxies of the workloads and
//! those of the clients in no particular order. So the port stays until every client has settled the change ([`Waits`]),
//! or until it is back in the world. This only keeps the books: who publishes what is held, and asks when it may go, is
//! the [`Plane`](crate::Plane).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use compile::{Audience, Served};

use crate::waits::{Missing, Wait, Waits};
use crate::{MemberId, Patience};

/// The books.
#[derive(Debug)]
pub(crate) struct Holds {
    /// What is held, by audience as [`Audience::workload`] has it, and by the workload's port. No audience is without.
    held: BTreeMap<Audience, BTreeMap<u16, Hold>>,
    /// Who is waited for.
    pub(crate) waits: Waits,
}

#[derive(Clone, Debug)]
struct Hold {
    what: Served,
    /// The generation without it.
    generation: u64,
}

/// One port of a workload that is held.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) audience: &'a Audience,
    pub(crate) what: &'a Served,
    pub(crate) generation: u64,
    pub(crate) wait: &'a Wait,
}

impl Holds {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { held: BTreeMap::new(), waits: Waits::new(patience) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Ports of a workload are lost at this generation. One that is held already, because it took more before, goes on
    /// being held for that, and for longer.
    pub(crate) fn begin(&mut self, audience: &Audience, lost: Vec<Served>, generation: u64) {
        let held = self.held.entry(audience.clone()).or_default();
        for lost in lost {
            let what = match held.remove(&lost.target) {
                Some(before) if before.what.takes_all_of(&lost) => before.what,
                Some(_) | None => lost,
            };
            held.insert(what.target, Hold { what, generation });
        }
        self.tidy_audience(audience);
    }

    /// Sidecars go from one audience to another, and take along what is held for them. Returns whether anything is.
    pub(crate) fn carry(&mut self, from: &Audience, to: &Audience) -> bool {
        let Some(held) = self.held.get(from).filter(|_| from != to).cloned() else { return false };
        let there = self.held.entry(to.clone()).or_default();
        for (target, hold) in held {
            there.entry(target).or_insert(hold);
        }
        true
    }

    /// Nobody is in this audience any more, because all have gone to others.
    pub(crate) fn forget(&mut self, audience: &Audience) {
        self.held.remove(audience);
        self.tidy_waits();
    }

    /// Ports of a workload are back in the world.
    pub(crate) fn cancel(&mut self, audience: &Audience, returned: &[Served]) {
        if let Some(held) = self.held.get_mut(audience) {
            returned.iter().for_each(|returned| drop(held.remove(&returned.target)));
        }
        self.tidy_audience(audience);
    }

    fn tidy_audience(&mut self, audience: &Audience) {
        if self.held.get(audience).is_some_and(BTreeMap::is_empty) {
            self.held.remove(audience);
        }
    }

    /// What was lost at this generation waits for these members. Forgets generations of which nothing is held.
    pub(crate) fn wait_for(
        &mut self,
        generation: u64,
        now: Instant,
        missing: impl IntoIterator<Item = (MemberId, Missing)>,
    ) {
        self.waits.begin(generation, now, missing);
        self.tidy_waits();
    }

    fn tidy_waits(&mut self) {
        let used: BTreeSet<u64> =
            self.held.values().flat_map(|held| held.values()).map(|hold| hold.generation).collect();
        self.waits.retain(&used);
    }

    /// Holds nothing any more that was lost at these generations. Returns the audiences that this concerns.
    pub(crate) fn lift(&mut self, generations: &BTreeSet<u64>) -> Vec<Audience> {
        let mut audiences = Vec::new();
        for (audience, held) in &mut self.held {
            let before = held.len();
            held.retain(|_, hold| !generations.contains(&hold.generation));
            if held.len() < before {
                audiences.push(audience.clone());
            }
        }
        self.held.retain(|_, held| !held.is_empty());
        self.tidy_waits();
        audiences
    }

    /// What is held for an audience, in order of the workload's port.
    pub(crate) fn of(&self, audience: &Audience) -> Vec<Served> {
        self.held.get(audience).into_iter().flat_map(|held| held.values()).map(|hold| hold.what.clone()).collect()
    }

    /// Everything that is held, in order of audience and of the workload's port.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let all = self.held.iter().flat_map(|(audience, held)| held.values().map(move |hold| (audience, hold)));
        all.filter_map(|(audience, hold)| {
            let Hold { what, generation } = hold;
            let wait = self.waits.get(*generation)?;
            Some(Entry { audience, what, generation: *generation, wait })
        })
    }
}
