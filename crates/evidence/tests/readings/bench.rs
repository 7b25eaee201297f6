//! One run, and clients that report; messages have the shape that Envoy 1.40 gives them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evidence::{Account, Arm, Channel, Counters, Ledger, LogStream, MetricStream, StreamId, Targets};
use load::{ClusterReport, Counts, EndpointReport, Locality, LocalityReport, Report};
use proto::pb::envoy::data::accesslog::v3::{AccessLogCommon, HttpAccessLogEntry, HttpResponseProperties};
use proto::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use proto::pb::envoy::service::accesslog::v3::stream_access_logs_message::{HttpAccessLogEntries, LogEntries};
use proto::pb::envoy::service::metrics::v3::StreamMetricsMessage;
use proto::pb::google::protobuf;
use proto::pb::io::prometheus::client::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily};
use rollout::{Evidence, Observation, Tally, Time};
use world::api::delivery::{AnalysisProfile, EvidenceSource, MetricSpec};

pub const CANDIDATE: &str = "outbound|80|v2|reviews.default.svc.cluster.local";
pub const STABLE: &str = "outbound|80|v1|reviews.default.svc.cluster.local";
pub const ERRORS: &str = "error-rate";

/// A ledger, and one run that reads it.
pub struct Bench {
    pub ledger: Ledger,
    pub account: Option<Account>,
    pub opened: Instant,
    millis: u64,
}

/// A client with one stream of metrics.
pub struct Client {
    pub stream: MetricStream,
    pub id: StreamId,
    node: &'static str,
    stamp: i64,
}

pub fn arm(cluster: &str) -> Arm {
    Arm { clusters: [cluster.into()].into(), ..Arm::default() }
}

pub fn targets(source: EvidenceSource, metrics: Vec<MetricSpec>) -> Targets {
    Targets { candidate: arm(CANDIDATE), stable: arm(STABLE), metrics, source, ..Targets::default() }
}

pub fn errors() -> Vec<MetricSpec> {
    AnalysisProfile::envoy_default().metrics
}

impl Bench {
    /// A run that asks for errors.
    pub fn new(source: EvidenceSource) -> Self {
        Self::asking(targets(source, errors()))
    }

    pub fn asking(targets: Targets) -> Self {
        let mut bench = Self { ledger: Ledger::default(), account: None, opened: Instant::now(), millis: 1_000 };
        bench.open(targets);
        bench
    }

    pub fn open(&mut self, targets: Targets) {
        let at = Time::from_millis(self.millis);
        self.account = Some(Account::open(at, self.opened, &mut self.ledger, targets));
    }

    /// What came since the last reading, a second later.
    pub fn read(&mut self) -> Evidence {
        self.millis += 1_000;
        self.account.as_mut().unwrap().read(Time::from_millis(self.millis), &self.ledger)
    }

    /// Candidate and stable by the metric that counts errors.
    pub fn counts(&mut self) -> (Tally, Tally) {
        counts(&self.read(), ERRORS)
    }

    /// A load report of a node, so long after the run was opened.
    pub fn load(&mut self, after: Duration, node: &str, report: Report) {
        self.ledger.add_loads(self.opened + after, &node.into(), StreamId(1), &report);
    }
}

pub fn counts(evidence: &Evidence, metric: &str) -> (Tally, Tally) {
    match &evidence.metrics[metric] {
        Observation::Counts { candidate, stable, .. } => (*candidate, *stable),
        other => panic!("{other:?}"),
    }
}

pub fn tally(total: u64, bad: u64) -> Tally {
    Tally::new(total, bad)
}

impl Client {
    /// A stream of this node; later ones have higher numbers.
    pub fn new(node: &'static str, id: u64, counters: Counters) -> Self {
        Self { stream: MetricStream::new(counters), id: StreamId(id), node, stamp: 0 }
    }

    /// Sends a flush; names are those after the cluster's.
    pub fn flush(&mut self, bench: &mut Bench, counters: &[(&str, &str, u64)]) {
        self.stamp += 1;
        self.send(bench, counters.iter().map(|(cluster, name, value)| counter(cluster, name, *value)).collect());
    }

    /// Sends another message of the flush.
    pub fn send(&mut self, bench: &mut Bench, families: Vec<MetricFamily>) {
        let mut message = StreamMetricsMessage { envoy_metrics: families, identifier: None };
        for metric in message.envoy_metrics.iter_mut().flat_map(|family| &mut family.metric) {
            metric.timestamp_ms = Some(self.stamp);
        }
        let node: Arc<str> = self.node.into();
        match bench.ledger.hear(&node, Channel::Metrics, self.id) {
            Some(interest) => {
                let counted = self.stream.handle(&message, &interest);
                bench.ledger.add(Channel::Metrics, &counted);
            }
            None => self.stream.forget(),
        }
    }

