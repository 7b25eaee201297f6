//! The metrics service.

use evidence::{Counters, Refusal};
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::metrics::v3::stream_metrics_message::Identifier;
use rollout::Observation;
use world::api::delivery::{EvidenceSource, MetricKind, MetricSpec};

use crate::bench::{Bench, CANDIDATE, Client, STABLE, counter, counts, errors, labelled, tally, targets, times};

const ANSWERS: &str = "upstream_rq_completed";
const FAILURES: &str = "upstream_rq_5xx";

#[test]
fn deltas_are_added_up_and_the_first_flush_of_a_stream_is_not() {
    let mut bench = Bench::new(EvidenceSource::MetricsService);
    let mut client = Client::new("a", 1, Counters::Deltas);
    client.flush(&mut bench, &[(CANDIDATE, ANSWERS, 500), (CANDIDATE, FAILURES, 100)]);
    assert_eq!(bench.counts(), (tally(0, 0), tally(0, 0)), "nobody knows how old these are");
    client.flush(&mut bench, &[(CANDIDATE, ANSWERS, 10), (CANDIDATE, FAILURES, 1), (STABLE, ANSWERS, 90)]);
    client.flush(&mut bench, &[(CANDIDATE, ANSWERS, 11), (STABLE, ANSWERS, 91), (STABLE, FAILURES, 2)]);
    assert_eq!(bench.counts(), (tally(21, 1), tally(181, 2)));
    assert_eq!(bench.counts(), (tally(0, 0), tally(0, 0)), "a reading holds what came since the last");
}

#[test]
fn absolute_counters_count_by_what_they_grow_and_begin_anew_after_a_fall() {
    let mut bench = Bench::new(EvidenceSource::MetricsService);
    let mut client = Client::new("a", 1, Counters::Absolute);
    client.flush(&mut bench, &[(CANDIDATE, ANSWERS, 500)]);
    client.flush(&mut bench, &[(CANDIDATE, ANSWERS, 510), (CANDIDATE, FAILURES, 3)]);
    assert_eq!(bench.counts().0, tally(10, 3), "a counter that was not there was at nothing");
    // The cluster went and came back: Envoy forgets its counters meanwhile.
    client.flush(&mut bench, &[(CANDIDATE, ANSWERS, 4), (CANDIDATE, FAILURES, 1)]);
    assert_eq!(bench.counts().0, tally(4, 1));
}

#[test]
fn a_client_that_connects_again_counts_nothing_twice() {
    for counters in [Counters::Absolute, Counters::Deltas] {
        let mut bench = Bench::new(EvidenceSource::MetricsService);
        let mut first = Client::new("a", 1, counters);
        first.flush(&mut bench, &[(CANDIDATE, ANSWERS, 100)]);
        first.flush(&mut bench, &[(CANDIDATE, ANSWERS, 120)]);
        let before = bench.counts().0.total;
        first.end(&mut bench);
        let mut second = Client::new("a", 2, counters);
        second.flush(&mut bench, &[(CANDIDATE, ANSWERS, 130)]);
        assert_eq!(bench.counts().0, tally(0, 0));
        second.flush(&mut bench, &[(CANDIDATE, ANSWERS, 135)]);
        let expected = if counters == Counters::Absolute { (20, 5) } else { (120, 135) };
        assert_eq!((before, bench.counts().0.total), expected);
    }
}

#[test]
fn of_two_streams_of_a_node_the_newest_counts() {
    let mut bench = Bench::new(EvidenceSource::MetricsService);
    let (mut old, mut new) = (Client::new("a", 1, Counters::Deltas), Client::new("a", 2, Counters::Deltas));
    old.flush(&mut bench, &[(CANDIDATE, ANSWERS, 1)]);
    new.flush(&mut bench, &[(CANDIDATE, ANSWERS, 1)]);
    for _ in 0..3 {
        old.flush(&mut bench, &[(CANDIDATE, ANSWERS, 7)]);
        new.flush(&mut bench, &[(CANDIDATE, ANSWERS, 7)]);
    }
    assert_eq!(bench.counts().0, tally(21, 0));
    assert_eq!(bench.read().reporters, 0);
    assert_eq!(bench.ledger.superseded(), 3);
    // When the newest ends, the other one counts, and begins as streams do.
    new.end(&mut bench);
    old.flush(&mut bench, &[(CANDIDATE, ANSWERS, 7)]);
    old.flush(&mut bench, &[(CANDIDATE, ANSWERS, 8)]);
    assert_eq!(bench.counts().0, tally(8, 0));
}

