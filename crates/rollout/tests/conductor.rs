//! Intents, one run after the other, by a conductor whose store and world are in memory.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/stage.rs"]
mod stage;

use proptest::prelude::*;
use rollout::{Action, Endpoints, Revision, Verb};
use stage::{Stage, intent_named};
use world::api::delivery::Weight;

/// Steps that somebody has to promote, one by one, and next to no time between them.
const BY_HAND: &str = r#","strategy":{"type":"Canary","canary":{"steps":[
    {"setWeight":10},{"pause":{}},{"setWeight":50},{"pause":{}},{"setWeight":100}]}},
    "analysis":{"warmup":"1s","profiles":[]},"drain":{"timeout":"1s"}"#;

fn with(more: &str) -> String {
    format!("{BY_HAND}{more}")
}

/// Promotes until the run has ended.
fn promote(stage: &mut Stage, name: &str) {
    for _ in 0..10 {
        stage.pass(3);
        if stage.run(name).is_some_and(|run| run.record().phase.is_terminal()) {
            return;
        }
        stage.act(name, Verb::Promote);
    }
    let phase = stage.phase(name);
    stage.fail(&format!("it does not end: {phase}"));
}

fn settled() -> Stage {
    let mut stage = Stage::new();
    stage.endpoints("web", "v1", 3);
    stage.intend("web", BY_HAND);
    stage
}

#[test]
fn before_the_first_run_everything_goes_to_the_only_revision() {
    let mut stage = settled();
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
    assert_eq!(stage.phase("web"), "none");
    // And it stays so for whatever comes, until its run has prepared it.
    stage.accepts = false;
    stage.endpoints("web", "v2", 1);
    assert_eq!((stage.weight("web", "v1"), stage.weight("web", "v2")), (Weight::FULL, Weight::ZERO));
    assert_eq!(stage.phase("web"), "Preparing");
}

#[test]
fn a_revision_that_takes_no_traffic_yet_is_waited_for_and_is_not_where_traffic_is() {
    let mut stage = Stage::new();
    stage.endpoints("web", "v1", 3);
    stage.unready("web", "v2", Endpoints { healthy: 0, total: 2 });
    stage.intend("web", BY_HAND);
    // Only one of the two can be stable, so nobody has to say which.
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
    assert_eq!(stage.phase("web"), "Preparing");
    stage.pass(30);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v2")), ("Preparing", Weight::ZERO));
    stage.unready("web", "v2", Endpoints { healthy: 1, total: 2 });
    stage.pass(3);
    assert_eq!(stage.weight("web", "v2").to_string(), "10%");
}

#[test]
fn a_revision_that_appears_begins_a_run_that_people_promote_to_the_end() {
    let mut stage = settled();
    stage.endpoints("web", "v2", 3);
    stage.pass(3);
    assert_eq!(stage.weight("web", "v2").to_string(), "10%");
    promote(&mut stage, "web");
    assert_eq!(stage.phase("web"), "Completed");
    assert_eq!(stage.weight("web", "v2"), Weight::FULL);
    stage.pass(5);
    assert_eq!(stage.safe, [Revision::new("v1")]);
    assert_eq!(stage.lane("web").record().stable, Some(Revision::new("v2")));
    // Neither of the two is new.
    stage.pass(100);
    assert_eq!(stage.runs.len(), 1);
}

