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
