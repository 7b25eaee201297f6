//! What was seen: as values, as JSON by serde, and as a table by [`Display`](std::fmt::Display).

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cost::Cost;
use crate::scenario::{NodeSize, Scenario, Variant};
use crate::tally::{Count, Tally};

/// What a swarm saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name; may be empty.
    pub name: String,
    /// The server's address.
    pub server: String,
    /// The variant of the protocol.
    pub variant: Variant,
    /// How many nodes, of all manners.
    pub nodes: usize,
    /// How large their `Node` is.
    pub node: NodeSize,
    /// Whether it was ended early.
    pub is_interrupted: bool,
    /// In their order.
    pub phases: Vec<PhaseReport>,
}

impl Report {
    pub(crate) fn new(scenario: &Scenario, server: &str) -> Self {
        Self {
            name: scenario.name.clone(),
            server: server.to_owned(),
            variant: scenario.variant,
            nodes: scenario.nodes,
            node: scenario.node,
            is_interrupted: false,
            phases: Vec::new(),
        }
    }

    /// Whether every phase got every node where it should.
    pub fn is_complete(&self) -> bool {
        !self.is_interrupted && self.phases.iter().all(|phase| phase.reached >= phase.wanted)
    }
}

/// What was seen in one phase; with repetitions, the sums over all of them, and their medians.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PhaseReport {
    /// `connect`, `hold`, `change`, `stream` or `reconnect`.
    pub phase: String,
    /// How long it took.
    pub seconds: f64,
    /// How often it was done; 1 for phases that are not repeated.
    pub repetitions: u32,
    /// Well-behaved nodes that were to get there, each time.
    pub wanted: usize,
    /// Well-behaved nodes that got there; of several repetitions the fewest.
    pub reached: usize,
    /// Open connections at its end, of all nodes.
    pub connected: usize,
    /// From the begin of connecting until the last response that a node's first configuration needed arrived; after a
    /// reconnect with versions, until the server had read everything and its last response had arrived.
    pub synced: Option<Span>,
    /// From the change until its last response arrived at a node.
    pub arrived: Option<Span>,
    /// From the change until a node had sent its acknowledgement.
    pub acknowledged: Option<Span>,
    /// How old stamped content was when it arrived; counts deliveries, not nodes.
    pub age: Option<Span>,
    /// Responses by the short name of their type, of all nodes.
    pub types: BTreeMap<String, TypeReport>,
    /// Bytes of messages, per node that was to get there and per repetition, by all nodes together.
    pub bytes_per_node: f64,
    /// Bytes that came through sockets, HTTP/2 framing included.
    pub received_bytes: u64,
    /// Bytes that went through sockets.
    pub sent_bytes: u64,
    /// Responses that nodes refused.
    pub refused: u64,
    /// Responses that nobody had asked for.
    pub unasked: u64,
    /// Why connections ended, and how often.
    pub ends: BTreeMap<String, u64>,
    /// What it cost the server, if its process is known.
    pub server: Option<CostReport>,
    /// What it cost the swarm.
    pub client: CostReport,
    /// Whether the swarm used as much CPU as the server, so that only the server's CPU is worth quoting; `None` if the
    /// server's is not known.
    pub is_client_bound: Option<bool>,
    /// The repetitions of a change or reconnect, one by one.
    pub each: Vec<ChangeReport>,
}

/// Responses of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeReport {
    /// Responses.
    pub responses: u64,
    /// Resources in them.
    pub resources: u64,
    /// Names that were removed.
    pub removed: u64,
    /// Bytes of their messages, without framing.
    pub bytes: u64,
}

/// One of several repetitions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChangeReport {
    /// As in [`PhaseReport::arrived`]; of a reconnect as in [`PhaseReport::synced`].
    pub arrived: Option<Span>,
    /// As in [`PhaseReport::acknowledged`].
    pub acknowledged: Option<Span>,
    /// What it cost the server per node that was to get there.
    pub server_micros_per_node: Option<f64>,
}

/// How times are spread over nodes, in milliseconds; percentiles by nearest rank.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// How many nodes.
    pub count: usize,
    /// The first node's.
    pub first: f64,
    /// Half of them were faster.
    pub p50: f64,
    /// One in ten was slower.
    pub p90: f64,
    /// One in a hundred was slower.
    pub p99: f64,
    /// The last node's.
    pub last: f64,
}

impl Span {
    /// Of times in nanoseconds; `None` of none.
    pub(crate) fn of(nanos: impl Iterator<Item = u64>) -> Option<Self> {
        let mut sorted: Vec<_> = nanos.collect();
        sorted.sort_unstable();
        let last = sorted.last()?;
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1] as f64 / 1e6;
        Some(Self {
            count: sorted.len(),
            first: sorted[0] as f64 / 1e6,
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            last: *last as f64 / 1e6,
        })
    }

    /// The median of each figure over repetitions.
    fn median(spans: &[Span]) -> Option<Self> {
        let of = |figure: fn(&Span) -> f64| median(spans.iter().map(figure));
        Some(Self {
            count: spans.iter().map(|span| span.count).min()?,
            first: of(|span| span.first)?,
            p50: of(|span| span.p50)?,
            p90: of(|span| span.p90)?,
            p99: of(|span| span.p99)?,
            last: of(|span| span.last)?,
        })
    }
}

