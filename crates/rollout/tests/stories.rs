//! What a run does when something unusual happens, one story each.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::collections::BTreeMap;

use bed::{Bed, intent, plan, revision};
use rollout::{
    Action, ActionError, Event, Evidence, GateAnswer, HoldReason, Observation, Phase, Reason, Split, Stage, Time, Verb,
};
use world::api::delivery::{DeploymentIntent, Weight};

fn percent(weight: f64) -> Weight {
    Weight::from_percent(weight).unwrap()
}

fn hold(bed: &Bed) -> HoldReason {
    bed.run.hold().unwrap().reason
}

/// Two steps with pauses that only somebody ends.
const TWO_STEPS: &str = r#","strategy":{"canary":{"steps":[{"setWeight":10},{"pause":{}},{"setWeight":50},{"pause":{}},{"setWeight":100}]}}"#;

/// A run that waits in the pause of step 1, with healthy traffic.
fn paused_at_ten(rest: &str) -> Bed {
    let mut bed = Bed::new(plan(intent(&format!("{TWO_STEPS}{rest}"))), 3);
    for _ in 0..15 {
        bed.deliver_all();
        bed.traffic(1_000, 0.001, 0.001);
    }
    assert_eq!(bed.phase(), Phase::Step { index: 1, stage: Stage::Waiting });
    assert_eq!(bed.weight(), percent(10.0));
    bed
}

/// Traffic and acceptance until the run gets there.
fn until(bed: &mut Bed, errors: f64, is_there: impl Fn(&Bed) -> bool) {
    for _ in 0..2_000 {
        if is_there(bed) {
            return;
        }
        bed.deliver_all();
        bed.traffic(5_000, errors, 0.001);
    }
    bed.fail("the run does not get there");
}

fn edit(bed: &mut Bed, change: impl FnOnce(&mut DeploymentIntent)) {
    let plan = &bed.run.record().plan;
    let (mut spec, generation) = (plan.spec.clone(), plan.generation + 1);
    change(&mut spec);
    bed.tell(Event::Edited { spec: Box::new(spec), generation, profiles: BTreeMap::new() });
}

#[test]
fn a_healthy_candidate_goes_through_every_weight_and_becomes_stable() {
    let mut bed = Bed::new(plan(intent("")), 3);
    until(&mut bed, 0.001, |bed| bed.run.is_finished());
    assert_eq!(bed.phase(), Phase::Completed);
    let record = bed.run.record();
    let mut weights: Vec<f64> = record.history.iter().map(|p| f64::from(p.weight.ppm()) / 1e4).collect();
    weights.dedup();
    assert_eq!(weights, [0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0]);
    assert_eq!(bed.safe, [revision("v1")]);
    assert_eq!(bed.published.as_ref().unwrap().revisions(), [&revision("v2")].into());
}

#[test]
fn a_bad_candidate_is_taken_back_and_its_clusters_go_after_the_drain() {
    let mut bed = Bed::new(plan(intent("")), 3);
    until(&mut bed, 0.05, |bed| bed.phase() == Phase::RolledBack);
    assert!(matches!(&bed.run.record().reason, Some(Reason::Failed { metric, .. }) if metric == "error-rate"));
    assert_eq!(bed.published.as_ref().unwrap().revisions().len(), 2, "still there to drain");
    bed.minutes(1);
    assert_eq!(bed.published.as_ref().unwrap().revisions(), [&revision("v1")].into());
    assert_eq!(bed.safe, [revision("v2")]);
    let explained = bed.run.explain();
    let counted = explained.metrics[0].counted.as_ref().unwrap();
    assert!(counted.relative.e_value >= counted.relative.bound, "{counted:?}");
}

#[test]
fn the_evidence_ends_a_run_that_is_paused_frozen_or_waits_for_somebody() {
    for held in [0, 1, 2] {
        let mut bed = paused_at_ten("");
        match held {
            0 => assert!(bed.act(Verb::Pause)),
            1 => bed.tell(Event::Frozen(Some("holidays".to_owned()))),
            _ => {}
        }
        until(&mut bed, 0.2, |bed| bed.phase().is_over());
        assert!(matches!(bed.run.record().reason, Some(Reason::Failed { .. })));
    }
}

