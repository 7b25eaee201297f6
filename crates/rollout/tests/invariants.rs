//! Random lives of a run, with crashes in between.
//!
//! A life is drawn from a seed. A failure names it: `ROLLOUT_SEED=17 cargo test -p pointsman-rollout --test invariants`
//! lives that one life again.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "support/bed.rs"]
mod bed;
#[path = "support/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bed::{Bed, intent, plan, revision};
use proptest::prelude::*;
use random::Random;
use rollout::{Assignment, Event, GateAnswer, Phase, Run, Split, Time, Verb};
use world::api::delivery::Weight;

/// Intents of every strategy, with and without whatever else can hold a run.
const INTENTS: &[&str] = &[
    "",
    r#","strategy":{"canary":{"steps":[{"setWeight":20},{"pause":{"duration":"30s"}},{"setWeight":60},{"analysis":{}},{"setWeight":100}]}}"#,
    r#","strategy":{"canary":{"promote":"Manual","steps":[{"headerRoute":{"name":"a","match":[{"header":{"name":"x","exact":"1"}}]}},{"mirror":{"percent":10}},{"setWeight":50},{"headerRoute":{"name":"a","enabled":false}}]}},"gates":[{"phase":"PreStep","url":"https://a"},{"phase":"Rollback","url":"https://b"}]"#,
    r#","strategy":{"type":"BlueGreen","blueGreen":{"preview":{"match":[{"header":{"name":"x","exact":"1"}}]},"delay":"10s","switch":{"ramp":"1m"}}},"rollback":{"mode":"Ramp","ramp":"20s"}"#,
    r#","strategy":{"type":"Rolling","rolling":{"batch":1,"settle":"10s"}},"safety":{"ackQuorum":60}"#,
    r#","strategy":{"type":"AB","ab":{"variants":[{"name":"a","revision":"v1","share":50},{"name":"b","revision":"v2","share":50}],"winner":"BySignal"}}"#,
    r#","strategy":{"type":"Mirror","mirror":{"duration":"30s"}},"onNewRevision":"Queue""#,
    r#","analysis":{"onTelemetryLoss":"StepBack","onNoTraffic":"Rollback","noTrafficTimeout":"30s"},"safety":{"maxNacks":1,"ackTimeout":"5s"}"#,
];

/// One thing that happens.
fn happen(bed: &mut Bed, random: &mut Random) {
    match random.below(26) {
        0..=4 => bed.deliver_all(),
        5..=6 => {
            let (at, accepts) = (random.below(4) as usize, random.chance(0.7));
            bed.deliver(at, accepts);
        }
        7..=11 => {
            let bad = *random.pick(&[0.0, 0.001, 0.001, 0.001, 0.2, 0.9]);
            let requests = *random.pick(&[0, 100, 2_000, 10_000]);
            (0..random.below(20)).for_each(|_| bed.traffic(requests, bad, 0.001));
        }
        12..=14 => {
            let millis = *random.pick(&[1, 1_000, 5_000, 5_000, 30_000, 60_000, 700_000]);
            bed.pass(millis);
        }
        15 => {
            let name = *random.pick(&["v1", "v2", "v2"]);
            let healthy = random.below(4) as u32;
            bed.set_healthy(name, healthy);
        }
        16 => bed.toggle(random.below(4) as usize),
        17..=18 => {
            let verbs = [
                Verb::Promote,
                Verb::Promote,
                Verb::PromoteFull,
                Verb::Pause,
                Verb::Resume,
                Verb::Abort,
                Verb::Retry,
                Verb::SkipStep,
                Verb::RollbackTo(revision("v0")),
            ];
            bed.act(random.pick(&verbs).clone());
        }
        19 => {
            let name = *random.pick(&["v1", "v2", "v3"]);
            bed.note(format!("{name} appears"));
            if random.chance(0.3) {
                bed.tell(Event::NewRevision(revision(name)));
            }
        }
        20 => {
            let reason = random.chance(0.5).then(|| "holidays".to_owned());
            bed.tell(Event::Frozen(reason));
        }
        21 => bed.disk_is_full = random.chance(0.4),
        22 => {
            let answers = [GateAnswer::Approved, GateAnswer::NotYet, GateAnswer::Failed("x".to_owned())];
            bed.gates = random.pick(&answers).clone();
            bed.rollback_gates = random.pick(&answers).clone();
        }
        23 => edit(bed, random),
        24 => bed.crash(),
        _ => {
            let soon = bed.effects + 1 + random.below(6) as usize;
            bed.crash_after = Some(soon);
        }
    }
}

