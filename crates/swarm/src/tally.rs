//! What nodes saw during one phase.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use proto::ResourceType;

use crate::catalogue::{TYPES, position};
use crate::clock::Nanos;
use crate::connection::Traffic;
use crate::scan::Received;

/// How a node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// As an Envoy does.
    Good,
    /// It never reads.
    Slow,
    /// It connects and says nothing.
    Silent,
    /// It refuses every response.
    Refusing,
}

/// Responses of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) responses: u64,
    pub(crate) resources: u64,
    pub(crate) removed: u64,
    /// Of messages, without framing.
    pub(crate) bytes: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.responses += other.responses;
        self.resources += other.resources;
        self.removed += other.removed;
        self.bytes += other.bytes;
    }
}

/// What one node saw. Times are 0 for what did not happen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Record {
    /// When it began to connect; kept over phases.
    pub(crate) connecting: Nanos,
    /// When the response arrived that made its first configuration whole.
    pub(crate) synced: Nanos,
    /// When the server's sign of life arrived after a reconnect with versions; else as `synced`.
    pub(crate) back: Nanos,
    /// When the last response arrived that counts.
    pub(crate) arrived: Nanos,
    /// When it had acknowledged that.
    pub(crate) acknowledged: Nanos,
    /// Bytes of messages.
    pub(crate) bytes: u64,
}

/// What the nodes of one thread saw, or of all.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By position in [`TYPES`]; the last are responses of other types.
    pub(crate) counts: [Count; TYPES.len() + 1],
    /// Responses that were refused.
    pub(crate) refused: u64,
    /// Responses that nobody had asked for.
    pub(crate) unasked: u64,
    pub(crate) traffic: Traffic,
    /// How old stamped content was when it arrived, at well-behaved nodes.
    pub(crate) ages: Vec<Nanos>,
    /// Why connections ended, and how many did.
    pub(crate) ends: BTreeMap<String, u64>,
    /// Of each node that was asked for.
    pub(crate) records: Vec<(Manners, Record)>,
}

impl Tally {
    pub(crate) fn response(&mut self, received: &Received) {
        let count = Count {
            responses: 1,
            resources: u64::from(received.resources),
            removed: u64::from(received.removed),
            bytes: received.bytes,
        };
        self.counts[received.kind.and_then(position).unwrap_or(TYPES.len())].add(count);
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            count.add(more);
        }
        self.refused += other.refused;
        self.unasked += other.unasked;
        self.traffic.received += other.traffic.received;
        self.traffic.sent += other.traffic.sent;
        for (reason, count) in other.ends {
            *self.ends.entry(reason).or_default() += count;
        }
        self.ages.extend(other.ages);
        self.records.extend(other.records);
    }

    /// The counts with the short names of their types, without types of which nothing came.
    pub(crate) fn by_type(&self) -> impl Iterator<Item = (&'static str, Count)> {
        let names = TYPES.iter().map(|kind: &ResourceType| kind.short()).chain(["other"]);
        names.zip(self.counts).filter(|(_, count)| count.responses > 0)
    }
}

/// Types whose responses count, as bits by position in [`TYPES`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected(u8);

impl Expected {
    /// These types, or all when there are none.
    pub(crate) fn of(kinds: impl IntoIterator<Item = ResourceType>) -> Self {
        let bits = kinds.into_iter().filter_map(position).fold(0, |bits, at| bits | 1 << at);
        Self(if bits == 0 { u8::MAX } else { bits })
    }

    pub(crate) fn has(self, kind: Option<ResourceType>) -> bool {
        self.0 & 1 << kind.and_then(position).unwrap_or(TYPES.len()) != 0
    }
}

/// Where a phase stands, for whoever waits for its end. Counts are of well-behaved nodes unless they say otherwise.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Connections that are open, of all nodes.
    pub(crate) connected: AtomicUsize,
    /// Nodes whose first configuration is whole.
    pub(crate) synced: AtomicUsize,
    /// Nodes that are back after a reconnect of this phase.
    pub(crate) back: AtomicUsize,
    /// Nodes that have received something in this phase that counts.
    pub(crate) arrived: AtomicUsize,
    /// Nodes that have acknowledged something in this phase that counts.
    pub(crate) acknowledged: AtomicUsize,
    /// Responses in this phase, of all nodes.
    pub(crate) responses: AtomicU64,
    /// Connections that ended without being told to, of all nodes, in this phase.
    pub(crate) ended: AtomicU64,
    /// When something last arrived.
    pub(crate) last: AtomicU64,
}

impl Standing {
    /// Begins a phase. The counts of nodes are the nodes' own affair.
    pub(crate) fn reset(&self) {
        for counter in [&self.responses, &self.ended] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// Adds to a counter of [`Standing`]; only sums are read, so no order is needed.
pub(crate) fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}
