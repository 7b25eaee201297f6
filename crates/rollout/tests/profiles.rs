//! Profiles that share names of metrics, and profiles that are edited in mid-run.
#![allow(clippy::unwrap_used)]

#[path = "support/bed.rs"]
mod bed;

use std::collections::BTreeMap;

use bed::{Bed, intent, plan};
use rollout::{Event, Evidence, Observation, Phase, Plan, Profiles, Reason, Stage, Verb};
use world::api::delivery::{DeploymentIntent, MetricSpec, Weight};

const STEPS: &str = r#","strategy":{"canary":{"steps":[{"setWeight":10},{"pause":{}},{"setWeight":50},{"pause":{}},
    {"setWeight":100}]}}"#;

fn metric(text: &str) -> MetricSpec {
    serde_json::from_str(text).unwrap()
}

fn at_most(max: u32) -> MetricSpec {
    metric(&format!(r#"{{"name":"m","kind":"Web","url":"http://a","range":{{"max":{max}}},"failureLimit":1}}"#))
}

fn profiles(all: &[(&str, MetricSpec)]) -> Profiles {
    all.iter().map(|(name, metric)| ((*name).to_owned(), vec![metric.clone()])).collect()
}

fn judged_by(steps: &str, own: &str, all: &[(&str, MetricSpec)]) -> Plan {
    let mut plan = plan(intent(&format!(r#"{steps},"analysis":{{"profiles":{own}}}"#)));
    plan.profiles = profiles(all);
    plan
}

/// A run that waits at ten percent.
fn paused(own: &str, all: &[(&str, MetricSpec)]) -> Bed {
    let mut bed = Bed::new(judged_by(STEPS, own, all), 2);
    bed.deliver_all();
    bed.pass(5_000);
    assert_eq!(bed.phase(), Phase::Step { index: 1, stage: Stage::Waiting });
    bed
}

fn say(bed: &mut Bed, values: &[(&str, f64)]) {
    let from = bed.time();
    bed.now += 10_000;
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), Observation::Value(*value)));
    let metrics: BTreeMap<_, _> = values.collect();
    bed.tell(Event::Evidence(Evidence { from, until: bed.time(), reporters: 2, metrics }));
    bed.deliver_all();
}

fn edit(bed: &mut Bed, all: &[(&str, MetricSpec)], change: impl FnOnce(&mut DeploymentIntent)) {
    let plan = &bed.run.record().plan;
    let (mut spec, generation) = (plan.spec.clone(), plan.generation + 1);
    change(&mut spec);
    bed.tell(Event::Edited { spec: Box::new(spec), generation, profiles: profiles(all) });
}

/// Good and bad values of the only metric.
fn values(bed: &Bed) -> [u64; 2] {
    let explained = bed.run.explain();
    let threshold = explained.metrics[0].threshold.as_ref().unwrap();
    [threshold.good, threshold.bad]
}

#[test]
fn metrics_of_one_name_in_two_profiles_are_two_metrics() {
    let mut bed = paused(r#"["p","q"]"#, &[("p", at_most(10)), ("q", at_most(1))]);
    let names: Vec<_> = bed.run.record().plan.metrics().into_iter().map(|metric| metric.name).collect();
    assert_eq!(names, ["p/m", "q/m"]);
    for _ in 0..2 {
        assert!(!bed.phase().is_over());
        say(&mut bed, &[("p/m", 5.0), ("q/m", 5.0)]);
    }
    assert!(matches!(&bed.run.record().reason, Some(Reason::Failed { metric, .. }) if metric == "q/m"));
}

#[test]
fn a_step_is_judged_by_its_own_profile_whatever_its_metrics_are_called() {
    let steps =
        r#","strategy":{"canary":{"steps":[{"setWeight":10},{"analysis":{"profileRef":"q"}},{"setWeight":100}]}}"#;
    let mut bed = Bed::new(judged_by(steps, r#"["p"]"#, &[("p", at_most(10)), ("q", at_most(1))]), 2);
    bed.deliver_all();
    bed.pass(5_000);
    say(&mut bed, &[("p/m", 5.0)]);
    bed.minutes(1);
    assert_eq!(bed.weight(), Weight::from_percent(10.0).unwrap(), "the step's own metric has no value");
    say(&mut bed, &[("p/m", 5.0), ("q/m", 0.5)]);
    assert_eq!(bed.weight(), Weight::FULL);
}

#[test]
fn a_profile_that_becomes_stricter_is_so_at_once() {
    let mut bed = paused(r#"["p"]"#, &[("p", at_most(10))]);
    say(&mut bed, &[("p/m", 5.0)]);
    edit(&mut bed, &[("p", at_most(1))], |_| ());
    say(&mut bed, &[("p/m", 5.0)]);
    assert_eq!(values(&bed), [1, 1]);
    say(&mut bed, &[("p/m", 5.0)]);
    assert!(matches!(bed.run.record().reason, Some(Reason::Failed { .. })));
}

#[test]
fn a_profile_that_becomes_looser_or_asks_something_else_is_so_from_the_next_step_on() {
    let mut bed = paused(r#"["p"]"#, &[("p", at_most(1))]);
    edit(&mut bed, &[("p", at_most(10))], |_| ());
    say(&mut bed, &[("p/m", 5.0)]);
    assert_eq!(values(&bed), [0, 1]);
    assert!(bed.act(Verb::Promote));
    say(&mut bed, &[("p/m", 5.0)]);
    assert_eq!(values(&bed), [0, 1], "weights are on their way");
    bed.pass(5_000);
    say(&mut bed, &[("p/m", 5.0)]);
    assert_eq!(values(&bed), [1, 1]);
    let elsewhere = MetricSpec { url: Some("http://b".to_owned()), ..at_most(10) };
    let mut bed = paused(r#"["p"]"#, &[("p", at_most(10))]);
    say(&mut bed, &[("p/m", 5.0)]);
    edit(&mut bed, &[("p", elsewhere)], |_| ());
    let asked = |bed: &Bed| bed.run.record().plan.metrics()[0].url.clone().unwrap();
    assert_eq!((asked(&bed).as_str(), values(&bed)), ("http://a", [1, 0]));
    // An edit that waits for the next step is not lost by a restart.
    bed.crash();
    bed.stand();
    bed.pass(30_000);
    assert!(bed.act(Verb::Promote));
    assert_eq!((asked(&bed).as_str(), values(&bed)), ("http://b", [0, 0]));
}

#[test]
fn a_profile_that_is_taken_out_judges_to_the_end_of_the_step_and_that_is_told() {
    let mut bed = paused(r#"["p","q"]"#, &[("p", at_most(10)), ("q", at_most(1))]);
    edit(&mut bed, &[("p", at_most(10))], |spec| spec.analysis.profiles = vec!["p".to_owned()]);
    say(&mut bed, &[("p/m", 5.0), ("q/m", 5.0)]);
    assert_eq!(bed.run.explain().metrics.len(), 2);
    assert!(bed.act(Verb::Promote));
    bed.deliver_all();
    bed.pass(5_000);
    assert_eq!(bed.run.explain().metrics.len(), 1);
    assert!(bed.notices.iter().any(|text| text == "not judged by any more: q/m"), "{:?}", bed.notices);
    say(&mut bed, &[("p/m", 5.0), ("q/m", 5.0)]);
    assert!(!bed.phase().is_over());
}

#[test]
fn a_profile_that_is_added_judges_at_once() {
    let mut bed = paused(r#"["p"]"#, &[("p", at_most(10))]);
    edit(&mut bed, &[("p", at_most(10)), ("q", at_most(1))], |spec| spec.analysis.profiles.push("q".to_owned()));
    say(&mut bed, &[("p/m", 5.0), ("q/m", 5.0)]);
    say(&mut bed, &[("p/m", 5.0), ("q/m", 5.0)]);
    assert!(matches!(&bed.run.record().reason, Some(Reason::Failed { metric, .. }) if metric == "q/m"));
}

#[test]
fn a_record_from_before_profiles_were_part_of_names_goes_on() {
    let mut bed = paused(r#"["p"]"#, &[("p", at_most(1))]);
    say(&mut bed, &[("p/m", 5.0)]);
    let mut stored = serde_json::to_value(bed.run.record()).unwrap();
    stored.as_object_mut().unwrap().remove("nextProfiles");
    let spec = &mut stored["judge"]["metrics"][0][0];
    assert_eq!(spec["name"], "p/m");
    spec["name"] = "m".into();
    bed.durable = Some(serde_json::from_value(stored).unwrap());
    bed.crash();
    assert_eq!((bed.run.explain().metrics[0].name.as_str(), values(&bed)), ("p/m", [0, 1]));
}
