//! A/B tests from their admission to their end.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/stage.rs"]
mod stage;

use rollout::{Revision, Verb};
use stage::Stage;
use world::api::delivery::{Weight, time_text};

fn test_of(a: &str, b: &str, more: &str) -> String {
    format!(
        r#","strategy":{{"type":"AB","ab":{{"variants":[{{"name":"a","revision":"{a}","share":50}},
        {{"name":"b","revision":"{b}","share":50}}]{more}}}}},
        "analysis":{{"warmup":"1s","profiles":[]}},"drain":{{"timeout":"1s"}}"#
    )
}

fn with_v1(intent: &str) -> Stage {
    let mut stage = Stage::new();
    stage.endpoints("web", "v1", 3);
    stage.intend("web", intent);
    stage
}

#[test]
fn a_revision_that_is_no_variant_disturbs_no_test_and_wins_none() {
    let mut stage = with_v1(&test_of("v1", "v2", ""));
    stage.endpoints("web", "v2", 3);
    stage.pass(3);
    assert_eq!(stage.weight("web", "v2").to_string(), "50%");
    stage.endpoints("web", "v3", 3);
    stage.pass(30);
    assert_eq!((stage.weight("web", "v2").to_string().as_str(), stage.runs.len()), ("50%", 1));
    for _ in 0..3 {
        stage.act("web", Verb::Promote);
        stage.pass(30);
    }
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v2")), ("Completed", Weight::FULL));
    // And the one that has lost, or leaves, begins nothing.
    stage.endpoints("web", "v1", 0);
    stage.pass(60);
    assert_eq!((stage.runs.len(), stage.conductor.problems()), (1, Vec::new()));
    assert_eq!(stage.lane("web").record().stable, Some(Revision::new("v2")));
}

