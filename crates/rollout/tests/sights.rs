//! Edits of what endpoints are counted by: the label, the service, its ports.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/stage.rs"]
mod stage;

use std::collections::BTreeMap;

use rollout::{Endpoints, Revision, Sight, Verb};
use stage::{Stage, intent_named};
use world::api::delivery::Weight;

const BY_HAND: &str = r#","strategy":{"type":"Canary","canary":{"steps":[{"setWeight":10},{"pause":{}},{"setWeight":100}]}},
    "analysis":{"warmup":"1s","profiles":[]},"drain":{"timeout":"1s"}"#;

fn labelled(label: &str, more: &str) -> String {
    format!(r#"{BY_HAND},"revisions":{{"label":"{label}"{more}}}"#)
}

/// What is seen by the intent as it is now.
fn seen(stage: &mut Stage, revisions: &[(&str, u32)]) {
    let counted =
        |(name, healthy): &(&str, u32)| (Revision::new(name), Endpoints { healthy: *healthy, total: *healthy });
    let endpoints: BTreeMap<_, _> = revisions.iter().map(counted).collect();
    stage.picture.sights.get_mut(&intent_named("web")).unwrap().endpoints = endpoints;
}

/// The intent says this, and its service has these revisions by its label.
fn relabel(stage: &mut Stage, rest: &str, revisions: &[(&str, u32)]) {
    let wish = stage.wish(rest);
    let label = wish.spec.revisions.label.clone();
    let key = intent_named("web");
    let before = stage.picture.sights.remove(&key).unwrap();
    let service = before.service.clone();
    stage.picture.held.entry(key.clone()).or_insert(before);
    stage.picture.sights.insert(key.clone(), Sight { label, service, ..Sight::default() });
    stage.picture.intents.insert(key, wish);
    seen(stage, revisions);
    stage.look();
}

#[test]
fn another_label_ends_the_run_and_traffic_stays_until_it_is_known_where_that_is_by_the_label() {
    let mut stage = Stage::waiting(BY_HAND, "10%");
    stage.accepts = false;
    relabel(&mut stage, &labelled("release", ""), &[("r1", 3), ("r2", 3)]);
    // By the old label there is still somebody to go back to.
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v1")), ("RollingBack", Weight::FULL));
    stage.accepts = true;
    stage.pass(5);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v1")), ("Superseded", Weight::FULL));
    let problem = stage.conductor.problems().remove(0).to_string();
    assert!(problem.contains("which of the revisions r1, r2 is stable"), "{problem}");
    stage.crash();
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
    relabel(&mut stage, &labelled("release", r#","stable":"r1""#), &[("r1", 3), ("r2", 3)]);
    let run = stage.world.values().next().unwrap();
    assert_eq!((run.label.as_str(), stage.conductor.problems()), ("release", Vec::new()));
    stage.crash();
    stage.pass(3);
    assert_eq!((stage.weight("web", "r2").to_string().as_str(), stage.weight("web", "v1")), ("10%", Weight::ZERO));
    assert_eq!(stage.lane("web").record().stable, Some(Revision::new("r1")));
    assert_eq!(stage.lane("web").record().known_good, []);
}

#[test]
fn a_label_that_is_taken_back_in_time_lets_the_run_begin_again() {
    let mut stage = Stage::waiting(BY_HAND, "10%");
    relabel(&mut stage, &labelled("release", ""), &[("r1", 3), ("r2", 3)]);
    stage.pass(5);
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
    let held = stage.picture.held.remove(&intent_named("web")).unwrap();
    stage.picture.sights.insert(intent_named("web"), held);
    stage.intend("web", BY_HAND);
    stage.pass(3);
    assert_eq!((stage.weight("web", "v2").to_string().as_str(), stage.runs.len()), ("10%", 2));
}

#[test]
fn another_label_between_runs_moves_what_is_in_force_at_once() {
    let mut stage = Stage::new();
    stage.endpoints("web", "v1", 3);
    stage.intend("web", BY_HAND);
    relabel(&mut stage, &labelled("release", ""), &[("r1", 3)]);
    stage.pass(1);
    let (run, version) = (stage.world.values().next().unwrap().label.clone(), stage.in_force("web").unwrap().version);
    assert_eq!((run.as_str(), stage.weight("web", "r1")), ("release", Weight::FULL));
    stage.crash();
    assert_eq!((stage.in_force("web").unwrap().version, stage.weight("web", "r1")), (version, Weight::FULL));
}

#[test]
fn a_label_that_no_endpoint_has_changes_nothing_and_is_told() {
    let mut stage = Stage::waiting(BY_HAND, "10%");
    relabel(&mut stage, &labelled("relaese", ""), &[]);
    stage.pass(30);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v2").to_string().as_str()), ("Waiting", "10%"));
    let problem = stage.conductor.problems().remove(0).to_string();
    assert!(problem.contains(r#"has a label "relaese""#), "{problem}");
    // What happens to endpoints by the label that counts is still seen.
    let held = stage.picture.held.get_mut(&intent_named("web")).unwrap();
    held.endpoints.remove(&Revision::new("v2"));
    stage.look();
    assert_eq!(stage.weight("web", "v1"), Weight::FULL);
}

#[test]
fn a_service_that_is_unknown_for_a_while_disturbs_no_run_and_neither_does_its_return() {
    let mut stage = Stage::waiting(BY_HAND, "10%");
    let known = stage.picture.sights.clone();
    // A typo: what is in force is still seen by its own name. And the service itself is away: nothing is seen.
    for held in [known.clone(), BTreeMap::new()] {
        let wish = stage.picture.intents.get_mut(&intent_named("web")).unwrap();
        wish.is_refused = true;
        wish.spec.service.name = "wbe".to_owned();
        stage.picture.sights.insert(intent_named("web"), Sight { label: "version".to_owned(), ..Sight::default() });
        stage.picture.held = held;
        stage.look();
        stage.pass(60);
        assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v2").to_string().as_str()), ("Waiting", "10%"));
        (stage.picture.sights, stage.picture.held) = (known.clone(), BTreeMap::new());
        stage.intend("web", BY_HAND);
        stage.pass(60);
        assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v2").to_string().as_str()), ("Waiting", "10%"));
    }
    assert!(stage.act("web", Verb::Promote));
    stage.pass(5);
    assert_eq!(stage.weight("web", "v2"), Weight::FULL);
}

#[test]
fn other_ports_of_an_intent_do_not_change_what_its_run_counts() {
    let mut stage = Stage::waiting(BY_HAND, "10%");
    let wish = stage.picture.intents.get_mut(&intent_named("web")).unwrap();
    wish.spec.service.ports = vec![9090];
    let before = stage.picture.sights.get(&intent_named("web")).unwrap().clone();
    stage.picture.held.insert(intent_named("web"), before.clone());
    let other = Sight { limited_to: vec![9090], endpoints: BTreeMap::new(), ..before };
    stage.picture.sights.insert(intent_named("web"), other);
    stage.look();
    stage.pass(60);
    assert_eq!((stage.phase("web").as_str(), stage.weight("web", "v2").to_string().as_str()), ("Waiting", "10%"));
}