    pub fn end(self, bench: &mut Bench) {
        bench.ledger.end(self.node, Channel::Metrics, self.id);
    }
}

pub fn counter(cluster: &str, name: &str, value: u64) -> MetricFamily {
    let counter = Counter { value: Some(value as f64), ..Counter::default() };
    family(format!("cluster.{cluster}.{name}"), Metric { counter: Some(counter), ..Metric::default() })
}

/// As Envoy sends it with `emit_tags_as_labels`.
pub fn labelled(name: &str, labels: &[(&str, &str)], value: u64) -> MetricFamily {
    let label = |(name, value): &(&str, &str)| LabelPair { name: Some((*name).into()), value: Some((*value).into()) };
    let counter = Counter { value: Some(value as f64), ..Counter::default() };
    let metric = Metric { counter: Some(counter), label: labels.iter().map(label).collect(), ..Metric::default() };
    family(name.to_owned(), metric)
}

/// By upper bounds in milliseconds; what is beyond the last is in the total only.
pub fn times(cluster: &str, total: u64, cumulative: &[(f64, u64)]) -> MetricFamily {
    let bucket = |(bound, count): &(f64, u64)| Bucket {
        upper_bound: Some(*bound),
        cumulative_count: Some(*count),
        ..Bucket::default()
    };
    let bucket = cumulative.iter().map(bucket).collect();
    let histogram = Histogram { sample_count: Some(total), bucket, ..Histogram::default() };
    family(format!("cluster.{cluster}.upstream_rq_time"), Metric { histogram: Some(histogram), ..Metric::default() })
}

fn family(name: String, metric: Metric) -> MetricFamily {
    MetricFamily { name: Some(name), metric: vec![metric], ..MetricFamily::default() }
}

/// A report of one second; `(locality's sub-zone, endpoint, successes, errors)`.
pub fn report(cluster: &str, places: &[(&str, &str, u64, u64)]) -> Report {
    let place = |(sub_zone, address, successful, errors): &(&str, &str, u64, u64)| {
        let counts = Counts { successful: *successful, errors: *errors, issued: successful + errors, in_progress: 0 };
        LocalityReport {
            locality: Locality { sub_zone: (*sub_zone).into(), ..Locality::default() },
            counts,
            endpoints: vec![EndpointReport { address: (*address).into(), counts }],
            ..LocalityReport::default()
        }
    };
    let interval = Duration::from_secs(1);
    let localities = places.iter().map(place).collect();
    Report { clusters: vec![ClusterReport { cluster: cluster.into(), interval, localities, ..Default::default() }] }
}

/// One request as an access log has it.
pub fn entry(
    cluster: &str,
    code: u32,
    change: impl FnOnce(&mut AccessLogCommon, &mut HttpResponseProperties),
) -> HttpAccessLogEntry {
    let mut common = AccessLogCommon {
        upstream_cluster: cluster.to_owned(),
        upstream_request_attempt_count: 1,
        duration: Some(protobuf::Duration { seconds: 0, nanos: 4_000_000 }),
        ..AccessLogCommon::default()
    };
    let response_code = Some(protobuf::UInt32Value { value: code });
    let mut response = HttpResponseProperties { response_code, ..HttpResponseProperties::default() };
    change(&mut common, &mut response);
    HttpAccessLogEntry { common_properties: Some(common), response: Some(response), ..HttpAccessLogEntry::default() }
}

/// Sends entries on a stream of a node.
pub fn log(bench: &mut Bench, stream: &mut LogStream, id: u64, entries: Vec<HttpAccessLogEntry>) {
    let log_entries = Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries }));
    let message = StreamAccessLogsMessage { identifier: None, log_entries };
    let interest = bench.ledger.hear(&"a".into(), Channel::Logs, StreamId(id)).unwrap();
    let counted = stream.handle(&message, &interest);
    bench.ledger.add(Channel::Logs, &counted);
}

/// The parts of stable, summed.
pub fn parts(evidence: &Evidence) -> BTreeMap<u64, Tally> {
    match &evidence.metrics[ERRORS] {
        Observation::Counts { parts, .. } => parts.iter().map(|part| (part.endpoint, part.tally)).collect(),
        other => panic!("{other:?}"),
    }
}
