//! The metrics service and the access log service, and what a run gets from them.

use std::time::{Duration, Instant};

use evidence::{Arm, Targets, Variables};
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::data::accesslog::v3::{AccessLogCommon, HttpAccessLogEntry, HttpResponseProperties};
use proto::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier as LogIdentifier, LogEntries,
};
use proto::pb::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use proto::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use proto::pb::envoy::service::metrics::v3::metrics_service_client::MetricsServiceClient;
use proto::pb::envoy::service::metrics::v3::stream_metrics_message::Identifier;
use proto::pb::envoy::service::metrics::v3::{StreamMetricsMessage, StreamMetricsResponse};
use proto::pb::google::protobuf::UInt32Value;
use proto::pb::io::prometheus::client::{Counter, Metric, MetricFamily};
use rollout::{Evidence, Observation, Tally};
use server::{Config, Deadlines, Limits, Reports, RunTargets};
use testkit::wire::{Exchange, WireError};
use tonic::{Code, Request, Status};
use world::api::delivery::{AnalysisProfile, EvidenceSource};

use crate::fixture::{CLUSTER, REVIEWS, Running, SOON, config, deadlines, serving};

const METRICS: &str = "/envoy.service.metrics.v3.MetricsService/StreamMetrics";
const LOGS: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
const LOADS: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";

type Metrics = Exchange<StreamMetricsMessage, StreamMetricsResponse>;
type Logs = Exchange<StreamAccessLogsMessage, StreamAccessLogsResponse>;

fn named() -> Option<Node> {
    Some(Node { id: "sidecar~10.9.0.1~client-1.default~default.svc.cluster.local".to_owned(), ..Node::default() })
}

/// A flush with one counter, as large as it is; the first of a stream says whose it is.
fn flush(is_first: bool, stamp: i64, answers: u64) -> StreamMetricsMessage {
    let counter = Some(Counter { value: Some(answers as f64), ..Counter::default() });
    let metric = Metric { counter, timestamp_ms: Some(stamp), ..Metric::default() };
    let name = Some(format!("cluster.{CLUSTER};.upstream_rq_completed"));
    let family = MetricFamily { name, metric: vec![metric], ..MetricFamily::default() };
    let identifier = is_first.then(|| Identifier { node: named() });
    StreamMetricsMessage { identifier, envoy_metrics: vec![family] }
}

fn logged(is_first: bool, entries: usize) -> StreamAccessLogsMessage {
    let entry = HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            upstream_cluster: format!("{CLUSTER};"),
            upstream_request_attempt_count: 1,
            ..AccessLogCommon::default()
        }),
        response: Some(HttpResponseProperties {
            response_code: Some(UInt32Value { value: 503 }),
            ..HttpResponseProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    };
    StreamAccessLogsMessage {
        identifier: is_first.then(|| LogIdentifier { node: named(), log_name: "pointsman".to_owned() }),
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: vec![entry; entries] })),
    }
}

fn open(server: &Running, source: EvidenceSource) -> Reports {
    let targets = Targets {
        candidate: Arm { clusters: [CLUSTER.into()].into(), ..Arm::default() },
        metrics: AnalysisProfile::envoy_default().metrics,
        source,
        ..Targets::default()
    };
    server.telemetry.open(RunTargets {
        run: "reviews".into(),
        targets,
        interval: Duration::from_millis(100),
        prometheus: None,
        variables: Variables::new(),
    })
}

async fn next(reports: &mut Reports) -> Evidence {
    tokio::time::timeout(SOON, reports.next()).await.unwrap().unwrap()
}

fn candidate(evidence: &Evidence) -> Tally {
    match &evidence.metrics["error-rate"] {
        Observation::Counts { candidate, .. } => *candidate,
        other => panic!("{other:?}"),
    }
}

/// Adds up what comes until it is so much.
async fn until(reports: &mut Reports, wanted: Tally) {
    let (mut sum, deadline) = (Tally::default(), Instant::now() + SOON);
    while sum != wanted {
        assert!(Instant::now() < deadline, "{sum:?} is not {wanted:?}");
        sum.add(candidate(&next(reports).await));
    }
}

/// Waits until a report has a reporter: the server has taken in a message.
async fn heard(reports: &mut Reports) {
    let deadline = Instant::now() + SOON;
    while next(reports).await.reporters == 0 {
        assert!(Instant::now() < deadline, "nobody is heard");
    }
}

