//! Whom to wait for before what is gone from the world may go from what nodes have.
//!
//! Whatever was lost at one generation waits for the same nodes:
//!
//! ```text
//!  lost at generation n ──▶ waits ──▶ nobody is missing ──▶ quiet for a while ──▶ due
//!                            │ ▲           │                                       ▲
//!                            │ └───────────┘ somebody who left is back             │
//!                            └───────────────── waited as long as may be ──────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::MemberId;

/// Nodes that left lately which are remembered, whatever the time.
const DEPARTED: usize = 1024;

/// How long something that is gone is kept.
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

/// The waits.
#[derive(Debug)]
pub(crate) struct Waits {
    patience: Patience,
    /// By the generation at which something was lost.
    waits: BTreeMap<u64, Wait>,
    /// Nodes that left lately, oldest first.
    departed: VecDeque<(Instant, String)>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) since: Instant,
    /// When somebody was still missing.
    used: Instant,
    missing: BTreeMap<MemberId, Missing>,
    /// Ids of nodes that have left, and may come back with what they had.
    away: BTreeSet<String>,
    /// When it ends, if nothing else is heard.
    pub(crate) due: Instant,
}

/// A member that has not settled.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    /// The node's id.
    pub(crate) node: String,
    /// It has settled when it has settled this generation.
    pub(crate) needs: u64,
}

impl Waits {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, waits: BTreeMap::new(), departed: VecDeque::new() }
    }

    /// What was lost at this generation waits for these members.
    pub(crate) fn begin(
        &mut self,
        generation: u64,
        now: Instant,
        missing: impl IntoIterator<Item = (MemberId, Missing)>,
    ) {
        let recent = self.departed.iter().filter(|(at, _)| now < *at + self.patience.quiet);
        let away = recent.map(|(_, id)| id.clone()).collect();
        let missing = missing.into_iter().collect();
        let wait = Wait { since: now, used: now, missing, away, due: now };
        self.waits.insert(generation, wait.timed(&self.patience));
    }

    /// Forgets all waits but those of these generations.
    pub(crate) fn retain(&mut self, used: &BTreeSet<u64>) {
        self.waits.retain(|generation, _| used.contains(generation));
    }

    pub(crate) fn get(&self, generation: u64) -> Option<&Wait> {
        self.waits.get(&generation)
    }

    /// A member has settled this generation.
    pub(crate) fn settled(&mut self, member: MemberId, generation: u64, now: Instant) {
        self.each(|wait| {
            if wait.missing.get(&member).is_some_and(|missing| generation >= missing.needs) {
                wait.missing.remove(&member);
                wait.used = now;
            }
        });
    }

    /// A member has left.
    pub(crate) fn left(&mut self, member: MemberId, node: &str, now: Instant) {
        self.each(|wait| {
            if wait.missing.remove(&member).is_some() {
                wait.used = now;
                wait.away.insert(node.to_owned());
            }
        });
        let is_over = |(at, _): &(Instant, String)| now >= *at + self.patience.quiet;
        while self.departed.len() >= DEPARTED || self.departed.front().is_some_and(is_over) {
            self.departed.pop_front();
        }
        self.departed.push_back((now, node.to_owned()));
    }

    /// A member has come: if its node was missing when it left, what it has first to settle is what it gets now.
    pub(crate) fn came(&mut self, member: MemberId, node: &str) {
        self.each(|wait| {
            if wait.away.contains(node) {
                wait.missing.insert(member, Missing { node: node.to_owned(), needs: 0 });
            }
        });
    }

    /// When the next of them ends, if nothing is heard until then.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waits.values().map(|wait| wait.due).min()
    }

    /// Generations whose waits are over.
    pub(crate) fn due_at(&self, now: Instant) -> BTreeSet<u64> {
        self.waits.iter().filter(|(_, wait)| now >= wait.due).map(|(generation, _)| *generation).collect()
    }

    fn each(&mut self, mut with: impl FnMut(&mut Wait)) {
        for wait in self.waits.values_mut() {
            with(wait);
            wait.time(&self.patience);
        }
    }
}

impl Wait {
    /// Ids of the nodes that are missing, each once and in order.
    pub(crate) fn missing(&self) -> BTreeSet<&str> {
        self.missing.values().map(|missing| &*missing.node).collect()
    }

    fn timed(mut self, patience: &Patience) -> Self {
        self.time(patience);
        self
    }

    fn time(&mut self, patience: &Patience) {
        let last = self.since + patience.longest;
        self.due = if self.missing.is_empty() { last.min(self.used + patience.quiet) } else { last };
    }
}
