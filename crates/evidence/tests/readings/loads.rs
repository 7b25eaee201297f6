//! Load reports, alone and beside the metrics service.

use std::time::Duration;

use evidence::{Channel, Counters, Places, StreamId};
use load::{ClusterReport, Report};
use rollout::Observation;
use world::api::delivery::{EvidenceSource, MetricKind, MetricSpec};

use crate::bench::{Bench, CANDIDATE, Client, STABLE, counts, errors, parts, report, tally, targets};

const LATER: Duration = Duration::from_secs(5);

#[test]
fn load_reports_count_attempts_and_what_was_given_up() {
    let mut bench = Bench::new(EvidenceSource::Lrs);
    bench.load(LATER, "a", report(CANDIDATE, &[("z1", "10.0.0.1:80", 90, 10)]));
    bench.load(LATER, "b", report(CANDIDATE, &[("z2", "10.0.0.1:80", 45, 5)]));
    let dropped = ClusterReport { cluster: STABLE.into(), dropped: 3, ..ClusterReport::default() };
    bench.load(LATER, "b", Report { clusters: vec![dropped] });
    let evidence = bench.read();
    assert_eq!(counts(&evidence, "error-rate"), (tally(150, 15), tally(3, 3)));
    assert_eq!(evidence.reporters, 2);
}

#[test]
fn a_report_that_began_before_the_run_is_left_out() {
    let mut bench = Bench::new(EvidenceSource::Lrs);
    bench.load(Duration::from_millis(900), "a", report(CANDIDATE, &[("", "x", 50, 50)]));
    let evidence = bench.read();
    assert_eq!((evidence.reporters, counts(&evidence, "error-rate").0), (1, tally(0, 0)));
    bench.load(Duration::from_millis(1000), "a", report(CANDIDATE, &[("", "x", 8, 2)]));
    assert_eq!(bench.counts().0, tally(10, 2));
}

#[test]
fn an_empty_report_is_heard() {
    let mut bench = Bench::new(EvidenceSource::Lrs);
    bench.load(LATER, "a", Report::default());
    assert_eq!(bench.read().reporters, 1);
}

#[test]
fn a_node_is_counted_by_one_source_only() {
    let mut bench = Bench::new(EvidenceSource::Auto);
    let mut proxy = Client::new("proxy", 1, Counters::Deltas);
    proxy.flush(&mut bench, &[]);
    proxy.flush(&mut bench, &[(CANDIDATE, "upstream_rq_completed", 40), (CANDIDATE, "upstream_rq_5xx", 4)]);
    bench.load(LATER, "proxy", report(CANDIDATE, &[("", "10.0.0.1:80", 38, 2)]));
    bench.load(LATER, "grpc", report(CANDIDATE, &[("", "10.0.0.1:80", 9, 1)]));
    let evidence = bench.read();
    assert_eq!(counts(&evidence, "error-rate").0, tally(50, 5));
    assert_eq!(evidence.reporters, 2);
    // Without its metrics the proxy's load reports are all there is.
    proxy.end(&mut bench);
    bench.load(LATER, "proxy", report(CANDIDATE, &[("", "10.0.0.1:80", 7, 0)]));
    assert_eq!(bench.counts().0, tally(7, 0));
}

#[test]
fn endpoints_of_stable_are_told_apart_whoever_counts_the_rest() {
    for source in [EvidenceSource::Auto, EvidenceSource::MetricsService, EvidenceSource::Lrs] {
        let mut bench = Bench::new(source);
        let mut proxy = Client::new("a", 1, Counters::Deltas);
        proxy.flush(&mut bench, &[]);
        bench.load(LATER, "a", report(STABLE, &[("z1", "10.0.0.1:80", 90, 10), ("z1", "10.0.0.2:80", 50, 0)]));
        bench.load(LATER, "b", report(STABLE, &[("z1", "10.0.0.1:80", 10, 0)]));
        let mut found: Vec<_> = parts(&bench.read()).into_values().collect();
        found.sort_by_key(|tally| tally.total);
        assert_eq!(found, [tally(50, 0), tally(110, 10)], "{source:?}");
    }
}

#[test]
fn localities_tell_arms_apart_that_share_a_cluster() {
    let mut wanted = targets(EvidenceSource::Auto, errors());
    wanted.stable = wanted.candidate.clone();
    wanted.candidate.places = Places::Only(["new".into()].into());
    wanted.stable.places = Places::Only(["old".into()].into());
    let mut bench = Bench::asking(wanted.clone());
    let places = [("new", "10.0.0.1:80", 8, 2), ("old", "10.0.0.2:80", 99, 1), ("else", "10.0.0.3:80", 5, 5)];
    bench.load(LATER, "a", report(CANDIDATE, &places));
    assert_eq!(bench.counts(), (tally(10, 2), tally(100, 1)));

    wanted.source = EvidenceSource::MetricsService;
    let mut bench = Bench::asking(wanted);
    let Observation::ProviderError(words) = &bench.read().metrics["error-rate"] else { panic!() };
    assert!(words.contains("only load reports tell its localities apart"), "{words}");
}

#[test]
fn what_falls_back_to_the_other_revision_is_not_the_candidates() {
    let mut wanted = targets(EvidenceSource::Lrs, errors());
    wanted.candidate.places = Places::AllBut(["fallback".into()].into());
    let mut bench = Bench::asking(wanted);
    bench.load(LATER, "a", report(CANDIDATE, &[("", "10.0.0.1:80", 0, 7), ("fallback", "10.0.0.2:80", 93, 0)]));
    assert_eq!(bench.counts().0, tally(7, 7));
}

#[test]
fn what_load_reports_cannot_tell_is_said_in_words() {
    let slow = MetricSpec {
        name: "slow".to_owned(),
        kind: MetricKind::LatencyFraction,
        latency_ms: Some(300),
        ..MetricSpec::default()
    };
    let codes = MetricSpec { name: "codes".to_owned(), classify: "429".to_owned(), ..MetricSpec::default() };
    let mut bench = Bench::asking(targets(EvidenceSource::Lrs, vec![slow, codes]));
    bench.load(LATER, "a", report(CANDIDATE, &[("", "10.0.0.1:80", 1, 1)]));
    let evidence = bench.read();
    for metric in ["slow", "codes"] {
        let Observation::ProviderError(words) = &evidence.metrics[metric] else { panic!("{metric}") };
        assert!(words.contains("load reports tell good requests from bad ones and nothing else"), "{words}");
    }
}

#[test]
fn a_run_that_is_closed_leaves_nothing_behind() {
    let mut bench = Bench::new(EvidenceSource::Lrs);
    bench.load(LATER, "a", report(CANDIDATE, &[("", "10.0.0.1:80", 1, 1)]));
    assert!(bench.ledger.cluster(CANDIDATE).is_some());
    bench.account.take().unwrap().close(&mut bench.ledger);
    bench.load(LATER, "a", report(CANDIDATE, &[("", "10.0.0.1:80", 1, 1)]));
    assert!(bench.ledger.cluster(CANDIDATE).is_none());
    assert_eq!(bench.ledger.interest().clusters().count(), 0);
    bench.ledger.end("a", Channel::Loads, StreamId(1));
    // Another run begins at nothing, and does not end what a third one counts.
    bench.open(targets(EvidenceSource::Lrs, errors()));
    let first = bench.account.take().unwrap();
    bench.open(targets(EvidenceSource::Lrs, errors()));
    first.close(&mut bench.ledger);
    bench.load(LATER, "a", report(CANDIDATE, &[("", "10.0.0.1:80", 4, 1)]));
    assert_eq!(bench.counts().0, tally(5, 1));
}
