//! What is counted and timed. `docs/metrics.md` lists every name with its meaning.
//!
//! Names that dashboards of Istio know are used where the meaning is the same; they have no `_total`, because
//! Istio's have none.

mod counter;
mod judged;
mod label;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use compile::Work;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use proto::ResourceType;

use crate::jwks::KeySetCounts;
use crate::plane_task::Counts;
use counter::Counter;
use judged::Judged;
use label::{
    CodeLabel, KindLabel, LimitLabel, OutcomeLabel, ReasonLabel, SeverityLabel, StandingLabel, TypeLabel, VersionLabel,
};
pub(crate) use label::{Passage, StreamLabel};

/// 50 µs, doubled up to 26 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 20))
}

/// 256 bytes, four times as much each step, up to 64 MiB.
fn bytes() -> Histogram {
    Histogram::new(exponential_buckets(256.0, 4.0, 10))
}

/// What is counted for every message, of one type: found once, because finding a label costs as much as counting.
#[derive(Debug)]
struct OfType {
    pushes: Counter,
    push_time: Histogram,
    config_size: Histogram,
    sent_bytes: Counter,
    acknowledgement: Histogram,
}

/// Every metric, and the registry that knows their names.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,

    nodes: Family<VersionLabel, Gauge>,
    nodes_by_version: Mutex<HashMap<String, i64>>,
    pushes: Family<TypeLabel, Counter>,
    push_time: Family<TypeLabel, Histogram, fn() -> Histogram>,
    send_time: Histogram,
    convergence_time: Histogram,
    config_size: Family<TypeLabel, Histogram, fn() -> Histogram>,
    rejects: Family<TypeLabel, Counter>,
    by_type: [OnceLock<OfType>; ResourceType::ALL.len()],
    isolated: Family<TypeLabel, Counter>,
    cleared: Family<TypeLabel, Counter>,
    services: Gauge,
    virtual_services: Gauge,

    connections: Gauge,
    connections_closed: Family<ReasonLabel, Counter>,
    certificates_signed: Family<ReasonLabel, Counter>,
    certificates_refused: Family<ReasonLabel, Counter>,
    token_reviews: Family<OutcomeLabel, Counter>,
    token_review_time: Histogram,
    streams: Family<StreamLabel, Gauge>,
    streams_ended: Family<CodeLabel, Counter>,
    sent_bytes: Family<TypeLabel, Counter>,
    acknowledgement: Family<TypeLabel, Histogram, fn() -> Histogram>,
    waits: Family<ReasonLabel, Counter>,
    waits_expired: Family<ReasonLabel, Counter>,
    unknown_types: Counter,
    load_streams: Gauge,
    load_reports: Counter,
    load_clusters: Counter,
    telemetry_streams: Family<KindLabel, Gauge>,
    telemetry_messages: Family<KindLabel, Counter>,
    telemetry_cut: Family<KindLabel, Counter>,
    limits: Family<LimitLabel, Counter>,
    first_response_wait: Histogram,
    publish: Histogram,
    seen_to_published: Histogram,
    change_applied: Histogram,
    change_compiled: Histogram,
    change_first_sent: Histogram,
    change_acknowledged: Histogram,
    compile_units: Counter,
    resources_encoded: Counter,
    objects: Gauge,
    audiences: Gauge,
    problems: Family<SeverityLabel, Gauge>,
    key_sets: Family<StandingLabel, Gauge>,
    key_sets_fetched: Family<OutcomeLabel, Counter>,
    judged: Judged,
}

