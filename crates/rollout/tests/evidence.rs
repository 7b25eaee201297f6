//! What the judge makes of traffic: how sure, how soon, and how it is misled. All of it is seeded.
#![allow(clippy::unwrap_used)]

#[path = "support/random.rs"]
mod random;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;

use random::Random;
use rollout::{Absence, Evidence, Judge, Observation, Tally, Time};
use traffic::{Bursts, Incident, Second, Traffic, fails_after, judge, observe, quantile, raw_fails_after};
use world::api::delivery::{AnalysisPolicy, MetricSpec};

/// Lives without endpoints that are told apart, which most tests do not need.
fn lives(traffic: &Traffic, count: u64, seconds: u64) -> Vec<Vec<Second>> {
    let life = |seed| {
        let mut life = traffic.seconds(&mut Random::new(seed), seconds);
        life.iter_mut().for_each(|second| second.parts.clear());
        life
    };
    (0..count).map(life).collect()
}

fn share(found: &[Option<u64>]) -> f64 {
    found.iter().filter(|found| found.is_some()).count() as f64 / found.len() as f64
}

#[test]
fn a_healthy_candidate_is_called_bad_no_more_often_than_alpha() {
    // The tolerance is off: what is tested is the process itself, looked at after every second.
    let healthy = Traffic { share: 0.3, stable_errors: 0.02, candidate_errors: 0.02, ..Traffic::default() };
    let exact = |metric: &mut MetricSpec| metric.tolerance.delta = 0.0;
    let lives = lives(&healthy, 250, 400);
    for alpha in [0.2, 0.05] {
        let raw: Vec<_> = lives.iter().map(|life| raw_fails_after(judge(alpha, exact), life)).collect();
        // Three standard deviations of a share of 250.
        let most = alpha + 3.0 * (alpha * (1.0 - alpha) / 250.0).sqrt();
        assert!(share(&raw) <= most, "{} of alpha {alpha}", share(&raw));
        let robust: Vec<_> = lives.iter().map(|life| fails_after(judge(alpha, exact), life)).collect();
        assert!(share(&robust) <= share(&raw), "trimming only takes away");
    }
}

#[test]
fn a_rate_that_drifts_in_both_arms_is_no_evidence() {
    let mut found = Vec::new();
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut life = Vec::new();
        for minute in 0..10 {
            // From 0.1 % to 10 % and back, and a share that changes with every minute.
            let errors = if minute % 2 == 0 { 0.001 } else { 0.1 };
            let share = [0.01, 0.1, 0.5][minute % 3];
            let traffic = Traffic { share, stable_errors: errors, candidate_errors: errors, ..Traffic::default() };
            life.extend(traffic.seconds(&mut random, 60));
        }
        found.push(fails_after(judge(0.05, |_| ()), &life));
    }
    assert!(share(&found) <= 0.05 + 0.06, "{}", share(&found));
}

#[test]
fn a_bad_candidate_is_noticed_as_soon_as_the_theory_says() {
    // Requests a second, and the medians, untrimmed and trimmed, that another implementation of the same test had.
    for (rps, raw, trimmed) in [(20.0, 36.0, 66.0), (100.0, 8.0, 21.0), (1_000.0, 2.0, 11.0)] {
        let bad = Traffic { rps, candidate_errors: 0.05, ..Traffic::default() };
        let lives = lives(&bad, 31, 400);
        let mut found: Vec<_> = lives.iter().map(|life| raw_fails_after(judge(0.01, |_| ()), life)).collect();
        let median = quantile(&mut found, 0.5).unwrap() as f64;
        assert!((raw * 0.5 - 1.0..raw * 1.6 + 2.0).contains(&median), "{rps} rps untrimmed: {median}, not about {raw}");
        let mut found: Vec<_> = lives.iter().map(|life| fails_after(judge(0.01, |_| ()), life)).collect();
        let median = quantile(&mut found, 0.5).unwrap() as f64;
        assert!((trimmed * 0.6..trimmed * 1.5).contains(&median), "{rps} rps: {median}, not about {trimmed}");
    }
}

#[test]
fn a_candidate_that_fails_late_is_not_credited_with_its_past() {
    let late = Traffic { candidate_errors: 0.05, bad_from_second: 900, ..Traffic::default() };
    let mut found: Vec<_> = lives(&late, 15, 1_100).iter().map(|life| fails_after(judge(0.01, |_| ()), life)).collect();
    let median = quantile(&mut found, 0.5).unwrap();
    assert!((910..980).contains(&median), "{median}");
}