async fn refused<Q, A>(stream: &mut Exchange<Q, A>) -> Status
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + std::fmt::Debug + Send + 'static,
{
    match stream.next(SOON).await {
        Err(WireError::Refused(status)) => status,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_counters_become_evidence() {
    let server = serving(config(), REVIEWS).await;
    let mut reports = open(&server, EvidenceSource::MetricsService);
    assert_eq!(next(&mut reports).await.reporters, 0);
    let mut stream: Metrics = server.wire().await.open(METRICS);
    stream.send(flush(true, 1, 1000)).await;
    heard(&mut reports).await;
    stream.send(flush(false, 2, 1010)).await;
    stream.send(flush(false, 3, 1015)).await;
    until(&mut reports, Tally::new(15, 0)).await;
    // Whoever has no more to say is answered.
    stream.finish();
    assert_eq!(stream.next(SOON).await.unwrap(), StreamMetricsResponse {});
    let metrics = server.get("/metrics").await.1;
    assert!(metrics.contains("pointsman_telemetry_messages{kind=\"metrics\"} 3"), "{metrics}");
    assert!(metrics.contains("pointsman_telemetry_streams{kind=\"metrics\"} 0"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_says_that_counters_are_deltas() {
    let server = serving(config(), REVIEWS).await;
    let mut reports = open(&server, EvidenceSource::Auto);
    let mut client = MetricsServiceClient::connect(server.xds()).await.unwrap();
    let mut request = Request::new(tokio_stream::iter(
        [(true, 7), (false, 10), (false, 5)]
            .map(|(is_first, answers)| flush(is_first, answers, u64::try_from(answers).unwrap())),
    ));
    request.metadata_mut().insert("pointsman-counters", "deltas".parse().unwrap());
    client.stream_metrics(request).await.unwrap();
    until(&mut reports, Tally::new(15, 0)).await;
    let mut request = Request::new(tokio_stream::iter([flush(true, 1, 1)]));
    request.metadata_mut().insert("pointsman-counters", "rates".parse().unwrap());
    assert_eq!(client.stream_metrics(request).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_entries_become_evidence() {
    let server = serving(config(), REVIEWS).await;
    let mut reports = open(&server, EvidenceSource::AccessLog);
    let mut stream: Logs = server.wire().await.open(LOGS);
    stream.send(logged(true, 9)).await;
    heard(&mut reports).await;
    stream.send(logged(false, 3)).await;
    until(&mut reports, Tally::new(3, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_reports_are_asked_for_while_a_run_wants_them() {
    let server = serving(config(), REVIEWS).await;
    let mut stream: Exchange<LoadStatsRequest, LoadStatsResponse> = server.wire().await.open(LOADS);
    stream.send(LoadStatsRequest { node: named(), ..LoadStatsRequest::default() }).await;
    stream.silence(Duration::from_millis(300)).await.unwrap();
    let mut reports = open(&server, EvidenceSource::Auto);
    let asked = stream.next(SOON).await.unwrap();
    assert_eq!((asked.clusters, asked.report_endpoint_granularity), (vec![CLUSTER.to_owned()], true));
    // A client that has no such cluster reports nothing, which is something.
    stream.send(LoadStatsRequest { node: named(), ..LoadStatsRequest::default() }).await;
    heard(&mut reports).await;
    drop(reports);
    let asked = stream.next(SOON).await.unwrap();
    assert!(asked.clusters.is_empty() && !asked.send_all_clusters);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_node_is_refused_and_others_go_on() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    let mut good: Metrics = wire.open(METRICS);
    good.send(flush(true, 1, 5)).await;
    let mut bad: Metrics = wire.open(METRICS);
    bad.send(flush(false, 1, 5)).await;
    let status = refused(&mut bad).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("must hold an identifier whose node has an id"), "{}", status.message());
    let mut bad: Logs = wire.open(LOGS);
    bad.send(logged(false, 1)).await;
    assert_eq!(refused(&mut bad).await.code(), Code::InvalidArgument);
    good.silence(Duration::from_millis(100)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_which_nothing_is_said_is_ended() {
    let deadlines = Deadlines { first_request: Duration::from_secs(2), ..deadlines() };
    let server = serving(Config { deadlines, ..config() }, REVIEWS).await;
    let mut stream: Metrics = server.wire().await.open(METRICS);
    assert_eq!(refused(&mut stream).await.code(), Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_at_once_or_too_often_ends_a_stream() {
    let limits = Limits { max_request_bytes: 64 * 1024, ..Limits::default() };
    let server = serving(Config { limits, ..config() }, REVIEWS).await;
    let wire = server.wire().await;
    let mut stream: Logs = wire.open(LOGS);
    stream.send(logged(true, 10_000)).await;
    let code = refused(&mut stream).await.code();
    assert!(matches!(code, Code::OutOfRange | Code::ResourceExhausted), "{code}");

    let mut flood: Metrics = wire.open(METRICS);
    flood.send(flush(true, 0, 0)).await;
    let deadline = Instant::now() + SOON;
    let status = loop {
        assert!(Instant::now() < deadline, "a flood goes on");
        for stamp in 0..500 {
            flood.send(flush(false, stamp, 1)).await;
        }
        match flood.next(Duration::from_millis(1)).await {
            Err(WireError::Refused(status)) => break status,
            Err(WireError::Late(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(server.get("/metrics").await.1.contains("pointsman_telemetry_cut{kind=\"metrics\"} 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_ends_with_the_server() {
    let server = serving(config(), REVIEWS).await;
    let mut reports = open(&server, EvidenceSource::Auto);
    let wire = server.wire().await;
    let mut metrics: Metrics = wire.open(METRICS);
    metrics.send(flush(true, 1, 5)).await;
    let mut loads: Exchange<LoadStatsRequest, LoadStatsResponse> = wire.open(LOADS);
    loads.send(LoadStatsRequest { node: named(), ..LoadStatsRequest::default() }).await;
    loads.next(SOON).await.unwrap();
    heard(&mut reports).await;
    server.stop().await.unwrap();
    // Both are told why; whoever is cut off is not.
    assert_eq!(refused(&mut metrics).await.code(), Code::Unavailable);
    assert_eq!(refused(&mut loads).await.code(), Code::Unavailable);
    while reports.next().await.is_some() {}
}