/// The median; `None` of none. Of an even number the upper one.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<_> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// What a process used during a phase.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct CostReport {
    /// CPU time; only of the changes themselves when a phase repeats them, without pauses.
    pub cpu_seconds: f64,
    /// The same per node that was to get there and per repetition.
    pub micros_per_node: f64,
    /// Resident memory at its begin.
    pub rss_bytes_before: u64,
    /// Resident memory at its end.
    pub rss_bytes_after: u64,
    /// The most resident memory that the process ever had.
    pub peak_bytes: u64,
}

impl CostReport {
    fn between(before: Cost, after: Cost, nodes: usize) -> Self {
        // Threads that end take their time with them; that must not look like an enormous number.
        let cpu_seconds = after.cpu_nanos.saturating_sub(before.cpu_nanos) as f64 / 1e9;
        let report = Self {
            cpu_seconds,
            micros_per_node: 0.0,
            rss_bytes_before: before.rss_bytes,
            rss_bytes_after: after.rss_bytes,
            peak_bytes: after.peak_bytes,
        };
        Self { micros_per_node: report.micros(nodes), ..report }
    }

    /// CPU time per node.
    pub(crate) fn micros(&self, nodes: usize) -> f64 {
        self.cpu_seconds * 1e6 / nodes.max(1) as f64
    }

    fn add(&mut self, later: Self) {
        self.cpu_seconds += later.cpu_seconds;
        self.rss_bytes_after = later.rss_bytes_after;
        self.peak_bytes = later.peak_bytes;
    }
}

impl PhaseReport {
    pub(crate) fn new(phase: &str, took: Duration, wanted: usize, tally: &Tally) -> Self {
        let types: BTreeMap<_, _> = tally.by_type().map(|(name, count)| (name.to_owned(), count.into())).collect();
        let bytes: u64 = types.values().map(|report: &TypeReport| report.bytes).sum();
        Self {
            phase: phase.to_owned(),
            seconds: took.as_secs_f64(),
            repetitions: 1,
            wanted,
            bytes_per_node: bytes as f64 / wanted.max(1) as f64,
            types,
            received_bytes: tally.traffic.received,
            sent_bytes: tally.traffic.sent,
            refused: tally.refused,
            unasked: tally.unasked,
            ends: tally.ends.clone(),
            age: Span::of(tally.ages.iter().copied()),
            ..Self::default()
        }
    }

    pub(crate) fn cost(&mut self, server: Option<(Cost, Cost)>, client: (Cost, Cost)) {
        self.server = server.map(|(before, after)| CostReport::between(before, after, self.wanted));
        self.client = CostReport::between(client.0, client.1, self.wanted);
        self.is_client_bound = self.server.map(|server| self.client.cpu_seconds >= server.cpu_seconds);
    }

    /// Adds another repetition.
    pub(crate) fn add(&mut self, other: Self) {
        if self.repetitions == 0 {
            *self = other;
            return;
        }
        self.repetitions += 1;
        self.reached = self.reached.min(other.reached);
        self.connected = other.connected;
        for (name, more) in other.types {
            let sum = self.types.entry(name).or_default();
            sum.responses += more.responses;
            sum.resources += more.resources;
            sum.removed += more.removed;
            sum.bytes += more.bytes;
        }
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.refused += other.refused;
        self.unasked += other.unasked;
        for (reason, more) in other.ends {
            *self.ends.entry(reason).or_default() += more;
        }
        if let (Some(sum), Some(more)) = (&mut self.server, other.server) {
            sum.add(more);
        }
        self.client.add(other.client);
    }

    /// The whole took so long, pauses included.
    pub(crate) fn began_and_ended(&mut self, took: Duration) {
        self.seconds = took.as_secs_f64();
    }

    pub(crate) fn with_changes(mut self, phase: &str, changes: Vec<ChangeReport>) -> Self {
        phase.clone_into(&mut self.phase);
        let spans = |of: fn(&ChangeReport) -> &Option<Span>| {
            let spans: Vec<_> = changes.iter().filter_map(|change| of(change).clone()).collect();
            Span::median(&spans)
        };
        self.arrived = spans(|change| &change.arrived);
        self.acknowledged = spans(|change| &change.acknowledged);
        self.each = changes;
        self.per_repetition();
        self
    }

    pub(crate) fn with_reconnects(self, reconnects: Vec<ChangeReport>) -> Self {
        let mut report = self.with_changes("reconnect", reconnects);
        report.synced = report.arrived.take();
        report
    }

    /// Figures per node become figures per node and repetition.
    fn per_repetition(&mut self) {
        let nodes = self.wanted * self.repetitions as usize;
        let bytes: u64 = self.types.values().map(|report| report.bytes).sum();
        self.bytes_per_node = bytes as f64 / nodes.max(1) as f64;
        if let Some(server) = &mut self.server {
            server.micros_per_node = server.micros(nodes);
        }
        self.client.micros_per_node = self.client.micros(nodes);
        self.is_client_bound = self.server.map(|server| self.client.cpu_seconds >= server.cpu_seconds);
    }
}

impl From<Count> for TypeReport {
    fn from(count: Count) -> Self {
        Self { responses: count.responses, resources: count.resources, removed: count.removed, bytes: count.bytes }
    }
}

#[cfg(test)]
mod tests;