impl Metrics {
    /// All of them at zero.
    pub(crate) fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::default(),
            nodes: Family::default(),
            nodes_by_version: Mutex::default(),
            pushes: Family::default(),
            push_time: Family::new_with_constructor(seconds),
            send_time: seconds(),
            convergence_time: seconds(),
            config_size: Family::new_with_constructor(bytes),
            rejects: Family::default(),
            by_type: Default::default(),
            isolated: Family::default(),
            cleared: Family::default(),
            services: Gauge::default(),
            virtual_services: Gauge::default(),
            connections: Gauge::default(),
            connections_closed: Family::default(),
            certificates_signed: Family::default(),
            certificates_refused: Family::default(),
            token_reviews: Family::default(),
            token_review_time: seconds(),
            streams: Family::default(),
            streams_ended: Family::default(),
            sent_bytes: Family::default(),
            acknowledgement: Family::new_with_constructor(seconds),
            waits: Family::default(),
            waits_expired: Family::default(),
            unknown_types: Counter::default(),
            load_streams: Gauge::default(),
            load_reports: Counter::default(),
            load_clusters: Counter::default(),
            telemetry_streams: Family::default(),
            telemetry_messages: Family::default(),
            telemetry_cut: Family::default(),
            limits: Family::default(),
            first_response_wait: seconds(),
            publish: seconds(),
            seen_to_published: seconds(),
            change_applied: seconds(),
            change_compiled: seconds(),
            change_first_sent: seconds(),
            change_acknowledged: seconds(),
            compile_units: Counter::default(),
            resources_encoded: Counter::default(),
            objects: Gauge::default(),
            audiences: Gauge::default(),
            problems: Family::default(),
            key_sets: Family::default(),
            key_sets_fetched: Family::default(),
            judged: Judged::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        let info: Family<VersionLabel, Gauge> = Family::default();
        info.get_or_create(&VersionLabel { version: env!("CARGO_PKG_VERSION").to_owned() }).set(1);
        r.register("pilot_info", "Version of this control plane; always 1", info);
        r.register(
            "pilot_xds",
            "Streams with an identified node, by the node's distribution version",
            self.nodes.clone(),
        );
        r.register("pilot_xds_pushes", "Responses handed out, by type", self.pushes.clone());
        r.register(
            "pilot_xds_push_time",
            "Seconds from the decision to respond until HTTP/2 took the whole response, by type",
            self.push_time.clone(),
        );
        r.register(
            "pilot_xds_send_time",
            "Seconds from a finished response until HTTP/2 took the whole of it",
            self.send_time.clone(),
        );
        r.register(
            "pilot_proxy_convergence_time",
            "Seconds from a change being seen by its source until a node was sent all that follows from it",
            self.convergence_time.clone(),
        );
        r.register("pilot_xds_config_size_bytes", "Bytes of responses, by type", self.config_size.clone());
        r.register("pilot_total_xds_rejects", "Responses that nodes rejected, by type", self.rejects.clone());
        r.register("pilot_services", "Hosts that have a service", self.services.clone());
        r.register("pilot_virt_services", "VirtualServices", self.virtual_services.clone());

