//! Sums over all reports.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Counts, Locality, Report};

/// Names a reporting stream in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What was reported since the start, and by whom last.
///
/// Sums only grow, so whoever wants the numbers of a span takes the difference of two readings. Rates come from the
/// last report of each client, by the interval that it states, as long as that is not stale.
///
/// Bounded: at most [`Table::MOST_CLUSTERS`] clusters and [`Table::MOST_ENDPOINTS`] endpoints of each are kept; what
/// comes beyond is counted as ignored. A cluster that nobody has reported for [`Table::KEPT`] is forgotten.
#[derive(Debug, Default)]
pub struct Table {
    clusters: HashMap<Arc<str>, Cluster>,
    nodes: HashMap<StreamId, Arc<str>>,
    ignored: u64,
}

#[derive(Debug)]
struct Cluster {
    places: BTreeMap<(Locality, u32), Counts>,
    endpoints: BTreeMap<Arc<str>, Counts>,
    dropped: u64,
    last: HashMap<StreamId, Last>,
    reported_at: Instant,
}

/// The last report of one client about one cluster.
#[derive(Clone, Copy, Debug)]
struct Last {
    counts: Counts,
    interval: Duration,
    at: Instant,
}

/// One cluster's load.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterLoad {
    /// Its name.
    pub cluster: Arc<str>,
    /// All that was reported since the start; `in_progress` is that of the newest reports.
    pub total: Counts,
    /// Requests that clients gave up by themselves, since the start.
    pub dropped: u64,
    /// Requests per second that ended, by the newest reports.
    pub per_second: f64,
    /// What of the requests of the newest reports ended badly, from 0 to 1; `None` when none ended.
    pub error_share: Option<f64>,
    /// Clients with a report that is not stale.
    pub reporting: usize,
    /// By locality and priority, since the start, in order.
    pub places: Vec<PlaceLoad>,
    /// By endpoint, since the start, in order; empty unless clients were asked for it.
    pub endpoints: Vec<(Arc<str>, Counts)>,
}

/// One locality and priority of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceLoad {
    /// Where.
    pub locality: Locality,
    /// The priority of its endpoints.
    pub priority: u32,
    /// Since the start; `in_progress` means nothing here and is 0.
    pub total: Counts,
}

/// What one client last reported about a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeLoad {
    /// The client's id.
    pub node: Arc<str>,
    /// Requests per second that ended.
    pub per_second: f64,
    /// What of them ended badly, from 0 to 1; `None` when none ended.
    pub error_share: Option<f64>,
    /// Going on at the end of the interval.
    pub in_progress: u64,
    /// How old the report is.
    pub age: Duration,
}

impl Table {
    /// Clusters that are kept.
    pub const MOST_CLUSTERS: usize = 200_000;
    /// Endpoints that are kept of one cluster.
    pub const MOST_ENDPOINTS: usize = 10_000;
    /// How long a cluster that nobody reports is kept.
    pub const KEPT: Duration = Duration::from_secs(3600);

    /// Takes in a report of `node` on `stream`.
    pub fn add(&mut self, now: Instant, stream: StreamId, node: &Arc<str>, report: Report) {
        self.nodes.entry(stream).or_insert_with(|| node.clone());
        for reported in report.clusters {
            let counts = reported.counts();
            let known = self.clusters.contains_key(&reported.cluster);
            if !known && counts.is_zero() && reported.dropped == 0 {
                continue;
            }
            if !known && self.clusters.len() >= Self::MOST_CLUSTERS {
                self.ignored += 1;
                continue;
            }
            let cluster = self.clusters.entry(reported.cluster.clone()).or_insert_with(|| Cluster::new(now));
            self.ignored += cluster.add(now, stream, reported, counts);
        }
    }

    /// A stream has ended: what it reported stays in the sums, and is nobody's newest report any more.
    pub fn end(&mut self, now: Instant, stream: StreamId) {
        if self.nodes.remove(&stream).is_none() {
            return;
        }
        self.clusters.retain(|_, cluster| {
            cluster.last.remove(&stream);
            !cluster.last.is_empty() || now.saturating_duration_since(cluster.reported_at) < Self::KEPT
        });
    }

