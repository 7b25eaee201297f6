//! What each setting of an intent does, where no other test shows it. Each test begins with the sentence that it shows.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::collections::BTreeMap;

use bed::{Bed, intent, plan, revision};
use rollout::{Event, GateAnswer, HoldReason, Phase, Reason, Stage, Verb};
use world::api::delivery::Weight;

/// A verdict at 10 %, then everything.
const JUDGED: &str = r#","strategy":{"canary":{"steps":[{"setWeight":10},{"analysis":{}},{"setWeight":100}]}}"#;

fn percent(weight: f64) -> Weight {
    Weight::from_percent(weight).unwrap()
}

fn at(index: usize, stage: Stage) -> Phase {
    Phase::Step { index, stage }
}

fn hold(bed: &Bed) -> HoldReason {
    bed.run.hold().unwrap().reason
}

fn reason(bed: &Bed) -> Option<Reason> {
    bed.run.record().reason.clone()
}

/// A second, in which nodes take what there is and requests come.
fn second(bed: &mut Bed, requests: u64, errors: [f64; 2]) {
    bed.deliver_all();
    bed.traffic(requests, errors[0], errors[1]);
    bed.deliver_all();
}

/// Healthy traffic until the run gets there.
fn until(bed: &mut Bed, is_there: impl Fn(&Bed) -> bool) {
    for _ in 0..3_000 {
        if is_there(bed) {
            return;
        }
        second(bed, 5_000, [0.001, 0.001]);
    }
    bed.fail("the run does not get there");
}

/// A run with this intent that has come to this phase.
fn come_to(rest: &str, phase: Phase) -> Bed {
    let mut bed = Bed::new(plan(intent(rest)), 3);
    until(&mut bed, |bed| bed.phase() == phase);
    bed
}

/// For so many seconds from now on.
fn live(bed: &mut Bed, seconds: u64, requests: u64, errors: [f64; 2]) {
    (0..seconds).for_each(|_| second(bed, requests, errors));
}

#[test]
fn without_a_verdict_in_time_a_step_holds_advances_or_goes_back() {
    // `onInconclusive` / `maxStepDuration`: Hold (default), Advance, Rollback.
    for policy in ["Hold", "Advance", "Rollback"] {
        let rest = format!(
            r#"{JUDGED},"analysis":{{"minRequests":100000000,"maxStepDuration":"5m","onInconclusive":"{policy}"}}"#
        );
        let mut bed = come_to(&rest, at(1, Stage::Waiting));
        live(&mut bed, 298, 1_000, [0.001, 0.001]);
        assert_eq!((bed.phase(), bed.weight()), (at(1, Stage::Waiting), percent(10.0)), "{policy}: there is time left");
        live(&mut bed, 3, 1_000, [0.001, 0.001]);
        match policy {
            "Hold" => assert_eq!((bed.phase(), bed.weight()), (at(1, Stage::Waiting), percent(10.0))),
            "Advance" => assert_eq!(bed.weight(), Weight::FULL),
            _ => assert_eq!((reason(&bed), bed.weight()), (Some(Reason::Inconclusive), Weight::ZERO)),
        }
    }
}

