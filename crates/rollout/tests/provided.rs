//! Counts that somebody else than the proxies provides: whole windows of them, of both arms, some time after they were
//! counted.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::collections::BTreeMap;

use bed::{Bed, intent, plan};
use rollout::{Event, Evidence, HoldReason, Observation, Phase, Reason, Stage, Tally, Verb};
use world::api::delivery::{MetricSpec, Weight};

const STEPS: &str = r#","strategy":{"canary":{"steps":[{"setWeight":10},{"pause":{}},{"setWeight":50},{"analysis":{}},{"setWeight":100}]}},
    "analysis":{"profiles":["orders"],"warmup":"5s","minRequests":1000}"#;

/// How often it is asked, in seconds.
const EVERY: u64 = 20;

/// A run that is judged by nothing but the orders that somebody counts, which waits at 10 %.
fn waiting() -> Bed {
    let metric: MetricSpec = serde_json::from_str(
        r#"{"name":"placed","kind":"Web","url":"http://orders/{{revision}}","jsonPath":"$","slo":0.02,"interval":"20s"}"#,
    )
    .unwrap();
    assert!(metric.is_counted());
    let mut plan = plan(intent(STEPS));
    plan.profiles = BTreeMap::from([("orders".to_owned(), vec![metric])]);
    let mut bed = Bed::new(plan, 2);
    for _ in 0..12 {
        bed.deliver_all();
        bed.pass(1_000);
    }
    assert_eq!(bed.phase(), Phase::Step { index: 1, stage: Stage::Waiting });
    bed
}

fn say(bed: &mut Bed, metrics: BTreeMap<String, Observation>) {
    let from = bed.time();
    bed.now += 1_000;
    let until = bed.time();
    bed.tell(Event::Evidence(Evidence { from, until, reporters: 2, metrics }));
    bed.deliver_all();
}

fn placed(observation: Observation) -> BTreeMap<String, Observation> {
    BTreeMap::from([("orders/placed".to_owned(), observation)])
}

/// So many windows of orders, with these shares of bad ones.
fn live(bed: &mut Bed, windows: u64, orders: u64, [candidate, stable]: [f64; 2]) {
    for _ in 0..windows {
        let from = bed.time();
        for _ in 1..EVERY {
            say(bed, BTreeMap::new());
        }
        let share = bed.weight().fraction();
        let tally = |share: f64, errors: f64| {
            let total = orders as f64 * share;
            Tally::new(total as u64, (total * errors).round() as u64)
        };
        let (candidate, stable) = (tally(share, candidate), tally(1.0 - share, stable));
        say(bed, placed(Observation::Since { from, candidate, stable }));
    }
}

fn counted(bed: &Bed) -> ([u64; 2], [u64; 2]) {
    let explained = bed.run.explain();
    let counted = explained.metrics[0].counted.as_ref().unwrap();
    (counted.candidate, counted.stable)
}

#[test]
fn counts_of_others_are_judged_as_counts_of_both_arms_and_of_the_slo() {
    let mut bed = waiting();
    live(&mut bed, 5, 10_000, [0.001, 0.001]);
    assert_eq!(counted(&bed), ([5_000, 5], [45_000, 45]));
    assert_eq!(bed.run.explain().step_requests, 5_000, "nobody else counts requests");
    let explained = bed.run.explain();
    let numbers = explained.metrics[0].counted.as_ref().unwrap();
    assert_eq!((numbers.relative.blocks, numbers.slo.as_ref().unwrap().blocks), (5, 5), "a window is a block");
    // Far below what is acceptable, and far beyond stable's.
    live(&mut bed, 6, 10_000, [0.012, 0.001]);
    let Some(Reason::Failed { metric, words }) = bed.run.record().reason.clone() else { bed.fail("it goes on") };
    assert!(metric == "orders/placed" && words.contains("of stable's"), "{metric}: {words}");
    assert_eq!(bed.weight(), Weight::ZERO);
}

#[test]
fn one_bad_window_is_the_best_stretch_and_takes_nobody_back() {
    let mut bed = waiting();
    live(&mut bed, 3, 10_000, [0.001, 0.001]);
    live(&mut bed, 1, 10_000, [0.2, 0.001]);
    live(&mut bed, 3, 10_000, [0.001, 0.001]);
    assert_eq!((bed.run.record().reason.clone(), bed.weight()), (None, Weight::from_percent(10.0).unwrap()));
}

#[test]
fn a_window_that_began_before_the_weights_had_arrived_and_warmed_up_is_not_counted() {
    let mut bed = waiting();
    live(&mut bed, 2, 10_000, [0.001, 0.001]);
    let before = counted(&bed);
    let from = bed.time();
    assert!(bed.act(Verb::Promote));
    bed.deliver_all();
    for _ in 0..9 {
        say(&mut bed, BTreeMap::new());
    }
    let (candidate, stable) = (Tally::new(5_000, 5_000), Tally::new(5_000, 0));
    say(&mut bed, placed(Observation::Since { from, candidate, stable }));
    assert_eq!((counted(&bed), bed.weight()), (before, Weight::from_percent(50.0).unwrap()));
    // The next one is, and the step passes by enough of them.
    live(&mut bed, 6, 10_000, [0.001, 0.001]);
    assert_eq!(bed.weight(), Weight::FULL);
}

#[test]
fn who_counts_and_does_not_answer_holds_the_run_until_he_does() {
    let mut bed = waiting();
    assert!(matches!(bed.run.hold().unwrap().reason, HoldReason::Evidence(_)), "there is nothing yet");
    say(&mut bed, placed(Observation::ProviderError("timeout".to_owned())));
    let HoldReason::ProviderError { metric, words } = bed.run.hold().unwrap().reason else {
        bed.fail("it is not held")
    };
    assert_eq!((metric.as_str(), words.as_str()), ("orders/placed", "timeout"));
    live(&mut bed, 1, 10_000, [0.001, 0.001]);
    assert_eq!(bed.run.hold().unwrap().reason.as_str(), "Waiting");
}