fn edit(bed: &mut Bed, random: &mut Random) {
    let plan = &bed.run.record().plan;
    let (mut spec, generation) = (plan.spec.clone(), plan.generation + 1);
    match random.below(5) {
        0 => spec.analysis.min_requests = random.below(500),
        1 => spec.safety.min_healthy_endpoints = 1 + random.below(3) as u32,
        2 => {
            if let Some(canary) = &mut spec.strategy.canary {
                canary.steps.truncate(3);
            }
        }
        3 => spec.suspend = random.chance(0.5),
        _ => spec.service.name = "other".to_owned(),
    }
    bed.note("the intent is edited".to_owned());
    bed.tell(Event::Edited { spec: Box::new(spec), generation, profiles: BTreeMap::new() });
}

fn live(seed: u64) {
    let mut random = Random::new(seed);
    let spec = intent(INTENTS[(seed % INTENTS.len() as u64) as usize]);
    let mut bed = Bed::new(plan(spec), 4);
    for _ in 0..random.below(120) {
        happen(&mut bed, &mut random);
    }
    // Suspending is the intent's own: somebody takes it back.
    let record = bed.run.record();
    if record.plan.spec.suspend || record.next_spec.as_ref().is_some_and(|spec| spec.suspend) {
        let (mut spec, generation) = (record.plan.spec.clone(), record.plan.generation + 1);
        spec.suspend = false;
        bed.tell(Event::Edited { spec: Box::new(spec), generation, profiles: BTreeMap::new() });
    }
    let end = bed.settle();
    let weight = bed.published.as_ref().map_or(Weight::ZERO, |a| a.weight_of(&revision("v2")));
    let expected = match end {
        Phase::Completed if bed.run.record().reason.is_none() => Weight::FULL,
        _ => Weight::ZERO,
    };
    if weight != expected {
        bed.fail(&format!("I7: the run has ended in {end} with a weight of {weight}"));
    }
}

#[test]
fn invariants_hold_in_every_life() {
    let lives = match std::env::var("ROLLOUT_SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 0..=1_500,
    };
    for seed in lives {
        let lived = catch_unwind(AssertUnwindSafe(|| live(seed)));
        assert!(lived.is_ok(), "ROLLOUT_SEED={seed} lives this life again");
    }
}

/// A life in which everybody behaves, but for a crash after the given number of effects.
fn calm_life(spec: &str, candidate_errors: f64, crash_after: Option<usize>) -> (Phase, Weight, usize) {
    let mut bed = Bed::new(plan(intent(spec)), 3);
    bed.crash_after = crash_after;
    for second in 0..3_000 {
        bed.deliver_all();
        bed.traffic(5_000, candidate_errors, 0.001);
        if bed.run.is_finished() {
            break;
        }
        if second % 60 == 59 && matches!(bed.phase(), Phase::Step { .. }) {
            bed.act(Verb::Promote);
        }
    }
    let weight = bed.published.as_ref().map_or(Weight::ZERO, |a| a.weight_of(&revision("v2")));
    (bed.phase(), weight, bed.effects)
}