        r.register("pointsman_connections", "Open connections on the xDS listeners", self.connections.clone());
        r.register(
            "pointsman_connections_closed",
            "Connections that were closed or refused from this side, by reason",
            self.connections_closed.clone(),
        );
        r.register(
            "pointsman_certificates_signed",
            "Certificates that were signed for workloads, by what asked: a signing request, or a subscription to secrets",
            self.certificates_signed.clone(),
        );
        r.register(
            "pointsman_certificates_refused",
            "Certificates that were asked for and not signed, by reason",
            self.certificates_refused.clone(),
        );
        r.register(
            "pointsman_token_reviews",
            "Questions to the API server of a cluster about a token, by what came of them",
            self.token_reviews.clone(),
        );
        r.register(
            "pointsman_token_review_seconds",
            "Seconds from a question about a token coming up until it was answered, or given up",
            self.token_review_time.clone(),
        );
        r.register("pointsman_streams", "Open discovery streams, by service and variant", self.streams.clone());
        r.register(
            "pointsman_streams_ended",
            "Discovery streams that were ended or refused from this side, by gRPC status code",
            self.streams_ended.clone(),
        );
        r.register("pointsman_sent_bytes", "Bytes of response messages handed out, by type", self.sent_bytes.clone());
        r.register(
            "pointsman_acknowledgement_seconds",
            "Seconds from a response being handed out until the node accepted it, by type",
            self.acknowledgement.clone(),
        );
        r.register(
            "pointsman_isolated",
            "Resources and parts of resources that nodes refused and that were held back, by type",
            self.isolated.clone(),
        );
        r.register(
            "pointsman_isolated_cleared",
            "Resources and parts that were held back and have changed or gone since, by type",
            self.cleared.clone(),
        );
        r.register("pointsman_waits", "Times that resources began to wait, by reason", self.waits.clone());
        r.register(
            "pointsman_waits_expired",
            "Times that resources waited as long as they may and went on, by reason",
            self.waits_expired.clone(),
        );
        r.register("pointsman_unknown_types", "Requests for types that are not known here", self.unknown_types.clone());
        r.register("pointsman_load_streams", "Open load reporting streams", self.load_streams.clone());
        r.register("pointsman_load_reports", "Load reports that nodes sent", self.load_reports.clone());
        r.register("pointsman_load_reported_clusters", "Clusters in load reports", self.load_clusters.clone());
        let help = "Open streams of the metrics service and of access logs";
        r.register("pointsman_telemetry_streams", help, self.telemetry_streams.clone());
        let help = "Messages of the metrics service and of access logs";
        r.register("pointsman_telemetry_messages", help, self.telemetry_messages.clone());
        let help = "Streams that were cut because they sent too much";
        r.register("pointsman_telemetry_cut", help, self.telemetry_cut.clone());
        let help = "Requests that proxies asked about because of a limit that all share, by limit and outcome";
        r.register("pointsman_quota_requests", help, self.limits.clone());
        r.register(
            "pointsman_first_response_wait_seconds",
            "Seconds that new streams waited for their turn",
            self.first_response_wait.clone(),
        );
        r.register(
            "pointsman_publish_seconds",
            "Seconds that applying, compiling and publishing one batch of changes took",
            self.publish.clone(),
        );
        r.register(
            "pointsman_seen_to_published_seconds",
            "Seconds from a change being seen by its source until its snapshots were published",
            self.seen_to_published.clone(),
        );
        r.register(
            "pointsman_change_applied_seconds",
            "Seconds from a change being seen by its source until the world had taken it in",
            self.change_applied.clone(),
        );
        r.register(
            "pointsman_change_compiled_seconds",
            "Seconds from a change being seen by its source until all that follows from it was compiled",
            self.change_compiled.clone(),
        );
        r.register(
            "pointsman_change_first_sent_seconds",
            "Seconds from a change being seen by its source until the first node was sent something of it",
            self.change_first_sent.clone(),
        );
        r.register(
            "pointsman_change_acknowledged_seconds",
            "Seconds from a change being seen by its source until the last node that it concerns has answered",
            self.change_acknowledged.clone(),
        );
        r.register("pointsman_compile_units", "Units of compilation that ran", self.compile_units.clone());
        r.register("pointsman_resources_encoded", "Resources that were encoded", self.resources_encoded.clone());
        r.register("pointsman_objects", "Objects that were read", self.objects.clone());
        r.register("pointsman_audiences", "Distinct audiences that are compiled for", self.audiences.clone());
        r.register("pointsman_problems", "Problems that there are now, by severity", self.problems.clone());
        r.register(
            "pointsman_key_sets",
            "Key sets of token issuers that are to be fetched, by how they stand",
            self.key_sets.clone(),
        );
        r.register(
            "pointsman_key_sets_fetched",
            "Attempts to fetch a key set, by how they ended",
            self.key_sets_fetched.clone(),
        );
        self.judged.register(r);
    }

    /// What the tests of runs are worth.
    pub(crate) fn judged(&self) -> &Judged {
        &self.judged
    }

    /// Everything in the OpenMetrics text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string cannot fail, and every metric encodes itself in the text format");
        text
    }

    /// Takes over what the plane counts.
    pub(crate) fn set_counts(&self, counts: Counts) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.services.set(number(counts.services));
        self.virtual_services.set(number(counts.virtual_services));
        self.objects.set(number(counts.objects));
        self.audiences.set(number(counts.audiences));
        self.problems.get_or_create(&SeverityLabel { severity: "error" }).set(number(counts.errors));
        self.problems.get_or_create(&SeverityLabel { severity: "warning" }).set(number(counts.warnings));
    }

    /// A batch of changes was applied and published; `seen_at` has an entry for each update in it.
    pub(crate) fn published(&self, took: Duration, work: Work, seen_at: &[Instant]) {
        self.publish.observe(took.as_secs_f64());
        self.compile_units.add(work.units as u64);
        self.resources_encoded.add(work.resources as u64);
        for seen in seen_at {
            self.seen_to_published.observe(seen.elapsed().as_secs_f64());
        }
    }

    /// A change was taken in and compiled, so long after its source saw it.
    pub(crate) fn change_compiled(&self, applied: Duration, compiled: Duration) {
        self.change_applied.observe(applied.as_secs_f64());
        self.change_compiled.observe(compiled.as_secs_f64());
    }

    /// The first response that follows from a change left, so long after its source saw it.
    pub(crate) fn change_sent(&self, after: Duration) {
        self.change_first_sent.observe(after.as_secs_f64());
    }

    /// The last node that a change concerns has answered, so long after its source saw it.
    pub(crate) fn change_acknowledged(&self, after: Duration) {
        self.change_acknowledged.observe(after.as_secs_f64());
    }

    /// A connection was opened.
    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    /// A connection has ended, for whatever reason.
    pub(crate) fn connection_ended(&self) {
        self.connections.dec();
    }

    /// A connection was closed from this side.
    pub(crate) fn connection_closed(&self, reason: &'static str) {
        self.connections_closed.get_or_create(&ReasonLabel { reason }).add(1);
    }

    /// A certificate was signed for a workload.
    pub(crate) fn certificate_signed(&self, asked_by: &'static str) {
        self.certificates_signed.get_or_create(&ReasonLabel { reason: asked_by }).add(1);
    }

    /// A certificate was asked for and not signed.
    pub(crate) fn certificate_refused(&self, reason: &'static str) {
        self.certificates_refused.get_or_create(&ReasonLabel { reason }).add(1);
    }

    /// A proxy asked whether a limit lets something through.
    pub(crate) fn asked_about_limit(&self, limit: &str, passage: Passage) {
        self.limits.get_or_create(&LimitLabel { limit: limit.to_owned(), outcome: passage.as_str() }).add(1);
    }

    /// A stream was opened.
    pub(crate) fn stream_opened(&self, label: &StreamLabel) {
        self.streams.get_or_create(label).inc();
    }

    /// A stream has ended; with a code when this side ended it.
    pub(crate) fn stream_ended(&self, label: &StreamLabel, code: Option<tonic::Code>) {
        self.streams.get_or_create(label).dec();
        if let Some(code) = code {
            self.stream_refused(code);
        }
    }

    /// A stream was refused before it began.
    pub(crate) fn stream_refused(&self, code: tonic::Code) {
        self.streams_ended.get_or_create(&CodeLabel { code: code as i32 }).add(1);
    }

    /// A node said who it is.
    pub(crate) fn node_identified(&self, distribution_version: &str) {
        self.count_node(distribution_version, 1);
    }

    /// The stream of a node that had said who it is has ended.
    pub(crate) fn node_gone(&self, distribution_version: &str) {
        self.count_node(distribution_version, -1);
    }

    /// A version that no node has any more is forgotten, so that clients cannot fill the memory with versions.
    fn count_node(&self, distribution_version: &str, difference: i64) {
        let label = VersionLabel { version: distribution_version.to_owned() };
        let mut counts = self.nodes_by_version.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(distribution_version).copied().unwrap_or(0) + difference;
        if count > 0 {
            counts.insert(distribution_version.to_owned(), count);
            self.nodes.get_or_create(&label).set(count);
        } else {
            counts.remove(distribution_version);
            self.nodes.remove(&label);
        }
    }

    fn of_type(&self, resource_type: ResourceType) -> &OfType {
        self.by_type[resource_type.index()].get_or_init(|| {
            let label = resource_type.into();
            OfType {
                pushes: self.pushes.get_or_create(&label).clone(),
                push_time: self.push_time.get_or_create(&label).clone(),
                config_size: self.config_size.get_or_create(&label).clone(),
                sent_bytes: self.sent_bytes.get_or_create(&label).clone(),
                acknowledgement: self.acknowledgement.get_or_create(&label).clone(),
            }
        })
    }

    /// A response was handed out.
    pub(crate) fn sent(&self, resource_type: ResourceType, bytes: usize) {
        let of_type = self.of_type(resource_type);
        of_type.pushes.add(1);
        of_type.sent_bytes.add(bytes as u64);
        of_type.config_size.observe(bytes as f64);
    }

    /// HTTP/2 took the whole of a response that was decided on at `begun` and finished at `made`.
    pub(crate) fn taken(&self, resource_type: ResourceType, begun: Instant, made: Instant) {
        let now = Instant::now();
        let since = |then: Instant| now.saturating_duration_since(then).as_secs_f64();
        self.of_type(resource_type).push_time.observe(since(begun));
        self.send_time.observe(since(made));
    }

    /// A node was sent all that follows from a change that was seen at `seen`.
    pub(crate) fn converged(&self, seen: Instant) {
        self.convergence_time.observe(seen.elapsed().as_secs_f64());
    }

    /// A node accepted a response.
    pub(crate) fn accepted(&self, resource_type: ResourceType, after: Duration) {
        self.of_type(resource_type).acknowledgement.observe(after.as_secs_f64());
    }

    /// A node rejected a response.
    pub(crate) fn rejected(&self, resource_type: ResourceType) {
        self.rejects.get_or_create(&resource_type.into()).add(1);
    }

    /// Something that a node refuses was found, and is held back.
    pub(crate) fn isolated(&self, resource_type: ResourceType) {
        self.isolated.get_or_create(&resource_type.into()).add(1);
    }

    /// Something that was held back has changed.
    pub(crate) fn cleared(&self, resource_type: ResourceType) {
        self.cleared.get_or_create(&resource_type.into()).add(1);
    }

    /// Resources began to wait.
    pub(crate) fn waiting(&self, reason: &'static str, count: usize) {
        self.waits.get_or_create(&ReasonLabel { reason }).add(count as u64);
    }

    /// Resources waited as long as they may.
    pub(crate) fn wait_expired(&self, reason: &'static str, count: usize) {
        self.waits_expired.get_or_create(&ReasonLabel { reason }).add(count as u64);
    }

    /// A type was asked for that is not known here.
    pub(crate) fn unknown_type(&self) {
        self.unknown_types.add(1);
    }

    /// A load reporting stream was opened.
    pub(crate) fn load_stream_opened(&self) {
        self.load_streams.inc();
    }

    /// A load reporting stream has ended.
    pub(crate) fn load_stream_ended(&self) {
        self.load_streams.dec();
    }

    /// A node reported the load of so many clusters.
    pub(crate) fn load_reported(&self, clusters: usize) {
        self.load_reports.add(1);
        self.load_clusters.add(clusters as u64);
    }

    /// A client opened a stream of metrics or access logs.
    pub(crate) fn telemetry_opened(&self, kind: &'static str) {
        self.telemetry_streams.get_or_create(&KindLabel { kind }).inc();
    }

    /// Such a stream ended.
    pub(crate) fn telemetry_ended(&self, kind: &'static str) {
        self.telemetry_streams.get_or_create(&KindLabel { kind }).dec();
    }

    /// A message came on such a stream.
    pub(crate) fn telemetry_came(&self, kind: &'static str) {
        self.telemetry_messages.get_or_create(&KindLabel { kind }).add(1);
    }

    /// Such a stream was cut because it sent too much.
    pub(crate) fn telemetry_cut(&self, kind: &'static str) {
        self.telemetry_cut.get_or_create(&KindLabel { kind }).add(1);
    }

    /// A question about a token ended.
    pub(crate) fn token_reviewed(&self, outcome: &'static str, took: Duration) {
        self.token_reviews.get_or_create(&OutcomeLabel { outcome }).add(1);
        self.token_review_time.observe(took.as_secs_f64());
    }

    /// A question about a token was not asked, because too many others are.
    pub(crate) fn token_not_reviewed(&self) {
        self.token_reviews.get_or_create(&OutcomeLabel { outcome: "crowded" }).add(1);
    }

    /// Fetching a key set ended.
    pub(crate) fn key_set_fetched(&self, succeeded: bool) {
        let outcome = if succeeded { "ok" } else { "failed" };
        self.key_sets_fetched.get_or_create(&OutcomeLabel { outcome }).add(1);
    }

    /// How many key sets are wanted, of each standing.
    pub(crate) fn key_sets(&self, counts: KeySetCounts) {
        for (standing, count) in [("fresh", counts.fresh), ("stale", counts.stale), ("missing", counts.missing)] {
            self.key_sets.get_or_create(&StandingLabel { standing }).set(count as i64);
        }
    }

    /// A new stream had its turn.
    pub(crate) fn admitted(&self, after: Duration) {
        self.first_response_wait.observe(after.as_secs_f64());
    }
}
