//! Access logs.

use evidence::LogStream;
use proto::pb::envoy::data::accesslog::v3::AccessLogType;
use proto::pb::google::protobuf;
use world::api::delivery::{EvidenceSource, MetricKind, MetricSpec};

use crate::bench::{Bench, CANDIDATE, STABLE, counts, entry, errors, log, tally, targets};

fn slow(limit: u64) -> MetricSpec {
    MetricSpec {
        name: "slow".to_owned(),
        kind: MetricKind::LatencyFraction,
        latency_ms: Some(limit),
        ..MetricSpec::default()
    }
}

#[test]
fn every_entry_is_a_request() {
    let grpc = MetricSpec { name: "grpc".to_owned(), classify: "grpcServerError".to_owned(), ..MetricSpec::default() };
    let metrics = vec![errors().remove(0), grpc, slow(250)];
    let mut bench = Bench::asking(targets(EvidenceSource::AccessLog, metrics));
    let mut stream = LogStream::new();
    log(&mut bench, &mut stream, 1, vec![entry(CANDIDATE, 503, |_, _| {})]);
    let status = |place: &mut std::collections::HashMap<String, String>, status: &str| {
        place.insert("grpc-status".to_owned(), status.to_owned());
    };
    let entries = vec![
        entry(CANDIDATE, 200, |_, _| {}),
        entry(CANDIDATE, 503, |_, _| {}),
        entry(CANDIDATE, 200, |_, response| status(&mut response.response_trailers, "14")),
        entry(CANDIDATE, 200, |_, response| status(&mut response.response_headers, "5")),
        entry(CANDIDATE, 200, |common, _| common.upstream_request_attempt_count = 3),
        entry(CANDIDATE, 200, |common, _| {
            common.duration = Some(protobuf::Duration { seconds: 0, nanos: 250_900_000 });
        }),
        entry(STABLE, 404, |_, _| {}),
        entry("outbound|80||ratings.default.svc.cluster.local", 500, |_, _| {}),
    ];
    log(&mut bench, &mut stream, 1, entries);
    let evidence = bench.read();
    assert_eq!(counts(&evidence, "error-rate"), (tally(8, 3), tally(1, 0)), "two attempts were followed by another");
    assert_eq!(counts(&evidence, "grpc").0, tally(4, 3));
    assert_eq!(counts(&evidence, "slow"), (tally(6, 1), tally(1, 0)));
    assert_eq!(evidence.reporters, 1);
}

#[test]
fn what_is_no_request_of_the_split_is_not_counted() {
    let mut wanted = targets(EvidenceSource::AccessLog, errors());
    wanted.cohort_routes = ["testers".into()].into();
    let mut bench = Bench::asking(wanted);
    let mut stream = LogStream::new();
    log(&mut bench, &mut stream, 1, Vec::new());
    let entries = vec![
        entry(CANDIDATE, 503, |common, _| common.route_name = "testers".to_owned()),
        entry(CANDIDATE, 503, |common, _| common.route_name = "default~testers".to_owned()),
        entry(CANDIDATE, 503, |common, _| common.route_name = "checkout~testers~mirror".to_owned()),
        entry(CANDIDATE, 503, |common, _| common.set_access_log_type(AccessLogType::DownstreamStart)),
        entry(CANDIDATE, 503, |common, _| common.set_access_log_type(AccessLogType::DownstreamPeriodic)),
        // The caller went before there was an answer.
        entry(CANDIDATE, 0, |_, _| {}),
        entry(CANDIDATE, 503, |common, _| common.set_access_log_type(AccessLogType::DownstreamEnd)),
        entry(CANDIDATE, 200, |common, _| common.route_name = "our-testers".to_owned()),
    ];
    log(&mut bench, &mut stream, 1, entries);
    assert_eq!(bench.counts().0, tally(2, 1));
}

#[test]
fn all_streams_of_a_node_count_because_every_worker_thread_has_one() {
    let mut bench = Bench::new(EvidenceSource::AccessLog);
    let mut streams = [LogStream::new(), LogStream::new()];
    for (id, stream) in (1..).zip(&mut streams) {
        log(&mut bench, stream, id, Vec::new());
    }
    for (id, stream) in (1..).zip(&mut streams) {
        log(&mut bench, stream, id, vec![entry(CANDIDATE, 200, |_, _| {})]);
    }
    let evidence = bench.read();
    assert_eq!((evidence.reporters, counts(&evidence, "error-rate").0), (1, tally(2, 0)));
}