#[test]
fn a_cluster_that_becomes_of_interest_is_counted_from_the_second_flush_on() {
    for (counters, flushes) in [(Counters::Deltas, [40, 5, 6]), (Counters::Absolute, [40, 45, 51])] {
        let mut bench = Bench::new(EvidenceSource::MetricsService);
        let account = bench.account.take().unwrap();
        account.close(&mut bench.ledger);
        let mut client = Client::new("a", 1, counters);
        client.flush(&mut bench, &[(CANDIDATE, ANSWERS, 20)]);
        client.flush(&mut bench, &[(CANDIDATE, ANSWERS, 30)]);
        bench.open(targets(EvidenceSource::MetricsService, errors()));
        client.flush(&mut bench, &[(CANDIDATE, ANSWERS, flushes[0])]);
        assert_eq!(bench.counts().0, tally(0, 0), "part of it is older than the run");
        client.flush(&mut bench, &[(CANDIDATE, ANSWERS, flushes[1])]);
        client.flush(&mut bench, &[(CANDIDATE, ANSWERS, flushes[2])]);
        assert_eq!(bench.counts().0, tally(11, 0), "{counters:?}");
    }
}

#[test]
fn a_flush_in_several_messages_is_one() {
    let mut bench = Bench::new(EvidenceSource::MetricsService);
    let mut client = Client::new("a", 1, Counters::Absolute);
    client.flush(&mut bench, &[(STABLE, ANSWERS, 10)]);
    client.send(&mut bench, vec![counter(CANDIDATE, ANSWERS, 1000)]);
    client.flush(&mut bench, &[(STABLE, ANSWERS, 11)]);
    client.send(&mut bench, vec![counter(CANDIDATE, ANSWERS, 1002)]);
    assert_eq!(bench.counts(), (tally(2, 0), tally(1, 0)));
}

#[test]
fn names_that_were_taken_apart_are_put_together_again() {
    // Envoy's own tag for the cluster ends at the first dot; the rest of the name stays where it was.
    let cluster = ("envoy.cluster_name", "outbound|80|v2|reviews");
    let flush = |completed, failed, code| {
        vec![
            labelled("cluster.default.svc.cluster.local.upstream_rq_completed", &[cluster], completed),
            labelled(
                "cluster.default.svc.cluster.local.upstream_rq_xx",
                &[cluster, ("envoy.response_code_class", "5")],
                failed,
            ),
            labelled("cluster.default.svc.cluster.local.upstream_rq", &[("envoy.response_code", "503"), cluster], code),
            labelled("cluster.upstream_rq_completed", &[("envoy.cluster_name", "xds-grpc")], 77),
        ]
    };
    let by_code = MetricSpec { name: "503s".to_owned(), classify: "503".to_owned(), ..MetricSpec::default() };
    let metrics = vec![errors().remove(0), by_code];
    let mut bench = Bench::asking(targets(EvidenceSource::MetricsService, metrics));
    let mut client = Client::new("a", 1, Counters::Deltas);
    client.flush(&mut bench, &[]);
    client.flush(&mut bench, &[]);
    client.send(&mut bench, flush(50, 5, 4));
    let evidence = bench.read();
    assert_eq!(counts(&evidence, "error-rate").0, tally(50, 5));
    assert_eq!(counts(&evidence, "503s").0, tally(50, 4));
}

#[test]
fn the_name_that_a_cluster_has_in_statistics_may_end_in_a_semicolon() {
    let mut bench = Bench::new(EvidenceSource::MetricsService);
    let mut client = Client::new("a", 1, Counters::Deltas);
    client.flush(&mut bench, &[]);
    client.flush(&mut bench, &[]);
    let name = format!("{CANDIDATE};");
    client.flush(&mut bench, &[(&name, ANSWERS, 5), (&name, "retry.upstream_rq_completed", 1)]);
    assert_eq!(bench.counts().0, tally(5, 0));
}

#[test]
fn attempts_count_without_an_slo_and_answers_with_one() {
    let promise = MetricSpec { name: "slo".to_owned(), slo: Some(0.01), ..MetricSpec::default() };
    let codes = MetricSpec { name: "503s".to_owned(), classify: "503, 504".to_owned(), ..MetricSpec::default() };
    let metrics = vec![errors().remove(0), promise, codes];
    let mut bench = Bench::asking(targets(EvidenceSource::MetricsService, metrics));
    let mut client = Client::new("a", 1, Counters::Deltas);
    client.flush(&mut bench, &[]);
    client.flush(&mut bench, &[]);
    // As seen with 3 requests that were answered 200, and 3 whose 2 retries each did not help either; and 9 refused
    // connections for 3 requests.
    client.flush(
        &mut bench,
        &[
            (CANDIDATE, ANSWERS, 6),
            (CANDIDATE, FAILURES, 3),
            (CANDIDATE, "upstream_rq_503", 3),
            (CANDIDATE, "external.upstream_rq_503", 3),
            (CANDIDATE, "retry.upstream_rq_completed", 6),
            (CANDIDATE, "retry.upstream_rq_5xx", 6),
            (CANDIDATE, "retry.upstream_rq_503", 6),
            (CANDIDATE, "upstream_rq_retry", 6),
            (STABLE, ANSWERS, 3),
            (STABLE, FAILURES, 3),
            (STABLE, "upstream_rq_503", 3),
            (STABLE, "upstream_rq_retry", 6),
        ],
    );
    let evidence = bench.read();
    assert_eq!(counts(&evidence, "error-rate"), (tally(12, 9), tally(9, 9)));
    assert_eq!(counts(&evidence, "slo"), (tally(6, 3), tally(3, 3)));
    assert_eq!(counts(&evidence, "503s"), (tally(12, 9), tally(9, 9)));
}

