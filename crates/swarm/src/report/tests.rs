#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn percentiles_are_nearest_ranks() {
    let span = Span::of((1..=200u64).rev().map(|ms| ms * 1_000_000)).unwrap();
    let expected = Span { count: 200, first: 1.0, p50: 100.0, p90: 180.0, p99: 198.0, last: 200.0 };
    assert_eq!(span, expected);
    assert_eq!(Span::of([5_000_000].into_iter()).unwrap().p99, 5.0);
    assert_eq!(Span::of([].into_iter()), None);
}

fn phase(bytes: u64, last: f64, cpu_nanos: u64) -> (PhaseReport, ChangeReport) {
    let mut tally = Tally::default();
    tally.counts[0] = Count { responses: 10, resources: 10, removed: 0, bytes };
    let mut report = PhaseReport::new("change", Duration::from_secs(1), 10, &tally);
    let after = Cost { cpu_nanos, rss_bytes: 1 << 20, peak_bytes: 1 << 20 };
    report.cost(Some((Cost::default(), after)), (Cost::default(), Cost { cpu_nanos: 2_000_000, ..after }));
    report.reached = 10;
    let span = Span { count: 10, last, ..Span::default() };
    (report, ChangeReport { acknowledged: Some(span), ..ChangeReport::default() })
}

#[test]
fn repetitions_are_added_up_and_their_medians_taken() {
    let mut sum = PhaseReport::default();
    let mut changes = Vec::new();
    for (bytes, last, nanos) in [(1000, 3.0, 1_000_000), (3000, 9.0, 2_000_000), (2000, 4.0, 3_000_000)] {
        let (report, change) = phase(bytes, last, nanos);
        sum.add(report);
        changes.push(change);
    }
    let report = sum.with_changes("change", changes);
    assert_eq!((report.repetitions, report.types["cds"].responses), (3, 30));
    assert_eq!(report.acknowledged.as_ref().unwrap().last, 4.0);
    assert_eq!(report.bytes_per_node, 200.0);
    let server = report.server.unwrap();
    assert_eq!((server.cpu_seconds, server.micros_per_node), (0.006, 200.0));
    assert_eq!(report.is_client_bound, Some(true), "6 ms against 6 ms");
}

#[test]
fn the_table_names_what_is_missing_and_why() {
    let (mut report, change) = phase(1000, 3.0, 9_000_000);
    report.reached = 9;
    report.ends.insert("the server closed the connection".to_owned(), 1);
    let report = report.with_changes("change", vec![change]);
    let scenario = Scenario { nodes: 10, ..Scenario::default() };
    let report = Report { phases: vec![report], is_interrupted: true, ..Report::new(&scenario, "127.0.0.1:15010") };
    assert!(!report.is_complete());
    let text = report.to_string();
    for part in ["10 delta nodes (small)", "change → ACK", "10/10", "1 × the server closed", "900.0", "Interrupted"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("client-bound"), "{text}");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap().phases[0].reached, 9);
}
