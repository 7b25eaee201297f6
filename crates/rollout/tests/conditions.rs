//! The conditions of an intent: since when they hold, and until when at the latest.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/stage.rs"]
mod stage;

use rollout::{Condition, Time, Verb};
use stage::{Stage, intent_named};

const BY_HAND: &str = r#","strategy":{"type":"Canary","canary":{"steps":[{"setWeight":10},{"pause":{}},{"setWeight":100}]}},
    "analysis":{"warmup":"1s","profiles":[]},"drain":{"timeout":"10s"},"progressDeadline":"5m""#;

fn condition(stage: &Stage, kind: &str) -> Condition {
    stage.lane("web").conditions().into_iter().find(|condition| condition.kind == kind).unwrap()
}

/// Whether it holds, and since when.
fn stands(stage: &Stage, kind: &str) -> (Option<bool>, Time) {
    let Condition { status, since, .. } = condition(stage, kind);
    (status, since.unwrap())
}

#[test]
fn an_intent_is_accepted_since_it_came_and_again_since_it_was_mended() {
    let mut stage = Stage::new();
    stage.endpoints("web", "v1", 3);
    stage.pass(5);
    let came = stage.time();
    stage.intend("web", BY_HAND);
    assert_eq!(stands(&stage, "Accepted"), (Some(true), came));
    assert_eq!(
        (stands(&stage, "Progressing"), condition(&stage, "Progressing").reason),
        ((Some(false), came), "NoRun".to_owned())
    );
    stage.pass(30);
    stage.crash();
    stage.pass(30);
    assert_eq!(stands(&stage, "Accepted"), (Some(true), came), "a restart is no change");
    stage.picture.intents.get_mut(&intent_named("web")).unwrap().is_refused = true;
    let broken = stage.time();
    stage.look();
    stage.pass(30);
    assert_eq!(stands(&stage, "Accepted"), (Some(false), broken));
    assert!(condition(&stage, "Accepted").reason.contains("an error of the intent"));
    let mended = stage.time();
    stage.intend("web", BY_HAND);
    stage.pass(30);
    stage.crash();
    assert_eq!(stands(&stage, "Accepted"), (Some(true), mended));
    // The service cannot change: that is the conductor's own word.
    let changed = stage.time();
    let sight = stage.picture.sights.get_mut(&intent_named("web")).unwrap();
    sight.service = Some(("shop".into(), "other".into()));
    stage.look();
    stage.pass(5);
    assert_eq!(stands(&stage, "Accepted"), (Some(false), changed));
    assert!(condition(&stage, "Accepted").reason.contains("this intent is for \"shop/web\""));
}

#[test]
fn a_run_progresses_since_its_phase_began_until_the_deadline_of_what_it_waits_for() {
    let mut stage = Stage::new();
    stage.endpoints("web", "v1", 3);
    stage.intend("web", BY_HAND);
    stage.accepts = false;
    let began = stage.time();
    stage.endpoints("web", "v2", 3);
    stage.pass(7);
    let progressing = condition(&stage, "Progressing");
    assert_eq!(
        (progressing.status, progressing.reason.as_str(), progressing.since),
        (Some(true), "Preparing", Some(began))
    );
    let deadline = began.plus(std::time::Duration::from_secs(300));
    assert_eq!(progressing.deadline, Some(deadline));
    stage.crash();
    assert_eq!(stands(&stage, "Progressing"), (Some(true), began));
    stage.accepts = true;
    stage.crash();
    stage.pass(3);
    let waits = condition(&stage, "Progressing");
    assert_eq!((waits.reason.as_str(), waits.deadline), ("Waiting", None), "for somebody, and for no time");
    assert_eq!(stands(&stage, "Healthy").0, None);
    assert_eq!(stands(&stage, "Promoted").0, Some(false));
}

