//! What comparing stable with itself says about the test, and what follows. All of it is seeded.
#![allow(clippy::unwrap_used)]

#[path = "support/random.rs"]
mod random;
#[path = "support/traffic.rs"]
mod traffic;

use random::Random;
use rollout::{Judge, Part, Tally};
use serde_json::Value;
use traffic::{Bursts, Second, Traffic, observe, seeded_judge};

/// The numbers of its only metric.
fn counted(judge: &Judge) -> Value {
    let mut explained = serde_json::to_value(judge.explain()).unwrap();
    explained["metrics"][0]["counted"].take()
}

fn number(of: &Value) -> f64 {
    of.as_f64().unwrap()
}

/// Alarms and trials over the whole life, those before the stretch was raised included.
fn alarms(counted: &Value) -> (f64, f64) {
    let now = (number(&counted["falseAlarms"]), number(&counted["trials"]));
    let raises = counted["trimRaises"].as_array().cloned().unwrap_or_default();
    raises.iter().fold(now, |sum, raise| (sum.0 + number(&raise["falseAlarms"]), sum.1 + number(&raise["trials"])))
}

/// Whether the numbers are enough to call the candidate bad at an alpha of one percent.
fn is_called_bad(counted: &Value) -> bool {
    let relative = &counted["relative"];
    let [candidate, stable] = [0, 1].map(|arm| counted["recentRates"][arm].as_f64().unwrap_or_default());
    number(&relative["eValue"]) >= 100.0
        && number(&relative["robustEValue"]) >= 100.0 * number(&counted["endpointEValue"])
        && candidate - stable >= number(&counted["tolerance"][0])
}

/// What is known at the end, and whether the candidate was called bad in between.
fn live(mut judge: Judge, traffic: &Traffic, seed: u64, seconds: u64) -> (Value, bool) {
    let mut is_bad = false;
    for (at, second) in traffic.seconds(&mut Random::new(seed), seconds).iter().enumerate() {
        observe(&mut judge, at as u64, second);
        is_bad |= is_called_bad(&counted(&judge));
    }
    (counted(&judge), is_bad)
}

/// Endpoints with so many requests each second, all of them good.
fn healthy(endpoints: u64) -> Second {
    let parts = (0..endpoints).map(|endpoint| Part { endpoint, tally: Tally::new(60, 0) }).collect();
    Second { candidate: Tally::new(60, 0), stable: Tally::new(60 * endpoints, 0), parts }
}

#[test]
fn halves_of_equal_endpoints_call_each_other_bad_no_more_often_than_alpha() {
    // The tolerance is off: what is tested is the test.
    let traffic = Traffic { share: 0.1, stable_errors: 0.02, candidate_errors: 0.02, ..Traffic::default() };
    for alpha in [0.2, 0.05] {
        let judge = |seed| seeded_judge(seed, alpha, |metric| metric.tolerance.delta = 0.0);
        let ends: Vec<_> = (0..12).map(|seed| live(judge(seed), &traffic, 90 + seed, 900).0).collect();
        let (alarms, trials) = ends.iter().map(alarms).fold((0.0, 0.0), |sum, end| (sum.0 + end.0, sum.1 + end.1));
        assert!(trials >= 12.0 * 2.0 * 8.0, "{trials} trials: eight at a time, for 300 blocks each");
        assert!(alarms <= alpha * trials, "{alarms} of {trials} at {alpha}");
        assert!(ends.iter().all(|end| number(&end["trimSeconds"]) == 10.0), "nothing is raised for it");
    }
}

#[test]
fn bursts_of_single_endpoints_raise_the_stretch_and_fewer_healthy_candidates_are_called_bad() {
    let bursts = Some(Bursts { seconds: 20.0, every_seconds: 600.0, errors: 0.3 });
    let traffic = Traffic { rps: 300.0, bursts, ..Traffic::default() };
    let alpha_of_one_percent = |seed| live(seeded_judge(seed, 0.01, |_| ()), &traffic, seed, 1_800);
    // So many false alarms are allowed that the stretch stays as it is; all other numbers are the same.
    let never_raised = |seed| live(seeded_judge(seed, 0.99, |_| ()), &traffic, seed, 1_800);
    let (with, without): (Vec<_>, Vec<_>) =
        (0..16).map(|seed| (alpha_of_one_percent(seed), never_raised(seed))).unzip();
    let bad = |ends: &[(Value, bool)]| ends.iter().filter(|(_, is_bad)| *is_bad).count();
    let raised = with.iter().filter(|(end, _)| number(&end["trimSeconds"]) > 10.0).count();
    assert!(raised >= 14, "{raised} of 16");
    assert!(without.iter().all(|(end, _)| number(&end["trimSeconds"]) == 10.0));
    assert!(bad(&with) < bad(&without), "{} with, {} without", bad(&with), bad(&without));
    for (end, _) in &with {
        let mut before = 10.0;
        for raise in end["trimRaises"].as_array().cloned().unwrap_or_default() {
            assert_eq!(number(&raise["fromSeconds"]), before);
            before = number(&raise["toSeconds"]);
            assert!(before <= 60.0, "a minute at most");
            assert!(number(&raise["falseAlarms"]) > 0.01 * number(&raise["trials"]), "{raise}");
        }
        assert_eq!(number(&end["trimSeconds"]), before);
    }
}