#[test]
fn a_crash_after_any_effect_ends_as_without_it_or_back_at_stable() {
    for (spec, errors) in INTENTS.iter().flat_map(|spec| [(spec, 0.001), (spec, 0.3)]) {
        let (phase, weight, effects) = calm_life(spec, errors, None);
        let expected = if errors < 0.1 { Phase::Completed } else { Phase::RolledBack };
        assert!(effects > 5 && phase == expected, "{spec}: {phase} after {effects} effects");
        for at in 1..effects {
            let (after, weight_after, _) = calm_life(spec, errors, Some(at));
            let same = (after, weight_after) == (phase, weight);
            assert!(
                same || (after == Phase::RolledBack && weight_after.is_zero()),
                "I7: {spec}: a crash after effect {at} ends in {after} at {weight_after}, not {phase} at {weight}"
            );
        }
    }
}

#[test]
fn going_back_ends_whatever_nodes_refuse() {
    for pattern in 0..81u32 {
        for spec in INTENTS {
            let mut bed = Bed::new(plan(intent(spec)), 4);
            for _ in 0..40 {
                bed.deliver_all();
                bed.traffic(5_000, 0.001, 0.001);
            }
            bed.act(Verb::Abort);
            for round in 0..200 {
                // Each node accepts, refuses or is silent for ever.
                for at in 0..4 {
                    match pattern / 3u32.pow(at as u32) % 3 {
                        0 => bed.deliver(at, true),
                        1 => bed.deliver(at, false),
                        _ => {}
                    }
                }
                bed.pass(1_000);
                if bed.phase().is_terminal() {
                    break;
                }
                assert!(round < 150, "I8: pattern {pattern}, {spec}: {}", bed.phase());
            }
            assert!(bed.weight().is_zero());
        }
    }
}

#[test]
fn a_writer_that_was_replaced_publishes_nothing_more() {
    let mut bed = Bed::new(plan(intent("")), 2);
    bed.deliver_all();
    let mut old = Run::resume(bed.time(), bed.durable.clone().unwrap(), 1);
    while old.poll_effect().is_some() {}
    bed.crash();
    let sequence = old.record().sequence;
    old.handle(bed.time(), Event::CommitFailed { sequence, words: "fenced".to_owned(), is_fenced: true });
    old.handle(bed.time(), Event::Endpoints(BTreeMap::new()));
    old.handle_timeout(Time::from_millis(u64::MAX / 2));
    assert!(old.poll_effect().is_none() && old.is_fenced() && old.poll_timeout().is_none());
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let mut bed = Bed::new(plan(intent(INTENTS[2])), 2);
    for _ in 0..30 {
        bed.deliver_all();
        bed.traffic(1_000, 0.01, 0.001);
    }
    let record = bed.durable.clone().unwrap();
    let text = serde_json::to_string(&record).unwrap();
    assert!(text.len() < 64 * 1024, "a record of {} bytes", text.len());
    let read: rollout::Record = serde_json::from_str(&text).unwrap();
    assert_eq!((read.phase, &read.plan, &read.assignment), (record.phase, &record.plan, &record.assignment));
    // Numbers may lose their last bit in text, and nothing more than that.
    assert_eq!(format!("{:.2?}", read.judge), format!("{:.2?}", record.judge));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// I9.
    #[test]
    fn a_client_that_is_kept_by_a_hash_never_moves_back(hash: u64, low in 0u32..=1_000_000, high in 0u32..=1_000_000) {
        let (low, high) = (low.min(high), low.max(high));
        let (v1, v2, old) = (revision("v1"), revision("v2"), revision("v0"));
        let at = |weight: u32| Assignment {
            version: 1,
            split: Split::Weights(vec![
                (v2.clone(), Weight::from_ppm(weight)),
                (old.clone(), Weight::ZERO),
                (v1.clone(), Weight::from_ppm(weight).rest()),
            ]),
            routes: Vec::new(),
            mirror: None,
            stickiness: Default::default(),
            fallback: None,
        };
        let (before, after) = (at(low), at(high));
        if before.pick(hash) == Some(&v2) {
            prop_assert_eq!(after.pick(hash), Some(&v2));
        }
        prop_assert!(after.pick(hash).is_some());
    }
}
