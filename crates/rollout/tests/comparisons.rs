//! What a candidate is compared with when stable has nothing to serve, and when only chosen requests reach it.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;
#[path = "support/random.rs"]
mod random;

use std::collections::BTreeMap;

use bed::{Bed, intent, plan};
use random::Random;
use rollout::{Arms, Event, Evidence, HoldReason, Judge, Observation, Phase, Reason, Stage, Tally, Time, Verb};
use world::api::delivery::{AnalysisPolicy, AnalysisProfile, MetricSpec, Weight};

const BLUE_GREEN: &str = r#","strategy":{"type":"BlueGreen"}"#;

/// Says what was counted in the second that has passed; proxies report anyway.
fn count(bed: &mut Bed, candidate: Tally, stable: Tally) {
    let counts = Observation::Counts { candidate, stable, parts: Vec::new() };
    let from = bed.time();
    bed.now += 1_000;
    let metrics = BTreeMap::from([("error-rate".to_owned(), counts)]);
    bed.deliver_all();
    bed.tell(Event::Evidence(Evidence { from, until: bed.time(), reporters: 2, metrics }));
    bed.deliver_all();
}

/// Everything to whoever has the weight.
fn second(bed: &mut Bed, requests: u64, candidate_errors: f64, stable_errors: f64) {
    bed.deliver_all();
    bed.traffic(requests, candidate_errors, stable_errors);
    bed.deliver_all();
}

fn hold(bed: &Bed) -> HoldReason {
    bed.run.hold().unwrap().reason
}

#[test]
fn a_switch_waits_until_stable_has_been_counted() {
    let mut bed = Bed::new(plan(intent(BLUE_GREEN)), 2);
    bed.deliver_all();
    assert_eq!(bed.phase(), Phase::Step { index: 0, stage: Stage::Guard });
    let HoldReason::Evidence(words) = hold(&bed) else { panic!("{:?}", hold(&bed)) };
    assert!(words.contains("0 requests of stable have been counted, of the 1000"), "{words}");
    second(&mut bed, 600, 0.0, 0.0);
    assert!(bed.weight().is_zero());
    second(&mut bed, 600, 0.0, 0.0);
    assert_eq!(bed.weight(), Weight::FULL);
    // Where there is nothing to count the switch is only so much later.
    let mut bed = Bed::new(plan(intent(BLUE_GREEN)), 2);
    bed.deliver_all();
    bed.pass(9_000);
    assert!(bed.weight().is_zero());
    bed.pass(1_000);
    assert_eq!(bed.weight(), Weight::FULL);
    // Nobody waits who has decided, or who goes back to what was good before.
    let mut bed = Bed::new(plan(intent(BLUE_GREEN)), 2);
    bed.deliver_all();
    assert!(bed.act(Verb::Promote));
    assert_eq!(bed.weight(), Weight::FULL);
    let mut fast = plan(intent(BLUE_GREEN));
    fast.is_fast = true;
    let mut bed = Bed::new(fast, 2);
    bed.deliver_all();
    assert_eq!(bed.weight(), Weight::FULL);
}

#[test]
fn a_candidate_with_everything_is_compared_with_what_stable_was_like() {
    for errors in [0.03, 0.3] {
        let mut bed = Bed::new(plan(intent(BLUE_GREEN)), 2);
        for _ in 0..200 {
            second(&mut bed, 500, errors, 0.001);
        }
        assert!(bed.phase().is_over(), "{} at {errors}", bed.phase());
        let Some(Reason::Failed { metric, words }) = &bed.run.record().reason else { panic!("{:?}", bed.run.record()) };
        assert!(metric == "error-rate" && words.contains("of stable's were while it had any"), "{words}");
    }
    let mut bed = Bed::new(plan(intent(BLUE_GREEN)), 2);
    for _ in 0..60 {
        second(&mut bed, 500, 0.02, 0.02);
    }
    assert_eq!(bed.phase(), Phase::Draining, "as good as stable was, which was not very good");
}

#[test]
fn what_stable_was_like_is_known_after_a_restart() {
    let mut bed = Bed::new(plan(intent(BLUE_GREEN)), 2);
    while bed.weight() != Weight::FULL {
        second(&mut bed, 500, 0.0, 0.001);
    }
    bed.crash();
    for _ in 0..100 {
        second(&mut bed, 500, 0.03, 0.001);
    }
    assert!(matches!(&bed.run.record().reason, Some(Reason::Failed { words, .. }) if words.contains("stable's were")));
}