    /// Every cluster that had traffic, in order of name.
    pub fn clusters(&self, now: Instant) -> Vec<ClusterLoad> {
        let mut all: Vec<_> = self.clusters.iter().map(|(name, cluster)| cluster.load(name, now)).collect();
        all.sort_by(|a, b| a.cluster.cmp(&b.cluster));
        all
    }

    /// One cluster; `None` when it never had traffic.
    pub fn cluster(&self, name: &str, now: Instant) -> Option<ClusterLoad> {
        self.clusters.get_key_value(name).map(|(name, cluster)| cluster.load(name, now))
    }

    /// Who has reported traffic of a cluster lately, in order of node id.
    pub fn nodes(&self, cluster: &str, now: Instant) -> Vec<NodeLoad> {
        let last = self.clusters.get(cluster).into_iter().flat_map(|cluster| &cluster.last);
        let fresh = last.filter(|(_, last)| last.is_fresh(now));
        let mut nodes: Vec<_> = fresh
            .map(|(stream, last)| NodeLoad {
                node: self.nodes.get(stream).cloned().unwrap_or_default(),
                per_second: last.per_second(),
                error_share: last.counts.error_share(),
                in_progress: last.counts.in_progress,
                age: now.saturating_duration_since(last.at),
            })
            .collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        nodes
    }

    /// How many clusters and endpoints of reports were beyond what is kept.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

impl Cluster {
    fn new(now: Instant) -> Self {
        Self { places: BTreeMap::new(), endpoints: BTreeMap::new(), dropped: 0, last: HashMap::new(), reported_at: now }
    }

    /// How many endpoints there was no room for.
    fn add(&mut self, now: Instant, stream: StreamId, report: crate::ClusterReport, counts: Counts) -> u64 {
        let mut ignored = 0;
        self.reported_at = now;
        self.dropped = self.dropped.saturating_add(report.dropped);
        for place in report.localities {
            let ended = Counts { in_progress: 0, ..place.counts };
            self.places.entry((place.locality, place.priority)).or_default().add(&ended);
            for endpoint in place.endpoints {
                if self.endpoints.len() >= Table::MOST_ENDPOINTS && !self.endpoints.contains_key(&endpoint.address) {
                    ignored += 1;
                    continue;
                }
                let ended = Counts { in_progress: 0, ..endpoint.counts };
                self.endpoints.entry(endpoint.address).or_default().add(&ended);
            }
        }
        if counts.is_zero() {
            self.last.remove(&stream);
        } else {
            self.last.insert(stream, Last { counts, interval: report.interval, at: now });
        }
        ignored
    }

    fn load(&self, name: &Arc<str>, now: Instant) -> ClusterLoad {
        let fresh: Vec<_> = self.last.values().filter(|last| last.is_fresh(now)).collect();
        let newest = fresh.iter().fold(Counts::default(), |mut sum, last| {
            sum.add(&last.counts);
            sum
        });
        let mut total = self.places.values().fold(Counts::default(), |mut sum, place| {
            sum.add(place);
            sum
        });
        total.in_progress = newest.in_progress;
        let places = self.places.iter().map(|((locality, priority), total)| PlaceLoad {
            locality: locality.clone(),
            priority: *priority,
            total: *total,
        });
        ClusterLoad {
            cluster: name.clone(),
            total,
            dropped: self.dropped,
            per_second: fresh.iter().map(|last| last.per_second()).sum(),
            error_share: newest.error_share(),
            reporting: fresh.len(),
            places: places.collect(),
            endpoints: self.endpoints.iter().map(|(address, counts)| (address.clone(), *counts)).collect(),
        }
    }
}

impl Last {
    /// A report counts until two more should have come: one may be late.
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) <= self.interval * 2 + Duration::from_secs(1)
    }

    fn per_second(&self) -> f64 {
        let seconds = self.interval.as_secs_f64();
        if seconds > 0.0 { self.counts.ended() as f64 / seconds } else { 0.0 }
    }
}
