//! The sums over all clients.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use load::Report;

use crate::{Interest, LoadSums, Sums};

/// Names a stream of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// By what a client reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// The metrics service.
    Metrics,
    /// Load reports.
    Loads,
    /// Access logs.
    Logs,
}

/// Everything that was counted of one cluster since it became of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterSums {
    /// By the metrics service.
    pub metrics: Sums,
    /// By access logs.
    pub logs: Sums,
    /// By load reports.
    pub loads: LoadSums,
    /// By load reports of clients that had no stream of metrics when they came.
    pub other_loads: LoadSums,
}

/// What clients report of the clusters that are of interest, and who reports.
///
/// Sums only grow while a cluster is of interest, and are forgotten when it is not any more.
#[derive(Debug, Default)]
pub struct Ledger {
    interest: Arc<Interest>,
    clusters: HashMap<Arc<str>, ClusterSums>,
    nodes: HashMap<Arc<str>, Node>,
    /// Rises with every report.
    tick: u64,
    superseded: u64,
}

/// A client with open streams.
#[derive(Debug, Default)]
struct Node {
    streams: BTreeSet<(Channel, StreamId)>,
    /// The last report by each channel.
    heard: [Option<u64>; 3],
}

impl ClusterSums {
    pub(crate) fn since(&self, earlier: &ClusterSums) -> ClusterSums {
        ClusterSums {
            metrics: self.metrics.since(&earlier.metrics),
            logs: self.logs.since(&earlier.logs),
            loads: self.loads.since(&earlier.loads),
            other_loads: self.other_loads.since(&earlier.other_loads),
        }
    }
}

impl Ledger {
    /// What is of interest now.
    pub fn interest(&self) -> &Arc<Interest> {
        &self.interest
    }

    /// The sums of a cluster; `None` when it is of no interest.
    pub fn cluster(&self, name: &str) -> Option<&ClusterSums> {
        self.clusters.get(name)
    }

    /// Messages that were not counted because a newer stream of the same node counts.
    pub fn superseded(&self) -> u64 {
        self.superseded
    }

    /// A report came on a stream. Returns what is of interest; `None` when the report is not to be counted: metrics are
    /// those of a process, so of several streams of them that call themselves the same node the newest counts.
    pub fn hear(&mut self, node: &Arc<str>, channel: Channel, stream: StreamId) -> Option<Arc<Interest>> {
        self.tick += 1;
        let entry = self.nodes.entry(node.clone()).or_default();
        entry.streams.insert((channel, stream));
        let newest = entry.newest(channel);
        if channel == Channel::Metrics && newest.is_some_and(|newest| newest > stream) {
            self.superseded += 1;
            return None;
        }
        entry.heard[channel as usize] = Some(self.tick);
        Some(self.interest.clone())
    }

    /// Adds what a stream of metrics or access logs counted.
    pub fn add(&mut self, channel: Channel, counted: &[(Arc<str>, Sums)]) {
        for (cluster, sums) in counted {
            // It may have ceased to be of interest meanwhile.
            let Some(all) = self.clusters.get_mut(cluster) else { continue };
            match channel {
                Channel::Metrics => all.metrics.add(sums),
                Channel::Logs => all.logs.add(sums),
                Channel::Loads => {}
            }
        }
    }

    /// Adds a load report, which is heard with it. What covers a time before the cluster was of interest is left out.
    pub fn add_loads(&mut self, now: Instant, node: &Arc<str>, stream: StreamId, report: &Report) {
        let Some(interest) = self.hear(node, Channel::Loads, stream) else { return };
        let has_metrics = self.nodes.get(node).is_some_and(|node| node.newest(Channel::Metrics).is_some());
        for reported in &report.clusters {
            let Some(wanted) = interest.by_name(&reported.cluster) else { continue };
            let Some(all) = self.clusters.get_mut(&wanted.cluster) else { continue };
            if now.saturating_duration_since(wanted.opened) < reported.interval {
                continue;
            }
            all.loads.add(reported);
            if !has_metrics {
                all.other_loads.add(reported);
            }
        }
    }

    /// A stream has ended.
    pub fn end(&mut self, node: &str, channel: Channel, stream: StreamId) {
        let Some(entry) = self.nodes.get_mut(node) else { return };
        entry.streams.remove(&(channel, stream));
        if entry.newest(channel).is_none() {
            entry.heard[channel as usize] = None;
        }
        if entry.streams.is_empty() {
            self.nodes.remove(node);
        }
    }

    /// Where reports stand, for [`Ledger::reporters`].
    pub(crate) fn tick(&self) -> u64 {
        self.tick
    }

    /// How many nodes that are still there have reported by one of these channels since `tick`.
    pub(crate) fn reporters(&self, tick: u64, channels: &[Channel]) -> u32 {
        let has_reported = |node: &&Node| {
            let mut heard = channels.iter().filter_map(|channel| node.heard[*channel as usize]);
            heard.any(|at| at > tick)
        };
        u32::try_from(self.nodes.values().filter(has_reported).count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn open(&mut self, now: Instant, cluster: &Arc<str>, excluded_routes: &BTreeSet<Arc<str>>) {
        Arc::make_mut(&mut self.interest).open(now, cluster, excluded_routes);
        self.clusters.entry(cluster.clone()).or_default();
    }

    pub(crate) fn close(&mut self, cluster: &str) {
        if Arc::make_mut(&mut self.interest).close(cluster) {
            self.clusters.remove(cluster);
        }
    }
}

impl Node {
    fn newest(&self, channel: Channel) -> Option<StreamId> {
        let of_channel = (channel, StreamId(0))..=(channel, StreamId(u64::MAX));
        self.streams.range(of_channel).next_back().map(|(_, stream)| *stream)
    }
}