#[test]
fn statuses_of_grpc_are_those_of_the_server() {
    let grpc = MetricSpec { classify: "grpcServerError".to_owned(), ..errors().remove(0) };
    let mut bench = Bench::asking(targets(EvidenceSource::MetricsService, vec![grpc]));
    let mut client = Client::new("a", 1, Counters::Deltas);
    client.flush(&mut bench, &[]);
    client.flush(&mut bench, &[]);
    let mut statuses = vec![(CANDIDATE, ANSWERS, 19)];
    let names: Vec<String> = (0..=16).map(|status| format!("grpc.{status}")).collect();
    statuses.extend(names.iter().map(|name| (CANDIDATE, &**name, 1)));
    client.flush(&mut bench, &statuses);
    assert_eq!(bench.counts().0, tally(17, 6));
}

#[test]
fn slow_answers_are_counted_by_the_edges_of_buckets() {
    let slow = |name: &str, limit| MetricSpec {
        name: name.to_owned(),
        kind: MetricKind::LatencyFraction,
        latency_ms: Some(limit),
        ..MetricSpec::default()
    };
    let metrics = vec![slow("250", 250), slow("300", 300), slow("10000", 10_000)];
    let mut bench = Bench::asking(targets(EvidenceSource::MetricsService, metrics));
    let mut client = Client::new("a", 1, Counters::Absolute);
    let edges = |counts: [u64; 4]| -> Vec<(f64, u64)> { [0.5, 100.0, 250.0, 500.0].into_iter().zip(counts).collect() };
    client.send(&mut bench, vec![times(CANDIDATE, 1000, &edges([1000; 4]))]);
    // Histograms are of one flush each, also where counters are absolute.
    for _ in 0..2 {
        client.flush(&mut bench, &[]);
        client
            .send(&mut bench, vec![times(CANDIDATE, 100, &edges([10, 60, 80, 95])), times(STABLE, 7, &edges([7; 4]))]);
    }
    let evidence = bench.read();
    assert_eq!(counts(&evidence, "250"), (tally(200, 40), tally(14, 0)));
    assert_eq!(counts(&evidence, "300").0, tally(200, 10), "from 250 to 500 ms is not surely slower than 300");
    assert_eq!(counts(&evidence, "10000").0, tally(200, 0));
}

#[test]
fn nonsense_is_counted_as_nothing() {
    let mut bench = Bench::new(EvidenceSource::MetricsService);
    let mut client = Client::new("a", 1, Counters::Absolute);
    client.flush(&mut bench, &[]);
    client.flush(&mut bench, &[]);
    let mut families =
        vec![times(CANDIDATE, 3, &[(f64::NAN, 9), (-1.0, 4)]), times(CANDIDATE, 0, &[(1.0, 9), (0.5, 2)])];
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -5.0, 1e300] {
        let mut family = counter(CANDIDATE, ANSWERS, 0);
        family.metric[0].counter.as_mut().unwrap().value = Some(value);
        families.push(family);
    }
    let mut bare = counter(CANDIDATE, ANSWERS, 5);
    bare.metric.clear();
    families.push(bare);
    client.send(&mut bench, families);
    assert_eq!(bench.counts().0, tally(0, 0));
}

#[test]
fn a_stream_that_does_not_say_whose_it_is_is_refused() {
    let unnamed = Identifier { node: Some(Node::default()) };
    for identifier in [None, Some(Identifier { node: None }), Some(unnamed)] {
        let said = identifier.as_ref().and_then(|identifier| identifier.node.as_ref());
        assert_eq!(evidence::Client::default().identify(said), Err(Refusal::NoNode));
    }
}

#[test]
fn no_traffic_and_no_telemetry_are_different_things() {
    let mut bench = Bench::new(EvidenceSource::MetricsService);
    let silent = bench.read();
    assert_eq!((silent.reporters, counts(&silent, "error-rate")), (0, (tally(0, 0), tally(0, 0))));
    let mut clients = [Client::new("a", 1, Counters::Deltas), Client::new("b", 2, Counters::Deltas)];
    for client in &mut clients {
        client.flush(&mut bench, &[(STABLE, ANSWERS, 3)]);
    }
    assert_eq!(bench.read().reporters, 2);
    clients[0].flush(&mut bench, &[]);
    let idle = bench.read();
    assert_eq!((idle.reporters, counts(&idle, "error-rate").0), (1, tally(0, 0)));
    // Who has gone does not report any more, whatever it said before.
    let [first, mut second] = clients;
    first.end(&mut bench);
    second.flush(&mut bench, &[]);
    second.end(&mut bench);
    assert_eq!(bench.read().reporters, 0);
    assert!(matches!(bench.read().metrics["error-rate"], Observation::Counts { .. }));
}