#[test]
fn a_step_may_have_a_longest_and_a_shortest_time_of_its_own() {
    // Step `analysis`: `minDuration`, `maxDuration`.
    let steps = |analysis: &str| {
        format!(
            r#","strategy":{{"canary":{{"steps":[{{"setWeight":10}},{{"analysis":{analysis}}},{{"setWeight":100}}]}}}},
            "analysis":{{"onInconclusive":"Rollback"}}"#
        )
    };
    let mut bed = come_to(&steps(r#"{"minDuration":"3m"}"#), at(1, Stage::Waiting));
    live(&mut bed, 178, 5_000, [0.001, 0.001]);
    assert_eq!(bed.phase(), at(1, Stage::Waiting), "the evidence is there, the time is not");
    live(&mut bed, 3, 5_000, [0.001, 0.001]);
    assert_eq!(bed.weight(), Weight::FULL);
    let mut bed = come_to(&steps(r#"{"maxDuration":"2m","minRequests":100000000}"#), at(1, Stage::Waiting));
    live(&mut bed, 118, 5_000, [0.001, 0.001]);
    assert_eq!(bed.phase(), at(1, Stage::Waiting));
    live(&mut bed, 3, 5_000, [0.001, 0.001]);
    assert_eq!(reason(&bed), Some(Reason::Inconclusive));
}

#[test]
fn a_step_needs_as_many_requests_as_it_says_or_the_run_does() {
    // `analysis.minRequests`, and the same of a step.
    for (own, of_run, needed) in [("", 20_000, 20_000), (r#""minRequests":40000"#, 100, 40_000)] {
        let rest = format!(
            r#","strategy":{{"canary":{{"steps":[{{"setWeight":10}},{{"analysis":{{{own}}}}},{{"setWeight":100}}]}}}},
            "analysis":{{"minRequests":{of_run}}}"#
        );
        let mut bed = come_to(&rest, at(1, Stage::Waiting));
        let mut most = 0;
        while bed.weight() == percent(10.0) {
            most = bed.run.explain().step_requests;
            assert!(most < needed, "{most} of {needed}");
            second(&mut bed, 5_000, [0.001, 0.001]);
        }
        assert!(most + 500 >= needed, "it goes on with the next report: {most} of {needed}");
    }
}

#[test]
fn both_arms_beyond_the_slo_hold_are_ignored_or_take_the_run_back() {
    // `sharedIncident`: Hold (default), Ignore, Rollback; used when both arms break the absolute SLO.
    for policy in ["Hold", "Ignore", "Rollback"] {
        let mut plan =
            plan(intent(&format!(r#"{JUDGED},"analysis":{{"sharedIncident":"{policy}","maxStepDuration":"1m"}}"#)));
        plan.profiles.values_mut().flatten().for_each(|metric| metric.slo = Some(0.01));
        let mut bed = Bed::new(plan, 3);
        until(&mut bed, |bed| bed.weight() == percent(10.0));
        live(&mut bed, 120, 5_000, [0.05, 0.05]);
        match policy {
            "Hold" => {
                assert_eq!((bed.phase(), bed.weight()), (at(1, Stage::Waiting), percent(10.0)));
                assert!(matches!(hold(&bed), HoldReason::SharedIncident(_)), "{:?}", hold(&bed));
            }
            "Ignore" => assert_eq!((bed.weight(), reason(&bed)), (Weight::FULL, None)),
            _ => assert!(matches!(reason(&bed), Some(Reason::SharedIncident(_))), "{:?}", reason(&bed)),
        }
    }
}

#[test]
fn a_candidate_without_requests_holds_advances_or_goes_back() {
    // `onNoTraffic` / `noTrafficTimeout`: Hold (default), Advance, Rollback.
    for policy in ["Hold", "Advance", "Rollback"] {
        let rest = format!(r#"{JUDGED},"analysis":{{"onNoTraffic":"{policy}","noTrafficTimeout":"2m"}}"#);
        let mut bed = Bed::new(plan(intent(&rest)), 3);
        for _ in 0..60 {
            second(&mut bed, 0, [0.0, 0.0]);
        }
        assert_eq!((bed.phase(), bed.weight()), (at(1, Stage::Waiting), percent(10.0)), "{policy}: there is time left");
        live(&mut bed, 90, 0, [0.0, 0.0]);
        match policy {
            "Hold" => assert_eq!((bed.phase(), hold(&bed)), (at(1, Stage::Waiting), HoldReason::NoTraffic)),
            "Advance" => assert_eq!(bed.weight(), Weight::FULL),
            _ => assert_eq!((reason(&bed), bed.weight()), (Some(Reason::NoTraffic), Weight::ZERO)),
        }
    }
}

/// At 10 %, until somebody promotes it to 50 %.
const BY_HAND: &str = r#","strategy":{"canary":{"steps":[{"setWeight":10},{"pause":{}},{"setWeight":50},{"pause":{}},{"setWeight":100}]}}"#;

#[test]
fn what_nodes_do_not_accept_goes_back_after_a_deadline_of_its_own() {
    // `progressDeadline` of `Blocked` and `Promoting`.
    let mut bed = come_to(&format!(r#"{BY_HAND},"progressDeadline":"3m""#), at(1, Stage::Waiting));
    assert!(bed.act(Verb::Promote));
    bed.deliver(1, false);
    assert_eq!(bed.phase(), at(2, Stage::Blocked));
    bed.deliver_all();
    bed.pass(179_000);
    assert_eq!((bed.phase(), bed.weight()), (at(2, Stage::Blocked), percent(10.0)));
    bed.pass(1_000);
    assert!(matches!(reason(&bed), Some(Reason::NotAccepted(_))), "{:?}", reason(&bed));
    assert_eq!(bed.weight(), Weight::ZERO);

    let mut bed = come_to(&format!(r#"{BY_HAND},"progressDeadline":"3m""#), at(1, Stage::Waiting));
    assert!(bed.act(Verb::PromoteFull));
    bed.deliver(0, true);
    bed.pass(179_000);
    assert_eq!((bed.phase(), bed.weight()), (Phase::Promoting, Weight::FULL));
    bed.pass(1_000);
    assert!(matches!(reason(&bed), Some(Reason::NotAccepted(_))), "{:?}", reason(&bed));
    assert_eq!(bed.weight(), Weight::ZERO);
}

#[test]
fn so_many_nodes_have_to_accept_and_so_many_may_refuse() {
    // `ackQuorum`, `maxNacks`, `ackTimeout`.
    let safety = r#","safety":{"ackQuorum":60,"maxNacks":1,"ackTimeout":"50s"}"#;
    let promoted = || {
        let mut bed = come_to(&format!("{BY_HAND}{safety}"), at(1, Stage::Waiting));
        assert!(bed.act(Verb::Promote));
        assert_eq!(bed.phase(), at(2, Stage::Applying));
        bed
    };
    let mut bed = promoted();
    bed.deliver(0, false);
    bed.deliver(1, true);
    assert_eq!(bed.phase(), at(2, Stage::Applying), "one of three");
    bed.deliver(2, true);
    assert_eq!(bed.phase(), at(2, Stage::Settling), "two of three, and one refusal is forgiven");
    let mut bed = promoted();
    bed.deliver(0, false);
    bed.deliver(1, false);
    assert_eq!(bed.phase(), at(2, Stage::Blocked));
    let mut bed = promoted();
    bed.deliver(0, true);
    bed.pass(49_000);
    assert_eq!(bed.phase(), at(2, Stage::Applying));
    bed.pass(1_000);
    assert_eq!((bed.phase(), bed.weight()), (at(2, Stage::Blocked), percent(10.0)));
}

#[test]
fn the_revision_before_is_kept_after_the_switch() {
    // `blueGreen.keepPrevious`: and it is no shorter than the drain.
    for (keep, drain, minutes) in [("20m", "1m", 20), ("1m", "5m", 5)] {
        let rest = format!(
            r#","strategy":{{"type":"BlueGreen","blueGreen":{{"keepPrevious":"{keep}"}}}},"drain":{{"timeout":"{drain}"}}"#
        );
        let mut bed = come_to(&rest, Phase::Draining);
        let switched = bed.run.record().settled.unwrap().millis();
        bed.pass(switched + minutes * 60_000 - 2_000 - bed.now);
        assert_eq!(bed.phase(), Phase::Draining, "{keep}");
        assert!(bed.published.as_ref().unwrap().revisions().contains(&revision("v1")) && bed.safe.is_empty());
        bed.pass(2_000);
        assert_eq!(bed.phase(), Phase::Completed, "{keep}");
        bed.pass(600_000);
        assert_eq!(bed.safe, [revision("v1")]);
    }
}

#[test]
fn a_switch_that_nobody_makes_waits() {
    // `blueGreen.autoPromote: false`; `delay` comes before it.
    let rest = r#","strategy":{"type":"BlueGreen","blueGreen":{"autoPromote":false,"delay":"1m"}}"#;
    let mut bed = come_to(rest, at(0, Stage::Waiting));
    live(&mut bed, 58, 1_000, [0.001, 0.001]);
    assert_eq!(bed.phase(), at(0, Stage::Waiting));
    live(&mut bed, 3, 1_000, [0.001, 0.001]);
    live(&mut bed, 3_600, 100, [0.001, 0.001]);
    assert_eq!((bed.phase(), bed.weight()), (at(1, Stage::Waiting), Weight::ZERO));
    assert_eq!(hold(&bed), HoldReason::Waiting);
    assert!(bed.act(Verb::Promote));
    until(&mut bed, |bed| bed.weight() == Weight::FULL);
}

#[test]
fn a_switch_may_be_a_ramp() {
    // `blueGreen.switch: {ramp: …}`.
    let rest = r#","strategy":{"type":"BlueGreen","blueGreen":{"switch":{"ramp":"10m"}}}"#;
    let mut bed = Bed::new(plan(intent(rest)), 3);
    until(&mut bed, |bed| bed.weight() == Weight::FULL);
    let mut weights: Vec<_> = bed.run.record().history.iter().map(|passage| passage.weight).collect();
    weights.dedup();
    assert_eq!(weights, (0..=10).map(|part| percent(f64::from(part) * 10.0)).collect::<Vec<_>>());
    let first = bed.run.record().history.iter().find(|passage| !passage.weight.is_zero()).unwrap().at;
    assert!(bed.time().since(first).as_secs() >= 540, "nine pauses of a minute");
}

#[test]
fn a_canary_that_somebody_has_to_promote_waits_at_its_last_weight() {
    // `canary.promote: Manual`: the last weight need not be 100.
    let rest = r#","strategy":{"canary":{"steps":[{"setWeight":10}],"promote":"Manual"}}"#;
    let mut bed = come_to(rest, at(1, Stage::Waiting));
    live(&mut bed, 3_600, 1_000, [0.001, 0.001]);
    assert_eq!((bed.phase(), bed.weight()), (at(1, Stage::Waiting), percent(10.0)));
    assert!(bed.act(Verb::Promote));
    until(&mut bed, |bed| bed.run.is_finished());
    assert_eq!((bed.phase(), bed.run.record().assignment.weight_of(&revision("v2"))), (Phase::Completed, Weight::FULL));
}

#[test]
fn a_test_without_a_winner_leaves_everything_as_it_was() {
    // `ab.endAt`, `winner: Manual`. The clock stands at 1970-01-01T00:16:40Z when the run begins.
    let rest = r#","strategy":{"type":"AB","ab":{"endAt":"1970-01-01T00:30:00Z","variants":[
        {"name":"a","revision":"v1","share":70},{"name":"b","revision":"v2","share":30}]}}"#;
    let mut bed = come_to(rest, at(1, Stage::Waiting));
    while bed.now < 1_798_000 {
        second(&mut bed, 1_000, [0.001, 0.001]);
    }
    assert_eq!((bed.phase(), bed.weight()), (at(1, Stage::Waiting), percent(30.0)));
    live(&mut bed, 3, 1_000, [0.001, 0.001]);
    assert_eq!((reason(&bed), bed.weight()), (Some(Reason::TestEnded), Weight::ZERO));
    assert_eq!(bed.phase(), Phase::RolledBack);
    assert_eq!(bed.published.as_ref().unwrap().weight_of(&revision("v1")), Weight::FULL);
}

#[test]
fn a_batch_may_lack_as_many_endpoints_as_the_intent_allows() {
    // `rolling.maxUnavailable`: 0 by default, a count, or a share of what stable had (four, here).
    for (more, goes) in [("", false), (r#","maxUnavailable":1"#, true), (r#","maxUnavailable":"25%""#, true)] {
        let rest = format!(r#","strategy":{{"type":"Rolling","rolling":{{"batch":2,"settle":"40s"{more}}}}}"#);
        let mut bed = Bed::new(plan(intent(&rest)), 3);
        bed.set_healthy("v2", 1);
        live(&mut bed, 20, 1_000, [0.001, 0.001]);
        match goes {
            true => assert_eq!((bed.phase(), bed.weight()), (at(1, Stage::Waiting), percent(50.0)), "{more}"),
            false => {
                assert_eq!((bed.phase(), hold(&bed)), (at(0, Stage::Guard), HoldReason::Endpoints), "{more}");
                bed.set_healthy("v2", 2);
                live(&mut bed, 20, 1_000, [0.001, 0.001]);
                assert_eq!(bed.weight(), percent(50.0));
            }
        }
        // `settle` lies between batches.
        bed.set_healthy("v2", 4);
        let since = bed.run.record().since;
        until(&mut bed, |bed| bed.weight() == Weight::FULL);
        assert!(bed.time().since(since).as_secs() >= 40);
    }
}

#[test]
fn a_gate_before_the_promotion_holds_it_and_may_end_it() {
    // `gates[].phase: PrePromote`.
    let rest =
        r#","strategy":{"canary":{"steps":[{"setWeight":100}]}},"gates":[{"phase":"PrePromote","url":"https://g"}]"#;
    for answer in [GateAnswer::Approved, GateAnswer::Refused("no".to_owned())] {
        let mut bed = Bed::new(plan(intent(rest)), 3);
        bed.gates = GateAnswer::NotYet;
        until(&mut bed, |bed| bed.asked > 0);
        live(&mut bed, 120, 1_000, [0.001, 0.001]);
        assert_eq!((bed.phase(), bed.weight()), (Phase::Bake, Weight::FULL));
        assert!(matches!(hold(&bed), HoldReason::Gate(_)), "{:?}", hold(&bed));
        bed.gates = answer.clone();
        live(&mut bed, 12, 1_000, [0.001, 0.001]);
        match answer {
            // Nothing has been sent to v1 for longer than its drain takes.
            GateAnswer::Approved => assert_eq!((bed.phase(), bed.weight()), (Phase::Completed, Weight::FULL)),
            _ => assert_eq!((bed.phase(), bed.weight()), (Phase::RolledBack, Weight::ZERO)),
        }
    }
}

#[test]
fn a_gate_after_the_run_is_told_and_decides_nothing() {
    // `gates[].phase: PostRun`: after it has completed, and after it has gone back.
    let rest = format!(r#"{BY_HAND},"gates":[{{"phase":"PostRun","url":"https://g"}}],"drain":{{"timeout":"1s"}}"#);
    for verb in [Verb::PromoteFull, Verb::Abort] {
        let mut bed = come_to(&rest, at(1, Stage::Waiting));
        bed.gates = GateAnswer::Refused("no".to_owned());
        assert_eq!(bed.asked, 0);
        assert!(bed.act(verb.clone()));
        until(&mut bed, |bed| bed.run.is_finished());
        let expected = if verb == Verb::Abort { Phase::RolledBack } else { Phase::Completed };
        assert_eq!((bed.phase(), bed.asked), (expected, 1));
    }
}

#[test]
fn a_step_waits_for_endpoints_by_number_or_by_share() {
    // Step `requireEndpoints`: `absolute`, `percentOfStable`.
    for needed in [r#"{"absolute":3}"#, r#"{"percentOfStable":75}"#] {
        let rest = format!(
            r#","strategy":{{"canary":{{"steps":[{{"setWeight":10}},{{"requireEndpoints":{needed}}},{{"setWeight":50}},{{"pause":{{}}}},{{"setWeight":100}}]}}}}"#
        );
        let mut bed = Bed::new(plan(intent(&rest)), 3);
        bed.set_healthy("v2", 2);
        live(&mut bed, 600, 1_000, [0.001, 0.001]);
        assert_eq!((bed.phase(), bed.weight()), (at(1, Stage::Waiting), percent(10.0)), "{needed}");
        bed.set_healthy("v2", 3);
        until(&mut bed, |bed| bed.phase() == at(3, Stage::Waiting));
        assert_eq!(bed.weight(), percent(50.0), "{needed}");
    }
}

#[test]
fn a_candidate_needs_as_many_endpoints_as_the_intent_says_before_anything() {
    // `safety.minHealthyEndpoints`.
    let mut bed = Bed::new(plan(intent(&format!(r#"{BY_HAND},"safety":{{"minHealthyEndpoints":4}}"#))), 3);
    bed.set_healthy("v2", 3);
    live(&mut bed, 60, 1_000, [0.001, 0.001]);
    assert_eq!((bed.phase(), hold(&bed)), (Phase::Preparing, HoldReason::Endpoints));
    bed.set_healthy("v2", 4);
    until(&mut bed, |bed| bed.weight() == percent(10.0));
}

#[test]
fn what_is_counted_right_after_a_change_of_weights_says_nothing() {
    // `analysis.warmup`: data ignored after each weight change.
    let rest = format!(r#"{BY_HAND},"analysis":{{"warmup":"90s"}}"#);
    let mut bed = Bed::new(plan(intent(&rest)), 3);
    until(&mut bed, |bed| bed.phase() == at(0, Stage::Settling));
    live(&mut bed, 80, 5_000, [0.4, 0.001]);
    assert_eq!((bed.phase(), bed.run.explain().step_requests), (at(0, Stage::Settling), 0));
    live(&mut bed, 60, 5_000, [0.4, 0.001]);
    assert!(matches!(reason(&bed), Some(Reason::Failed { .. })), "{:?}", reason(&bed));
}

#[test]
fn a_skipped_step_is_left_out_and_nothing_that_holds_the_run_with_it() {
    // Freeze, pause and `suspend`: no advance. `skip` leaves the step out; the next one still asks whether it may.
    for held in [0, 1, 2] {
        let mut bed = come_to(BY_HAND, at(1, Stage::Waiting));
        let mut spec = bed.run.record().plan.spec.clone();
        spec.suspend = true;
        let edited = |spec, generation| Event::Edited { spec: Box::new(spec), generation, profiles: BTreeMap::new() };
        match held {
            0 => bed.tell(Event::Frozen(Some("holidays".to_owned()))),
            1 => assert!(bed.act(Verb::Pause)),
            _ => bed.tell(edited(spec.clone(), 2)),
        }
        assert!(bed.act(Verb::SkipStep));
        live(&mut bed, 600, 1_000, [0.001, 0.001]);
        assert_eq!((bed.phase(), bed.weight()), (at(2, Stage::Guard), percent(10.0)), "{held}");
        // Nor does leaving out the step that would raise the weight raise it.
        assert!(bed.act(Verb::SkipStep) && bed.act(Verb::SkipStep) && bed.act(Verb::SkipStep));
        live(&mut bed, 600, 1_000, [0.001, 0.001]);
        assert_eq!((bed.phase(), bed.weight()), (Phase::Bake, percent(10.0)), "{held}");
        match held {
            0 => bed.tell(Event::Frozen(None)),
            1 => assert!(bed.act(Verb::Resume)),
            _ => {
                spec.suspend = false;
                bed.tell(edited(spec, 3));
            }
        }
        until(&mut bed, |bed| bed.run.is_finished());
        assert_eq!(
            (bed.phase(), bed.published.as_ref().unwrap().weight_of(&revision("v2"))),
            (Phase::Completed, Weight::FULL)
        );
    }
}

#[test]
fn whoever_is_held_back_can_still_go_back() {
    // Freeze, pause and `suspend`: rollback still allowed, also after a step was left out.
    for held in [0, 1] {
        let mut bed = come_to(BY_HAND, at(1, Stage::Waiting));
        match held {
            0 => bed.tell(Event::Frozen(Some("holidays".to_owned()))),
            _ => assert!(bed.act(Verb::Pause)),
        }
        assert!(bed.act(Verb::SkipStep) && bed.act(Verb::Abort));
        assert_eq!(bed.weight(), Weight::ZERO);
        until(&mut bed, |bed| bed.phase() == Phase::RolledBack);
    }
}
