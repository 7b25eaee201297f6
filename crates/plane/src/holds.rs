//! Ports of workloads that nothing in the world leads to any more, and that nodes may still send requests to.
//!
//! A change that takes a port from workloads and points everybody elsewhere reaches the proxies of the workloads and
//! those of the clients in no particular order. So the port stays until every client has settled the change:
//!
//! ```text
//!  lost at generation n ──▶ held ──▶ nobody is missing ──▶ quiet for a while ──▶ lifted
//!                            │ ▲           │                                       ▲
//!                            │ └───────────┘ somebody who left is back             │
//!                            ├───────────────── waited as long as may be ──────────┘
//!                            └──▶ it is back in the world: forgotten
//! ```
//!
//! Whatever is lost at one generation waits for the same nodes. This only keeps the books: who publishes what is held,
//! and asks when it may go, is the [`Plane`](crate::Plane).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use compile::{Audience, Served};

use crate::MemberId;

/// Nodes that left lately which are remembered, whatever the time.
const DEPARTED: usize = 1024;

/// How long ports that are gone are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// At most so long, whoever has not settled.
    pub longest: Duration,
    /// When everybody has settled, for so long: requests may be under way, because a client says that it has accepted
    /// something before all of its threads use it. Nodes that left may still send requests, too; one that lost its
    /// stream by accident is back within this time, and is waited for again.
    pub quiet: Duration,
}

impl Default for Patience {
    /// 30 s, which is twice what one type waits for another on a stream; and 2 s, because Envoy connects again within
    /// half a second (its ADS backoff begins at 500 ms) and gRPC within 1.2 s.
    fn default() -> Self {
        Self { longest: Duration::from_secs(30), quiet: Duration::from_secs(2) }
    }
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    patience: Patience,
    /// What is held, by audience as [`Audience::workload`] has it, and by the workload's port. No audience is without.
    held: BTreeMap<Audience, BTreeMap<u16, Hold>>,
    /// Whom to wait for, by the generation at which something was lost.
    waits: BTreeMap<u64, Wait>,
    /// Nodes that left lately, oldest first.
    departed: VecDeque<(Instant, String)>,
}

#[derive(Clone, Debug)]
struct Hold {
    what: Served,
    /// The generation without it.
    generation: u64,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    /// When somebody was still missing.
    used: Instant,
    missing: BTreeMap<MemberId, Missing>,
    /// Ids of nodes that have left, and may come back with what they had.
    away: BTreeSet<String>,
}

/// A member that has not settled.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    /// The node's id.
    pub(crate) node: String,
    /// It has settled when it has settled this generation.
    pub(crate) needs: u64,
}

/// One port of a workload that is held.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) audience: &'a Audience,
    pub(crate) what: &'a Served,
    pub(crate) generation: u64,
    pub(crate) since: Instant,
    /// When it goes, if nothing else is heard.
    pub(crate) due: Instant,
    missing: &'a BTreeMap<MemberId, Missing>,
}

impl Entry<'_> {
    /// Ids of the nodes that it is kept for, each once and in order.
    pub(crate) fn missing(&self) -> BTreeSet<&str> {
        self.missing.values().map(|missing| &*missing.node).collect()
    }
}

impl Holds {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, ..Self::default() }
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
        let recent = self.departed.iter().filter(|(at, _)| now < *at + self.patience.quiet);
        let away = recent.map(|(_, id)| id.clone()).collect();
        let missing = missing.into_iter().collect();
        self.waits.insert(generation, Wait { since: now, used: now, missing, away });
        self.tidy_waits();
    }

    fn tidy_waits(&mut self) {
        let used: BTreeSet<u64> =
            self.held.values().flat_map(|held| held.values()).map(|hold| hold.generation).collect();
        self.waits.retain(|generation, _| used.contains(generation));
    }

    /// A member has settled this generation.
    pub(crate) fn settled(&mut self, member: MemberId, generation: u64, now: Instant) {
        for wait in self.waits.values_mut() {
            if wait.missing.get(&member).is_some_and(|missing| generation >= missing.needs) {
                wait.missing.remove(&member);
                wait.used = now;
            }
        }
    }

    /// A member has left.
    pub(crate) fn left(&mut self, member: MemberId, node: String, now: Instant) {
        for wait in self.waits.values_mut() {
            if wait.missing.remove(&member).is_some() {
                wait.used = now;
                wait.away.insert(node.clone());
            }
        }
        let is_over = |(at, _): &(Instant, String)| now >= *at + self.patience.quiet;
        while self.departed.len() >= DEPARTED || self.departed.front().is_some_and(is_over) {
            self.departed.pop_front();
        }
        self.departed.push_back((now, node));
    }

    /// A member has come: if its node was missing when it left, what it has first to settle is what it gets now.
    pub(crate) fn came(&mut self, member: MemberId, node: &str) {
        for wait in self.waits.values_mut().filter(|wait| wait.away.contains(node)) {
            wait.missing.insert(member, Missing { node: node.to_owned(), needs: 0 });
        }
    }

    /// When the next of them goes, if nothing is heard until then.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waits.values().map(|wait| wait.due(&self.patience)).min()
    }

    /// Generations whose ports go now.
    pub(crate) fn due_at(&self, now: Instant) -> BTreeSet<u64> {
        let due = self.waits.iter().filter(|(_, wait)| now >= wait.due(&self.patience));
        due.map(|(generation, _)| *generation).collect()
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
            let wait = self.waits.get(&hold.generation)?;
            let (since, due) = (wait.since, wait.due(&self.patience));
            let Hold { what, generation } = hold;
            Some(Entry { audience, what, generation: *generation, since, due, missing: &wait.missing })
        })
    }
}

impl Wait {
    fn due(&self, patience: &Patience) -> Instant {
        let last = self.since + patience.longest;
        if self.missing.is_empty() { last.min(self.used + patience.quiet) } else { last }
    }
}
