//! Runs and intents that follow one another, and what may be scaled down between them.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/stage.rs"]
mod stage;

use rollout::Verb;
use stage::{Stage, intent_named};
use world::api::delivery::Weight;

const BY_HAND: &str = r#","strategy":{"type":"Canary","canary":{"steps":[{"setWeight":50},{"pause":{}},{"setWeight":100}]}},
    "analysis":{"warmup":"1s","profiles":[]},"drain":{"timeout":"10s"}"#;

/// What may be scaled down by the word of this intent.
fn safe(stage: &Stage, name: &str) -> Vec<String> {
    let revisions = stage.conductor.safe_to_scale_down(stage.lane(name));
    revisions.iter().map(ToString::to_string).collect()
}

#[test]
fn what_a_run_has_left_is_safe_to_scale_down_until_another_one_begins_with_it() {
    let mut stage = Stage::waiting(BY_HAND, "50%");
    assert!(stage.act("web", Verb::Abort));
    assert!(safe(&stage, "web").is_empty(), "it has not drained");
    stage.pass(15);
    assert_eq!(safe(&stage, "web"), ["v2"]);
    stage.crash();
    assert_eq!(safe(&stage, "web"), ["v2"]);
    // Before anything is sent to it, while it is, and until that has drained.
    stage.accepts = false;
    assert!(stage.act("web", Verb::Retry));
    assert!(safe(&stage, "web").is_empty());
    stage.accepts = true;
    stage.pass(3);
    assert_eq!((stage.weight("web", "v2").to_string().as_str(), safe(&stage, "web").len()), ("50%", 0));
    // Another one comes, and takes the clusters of v2 away at its end.
    stage.endpoints("web", "v3", 3);
    stage.pass(3);
    assert_eq!(stage.weight("web", "v3").to_string(), "50%");
    assert!(safe(&stage, "web").is_empty());
    assert!(stage.act("web", Verb::PromoteFull));
    stage.pass(30);
    assert_eq!(safe(&stage, "web"), ["v1", "v2"]);
}

#[test]
fn an_intent_of_another_name_begins_where_the_one_before_has_left_traffic() {
    let mut stage = Stage::waiting(BY_HAND, "50%");
    stage.accepts = false;
    let sight = stage.picture.sights[&intent_named("web")].clone();
    stage.picture.intents.remove(&intent_named("web"));
    stage.picture.sights.insert(intent_named("shop"), sight);
    stage.intend("shop", BY_HAND);
    stage.pass(5);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v1")), ("RollingBack", Weight::FULL));
    assert!(stage.in_force("shop").is_none(), "one run for a service at a time");
    let problems = stage.conductor.problems();
    assert!(
        problems.iter().any(|problem| problem.to_string().contains("this intent begins after that")),
        "{problems:?}"
    );
    stage.crash();
    assert!(stage.in_force("shop").is_none());
    stage.accepts = true;
    stage.pass(30);
    // Nobody had to say which is stable, and the one before has nothing more to say.
    assert_eq!((stage.weight("shop", "v2").to_string().as_str(), stage.phase("shop").as_str()), ("50%", "Waiting"));
    assert!(stage.in_force("web").is_none() && stage.lane("web").is_gone());
    assert_eq!((stage.conductor.problems(), safe(&stage, "web")), (Vec::new(), Vec::new()));
    stage.crash();
    stage.pass(5);
    assert_eq!((stage.weight("shop", "v2").to_string().as_str(), stage.in_force("web")), ("50%", None));
}