#[test]
fn a_candidate_that_is_bad_all_the_time_is_called_so_however_long_the_stretch_became() {
    // One endpoint of stable is broken for good, so halves never agree.
    let mut judge = seeded_judge(3, 0.01, |_| ());
    let mut random = Random::new(3);
    let mut second = |errors: f64| {
        let mut second = healthy(6);
        second.parts[2].tally.bad = random.binomial(60, 0.3);
        second.stable.bad = second.parts[2].tally.bad;
        second.candidate.bad = random.binomial(60, errors);
        second
    };
    (0..600).for_each(|at| observe(&mut judge, at, &second(0.0)));
    assert_eq!(number(&counted(&judge)["trimSeconds"]), 60.0);
    assert_eq!(judge.verdict().failure, None);
    let bad = (600..900).find(|at| {
        observe(&mut judge, *at, &second(0.45));
        judge.verdict().failure.is_some()
    });
    assert!(bad.is_some(), "{}", counted(&judge));
}

#[test]
fn without_endpoints_to_divide_there_is_no_comparison_and_it_is_said_why() {
    for (endpoints, words) in [(0, "nothing tells the endpoints of stable apart"), (1, "only one endpoint of stable")] {
        let mut judge = seeded_judge(1, 0.01, |_| ());
        (0..400).for_each(|at| observe(&mut judge, at, &Second { stable: Tally::new(60, 0), ..healthy(endpoints) }));
        let counted = counted(&judge);
        assert!(counted["calibration"].as_str().unwrap().contains(&format!("not possible: {words}")), "{counted}");
        assert_eq!((counted["falseAlarmRate"].as_f64(), counted["trials"].as_u64()), (None, Some(0)));
    }
}

#[test]
fn no_division_is_tried_twice_at_a_time() {
    // Two endpoints can be divided in one way, three and four in three, and each division is judged both ways.
    for (endpoints, trials) in [(2, 2), (3, 6), (4, 6), (9, 8)] {
        let mut judge = seeded_judge(7, 0.01, |_| ());
        (0..200).for_each(|at| observe(&mut judge, at, &healthy(endpoints)));
        assert_eq!(counted(&judge)["trials"].as_u64(), Some(trials), "{endpoints} endpoints");
        (200..300).for_each(|at| observe(&mut judge, at, &healthy(endpoints)));
        assert_eq!(counted(&judge)["falseAlarmRate"].as_f64(), Some(0.0), "the first trials are over");
    }
}

#[test]
fn the_same_seed_divides_in_the_same_way_and_a_restart_keeps_what_was_found() {
    let bursts = Some(Bursts { seconds: 20.0, every_seconds: 300.0, errors: 0.3 });
    let traffic = Traffic { rps: 300.0, bursts, ..Traffic::default() };
    let life = traffic.seconds(&mut Random::new(11), 900);
    let told = |seed| {
        let mut judge = seeded_judge(seed, 0.01, |_| ());
        life.iter().enumerate().for_each(|(at, second)| observe(&mut judge, at as u64, second));
        judge
    };
    let judge = told(5);
    assert_eq!(counted(&judge), counted(&told(5)));
    assert!((6..12).any(|seed| counted(&judge)["trimRaises"] != counted(&told(seed))["trimRaises"]));
    let stored: Judge = serde_json::from_str(&serde_json::to_string(&judge).unwrap()).unwrap();
    let (kept, was) = (counted(&stored), counted(&judge));
    for field in ["falseAlarms", "trimSeconds", "trimRaises"] {
        assert_eq!(kept[field], was[field], "{field}");
    }
}

#[test]
fn endpoints_that_come_and_go_do_not_end_a_comparison() {
    let mut judge = seeded_judge(7, 0.01, |_| ());
    for at in 0..290 {
        let mut second = healthy(9);
        // Each is away for a while, and another one comes in its place.
        let away = (at / 30) as usize % 9;
        second.parts[away].endpoint += 100;
        observe(&mut judge, at, &second);
    }
    assert_eq!(counted(&judge)["trials"].as_u64(), Some(8));
}
