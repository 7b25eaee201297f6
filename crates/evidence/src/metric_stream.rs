//! One stream of the metrics service.

use std::collections::HashMap;
use std::sync::Arc;

use proto::pb::envoy::service::metrics::v3::StreamMetricsMessage;
use proto::pb::io::prometheus::client::{Histogram, LabelPair, Metric, MetricFamily};

use crate::stat::{self, Named};
use crate::{Interest, Stat, Sums};

/// Labels that stand for parts of a name when the client was told to take names apart (`emit_tags_as_labels`).
const CLUSTER_LABEL: &str = "envoy.cluster_name";
const CODE_LABEL: &str = "envoy.response_code";
const CLASS_LABEL: &str = "envoy.response_code_class";

/// More buckets than this has no honest histogram: Envoy has 19 unless it is told otherwise.
const MOST_BUCKETS: usize = 256;

/// What the counters in the messages are; the messages themselves do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counters {
    /// What was counted since the last flush (`report_counters_as_deltas`).
    Deltas,
    /// What was counted since the client's start: Envoy's default.
    Absolute,
}

/// The server's end of one stream, which says nothing to the client.
///
/// The first flush on a stream is not counted: counters in it are from a time that nobody can tell, and after a
/// reconnection another stream may have told them already. Neither is the first flush after a cluster became of
/// interest, for that cluster. From then on counters count that grow, whatever becomes of the client: one that is smaller than
/// before began anew.
///
/// Histograms hold what was measured since the last flush, whatever counters are.
#[derive(Debug)]
pub struct MetricStream {
    counters: Counters,
    flush: Option<Flush>,
    /// The last values, for counters that are not deltas.
    last: HashMap<Arc<str>, HashMap<Stat, u64>>,
}

/// The messages of one flush, of which Envoy makes more than one when it is told a `batch_size`.
#[derive(Clone, Copy, Debug)]
struct Flush {
    /// What all its metrics are stamped with; `None` makes each message a flush.
    stamp: Option<i64>,
    /// The generation of the interest when it began.
    generation: u64,
    /// The same of the flush before: clusters of interest by then are counted.
    counted: Option<u64>,
}

impl MetricStream {
    /// A stream on which nothing was said yet.
    pub fn new(counters: Counters) -> Self {
        Self { counters, flush: None, last: HashMap::new() }
    }

    /// Forgets where counting stands: another stream of the same node counts.
    pub fn forget(&mut self) {
        self.flush = None;
        self.last.clear();
    }

    /// What was counted of the clusters of interest, as far as it is known not to be counted already; in order of name.
    pub fn handle(&mut self, message: &StreamMetricsMessage, interest: &Interest) -> Vec<(Arc<str>, Sums)> {
        let stamp = message.envoy_metrics.iter().find_map(|family| family.metric.first()?.timestamp_ms);
        let counted = self.begin(stamp, interest);
        if interest.is_empty() {
            return Vec::new();
        }
        let mut sums = HashMap::<Arc<str>, Sums>::new();
        for family in &message.envoy_metrics {
            for metric in &family.metric {
                self.take(family, metric, interest, counted, &mut sums);
            }
        }
        let mut all: Vec<_> = sums.into_iter().filter(|(_, sums)| !sums.is_empty()).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Until which generation clusters are counted in the flush that this message belongs to.
    fn begin(&mut self, stamp: Option<i64>, interest: &Interest) -> Option<u64> {
        if let Some(flush) = self.flush.filter(|flush| stamp.is_some() && flush.stamp == stamp) {
            return flush.counted;
        }
        self.last.retain(|cluster, _| interest.by_name(cluster).is_some());
        let counted = self.flush.map(|flush| flush.generation);
        self.flush = Some(Flush { stamp, generation: interest.generation(), counted });
        counted
    }

    fn take(
        &mut self,
        family: &MetricFamily,
        metric: &Metric,
        interest: &Interest,
        counted: Option<u64>,
        sums: &mut HashMap<Arc<str>, Sums>,
    ) {
        let whole = whole_name(family.name(), &metric.label);
        let Some((name, named)) = stat::parse(whole.as_deref().unwrap_or(family.name())) else { return };
        let Some(wanted) = interest.by_stat_name(name) else { return };
        let is_counted = counted.is_some_and(|generation| wanted.since <= generation);
        match (named, &metric.counter, &metric.histogram) {
            (Named::Counter(stat), Some(counter), _) => {
                let value = count(counter.value());
                let grown = match self.counters {
                    Counters::Deltas => value,
                    Counters::Absolute => self.growth(&wanted.cluster, stat, value),
                };
                if is_counted {
                    sums.entry(wanted.cluster.clone()).or_default().count(stat, grown);
                }
            }
            (Named::Time, _, Some(histogram)) if is_counted => {
                times(histogram, sums.entry(wanted.cluster.clone()).or_default());
            }
            (Named::Counter(_) | Named::Time, _, _) => {}
        }
    }

    /// By how much a counter grew; one that was not there before began at nothing.
    fn growth(&mut self, cluster: &Arc<str>, stat: Stat, value: u64) -> u64 {
        let last = self.last.entry(cluster.clone()).or_default();
        if last.len() >= Sums::MOST_STATS && !last.contains_key(&stat) {
            return 0;
        }
        let before = last.insert(stat, value).unwrap_or_default();
        value.checked_sub(before).unwrap_or(value)
    }
}

/// The name as it was before it was taken apart; `None` if it was not. Envoy takes the first part of a cluster's name for
/// all of it, unless the bootstrap says better: what is left of it stands in the name.
fn whole_name(name: &str, labels: &[LabelPair]) -> Option<String> {
    let label = |wanted: &str| labels.iter().find(|label| label.name() == wanted).map(LabelPair::value);
    let cluster = label(CLUSTER_LABEL)?;
    let mut whole = format!("cluster.{cluster}.{}", name.strip_prefix("cluster.")?);
    if let Some(code) = label(CODE_LABEL) {
        whole.push('_');
        whole.push_str(code);
    } else if let Some(class) = label(CLASS_LABEL)
        && let Some(stem) = whole.strip_suffix("_xx")
    {
        whole = format!("{stem}_{class}xx");
    }
    Some(whole)
}

/// Counts come as floating-point numbers; what is none counts as nothing.
fn count(value: f64) -> u64 {
    // Beyond 2^53 such a number is not exact any more, and nobody has counted so far.
    if (1.0..=9e15).contains(&value) { value as u64 } else { 0 }
}

fn times(histogram: &Histogram, sums: &mut Sums) {
    let (mut below, mut from) = (0_u64, 0_u64);
    for bucket in histogram.bucket.iter().take(MOST_BUCKETS) {
        let Some(until) = micros(bucket.upper_bound()) else { break };
        sums.time(from, bucket.cumulative_count().saturating_sub(below));
        (below, from) = (below.max(bucket.cumulative_count()), until);
    }
    sums.time(from, histogram.sample_count().saturating_sub(below));
}

fn micros(millis: f64) -> Option<u64> {
    (millis.is_finite() && millis >= 0.0).then(|| (millis * 1000.0).round() as u64)
}