#[test]
fn a_record_from_before_this_was_kept_is_read() {
    let mut bed = Bed::new(plan(intent(BLUE_GREEN)), 2);
    while bed.weight() != Weight::FULL {
        second(&mut bed, 500, 0.0, 0.001);
    }
    let mut stored = serde_json::to_value(bed.run.record()).unwrap();
    let judge = stored["judge"].as_object_mut().unwrap();
    assert!(judge.remove("arms").is_some());
    let counted = judge["metrics"][0][1]["Counted"].as_object_mut().unwrap();
    assert!(counted.remove("past").is_some() && counted.remove("unaided").is_some());
    bed.durable = Some(serde_json::from_value(stored).unwrap());
    bed.crash();
    for _ in 0..100 {
        second(&mut bed, 500, 0.3, 0.001);
    }
    assert!(matches!(hold(&bed), HoldReason::Failing { .. }), "{:?}", hold(&bed));
}

#[test]
fn without_anything_to_compare_with_a_candidate_has_to_show_that_it_is_good_enough() {
    let mut bed = Bed::new(plan(intent(BLUE_GREEN)), 2);
    bed.deliver_all();
    bed.pass(10_000);
    bed.deliver_all();
    bed.pass(5_000);
    assert_eq!(bed.phase(), Phase::Bake);
    for _ in 0..120 {
        count(&mut bed, Tally::new(100, 20), Tally::default());
    }
    let HoldReason::Failing { words, .. } = hold(&bed) else { panic!("{:?}", hold(&bed)) };
    assert!(words.contains("nothing of stable's can be compared"), "{words}");
    assert_eq!((bed.phase(), bed.weight()), (Phase::Bake, Weight::FULL), "nobody knows that it is worse");
    assert!(bed.run.explain().metrics[0].verdict.starts_with("holds"));
    let mut bed = Bed::new(plan(intent(BLUE_GREEN)), 2);
    bed.deliver_all();
    bed.pass(10_000);
    bed.deliver_all();
    bed.pass(5_000);
    for _ in 0..12 {
        count(&mut bed, Tally::new(6, 0), Tally::default());
        assert!(!bed.run.explain().metrics[0].verdict.starts_with("passes"));
    }
    for _ in 0..60 {
        count(&mut bed, Tally::new(6, 0), Tally::default());
    }
    assert_eq!(bed.phase(), Phase::Draining);
}

#[test]
fn chosen_requests_are_not_compared_with_those_of_everybody() {
    let preview = r#","strategy":{"type":"BlueGreen","blueGreen":{"autoPromote":false,
        "preview":{"match":[{"header":{"name":"x-qa","exact":"yes"}}]}}}"#;
    let mut bed = Bed::new(plan(intent(preview)), 2);
    for _ in 0..100 {
        count(&mut bed, Tally::new(50, 15), Tally::new(500, 0));
    }
    // Those who look at it see that it is bad: it is not promoted by itself, and users are not concerned.
    assert_eq!((bed.phase(), bed.weight()), (Phase::Step { index: 1, stage: Stage::Waiting }, Weight::ZERO));
    assert!(matches!(hold(&bed), HoldReason::Failing { .. }), "{:?}", hold(&bed));
    // With an SLO the same is a reason to go back.
    let mut strict = plan(intent(preview));
    strict.profiles.get_mut("envoy-default").unwrap()[0].slo = Some(0.01);
    let mut bed = Bed::new(strict, 2);
    for _ in 0..100 {
        count(&mut bed, Tally::new(50, 15), Tally::new(500, 0));
    }
    assert!(matches!(&bed.run.record().reason, Some(Reason::Failed { words, .. }) if words.contains("acceptable")));
}