#[test]
fn an_incident_of_both_arms_is_not_the_candidates() {
    let incident = Some(Incident { from_second: 60, until_second: 300, errors: 0.05 });
    let lives = lives(&Traffic { incident, ..Traffic::default() }, 20, 400);
    let found: Vec<_> = lives.iter().map(|life| fails_after(judge(0.01, |_| ()), life)).collect();
    assert_eq!(share(&found), 0.0);
    // With an SLO it is told, as what it is.
    let mut judge = judge(0.01, |metric| metric.slo = Some(0.01));
    for (at, second) in lives[0][..200].iter().enumerate() {
        observe(&mut judge, at as u64, second);
        assert_eq!(judge.verdict().failure, None);
    }
    assert!(judge.verdict().shared.is_some());
}

#[test]
fn an_slo_is_kept_or_broken_by_the_candidate_alone() {
    let broken = Traffic { candidate_errors: 0.05, stable_errors: 0.002, ..Traffic::default() };
    let mut judge = judge(0.01, |metric| {
        metric.slo = Some(0.01);
        // So that only the absolute test can fail.
        metric.tolerance.delta = 0.9;
    });
    for (at, second) in lives(&broken, 1, 200)[0].iter().enumerate() {
        observe(&mut judge, at as u64, second);
    }
    assert!(judge.verdict().failure.unwrap().words.contains("acceptable"));
}

#[test]
fn passing_takes_as_many_clean_requests_as_the_slo_asks_for() {
    let requests = |slo: f64| {
        let mut judge = judge(0.01, |metric| metric.slo = Some(slo));
        let second = Second { candidate: Tally::new(10, 0), stable: Tally::new(90, 0), parts: Vec::new() };
        let at = (0..10_000).find(|at| {
            observe(&mut judge, *at, &second);
            judge.verdict().missing.is_none()
        });
        at.unwrap() * 10
    };
    assert!((300..600).contains(&requests(0.01)), "{}", requests(0.01));
    assert!((3_000..6_000).contains(&requests(0.001)), "{}", requests(0.001));
    // A candidate that is exactly as bad as its SLO allows hardly ever passes.
    let edge = Traffic { rps: 1_000.0, candidate_errors: 0.01, stable_errors: 0.01, ..Traffic::default() };
    let passes = lives(&edge, 100, 60).into_iter().filter(|life| {
        let mut judge = judge(0.01, |metric| metric.slo = Some(0.01));
        life.iter().enumerate().any(|(at, second)| {
            observe(&mut judge, at as u64, second);
            judge.verdict().missing.is_none()
        })
    });
    let passes = passes.count();
    assert!(passes <= 12, "{passes} of 100 at beta 0.05");
}

#[test]
fn half_of_all_requests_failing_needs_no_statistics_and_a_short_burst_is_not_that() {
    let broken = Traffic { candidate_errors: 0.9, ..Traffic::default() };
    assert!(fails_after(judge(0.01, |_| ()), &lives(&broken, 1, 60)[0]).unwrap() <= 8);
    let mut life = lives(&Traffic::default(), 1, 120).remove(0);
    life.iter_mut().skip(50).take(3).for_each(|second| second.candidate.bad = second.candidate.total);
    assert_eq!(fails_after(judge(0.01, |_| ()), &life), None);
}

/// After how many milliseconds a candidate is called bad that fails every other request, by readings of this length; a
/// proxy tells once a second what it has counted.
fn half_failing(reading: u64) -> u64 {
    let mut judge = judge(0.01, |_| ());
    // Odd, so that less than half of what was counted can be bad.
    let (mut until, mut told, per_second) = (0, 0, 101);
    while judge.verdict().failure.is_none() {
        let from = until;
        until += reading;
        let (mut candidate, mut stable) = (Tally::default(), Tally::default());
        while (told + 1) * 1_000 <= until {
            let bad = (told + 1) * per_second / 2 - told * per_second / 2;
            candidate.add(Tally::new(per_second, bad));
            stable.add(Tally::new(9 * per_second, 0));
            told += 1;
        }
        let counts = Observation::Counts { candidate, stable, parts: Vec::new() };
        judge.observe(&Evidence {
            from: Time::from_millis(from),
            until: Time::from_millis(until),
            reporters: 1,
            metrics: BTreeMap::from([("error-rate".to_owned(), counts)]),
        });
        assert!(until < 60_000, "it is never noticed");
    }
    until
}