#[test]
fn what_a_run_waits_for_it_waits_for_since_before_a_restart() {
    let mut stage = Stage::waiting(BY_HAND, "10%");
    let since = stage.run("web").unwrap().hold().unwrap().since;
    stage.pass(60);
    // The record is written again, for whatever reason.
    assert!(stage.act("web", Verb::Pause) && stage.act("web", Verb::Resume));
    let again = stage.run("web").unwrap().hold().unwrap().since;
    assert!(again > since, "between the two it waited for somebody to resume it");
    assert!(stage.act("web", Verb::Resume), "which writes the record");
    stage.crash();
    stage.pass(60);
    assert_eq!(stage.run("web").unwrap().hold().unwrap().since, again);
}

#[test]
fn a_run_is_blocked_since_its_record_could_not_be_stored_and_is_not_since_it_could() {
    let mut stage = Stage::waiting(BY_HAND, "10%");
    let started = stage.run("web").unwrap().record().started;
    assert_eq!(stands(&stage, "Blocked"), (Some(false), started));
    stage.pass(10);
    stage.disk_is_full = true;
    let full = stage.time();
    assert!(stage.act("web", Verb::Promote));
    stage.pass(1);
    let blocked = condition(&stage, "Blocked");
    assert_eq!((blocked.status, blocked.since), (Some(true), Some(full)));
    assert!(blocked.reason.contains("no space") && blocked.deadline.is_some(), "{blocked:?}");
    assert_eq!(stands(&stage, "Accepted").0, Some(true), "nothing is wrong with what the intent says");
    stage.pass(9);
    stage.disk_is_full = false;
    stage.pass(3);
    let (status, since) = stands(&stage, "Blocked");
    assert!(status == Some(false) && since > full, "{since:?}");
    stage.crash();
    assert_eq!(stands(&stage, "Blocked"), (Some(false), since));
}

#[test]
fn a_run_that_went_back_is_unhealthy_since_it_turned_and_one_that_completed_is_promoted_since_then() {
    let mut stage = Stage::waiting(BY_HAND, "10%");
    stage.pass(20);
    let turned = stage.time();
    assert!(stage.act("web", Verb::Abort));
    stage.pass(30);
    stage.crash();
    assert_eq!(stands(&stage, "Healthy"), (Some(false), turned));
    assert!(condition(&stage, "Healthy").reason.contains("because"));
    assert_eq!(stands(&stage, "Progressing").0, Some(false));
    let again = stage.time();
    assert!(stage.act("web", Verb::Retry));
    stage.pass(3);
    assert_eq!((stands(&stage, "Healthy").0, stands(&stage, "Promoted")), (None, (Some(false), again)));
    assert!(stage.act("web", Verb::Promote));
    stage.pass(60);
    assert_eq!(stage.phase("web"), "Completed");
    let completed = stage.run("web").unwrap().record().since;
    assert_eq!(
        (stands(&stage, "Healthy"), stands(&stage, "Promoted")),
        ((Some(true), completed), (Some(true), completed))
    );
}

#[test]
fn records_from_before_conditions_were_kept_are_read() {
    let stage = Stage::waiting(BY_HAND, "10%");
    let mut record = serde_json::to_value(&stage.runs["web-1"]).unwrap();
    let mut intent = serde_json::to_value(&stage.intents["web"]).unwrap();
    for field in ["held", "unblocked", "came", "accepted"] {
        let known = record.as_object_mut().unwrap().remove(field).or(intent.as_object_mut().unwrap().remove(field));
        assert!(known.is_some(), "{field}");
    }
    let mut stage = stage;
    stage.runs.insert("web-1".to_owned(), serde_json::from_value(record).unwrap());
    stage.intents.insert("web".to_owned(), serde_json::from_value(intent).unwrap());
    stage.crash();
    stage.pass(40);
    assert_eq!((stands(&stage, "Accepted").0, stands(&stage, "Progressing").0), (Some(true), Some(true)));
}