#[test]
fn copies_of_everything_are_compared_and_copies_of_something_are_not() {
    for (matches, is_compared) in [("", true), (r#","match":[{"method":"GET"}]"#, false)] {
        let mirror = format!(r#","strategy":{{"type":"Mirror","mirror":{{"duration":"10m"{matches}}}}}"#);
        let mut bed = Bed::new(plan(intent(&mirror)), 2);
        for _ in 0..60 {
            count(&mut bed, Tally::new(100, 10), Tally::new(100, 0));
        }
        assert_eq!(matches!(bed.run.record().reason, Some(Reason::Failed { .. })), is_compared, "{matches}");
    }
}

/// A judge of stable's traffic alone for twenty seconds, then of the candidate's alone; when it calls it bad.
fn switched(random: &mut Random, alpha: f64, errors: (f64, f64), metric: fn(&mut MetricSpec)) -> Option<u64> {
    let mut metrics = AnalysisProfile::envoy_default().metrics;
    metric(&mut metrics[0]);
    let policy = AnalysisPolicy { alpha, ..AnalysisPolicy::default() };
    let mut judge = Judge::new(Time::from_millis(0), 1, &policy, &metrics);
    let at = |second: u64| Time::from_millis(second * 1_000);
    let mut arm = |errors: f64| {
        let total = random.poisson(100.0);
        Tally::new(total, random.binomial(total, errors))
    };
    let report = |second: u64, candidate: Tally, stable: Tally| Evidence {
        from: at(second),
        until: at(second + 1),
        reporters: 1,
        metrics: BTreeMap::from([(
            "error-rate".to_owned(),
            Observation::Counts { candidate, stable, parts: Vec::new() },
        )]),
    };
    for second in 0..20 {
        judge.learn(&report(second, Tally::default(), arm(errors.1)));
    }
    judge.begin_step(at(20), Arms::Candidate);
    (20..620).find(|second| {
        judge.observe(&report(*second, arm(errors.0), Tally::default()));
        judge.verdict().failure.is_some()
    })
}

#[test]
fn a_candidate_that_is_as_good_as_stable_was_is_called_bad_no_more_often_than_alpha() {
    let alpha = 0.05;
    for rate in [0.001, 0.02, 0.2] {
        // Nothing is tolerated beyond what is for drift.
        let exact = |metric: &mut MetricSpec| metric.tolerance.delta = 0.0;
        let found = (0..150).filter(|seed| switched(&mut Random::new(*seed), alpha, (rate, rate), exact).is_some());
        let share = found.count() as f64 / 150.0;
        assert!(share <= alpha, "{share} of alpha {alpha} at {rate}");
    }
}

#[test]
fn a_candidate_that_is_clearly_worse_than_stable_was_is_noticed() {
    for (errors, most) in [(0.3, 35), (0.1, 45), (0.05, 90)] {
        let mut found: Vec<_> =
            (0..15).map(|seed| switched(&mut Random::new(seed), 0.01, (errors, 0.001), |_| ())).collect();
        found.sort_by_key(|found| found.unwrap_or(u64::MAX));
        let median = found[7].unwrap_or(u64::MAX);
        assert!(median <= most, "{median} s at {errors}, of which 20 s are stable's");
    }
}

/// Steps without and with a pause, judged by a number that somebody else gives.
fn asked(metric: &str, steps: &str) -> Bed {
    let mut web = plan(intent(&format!(r#","strategy":{{"canary":{{"steps":{steps}}}}}"#)));
    let metrics = vec![serde_json::from_str(metric).unwrap()];
    web.profiles.insert("envoy-default".to_owned(), metrics);
    let mut bed = Bed::new(web, 2);
    bed.deliver_all();
    bed
}

fn say(bed: &mut Bed, observation: Observation) {
    let from = bed.time();
    bed.now += 10_000;
    let metrics = BTreeMap::from([("sales".to_owned(), observation)]);
    bed.tell(Event::Evidence(Evidence { from, until: bed.time(), reporters: 2, metrics }));
    bed.deliver_all();
}

const SALES: &str = r#"{"name":"sales","kind":"Web","range":{"min":1}}"#;

#[test]
fn a_provider_that_does_not_answer_holds_every_step_that_goes_on() {
    let ten = Weight::from_percent(10.0).unwrap();
    for steps in [
        r#"[{"setWeight":10},{"setWeight":50},{"pause":{}},{"setWeight":100}]"#,
        r#"[{"setWeight":10},{"pause":{"duration":"5s"}},{"setWeight":50},{"pause":{}},{"setWeight":100}]"#,
        r#"[{"setWeight":10},{"requireEndpoints":{"absolute":1}},{"setWeight":50},{"pause":{}},{"setWeight":100}]"#,
        r#"[{"setWeight":10},{"gate":{"webhook":"https://a"}},{"setWeight":50},{"pause":{}},{"setWeight":100}]"#,
    ] {
        let mut bed = asked(SALES, steps);
        bed.minutes(1);
        bed.minutes(1);
        assert_eq!((bed.weight(), hold(&bed)), (ten, HoldReason::Evidence("sales: there is no value yet".to_owned())));
        say(&mut bed, Observation::ProviderError("timeout".to_owned()));
        bed.minutes(5);
        let fails = HoldReason::ProviderError { metric: "sales".to_owned(), words: "timeout".to_owned() };
        assert_eq!((bed.weight(), hold(&bed)), (ten, fails), "{steps}");
        say(&mut bed, Observation::Value(2.0));
        assert_eq!(bed.weight(), Weight::from_percent(50.0).unwrap(), "{steps}");
    }
    // Somebody may know better, and errors may be said to be bad values.
    let mut bed = asked(SALES, r#"[{"setWeight":10},{"setWeight":50},{"pause":{}},{"setWeight":100}]"#);
    bed.minutes(1);
    assert_eq!((bed.weight(), bed.act(Verb::Promote)), (ten, true));
    assert_eq!(bed.weight(), Weight::from_percent(50.0).unwrap());
}

#[test]
fn a_step_passes_by_no_metric_that_has_no_value() {
    let steps = r#"[{"setWeight":10},{"analysis":{}},{"setWeight":100}]"#;
    let optional = r#"{"name":"sales","kind":"Web","range":{"min":1},"critical":false}"#;
    let mut bed = asked(optional, steps);
    bed.minutes(1);
    bed.minutes(1);
    assert_eq!(hold(&bed), HoldReason::Evidence("sales: there is no value yet".to_owned()));
    say(&mut bed, Observation::Value(2.0));
    assert_eq!(bed.weight(), Weight::FULL);
}
