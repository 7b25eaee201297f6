//! Metrics that want a number, and those that nobody answers here.

use std::time::Duration;

use evidence::Counters;
use rollout::Observation;
use world::api::delivery::{Bounds, EvidenceSource, MetricKind, MetricSpec};

use crate::bench::{Bench, CANDIDATE, Client, targets};

fn number(query: &str) -> MetricSpec {
    MetricSpec {
        name: query.to_owned(),
        kind: MetricKind::Threshold,
        query: Some(query.to_owned()),
        range: Some(Bounds { min: None, max: Some(1.0) }),
        interval: Duration::from_secs(2),
        ..MetricSpec::default()
    }
}

#[test]
fn a_number_comes_once_in_its_interval_and_covers_all_of_it() {
    let metrics = vec![number("error-rate"), number("request-rate")];
    let mut bench = Bench::asking(targets(EvidenceSource::Auto, metrics));
    let mut client = Client::new("a", 1, Counters::Deltas);
    client.flush(&mut bench, &[]);
    client.flush(&mut bench, &[(CANDIDATE, "upstream_rq_completed", 30), (CANDIDATE, "upstream_rq_5xx", 3)]);
    assert!(bench.read().metrics.is_empty());
    client.flush(&mut bench, &[(CANDIDATE, "upstream_rq_completed", 10), (CANDIDATE, "upstream_rq_5xx", 5)]);
    let evidence = bench.read();
    assert_eq!(evidence.metrics["error-rate"], Observation::Value(0.2));
    assert_eq!(evidence.metrics["request-rate"], Observation::Value(20.0));
    assert!(bench.read().metrics.is_empty());
    let idle = bench.read();
    assert_eq!(idle.metrics.get("error-rate"), None, "without requests there is no rate");
    assert_eq!(idle.metrics["request-rate"], Observation::Value(0.0));
}

#[test]
fn what_cannot_be_measured_is_an_error_of_the_provider() {
    let slow = MetricSpec { name: "slow".to_owned(), ..number("slow-fraction") };
    let unknown = MetricSpec { name: "unknown".to_owned(), ..number("latency-p99") };
    let nonsense = MetricSpec { name: "nonsense".to_owned(), classify: "bad ones".to_owned(), ..MetricSpec::default() };
    let mut bench = Bench::asking(targets(EvidenceSource::Auto, vec![slow, unknown, nonsense]));
    let evidence = bench.read();
    for (metric, words) in [
        ("slow", "\"slow\" has no latencyMs"),
        ("unknown", "proxies report no number \"latency-p99\""),
        ("nonsense", "\"bad ones\" does not say what is an error"),
    ] {
        assert_eq!(evidence.metrics[metric], Observation::ProviderError(words.to_owned()));
    }
}

#[test]
fn providers_are_asked_elsewhere() {
    let asked = |kind| MetricSpec { name: "asked".to_owned(), kind, ..MetricSpec::default() };
    for kind in [MetricKind::PromQuery, MetricKind::Web] {
        let mut bench = Bench::asking(targets(EvidenceSource::Prometheus, vec![asked(kind)]));
        assert!(bench.read().metrics.is_empty());
    }
    let mut bench = Bench::asking(targets(EvidenceSource::Prometheus, vec![MetricSpec::default()]));
    assert!(matches!(bench.read().metrics[""], Observation::ProviderError(_)));
}

#[test]
fn time_that_jumps_back_makes_an_empty_stretch() {
    let mut bench = Bench::new(EvidenceSource::Auto);
    let first = bench.read();
    let account = bench.account.as_mut().unwrap();
    let back = account.read(rollout::Time::from_millis(5), &bench.ledger);
    assert_eq!((back.from, back.until), (first.until, first.until));
}