#[test]
fn half_of_all_requests_failing_is_noticed_after_five_seconds_however_often_it_is_looked() {
    for (reading, most) in [(1_000, 5_000), (999, 5_994), (250, 5_000), (249, 5_229)] {
        let took = half_failing(reading);
        assert!((5_000..=most).contains(&took), "{took} ms by readings of {reading} ms");
    }
}

#[test]
fn evidence_that_is_not_enough_is_a_reason_to_wait() {
    let mut judge = judge(0.01, |_| ());
    let bad = Second { candidate: Tally::new(50, 5), stable: Tally::new(450, 0), parts: Vec::new() };
    (0..5).for_each(|at| observe(&mut judge, at, &bad));
    let verdict = judge.verdict();
    assert_eq!(verdict.failure, None);
    assert!(verdict.missing.unwrap().contains("leans against"));
}

#[test]
fn bursts_that_endpoints_of_stable_have_too_count_less() {
    let bursts = Some(Bursts { seconds: 5.0, every_seconds: 300.0, errors: 0.3 });
    let traffic = Traffic { bursts, ..Traffic::default() };
    let told_apart: Vec<_> = (0..20).map(|seed| traffic.seconds(&mut Random::new(seed), 1_200)).collect();
    let found: Vec<_> = told_apart.iter().map(|life| fails_after(judge(0.01, |_| ()), life)).collect();
    let blind: Vec<_> = lives(&traffic, 20, 1_200).iter().map(|life| fails_after(judge(0.01, |_| ()), life)).collect();
    assert!(share(&found) < share(&blind), "{} with, {} without", share(&found), share(&blind));
}

#[test]
fn numbers_fail_beyond_their_limit_and_in_a_row_if_that_is_said() {
    for (consecutive, fails) in [(false, true), (true, false)] {
        let text = format!(
            r#"{{"name":"m","kind":"PromQuery","range":{{"max":1}},"failureLimit":1,"consecutive":{consecutive}}}"#
        );
        let metric: MetricSpec = serde_json::from_str(&text).unwrap();
        let mut judge = Judge::new(Time::from_millis(0), 1, &AnalysisPolicy::default(), &[metric]);
        for (at, value) in [2.0, 0.5, 2.0].into_iter().enumerate() {
            assert_eq!(judge.verdict().failure, None);
            judge.observe(&Evidence {
                from: Time::from_millis(at as u64 * 1_000),
                until: Time::from_millis(at as u64 * 1_000 + 1_000),
                reporters: 1,
                metrics: BTreeMap::from([("m".to_owned(), Observation::Value(value))]),
            });
        }
        assert_eq!(judge.verdict().failure.is_some(), fails, "consecutive: {consecutive}");
        assert!(matches!(judge.absences(Time::from_millis(9_000))[..], [Absence::Telemetry(_)]));
    }
}

#[test]
fn a_metric_for_show_has_no_consequence_and_one_that_is_not_critical_only_holds() {
    let broken = lives(&Traffic { candidate_errors: 0.3, ..Traffic::default() }, 1, 60).remove(0);
    let after = |change: fn(&mut MetricSpec)| {
        let mut judge = judge(0.01, change);
        broken.iter().enumerate().for_each(|(at, second)| observe(&mut judge, at as u64, second));
        let explained = judge.explain();
        assert!(explained.metrics[0].verdict.starts_with("fails"), "{}", explained.metrics[0].verdict);
        judge.verdict()
    };
    assert_eq!(after(|metric| metric.dry_run = true), rollout::Verdict::default());
    let held = after(|metric| metric.critical = false);
    assert!(held.failure.is_none() && held.hold.is_some());
}

#[test]
fn an_explanation_has_every_number() {
    let mut judge = judge(0.01, |metric| metric.slo = Some(0.01));
    for (at, second) in Traffic::default().seconds(&mut Random::new(3), 400).iter().enumerate() {
        observe(&mut judge, at as u64, second);
    }
    let explained = serde_json::to_value(judge.explain()).unwrap();
    let counted = &explained["metrics"][0]["counted"];
    for field in ["candidate", "stable", "recentRates", "tolerance", "relative", "slo", "kept", "dispersion", "trials"]
    {
        assert!(!counted[field].is_null(), "{field} in {counted}");
    }
    for field in ["eValue", "robustEValue", "bound", "pValue", "blocks"] {
        assert!(counted["relative"][field].is_number(), "{field}");
    }
    assert_eq!(counted["relative"]["bound"].as_f64().map(f64::round), Some(200.0), "two tests share alpha");
}