#[test]
fn a_test_begins_when_all_of_its_variants_are_there_and_says_who_is_missing() {
    let mut stage = with_v1(&test_of("v1", "v8", ""));
    stage.endpoints("web", "v2", 3);
    stage.pass(30);
    assert_eq!((stage.runs.len(), stage.weight("web", "v1")), (0, Weight::FULL));
    let problem = stage.conductor.problems().remove(0).to_string();
    assert!(problem.contains(r#"revision "v8" of a variant; there are: v1, v2"#), "{problem}");
    stage.endpoints("web", "v8", 3);
    stage.pass(3);
    assert_eq!((stage.weight("web", "v8").to_string().as_str(), stage.conductor.problems()), ("50%", Vec::new()));
}

#[test]
fn a_test_of_nothing_and_one_whose_time_is_over_do_not_begin() {
    let mut stage = with_v1(&test_of("v1", "v1", ""));
    stage.endpoints("web", "v2", 3);
    stage.pass(30);
    let problem = stage.conductor.problems().remove(0).to_string();
    assert!(problem.contains("there is nothing to test"), "{problem}");
    let end = time_text(stage.now - 1_000);
    stage.intend("web", &test_of("v1", "v2", &format!(r#","endAt":"{end}""#)));
    stage.pass(30);
    let problem = stage.conductor.problems().remove(0).to_string();
    assert!(problem.contains("the time of the test was over"), "{problem}");
    assert_eq!((stage.runs.len(), stage.weight("web", "v1")), (0, Weight::FULL));
    let end = time_text(stage.now + 60_000);
    stage.intend("web", &test_of("v1", "v2", &format!(r#","endAt":"{end}""#)));
    stage.pass(30);
    assert_eq!(stage.weight("web", "v2").to_string(), "50%");
    stage.pass(60);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v1")), ("RolledBack", Weight::FULL));
    assert_eq!((stage.runs.len(), stage.conductor.problems()), (1, Vec::new()));
}

/// Of three variants, the third came last.
fn three() -> Stage {
    let variants = r#","strategy":{"type":"AB","ab":{"variants":[{"name":"a","revision":"v1","share":50},
        {"name":"b","revision":"v2","share":30},{"name":"c","revision":"v3","share":20}]}},
        "analysis":{"warmup":"1s","profiles":[]},"drain":{"timeout":"1s"}"#;
    let mut stage = with_v1(variants);
    stage.endpoints("web", "v2", 3);
    stage.endpoints("web", "v3", 3);
    stage.pass(5);
    let shares = ["v1", "v2", "v3"].map(|revision| stage.weight("web", revision).to_string());
    assert_eq!(
        (shares.each_ref().map(String::as_str), stage.phase("web").as_str()),
        (["50%", "30%", "20%"], "Waiting")
    );
    stage
}

fn variant(name: &str) -> Verb {
    Verb::PromoteVariant(name.to_owned())
}

/// Where traffic rests, also when those that have lost leave.
fn rests_at(stage: &mut Stage, winner: &str) {
    stage.pass(60);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", winner)), ("Completed", Weight::FULL));
    assert_eq!(stage.lane("web").record().stable, Some(Revision::new(winner)));
    let runs = stage.runs.len();
    stage.crash();
    for loser in ["v1", "v2", "v3"].into_iter().filter(|revision| *revision != winner) {
        stage.endpoints("web", loser, 0);
        stage.pass(60);
    }
    assert_eq!((stage.runs.len(), stage.weight("web", winner)), (runs, Weight::FULL));
    assert_eq!(stage.conductor.problems(), []);
}

#[test]
fn a_test_of_several_revisions_needs_the_name_of_its_winner() {
    let mut stage = three();
    for verb in [Verb::Promote, Verb::PromoteFull, Verb::SkipStep, variant("d"), variant("")] {
        assert!(!stage.act("web", verb.clone()), "{verb:?}");
    }
    stage.pass(60);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v2").to_string().as_str()), ("Waiting", "30%"));
    let action = rollout::Action {
        id: "x".to_owned(),
        run: String::new(),
        expected_step: None,
        actor: String::new(),
        reason: String::new(),
        verb: Verb::Promote,
    };
    let refusal = stage.conductor.act(stage.time(), "shop", "web", action).unwrap_err().to_string();
    assert!(refusal.contains("name the variant that wins: a (v1), b (v2), c (v3)"), "{refusal}");
}

#[test]
fn the_variant_that_is_named_wins_whichever_it_is() {
    for (name, winner) in [("a", "v1"), ("b", "v2"), ("c", "v3"), ("v1", "v1"), ("v2", "v2"), ("v3", "v3")] {
        let mut stage = three();
        assert!(stage.act("web", variant(name)), "{name}");
        rests_at(&mut stage, winner);
    }
}

#[test]
fn a_winner_without_endpoints_or_in_a_freeze_is_refused_and_stable_may_always_win() {
    let mut stage = three();
    stage.unready("web", "v2", rollout::Endpoints { healthy: 0, total: 3 });
    assert!(stage.phase("web") != "Waiting", "a variant that is gone ends the test");
    let mut stage = three();
    let candidate = stage.run("web").unwrap().record().plan.candidate.clone();
    let other = if candidate == Revision::new("v2") { "c" } else { "b" };
    assert!(stage.act("web", Verb::Pause));
    assert!(!stage.act("web", variant(other)), "it would be held in between");
    assert!(stage.act("web", variant("a")));
    stage.pass(60);
    let conditions = stage.lane("web").conditions();
    let healthy = conditions.iter().find(|condition| condition.kind == "Healthy").unwrap();
    assert_eq!((healthy.status, healthy.reason.contains("\"v1\" has won the test")), (Some(true), true));
    rests_at(&mut stage, "v1");
}

#[test]
fn other_strategies_have_no_variants() {
    let mut stage = with_v1(
        r#","strategy":{"canary":{"steps":[{"setWeight":10},{"pause":{}},{"setWeight":100}]}},
        "analysis":{"warmup":"1s","profiles":[]}"#,
    );
    stage.endpoints("web", "v2", 3);
    stage.pass(5);
    assert!(!stage.act("web", variant("v2")));
    assert_eq!(stage.weight("web", "v2").to_string(), "10%");
}