#[test]
fn a_refused_step_goes_back_to_the_weights_that_all_had_accepted_and_says_who() {
    let mut bed = paused_at_ten("");
    bed.act(Verb::Promote);
    assert_eq!(bed.weight(), percent(50.0));
    bed.deliver(0, true);
    bed.deliver(1, false);
    assert_eq!(bed.phase(), Phase::Step { index: 2, stage: Stage::Blocked });
    assert_eq!(bed.weight(), percent(10.0));
    let HoldReason::Refused(refusals) = hold(&bed) else { panic!("{:?}", hold(&bed)) };
    assert_eq!((refusals[0].node.as_str(), refusals[0].words.as_str()), ("n1", "no"));
    // Nobody mends it: the run goes back when its deadline has passed.
    bed.deliver_all();
    bed.minutes(11);
    assert!(matches!(bed.run.record().reason, Some(Reason::NotAccepted(_))));
    assert!(bed.weight().is_zero());
}

#[test]
fn a_blocked_step_can_be_tried_again() {
    let mut bed = paused_at_ten("");
    bed.act(Verb::Promote);
    bed.deliver(1, false);
    assert!(bed.act(Verb::Retry));
    assert_eq!((bed.phase(), bed.weight()), (Phase::Step { index: 2, stage: Stage::Applying }, percent(50.0)));
}

#[test]
fn a_full_disk_keeps_everything_from_the_wire_and_the_run_says_why() {
    let mut bed = paused_at_ten("");
    let published = bed.published.clone();
    bed.disk_is_full = true;
    bed.act(Verb::Promote);
    bed.minutes(5);
    assert_eq!(bed.published, published);
    assert_eq!(hold(&bed), HoldReason::CommitFailed("no space left".to_owned()));
    bed.disk_is_full = false;
    bed.pass(2_000);
    assert_eq!(bed.published.as_ref().unwrap().weight_of(&revision("v2")), percent(50.0));
}

#[test]
fn a_third_revision_replaces_the_candidate_in_one_publication() {
    let mut bed = paused_at_ten("");
    bed.tell(Event::NewRevision(revision("v3")));
    assert!(bed.published.as_ref().unwrap().weight_of(&revision("v2")).is_zero());
    bed.deliver_all();
    assert_eq!(bed.phase(), Phase::Superseded);
    let next = &bed.successors[0];
    assert_eq!((&next.stable, &next.candidate, next.is_fast), (&revision("v1"), &revision("v3"), false));
    assert_eq!(next.lingering, [revision("v2")], "its clusters are the next run's to take away");
    assert!(bed.run.is_finished());
}

#[test]
fn a_revision_that_was_good_before_comes_back_without_steps() {
    let mut bed = paused_at_ten("");
    bed.tell(Event::NewRevision(revision("v0")));
    bed.deliver_all();
    assert!(bed.successors[0].is_fast);
    let mut fast = plan(intent(TWO_STEPS));
    fast.is_fast = true;
    let mut bed = Bed::new(fast, 2);
    until(&mut bed, 0.001, |bed| bed.run.is_finished());
    let weights: Vec<_> = bed.run.record().history.iter().map(|passage| passage.weight).collect();
    assert!(weights.iter().all(|weight| weight.is_zero() || *weight == Weight::FULL), "{weights:?}");
}