#[test]
fn a_candidate_that_went_back_is_not_tried_again_by_itself_and_is_when_somebody_says_so() {
    let mut stage = settled();
    stage.endpoints("web", "v2", 3);
    stage.pass(3);
    assert!(stage.act("web", Verb::Abort));
    stage.pass(10);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v1")), ("RolledBack", Weight::FULL));
    stage.intend("web", &with(r#","historyLimit":5"#));
    stage.crash();
    stage.pass(10);
    assert_eq!(stage.runs.len(), 1);
    assert!(stage.act("web-1", Verb::Retry));
    stage.pass(3);
    let run = stage.run("web").unwrap().record().plan.clone();
    assert_eq!((&*run.run, run.attempt), ("web-2", 2));
    assert_eq!(stage.weight("web", "v2").to_string(), "10%");
    assert!(!stage.act("web-1", Verb::Abort), "the first one is over");
}

#[test]
fn a_revision_that_somebody_went_back_to_is_left_only_for_one_that_nobody_has_seen() {
    let mut stage = settled();
    stage.endpoints("web", "v2", 3);
    promote(&mut stage, "web");
    stage.pass(5);
    stage.endpoints("web", "v3", 3);
    stage.pass(3);
    assert!(stage.act("web", Verb::Abort));
    stage.pass(10);
    assert!(stage.act("web", Verb::RollbackTo(Revision::new("v1"))));
    promote(&mut stage, "web");
    stage.pass(100);
    assert_eq!((stage.runs.len(), stage.weight("web", "v1")), (3, Weight::FULL));
    assert_eq!(stage.lane("web").record().stable, Some(Revision::new("v1")));
    // Neither a restart, nor an edit, nor new endpoints of a revision that he turned away from change that.
    stage.crash();
    stage.intend("web", &with(r#","historyLimit":5"#));
    for revision in ["v2", "v3"] {
        stage.endpoints("web", revision, 0);
        stage.pass(40);
        stage.endpoints("web", revision, 3);
        stage.pass(40);
    }
    assert_eq!((stage.runs.len(), stage.weight("web", "v1")), (3, Weight::FULL));
    stage.endpoints("web", "v4", 3);
    stage.pass(3);
    assert_eq!(stage.weight("web", "v4").to_string(), "10%");
}

#[test]
fn an_action_of_the_same_id_chooses_nothing_a_second_time() {
    let mut stage = settled();
    stage.endpoints("web", "v2", 3);
    promote(&mut stage, "web");
    stage.pass(5);
    let back = |stage: &mut Stage| {
        let action = Action {
            id: "once".to_owned(),
            run: String::new(),
            expected_step: None,
            actor: "alice".to_owned(),
            reason: "because".to_owned(),
            verb: Verb::RollbackTo(Revision::new("v2")),
        };
        stage.conductor.act(stage.time(), "shop", "web", action).unwrap();
        stage.carry_out();
    };
    stage.endpoints("web", "v3", 3);
    stage.pass(3);
    stage.accepts = false;
    back(&mut stage);
    stage.endpoints("web", "v4", 3);
    back(&mut stage);
    stage.accepts = true;
    stage.pass(5);
    assert_eq!(stage.weight("web", "v4").to_string(), "10%");
}

#[test]
fn who_goes_back_while_a_run_makes_room_for_another_has_neither() {
    let mut stage = settled();
    stage.endpoints("web", "v2", 3);
    stage.pass(3);
    stage.accepts = false;
    stage.endpoints("web", "v3", 3);
    assert!(stage.act("web", Verb::RollbackTo(Revision::new("v1"))));
    stage.accepts = true;
    stage.pass(40);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v1")), ("RolledBack", Weight::FULL));
}

#[test]
fn candidates_that_went_back_are_not_tried_again_when_newer_ones_leave() {
    let mut stage = settled();
    for version in ["v2", "v3", "v4"] {
        stage.endpoints("web", version, 3);
        stage.pass(3);
        assert_eq!(stage.weight("web", version).to_string(), "10%");
        assert!(stage.act("web", Verb::Abort));
        stage.pass(10);
    }
    stage.crash();
    stage.endpoints("web", "v4", 0);
    stage.endpoints("web", "v3", 0);
    stage.pass(40);
    assert_eq!((stage.runs.len(), stage.weight("web", "v1")), (3, Weight::FULL));
    // Coming back makes the same revision no better.
    stage.endpoints("web", "v3", 3);
    stage.pass(40);
    assert_eq!((stage.runs.len(), stage.weight("web", "v1")), (3, Weight::FULL));
    // Naming it does.
    stage.intend("web", &with(r#","revisions":{"candidate":"v2"}"#));
    stage.pass(3);
    assert_eq!(stage.weight("web", "v2").to_string(), "10%");
    // And once only.
    assert!(stage.act("web", Verb::Abort));
    stage.pass(10);
    stage.intend("web", &with(r#","revisions":{"candidate":"v2"},"historyLimit":5"#));
    stage.pass(40);
    assert_eq!((stage.runs.len(), stage.weight("web", "v1")), (4, Weight::FULL));
}

#[test]
fn records_of_before_anything_was_passed_over_are_read_and_their_last_candidate_is_not_tried_again() {
    let mut stage = settled();
    stage.endpoints("web", "v2", 3);
    stage.pass(3);
    assert!(stage.act("web", Verb::Abort));
    stage.pass(10);
    let mut text = serde_json::to_value(&stage.intents["web"]).unwrap();
    let record = text.as_object_mut().unwrap();
    assert!(record.remove("passedOver").is_some());
    record.insert("ignored".to_owned(), serde_json::Value::Null);
    stage.intents.insert("web".to_owned(), serde_json::from_value(text).unwrap());
    stage.crash();
    stage.pass(40);
    assert_eq!((stage.runs.len(), stage.weight("web", "v1")), (1, Weight::FULL));
}

#[test]
fn while_stable_is_away_nobody_goes_back_to_what_was_before_it() {
    let mut stage = settled();
    stage.endpoints("web", "v2", 3);
    promote(&mut stage, "web");
    stage.pass(5);
    stage.endpoints("web", "v2", 0);
    stage.pass(60);
    stage.endpoints("web", "v2", 3);
    stage.pass(60);
    assert_eq!((stage.runs.len(), stage.weight("web", "v2")), (1, Weight::FULL));
}

#[test]
fn what_a_deleted_intent_had_queued_is_begun_when_it_comes_again_in_time() {
    let mut stage = settled();
    stage.intend("web", &with(r#","onNewRevision":"Queue""#));
    stage.endpoints("web", "v2", 3);
    stage.pass(3);
    stage.endpoints("web", "v3", 3);
    stage.delete("web");
    stage.pass(10);
    assert_eq!((stage.phase("web").as_str(), stage.runs.len()), ("RolledBack", 1));
    stage.intend("web", BY_HAND);
    stage.pass(3);
    assert_eq!(stage.weight("web", "v3").to_string(), "10%");
}

#[test]
fn what_was_good_before_comes_back_without_steps() {
    let mut stage = settled();
    stage.endpoints("web", "v2", 3);
    promote(&mut stage, "web");
    stage.pass(5);
    stage.endpoints("web", "v1", 0);
    stage.pass(40);
    stage.endpoints("web", "v1", 3);
    stage.pass(5);
    let record = stage.run("web").unwrap().record();
    assert!(record.plan.is_fast, "{:?}", record.plan);
    promote(&mut stage, "web");
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
}

#[test]
fn a_third_revision_replaces_waits_or_is_ignored() {
    for (policy, then) in [("Replace", "v3"), ("Queue", "v3"), ("Reject", "v2")] {
        let mut stage = settled();
        stage.intend("web", &with(&format!(r#","onNewRevision":"{policy}""#)));
        stage.endpoints("web", "v2", 3);
        stage.pass(3);
        stage.endpoints("web", "v3", 3);
        stage.pass(3);
        let candidate = stage.run("web").unwrap().record().plan.candidate.to_string();
        assert_eq!(candidate, if policy == "Replace" { "v3" } else { "v2" }, "{policy}");
        for _ in 0..20 {
            stage.act("web", Verb::Promote);
            stage.pass(3);
        }
        stage.crash();
        stage.pass(40);
        assert_eq!(stage.lane("web").record().stable, Some(Revision::new(then)), "{policy}");
        assert_eq!(stage.weight("web", then), Weight::FULL, "{policy}");
    }
}

#[test]
fn of_several_revisions_none_is_stable_unless_somebody_says_so() {
    let mut stage = Stage::new();
    stage.endpoints("web", "v1", 3);
    stage.endpoints("web", "v2", 3);
    stage.intend("web", BY_HAND);
    let problem = stage.conductor.problems().remove(0).to_string();
    assert!(problem.contains("which of the revisions v1, v2 is stable"), "{problem}");
    assert!(stage.world.is_empty(), "nothing is divided on a guess");
    stage.intend("web", &with(r#","revisions":{"stable":"v1"}"#));
    stage.pass(3);
    assert_eq!(stage.conductor.problems(), []);
    assert_eq!(stage.weight("web", "v2").to_string(), "10%");
}

#[test]
fn deleting_an_intent_takes_traffic_back_and_leaves_it_there() {
    let mut stage = settled();
    stage.endpoints("web", "v2", 3);
    stage.pass(3);
    stage.delete("web");
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
    stage.pass(20);
    let problem = stage.conductor.problems().remove(0).to_string();
    assert!(problem.contains("revision v2 still has endpoints"), "{problem}");
    stage.crash();
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
    stage.endpoints("web", "v2", 0);
    stage.pass(2);
    assert!(stage.world.is_empty() && stage.conductor.problems().is_empty());
    stage.crash();
    assert!(stage.world.is_empty());
    // It comes again, for what is there now.
    stage.intend("web", BY_HAND);
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
    stage.endpoints("web", "v4", 1);
    stage.pass(3);
    assert_eq!(stage.run("web").unwrap().record().plan.run, "web-2");
}

#[test]
fn an_intent_that_comes_again_before_its_end_is_durable_goes_on() {
    let mut stage = settled();
    stage.disk_is_full = true;
    stage.delete("web");
    stage.endpoints("web", "v4", 2);
    stage.intend("web", BY_HAND);
    stage.pass(10);
    assert_eq!((stage.weight("web", "v1"), stage.runs.len()), (Weight::FULL, 0));
    stage.disk_is_full = false;
    stage.crash_after = Some(stage.deeds + 1);
    stage.pass(3);
    assert_eq!(stage.crashes, 1);
    assert_eq!((stage.weight("web", "v4").to_string().as_str(), stage.phase("web").as_str()), ("10%", "Waiting"));
}

#[test]
fn for_another_service_an_intent_begins_when_its_end_is_durable() {
    let mut stage = settled();
    stage.disk_is_full = true;
    stage.delete("web");
    stage.intend("web", BY_HAND);
    stage.delete("web");
    stage.picture.sights.get_mut(&intent_named("web")).unwrap().service = Some(("shop".into(), "other".into()));
    let wish = stage.wish(BY_HAND);
    stage.picture.intents.insert(intent_named("web"), wish);
    stage.look();
    stage.pass(10);
    assert_eq!(stage.world.values().next().unwrap().service.name, "web");
    stage.disk_is_full = false;
    stage.pass(3);
    assert_eq!(stage.world.values().next().unwrap().service.name, "other");
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
}

#[test]
fn a_freeze_holds_what_has_not_begun_for_as_long_as_it_lasts() {
    let mut stage = settled();
    let freeze = world::api::delivery::Freeze {
        until: Some(world::api::delivery::time_text(stage.now + 60_000)),
        reason: "holidays".to_owned(),
        ..world::api::delivery::Freeze::default()
    };
    let reference = world::ObjectRef::new(world::Kind::Freeze, "istio-system", "x");
    stage.picture.freezes.insert(reference, freeze);
    stage.endpoints("web", "v2", 3);
    stage.pass(20);
    assert_eq!(stage.phase("web"), "Pending");
    let hold = stage.run("web").unwrap().hold().unwrap().reason.to_string();
    assert!(hold.contains("holidays"), "{hold}");
    stage.crash();
    assert_eq!(stage.weight("web", "v1"), Weight::FULL, "what was in force before still is");
    assert!(stage.conductor.poll_timeout().unwrap() <= rollout::Time::from_millis(1_060_000));
    stage.pass(50);
    assert_eq!(stage.weight("web", "v2").to_string(), "10%");
}

#[test]
fn the_service_of_an_intent_cannot_change() {
    let mut stage = settled();
    stage.picture.sights.get_mut(&intent_named("web")).unwrap().service = Some(("shop".into(), "other".into()));
    stage.intend("web", &with(r#","historyLimit":3"#));
    stage.picture.sights.get_mut(&intent_named("web")).unwrap().service = Some(("shop".into(), "other".into()));
    stage.look();
    let problem = stage.conductor.problems().remove(0).to_string();
    assert!(problem.contains("this intent is for \"shop/web\""), "{problem}");
    assert_eq!(stage.world.values().next().unwrap().service.name, "web");
}

#[test]
fn with_a_full_disk_nothing_is_published_and_it_goes_on_when_there_is_room() {
    let mut stage = Stage::new();
    stage.disk_is_full = true;
    stage.endpoints("web", "v1", 3);
    stage.intend("web", BY_HAND);
    stage.pass(10);
    assert!(stage.world.is_empty());
    let problem = stage.conductor.problems().remove(0).to_string();
    assert!(problem.contains("cannot be stored: no space"), "{problem}");
    stage.disk_is_full = false;
    stage.pass(3);
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
    stage.endpoints("web", "v2", 3);
    stage.pass(3);
    stage.disk_is_full = true;
    stage.act("web", Verb::Promote);
    stage.pass(10);
    assert_eq!(stage.weight("web", "v2").to_string(), "10%");
    assert_eq!(stage.run("web").unwrap().hold().unwrap().reason.as_str(), "CommitFailed");
    stage.disk_is_full = false;
    stage.pass(5);
    assert_eq!(stage.weight("web", "v2").to_string(), "50%");
}

#[test]
fn no_more_runs_are_kept_than_the_intent_says() {
    let mut stage = settled();
    stage.intend("web", &with(r#","historyLimit":2"#));
    for version in 2..6 {
        stage.endpoints("web", &format!("v{version}"), 3);
        promote(&mut stage, "web");
        stage.pass(5);
        stage.endpoints("web", &format!("v{}", version - 1), 0);
    }
    assert_eq!(stage.runs.len(), 2);
    assert_eq!(stage.forgotten.len(), 2);
}

#[derive(Clone, Debug)]
enum Move {
    Pass(u64),
    Endpoints(u8, u32),
    Act(u8),
    Back(u8),
    Crash,
    Edit(u8),
    Delete,
    Disk(bool),
    Accept(bool),
    Attached(u32),
    Win(u8),
}

const TEST_OF_THREE: &str = r#","strategy":{"type":"AB","ab":{"variants":[{"name":"a","revision":"v1","share":50},
    {"name":"b","revision":"v2","share":30},{"name":"c","revision":"v3","share":20}]}},
    "analysis":{"warmup":"1s","profiles":[]},"drain":{"timeout":"1s"}"#;

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        6 => (1..20_u64).prop_map(Move::Pass),
        4 => (1..5_u8, 0..3_u32).prop_map(|(revision, healthy)| Move::Endpoints(revision, healthy)),
        4 => (0..6_u8).prop_map(Move::Act),
        2 => (1..5_u8).prop_map(Move::Back),
        2 => Just(Move::Crash),
        1 => (0..6_u8).prop_map(Move::Edit),
        1 => Just(Move::Delete),
        1 => any::<bool>().prop_map(Move::Disk),
        1 => any::<bool>().prop_map(Move::Accept),
        1 => (0..2_u32).prop_map(Move::Attached),
        1 => (1..4_u8).prop_map(Move::Win),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// The stage itself checks: one assignment in force for an intent; versions that rise; nothing published that is
    /// not durable; after a crash nothing less in force than before; no run towards what went back, or what somebody
    /// turned away from, unless somebody asks for it.
    #[test]
    fn whatever_happens_one_assignment_is_in_force_and_all_of_it_is_durable(
        moves in proptest::collection::vec(moves(), 1..60),
        crash_after in proptest::option::of(1..200_usize),
    ) {
        let mut stage = settled();
        stage.crash_after = crash_after.map(|after| stage.deeds + after);
        for step in moves {
            match step {
                Move::Pass(seconds) => stage.pass(seconds),
                Move::Endpoints(revision, healthy) => stage.endpoints("web", &format!("v{revision}"), healthy),
                Move::Act(which) => {
                    let verbs = [
                        Verb::Promote, Verb::PromoteFull, Verb::Abort, Verb::Retry, Verb::SkipStep, Verb::Pause,
                    ];
                    stage.act("web", verbs[usize::from(which)].clone());
                }
                Move::Back(revision) => {
                    stage.act("web", Verb::RollbackTo(Revision::new(&format!("v{revision}"))));
                }
                Move::Crash => stage.crash(),
                Move::Edit(0) => stage.intend("web", BY_HAND),
                Move::Edit(1) => stage.intend("web", &with(r#","onNewRevision":"Queue""#)),
                Move::Edit(2) => stage.intend("web", &with(r#","stickiness":{"mode":"Cookie"}"#)),
                Move::Edit(3) => stage.intend("web", &with(r#","attach":{"clients":{"matchLabels":{"app":"a"}}}"#)),
                Move::Edit(4) => stage.intend("web", TEST_OF_THREE),
                Move::Edit(_) => stage.intend("web", &with(r#","revisions":{"candidate":"v3"}"#)),
                Move::Attached(attached) => {
                    stage.attached = attached;
                    stage.carry_out();
                }
                Move::Win(revision) => {
                    stage.act("web", Verb::PromoteVariant(format!("v{revision}")));
                }
                Move::Delete => stage.delete("web"),
                Move::Disk(is_full) => stage.disk_is_full = is_full,
                Move::Accept(accepts) => {
                    stage.accepts = accepts;
                    stage.carry_out();
                }
            }
        }
        // With everything in order again it comes to rest, and all traffic is where the intent's record says.
        (stage.disk_is_full, stage.accepts, stage.attached) = (false, true, 1);
        (1..5).for_each(|version| stage.endpoints("web", &format!("v{version}"), 2));
        stage.intend("web", BY_HAND);
        for _ in 0..30 {
            stage.act("web", Verb::Resume);
            stage.act("web", Verb::Promote);
            stage.pass(30);
        }
        let stable = stage.lane("web").record().stable.clone();
        if let Some(stable) = stable.filter(|stable| stage.weight("web", stable.as_str()) != Weight::FULL) {
            let phase = stage.phase("web");
            stage.fail(&format!("it does not come to rest: {phase}, stable \"{stable}\""));
        }
    }
}
