//! What the sums over reports say.
#![allow(clippy::disallowed_methods, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use load::{ClusterReport, Counts, EndpointReport, LocalityReport, Report, StreamId, Table};

const SECOND: Duration = Duration::from_secs(1);

fn counts(successful: u64, errors: u64) -> Counts {
    Counts { successful, errors, issued: successful + errors, in_progress: 1 }
}

fn report(cluster: &str, interval: Duration, counts: Counts) -> Report {
    let place = LocalityReport { counts, ..LocalityReport::default() };
    let cluster = ClusterReport { cluster: cluster.into(), interval, localities: vec![place], ..Default::default() };
    Report { clusters: vec![cluster] }
}

fn idle(cluster: &str) -> Report {
    Report { clusters: vec![ClusterReport { cluster: cluster.into(), interval: SECOND, ..Default::default() }] }
}

fn nodes() -> (Arc<str>, Arc<str>) {
    ("a".into(), "b".into())
}

#[test]
fn sums_grow_over_clients_and_reports_and_rates_are_those_of_the_newest() {
    let (now, (a, b)) = (Instant::now(), nodes());
    let mut table = Table::default();
    table.add(now, StreamId(1), &a, report("x", SECOND, counts(90, 10)));
    table.add(now, StreamId(2), &b, report("x", SECOND * 2, counts(100, 0)));
    table.add(now + SECOND, StreamId(1), &a, report("x", SECOND, counts(30, 10)));
    let load = table.cluster("x", now + SECOND).expect("it had traffic");
    assert_eq!((load.total.successful, load.total.errors, load.total.in_progress), (220, 20, 2));
    assert!((load.per_second - (40.0 + 50.0)).abs() < 1e-9, "{}", load.per_second);
    assert!((load.error_share.unwrap_or_default() - 10.0 / 140.0).abs() < 1e-9);
    let rates: Vec<_> = table.nodes("x", now + SECOND).into_iter().map(|n| (n.node, n.per_second)).collect();
    assert_eq!(rates, [(a, 40.0), (b, 50.0)]);
}

#[test]
fn a_stale_or_idle_or_ended_client_has_no_rate_but_stays_in_the_sums() {
    let (now, (a, b)) = (Instant::now(), nodes());
    let mut table = Table::default();
    table.add(now, StreamId(1), &a, report("x", SECOND, counts(10, 0)));
    table.add(now, StreamId(2), &b, report("x", SECOND, counts(20, 0)));
    table.add(now, StreamId(2), &b, idle("x"));
    assert_eq!(table.cluster("x", now).map(|load| load.per_second), Some(10.0));
    assert_eq!(table.cluster("x", now + SECOND * 4).map(|load| load.reporting), Some(0), "the report is stale");
    table.end(now, StreamId(1));
    let load = table.cluster("x", now).expect("it is kept for a while");
    assert_eq!((load.total.successful, load.reporting, load.error_share), (30, 0, None));
}

#[test]
fn clusters_that_never_had_traffic_take_no_room_and_old_ones_are_forgotten() {
    let (now, (a, _)) = (Instant::now(), nodes());
    let mut table = Table::default();
    table.add(now, StreamId(1), &a, idle("quiet"));
    table.add(now, StreamId(1), &a, report("busy", SECOND, counts(1, 0)));
    assert_eq!(table.clusters(now).len(), 1);
    table.end(now + Table::KEPT, StreamId(1));
    assert!(table.clusters(now).is_empty());
}

#[test]
fn endpoints_beyond_the_bound_are_counted_as_ignored_and_their_requests_are_not_lost() {
    let (now, (a, _)) = (Instant::now(), nodes());
    let endpoint = |i: usize| EndpointReport { address: format!("10.0.0.1:{i}").into(), counts: counts(1, 0) };
    let count = Table::MOST_ENDPOINTS + 5;
    let place = LocalityReport {
        counts: counts(count as u64, 0),
        endpoints: (0..count).map(endpoint).collect(),
        ..Default::default()
    };
    let cluster =
        ClusterReport { cluster: "x".into(), interval: SECOND, localities: vec![place], ..Default::default() };
    let mut table = Table::default();
    table.add(now, StreamId(1), &a, Report { clusters: vec![cluster] });
    let load = table.cluster("x", now).expect("it had traffic");
    assert_eq!((load.endpoints.len(), table.ignored()), (Table::MOST_ENDPOINTS, 5));
    assert_eq!(load.total.successful, count as u64);
}