#[test]
fn other_policies_for_a_third_revision_queue_or_ignore_it() {
    let mut bed = paused_at_ten(r#","onNewRevision":"Queue""#);
    bed.tell(Event::NewRevision(revision("v3")));
    assert_eq!(bed.weight(), percent(10.0));
    bed.act(Verb::PromoteFull);
    until(&mut bed, 0.001, |bed| bed.phase() == Phase::Completed);
    let next = &bed.successors[0];
    assert_eq!((&next.stable, &next.candidate), (&revision("v2"), &revision("v3")));
    let mut bed = paused_at_ten(r#","onNewRevision":"Reject""#);
    bed.tell(Event::NewRevision(revision("v3")));
    bed.act(Verb::Abort);
    bed.deliver_all();
    assert_eq!(bed.successors, []);
}

#[test]
fn stable_appearing_anew_is_a_plain_way_back() {
    let mut bed = paused_at_ten("");
    bed.tell(Event::NewRevision(revision("v1")));
    bed.deliver_all();
    assert_eq!((bed.phase(), bed.successors.len()), (Phase::Superseded, 0));
}

#[test]
fn a_stricter_edit_holds_at_once_and_a_looser_one_from_the_next_step_on() {
    let mut bed = paused_at_ten("");
    edit(&mut bed, |spec| spec.safety.min_healthy_endpoints = 3);
    assert_eq!(bed.run.record().plan.spec.safety.min_healthy_endpoints, 3);
    edit(&mut bed, |spec| {
        spec.safety.min_healthy_endpoints = 1;
        spec.analysis.alpha = 0.001;
    });
    assert_eq!(bed.run.record().plan.spec.safety.min_healthy_endpoints, 3);
    bed.act(Verb::Promote);
    let spec = &bed.run.record().plan.spec;
    assert_eq!((spec.safety.min_healthy_endpoints, spec.analysis.alpha), (1, 0.001));
}

#[test]
fn later_steps_can_be_edited_and_past_ones_cannot() {
    let mut bed = paused_at_ten("");
    edit(&mut bed, |spec| {
        let steps = &mut spec.strategy.canary.as_mut().unwrap().steps;
        steps[0].set_weight = Some(percent(99.0));
        steps[2].set_weight = Some(percent(30.0));
    });
    assert_eq!(bed.weight(), percent(10.0));
    bed.act(Verb::Promote);
    assert_eq!(bed.weight(), percent(30.0));
    let steps = &bed.run.record().plan.spec.strategy.canary.as_ref().unwrap().steps;
    assert_eq!(steps[0].set_weight, Some(percent(10.0)));
}

#[test]
fn an_edit_of_what_the_run_rests_on_begins_another_one() {
    let mut bed = paused_at_ten("");
    edit(&mut bed, |spec| spec.revisions.label = "rev".to_owned());
    bed.deliver_all();
    assert_eq!(bed.phase(), Phase::Superseded);
    assert_eq!((bed.successors[0].candidate.as_str(), bed.successors[0].attempt), ("v2", 2));
}

#[test]
fn an_intent_cannot_move_to_another_service_in_the_middle_of_a_run() {
    let mut bed = paused_at_ten("");
    edit(&mut bed, |spec| spec.service.name = "other".to_owned());
    assert_eq!(bed.run.record().plan.spec.service.name, "shop");
    assert_eq!(bed.weight(), percent(10.0));
}

#[test]
fn actions_are_for_one_run_and_one_step_and_happen_once() {
    let mut bed = paused_at_ten("");
    let action = |id: &str, run: &str, step: Option<usize>| Action {
        id: id.to_owned(),
        run: run.to_owned(),
        expected_step: step,
        actor: "bob".to_owned(),
        reason: "looks good".to_owned(),
        verb: Verb::Promote,
    };
    let now = bed.time();
    assert!(matches!(bed.run.act(now, action("1", "shop-0", None)), Err(ActionError::WrongRun { .. })));
    assert!(matches!(bed.run.act(now, action("2", "shop-1", Some(3))), Err(ActionError::Moved { expected: 3, .. })));
    assert_eq!(bed.weight(), percent(10.0));
    assert_eq!(bed.run.act(now, action("3", "shop-1", Some(1))), Ok(()));
    assert_eq!(bed.weight(), percent(50.0));
    assert_eq!(bed.run.act(now, action("3", "shop-1", Some(1))), Ok(()), "asked for again after the answer was lost");
    assert_eq!(bed.run.record().phase.step(), Some(2));
    let taken = &bed.run.record().actions;
    assert_eq!((taken.len(), taken[0].action.actor.as_str()), (1, "bob"));
}

#[test]
fn a_run_that_went_back_can_be_tried_again() {
    let mut bed = paused_at_ten("");
    assert!(!bed.act(Verb::Retry), "it goes on");
    bed.act(Verb::Abort);
    bed.deliver_all();
    assert_eq!(bed.phase(), Phase::RolledBack);
    assert!(bed.act(Verb::Abort), "aborting what has ended does nothing");
    assert!(bed.act(Verb::Retry));
    assert_eq!((bed.successors[0].candidate.as_str(), bed.successors[0].attempt), ("v2", 2));
}

#[test]
fn going_back_to_a_revision_that_nobody_knows_is_refused() {
    let mut bed = paused_at_ten("");
    assert!(!bed.act(Verb::RollbackTo(revision("v9"))));
    assert!(bed.act(Verb::RollbackTo(revision("v0"))));
    bed.deliver_all();
    assert_eq!((bed.successors[0].candidate.as_str(), bed.successors[0].is_fast), ("v0", true));
}

#[test]
fn without_endpoints_the_candidate_gets_nothing_and_the_run_ends_at_its_deadline() {
    let mut bed = Bed::new(plan(intent("")), 2);
    bed.set_healthy("v2", 0);
    bed.deliver_all();
    assert_eq!((bed.phase(), hold(&bed)), (Phase::Preparing, HoldReason::Endpoints));
    bed.minutes(10);
    assert!(matches!(bed.run.record().reason, Some(Reason::CandidateNeverReady(_))));
}

#[test]
fn a_candidate_that_loses_its_endpoints_loses_its_traffic_in_the_same_event() {
    let mut bed = paused_at_ten("");
    bed.set_healthy("v2", 0);
    assert!(bed.published.as_ref().unwrap().weight_of(&revision("v2")).is_zero());
    assert_eq!(bed.run.record().reason, Some(Reason::EndpointsGone(revision("v2"))));
}

#[test]
fn a_run_does_not_go_back_to_a_stable_without_endpoints() {
    let mut bed = paused_at_ten("");
    bed.set_healthy("v1", 0);
    bed.act(Verb::Abort);
    assert_eq!(bed.weight(), percent(10.0));
    assert!(matches!(hold(&bed), HoldReason::StableUnhealthy(Reason::Aborted { .. })));
    bed.set_healthy("v1", 2);
    assert!(bed.weight().is_zero());
}

#[test]
fn weights_wait_for_capacity() {
    let mut bed = paused_at_ten(r#","safety":{"capacityRatio":1.0}"#);
    bed.set_healthy("v2", 1);
    bed.act(Verb::Promote);
    assert_eq!((bed.weight(), hold(&bed)), (percent(10.0), HoldReason::Endpoints));
    bed.set_healthy("v2", 2);
    assert_eq!(bed.weight(), percent(50.0));
}

#[test]
fn three_kinds_of_silence_are_told_apart_and_none_of_them_is_a_verdict() {
    let steps = r#","strategy":{"canary":{"steps":[{"setWeight":10},{"analysis":{}},{"setWeight":100}]}}"#;
    let mut bed = Bed::new(plan(intent(steps)), 2);
    bed.deliver_all();
    bed.pass(5_000);
    assert_eq!(bed.phase(), Phase::Step { index: 1, stage: Stage::Waiting });
    bed.minutes(2);
    assert_eq!(hold(&bed), HoldReason::NoTelemetry);
    for _ in 0..700 {
        bed.traffic(0, 0.0, 0.0);
    }
    assert_eq!(hold(&bed), HoldReason::NoTraffic);
    assert_eq!(bed.weight(), percent(10.0));
    // A provider's error is nobody's failure.
    let mut metric = world::api::delivery::AnalysisProfile::envoy_default().metrics;
    metric[0] = serde_json::from_str(r#"{"name":"sales","kind":"Web","range":{"min":1}}"#).unwrap();
    let mut web = plan(intent(steps));
    web.profiles.insert("envoy-default".to_owned(), metric);
    let mut bed = Bed::new(web, 2);
    bed.deliver_all();
    bed.pass(5_000);
    let report = |bed: &Bed, observation| Evidence {
        from: bed.time(),
        until: bed.time(),
        reporters: 2,
        metrics: BTreeMap::from([("sales".to_owned(), observation)]),
    };
    let evidence = report(&bed, Observation::ProviderError("timeout".to_owned()));
    bed.now += 10_000;
    bed.tell(Event::Evidence(evidence));
    assert_eq!(hold(&bed), HoldReason::ProviderError { metric: "sales".to_owned(), words: "timeout".to_owned() });
    let evidence = report(&bed, Observation::Value(2.0));
    bed.tell(Event::Evidence(evidence));
    assert_eq!(bed.weight(), Weight::FULL);
}

#[test]
fn a_lost_telemetry_can_step_back_or_take_back() {
    let steps =
        r#","strategy":{"canary":{"steps":[{"setWeight":10},{"setWeight":50},{"analysis":{}},{"setWeight":100}]}}"#;
    for (policy, weight) in [("StepBack", 10.0), ("Rollback", 0.0), ("Hold", 50.0)] {
        let mut bed = Bed::new(plan(intent(&format!(r#"{steps},"analysis":{{"onTelemetryLoss":"{policy}"}}"#))), 2);
        while bed.weight() != percent(50.0) {
            bed.deliver_all();
            bed.pass(5_000);
        }
        bed.deliver_all();
        bed.minutes(2);
        assert_eq!(bed.weight(), percent(weight), "{policy}");
    }
}

#[test]
fn a_pause_does_not_end_by_itself_while_a_failure_is_only_held() {
    let timed = r#","analysis":{"onFailure":"Hold"},
        "strategy":{"canary":{"steps":[{"setWeight":10},{"pause":{"duration":"2m"}},{"setWeight":100}]}}"#;
    let mut bed = Bed::new(plan(intent(timed)), 2);
    bed.deliver_all();
    bed.pass(5_000);
    for _ in 0..300 {
        bed.traffic(2_000, 0.2, 0.001);
    }
    assert_eq!(bed.weight(), percent(10.0));
    assert!(matches!(hold(&bed), HoldReason::Failing { .. }));
    bed.act(Verb::Promote);
    assert_eq!(bed.weight(), Weight::FULL, "somebody has decided");
}

#[test]
fn a_gate_that_says_not_yet_is_asked_again_and_one_that_refuses_ends_the_run() {
    let gated = r#","gates":[{"phase":"PreRun","url":"https://a"}]"#;
    let mut bed = Bed::new(plan(intent(gated)), 2);
    bed.gates = GateAnswer::NotYet;
    bed.deliver_all();
    assert!(matches!(hold(&bed), HoldReason::Gate(_)));
    let asked = bed.asked;
    bed.pass(10_000);
    assert_eq!(bed.asked, asked + 1);
    bed.gates = GateAnswer::Refused("not today".to_owned());
    bed.pass(10_000);
    assert_eq!(bed.run.record().reason, Some(Reason::Gate("https://a refused: not today".to_owned())));
}

#[test]
fn a_gate_that_hangs_does_not_hang_the_run() {
    let gated = r#","gates":[{"phase":"PreRun","url":"https://a","timeout":"1s","retries":0,"onError":"Fail"}]"#;
    let mut run = rollout::Run::start(Time::from_millis(0), plan(intent(gated)));
    let at = Time::from_millis;
    let endpoints = ["v1", "v2"].map(|name| (revision(name), rollout::Endpoints { healthy: 1, total: 1 }));
    run.handle(at(1), Event::Endpoints(endpoints.into()));
    for sequence in 1..=2 {
        run.handle(at(2), Event::Committed(sequence));
    }
    let standing = rollout::Standing { version: run.record().assignment.version, ..rollout::Standing::default() };
    run.handle(at(3), Event::Standing(standing));
    assert_eq!(run.record().phase, Phase::PreGate);
    let due = run.poll_timeout().unwrap();
    run.handle_timeout(due);
    assert!(
        matches!(&run.record().reason, Some(Reason::Gate(words)) if words.contains("no answer")),
        "{:?}",
        run.record()
    );
}

#[test]
fn a_clock_that_jumps_back_does_not_take_the_run_with_it() {
    let timed = r#","strategy":{"canary":{"steps":[{"setWeight":10},{"pause":{"duration":"1m"}},{"setWeight":100}]}}"#;
    let mut bed = Bed::new(plan(intent(timed)), 2);
    for _ in 0..20 {
        bed.deliver_all();
        bed.traffic(1_000, 0.001, 0.001);
    }
    let waiting = bed.phase();
    bed.now -= 900_000;
    bed.pass(0);
    assert_eq!(bed.phase(), waiting);
    bed.crash();
    assert_eq!(bed.phase(), waiting);
    bed.now += 900_000 + 60_000;
    bed.pass(0);
    bed.traffic(1_000, 0.001, 0.001);
    assert_ne!(bed.phase(), waiting);
}

#[test]
fn after_a_crash_weights_are_served_at_once_and_rise_only_with_nodes_and_evidence() {
    let timed = r#","strategy":{"canary":{"steps":[{"setWeight":10},{"pause":{"duration":"5s"}},{"setWeight":100}]}}"#;
    let mut bed = Bed::new(plan(intent(timed)), 2);
    while bed.weight() != percent(10.0) {
        bed.deliver_all();
        bed.pass(1_000);
    }
    bed.deliver_all();
    bed.published = None;
    bed.crash();
    assert_eq!(bed.published.as_ref().unwrap().weight_of(&revision("v2")), percent(10.0));
    bed.deliver_all();
    bed.minutes(1);
    assert_eq!((bed.weight(), hold(&bed)), (percent(10.0), HoldReason::Recovering));
    for _ in 0..20 {
        bed.traffic(1_000, 0.001, 0.001);
    }
    assert_eq!(bed.weight(), Weight::FULL);
}

#[test]
fn after_a_crash_a_step_that_somebody_promotes_waits_for_nodes_and_for_no_evidence() {
    let mut bed = paused_at_ten("");
    bed.crash();
    bed.stand();
    bed.minutes(1);
    assert_eq!((bed.weight(), hold(&bed)), (percent(10.0), HoldReason::Recovering));
    assert!(bed.act(Verb::Promote));
    bed.deliver_all();
    bed.pass(1_000);
    assert_eq!(bed.weight(), percent(50.0), "nobody has reported anything");
}

#[test]
fn a_ramp_goes_back_in_parts_and_at_once_when_it_hurts() {
    let mut bed = paused_at_ten(r#","rollback":{"mode":"Ramp","ramp":"10s"}"#);
    bed.act(Verb::Abort);
    let mut weights = Vec::new();
    for _ in 0..12 {
        weights.push(bed.weight().ppm());
        bed.deliver_all();
        bed.pass(1_000);
    }
    assert_eq!(weights[..4], [100_000, 90_000, 80_000, 70_000]);
    assert_eq!(weights[11], 0);
    let mut bed = paused_at_ten(r#","rollback":{"mode":"Ramp","ramp":"10s"}"#);
    bed.act(Verb::Abort);
    bed.set_healthy("v2", 0);
    assert!(bed.weight().is_zero());
}

#[test]
fn rolling_never_has_fewer_members_than_stable_had() {
    let rolling = r#","strategy":{"type":"Rolling","rolling":{"batch":1,"settle":"1s"}}"#;
    let mut bed = Bed::new(plan(intent(rolling)), 2);
    let mut seen = Vec::new();
    until(&mut bed, 0.001, |bed| bed.phase() == Phase::Bake);
    for passage in &bed.run.record().history {
        seen.push(passage.weight.ppm());
    }
    seen.dedup();
    assert_eq!(seen, [0, 250_000, 500_000, 750_000, 1_000_000]);
    until(&mut bed, 0.001, |bed| bed.run.is_finished());
    assert!(matches!(&bed.published.as_ref().unwrap().split, Split::Endpoints(members) if members.len() == 1));
}

#[test]
fn variants_have_their_shares_and_routes_and_the_winner_gets_everything() {
    let ab = r#","strategy":{"type":"AB","ab":{"variants":[{"name":"a","revision":"v1","share":70},
        {"name":"b","revision":"v2","share":30,"match":[{"cookie":{"name":"beta","exact":"yes"}}]}]}}"#;
    let mut bed = Bed::new(plan(intent(ab)), 2);
    until(&mut bed, 0.001, |bed| bed.phase() == Phase::Step { index: 1, stage: Stage::Waiting });
    let published = bed.published.clone().unwrap();
    assert_eq!(published.weight_of(&revision("v2")), percent(30.0));
    assert_eq!((published.routes[0].name.as_str(), &published.routes[0].to), ("b", &revision("v2")));
    bed.act(Verb::Promote);
    until(&mut bed, 0.001, |bed| bed.run.is_finished());
    assert_eq!(bed.published.as_ref().unwrap().weight_of(&revision("v2")), Weight::FULL);
    assert_eq!(bed.published.as_ref().unwrap().routes, []);
}

#[test]
fn copies_promote_nothing() {
    let mut bed = Bed::new(plan(intent(r#","strategy":{"type":"Mirror","mirror":{"duration":"30s"}}"#)), 2);
    until(&mut bed, 0.001, |bed| bed.published.as_ref().is_some_and(|p| p.mirror.is_some()));
    until(&mut bed, 0.001, |bed| bed.run.is_finished());
    assert_eq!((bed.phase(), &bed.run.record().reason), (Phase::Completed, &Some(Reason::TestPassed)));
    assert_eq!(bed.published.as_ref().unwrap().weight_of(&revision("v1")), Weight::FULL);
}

#[test]
fn a_step_does_not_pass_on_less_time_than_a_burst_takes() {
    let steps = r#","strategy":{"canary":{"steps":[{"setWeight":10},{"analysis":{}},{"setWeight":100}]}}"#;
    let mut bed = Bed::new(plan(intent(steps)), 2);
    until(&mut bed, 0.001, |bed| bed.phase() == Phase::Step { index: 1, stage: Stage::Waiting });
    for _ in 0..9 {
        bed.traffic(100_000, 0.001, 0.001);
    }
    assert_eq!(bed.weight(), percent(10.0));
    bed.traffic(100_000, 0.001, 0.001);
    assert_eq!(bed.weight(), Weight::FULL);
}

#[test]
fn whoever_promotes_everything_ends_no_freeze_no_pause_and_no_suspension() {
    for (held, words) in [(0, "a freeze"), (1, "paused"), (2, "suspend")] {
        let mut bed = paused_at_ten("");
        match held {
            0 => bed.tell(Event::Frozen(Some("holidays".to_owned()))),
            1 => assert!(bed.act(Verb::Pause)),
            _ => edit(&mut bed, |spec| spec.suspend = true),
        }
        let now = bed.time();
        let Err(ActionError::NotNow { hint, .. }) = bed.run.act(now, action("full", Verb::PromoteFull)) else {
            panic!("held by {words}, and promoted");
        };
        assert!(hint.contains(words), "{hint}");
        assert_eq!((bed.weight(), bed.run.record().actions.len()), (percent(10.0), usize::from(held == 1)));
        assert!(bed.act(Verb::Abort), "going back asks nobody");
        assert!(bed.weight().is_zero());
    }
    let mut bed = paused_at_ten("");
    assert!(bed.act(Verb::PromoteFull));
    assert_eq!(bed.weight(), Weight::FULL);
}

#[test]
fn whoever_promotes_everything_after_a_crash_waits_for_the_nodes() {
    let mut bed = paused_at_ten("");
    bed.nodes.iter_mut().for_each(|node| node.connected = false);
    bed.crash();
    assert!(!bed.act(Verb::PromoteFull), "no node is back");
    bed.nodes.iter_mut().for_each(|node| node.connected = true);
    bed.stand();
    assert!(bed.act(Verb::PromoteFull));
}

fn action(id: &str, verb: Verb) -> Action {
    let (run, actor, reason) = ("shop-1".to_owned(), "bob".to_owned(), "so it is".to_owned());
    Action { id: id.to_owned(), run, expected_step: None, actor, reason, verb }
}

#[test]
fn an_id_is_that_of_one_action() {
    let mut bed = paused_at_ten("");
    let now = bed.time();
    assert_eq!(bed.run.act(now, action("a", Verb::Pause)), Ok(()));
    assert_eq!(bed.run.act(now, action("a", Verb::Pause)), Ok(()));
    let taken = Err(ActionError::IdTaken { id: "a".to_owned(), verb: "pause" });
    assert_eq!(bed.run.act(now, action("a", Verb::Abort)), taken);
    let elsewhere = Action { expected_step: Some(1), ..action("a", Verb::Pause) };
    assert_eq!(bed.run.act(now, elsewhere), taken);
    assert_eq!((bed.weight(), bed.run.record().actions.len()), (percent(10.0), 1));
}

#[test]
fn nobody_promotes_a_step_in_the_place_of_its_gate() {
    let mut bed = paused_at_ten(r#","gates":[{"phase":"PreStep","url":"https://a"}]"#);
    bed.gates = GateAnswer::NotYet;
    bed.act(Verb::Promote);
    assert_eq!((bed.phase(), bed.weight()), (Phase::Step { index: 2, stage: Stage::Guard }, percent(10.0)));
    assert!(matches!(hold(&bed), HoldReason::Gate(_)));
    assert!(!bed.act(Verb::Promote), "it would make no difference, now or later");
    assert!(!bed.run.record().is_promoted);
    // The step that was left out leaves nothing behind.
    assert!(bed.act(Verb::SkipStep));
    assert_eq!((bed.phase(), hold(&bed)), (Phase::Step { index: 3, stage: Stage::Waiting }, HoldReason::Waiting));
}

#[test]
fn a_step_that_is_on_its_way_waits_for_nobody() {
    let mut bed = paused_at_ten("");
    bed.act(Verb::Promote);
    assert_eq!(bed.phase(), Phase::Step { index: 2, stage: Stage::Applying });
    assert!(!bed.act(Verb::Promote));
    bed.deliver_all();
    assert_eq!(bed.phase(), Phase::Step { index: 2, stage: Stage::Settling });
    assert!(!bed.act(Verb::Promote));
}
