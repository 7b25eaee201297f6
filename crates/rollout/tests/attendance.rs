//! Intents that select clients of which none is connected.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/stage.rs"]
mod stage;

use rollout::Verb;
use stage::Stage;

const SELECTED: &str = r#""attach":{"clients":{"matchLabels":{"app":"shop"}}}"#;
const REST: &str = r#""strategy":{"canary":{"steps":[{"setWeight":10},{"pause":{}},{"setWeight":100}]}},
    "analysis":{"warmup":"3s","profiles":[]},"drain":{"timeout":"1s"},"progressDeadline":"10m""#;

/// A run from v1 to v2, of which so many of the clients are selected.
fn begun(attach: &str, attached: u32) -> Stage {
    let mut stage = Stage::new();
    stage.attached = attached;
    stage.endpoints("web", "v1", 3);
    stage.intend("web", &format!(",{attach},{REST}"));
    stage.endpoints("web", "v2", 3);
    stage.pass(5);
    stage
}

/// The phase, what it waits for, and the candidate's weight.
fn standing(stage: &Stage) -> (String, &'static str, String) {
    let hold = stage.run("web").unwrap().hold();
    (stage.phase("web"), hold.map_or("", |hold| hold.reason.as_str()), stage.weight("web", "v2").to_string())
}

fn is(phase: &str, hold: &'static str, weight: &str) -> (String, &'static str, String) {
    (phase.to_owned(), hold, weight.to_owned())
}

#[test]
fn a_run_that_selects_nobody_says_so_and_goes_nowhere_and_in_the_end_back() {
    let mut stage = begun(SELECTED, 0);
    assert_eq!(standing(&stage), is("Preparing", "NoClientMatches", "0%"));
    let hold = stage.run("web").unwrap().hold().unwrap();
    assert!(hold.reason.to_string().contains("a client with app=shop"), "{}", hold.reason);
    assert_eq!((hold.reason.is_blocking(), hold.deadline.is_some()), (true, true));
    let problem = stage.conductor.problems().remove(0);
    assert_eq!(problem.field, "spec.attach.clients");
    assert!(problem.message.contains("a client with app=shop"), "{problem}");
    assert!(!stage.act("web", Verb::PromoteFull), "nobody can be there in their place");

    stage.pass(601);
    assert_eq!(standing(&stage).0, "RolledBack");
    let reason = stage.run("web").unwrap().record().reason.as_ref().unwrap().to_string();
    assert!(reason.contains("a client with app=shop"), "{reason}");
    assert_eq!(stage.conductor.problems(), []);

    stage.attached = 1;
    assert!(stage.act("web", Verb::Retry));
    stage.pass(5);
    assert_eq!(standing(&stage), is("Waiting", "Waiting", "10%"));
    assert_eq!(stage.conductor.problems(), []);
}

#[test]
fn it_goes_on_as_soon_as_one_of_them_is_there() {
    let mut stage = begun(SELECTED, 0);
    stage.pass(300);
    assert_eq!(standing(&stage), is("Preparing", "NoClientMatches", "0%"));
    stage.attached = 2;
    stage.pass(5);
    assert_eq!(standing(&stage), is("Waiting", "Waiting", "10%"));
}

#[test]
fn clients_that_leave_in_mid_run_end_no_pause_and_hold_what_comes_after_it() {
    let mut stage = begun(SELECTED, 1);
    assert_eq!(standing(&stage), is("Waiting", "Waiting", "10%"));
    stage.attached = 0;
    stage.pass(1_200);
    assert_eq!(standing(&stage), is("Waiting", "Waiting", "10%"));
    assert_eq!(stage.conductor.problems()[0].field, "spec.attach.clients");
    assert!(stage.act("web", Verb::Promote));
    stage.pass(300);
    assert_eq!(standing(&stage), is("Guard", "NoClientMatches", "10%"));
    assert!(!stage.act("web", Verb::Promote));
    stage.attached = 1;
    stage.pass(10);
    assert_eq!(standing(&stage).0, "Completed");
}

#[test]
fn a_run_whose_clients_do_not_come_back_goes_back_when_it_has_waited_for_them() {
    let mut stage = begun(SELECTED, 1);
    stage.attached = 0;
    stage.pass(1_200);
    stage.act("web", Verb::Promote);
    stage.pass(590);
    assert_eq!(standing(&stage), is("Guard", "NoClientMatches", "10%"));
    stage.pass(20);
    assert_eq!((standing(&stage).0.as_str(), standing(&stage).2.as_str()), ("RolledBack", "0%"));
}

#[test]
fn the_last_step_is_not_followed_by_a_promotion_that_nobody_has_seen() {
    let mut stage = begun(SELECTED, 1);
    stage.act("web", Verb::Promote);
    // The weights of the last step have arrived, and its time to settle goes on.
    stage.attached = 0;
    stage.pass(60);
    assert_eq!(standing(&stage), is("Bake", "NoClientMatches", "100%"));
    stage.attached = 1;
    stage.pass(10);
    assert_eq!(standing(&stage).0, "Completed");
}

#[test]
fn who_holds_a_run_back_does_not_let_it_run_out_of_time_for_clients() {
    let mut stage = begun(SELECTED, 0);
    assert!(stage.act("web", Verb::Pause));
    stage.pass(3_600);
    assert_eq!(standing(&stage), is("Preparing", "Paused", "0%"));
    stage.attached = 1;
    assert!(stage.act("web", Verb::Resume));
    stage.pass(5);
    assert_eq!(standing(&stage), is("Waiting", "Waiting", "10%"));
}

#[test]
fn clients_that_are_not_back_after_a_restart_are_waited_for_as_long_as_others() {
    let mut stage = begun(SELECTED, 1);
    stage.attached = 0;
    stage.crash();
    stage.pass(1);
    assert!(stage.act("web", Verb::Promote));
    stage.pass(500);
    assert_eq!(standing(&stage), is("Guard", "NoClientMatches", "10%"));
    stage.crash();
    stage.pass(500);
    assert_eq!(standing(&stage), is("Guard", "NoClientMatches", "10%"), "a restart begins the wait again");
    stage.attached = 1;
    stage.pass(10);
    assert_eq!(standing(&stage).0, "Completed");
}

#[test]
fn who_selects_nobody_in_particular_waits_for_nobody() {
    for attach in [r#""attach":{}"#, r#""attach":{"clients":{}}"#, r#""attach":{"gateways":["edge"]}"#] {
        let mut stage = begun(attach, 0);
        assert_eq!(standing(&stage), is("Waiting", "Waiting", "10%"), "{attach}");
        stage.act("web", Verb::Promote);
        stage.pass(10);
        assert_eq!(standing(&stage).0, "Completed", "{attach}");
    }
    let stage = begun(r#""attach":{"mesh":false,"gateways":["edge"]}"#, 0);
    assert_eq!(standing(&stage), is("Preparing", "NoClientMatches", "0%"));
    let problem = stage.conductor.problems().remove(0);
    assert_eq!(problem.field, "spec.attach.gateways");
    assert!(problem.message.contains("a proxy of Gateway edge"), "{problem}");
}

#[test]
fn what_was_good_before_comes_back_without_anybody() {
    let mut stage = begun(SELECTED, 1);
    stage.act("web", Verb::Promote);
    stage.pass(10);
    assert_eq!(standing(&stage).0, "Completed");
    stage.attached = 0;
    assert!(stage.act("web", Verb::RollbackTo(rollout::Revision::new("v1"))));
    stage.pass(20);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v1").to_string().as_str()), ("Completed", "100%"));
}
