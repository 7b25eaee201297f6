#![allow(clippy::unwrap_used)]

use std::time::Duration;

use world::api::istio::PortSelector;
use world::{Kind, Labels};

use super::*;

fn warmup(seconds: u64) -> Option<LoadBalancer> {
    Some(LoadBalancer { warmup_duration_secs: Some(Duration::from_secs(seconds)), ..LoadBalancer::default() })
}

fn tls(mode: &str) -> Option<ClientTls> {
    Some(ClientTls { mode: Some(mode.into()), ..ClientTls::default() })
}

/// The rule says 1 and "rule", its settings for port 81 say 2; the subset says 3, its settings for port 82 "subset".
fn rule() -> EffectiveRule {
    let origin = ObjectRef::new(Kind::DestinationRule, "shop", "reviews");
    let location = Location { file: "rules.yaml".into(), line: 7, column: 1 };
    let port = |number| PortTrafficPolicy { port: PortSelector { number }, ..PortTrafficPolicy::default() };
    EffectiveRule {
        policy: Some(TrafficPolicy {
            load_balancer: warmup(1),
            tls: tls("rule"),
            port_level_settings: vec![PortTrafficPolicy { load_balancer: warmup(2), ..port(81) }],
            ..TrafficPolicy::default()
        }),
        policy_origin: Some(origin.clone()),
        subsets: vec![Subset {
            name: "v1".into(),
            labels: Labels::new(),
            policy: Some(TrafficPolicy {
                load_balancer: warmup(3),
                port_level_settings: vec![PortTrafficPolicy { tls: tls("subset"), ..port(82) }],
                ..TrafficPolicy::default()
            }),
            origin: origin.clone(),
        }],
        origins: vec![origin.clone()],
        locations: [(origin, location)].into(),
    }
}

fn summary(rule: &EffectiveRule, subset: Option<&str>, port: u16) -> (Option<u64>, Option<String>) {
    let policy = effective(rule, subset.map(|name| rule.subset(name).unwrap()), port);
    assert!(policy.port_level_settings.is_empty());
    let seconds = policy.load_balancer.and_then(|lb| lb.warmup_duration_secs).map(|d| d.as_secs());
    (seconds, policy.tls.and_then(|tls| tls.mode))
}

#[test]
fn a_subset_replaces_parts_and_port_settings_replace_the_whole_level() {
    let rule = rule();
    let (of_rule, of_subset) = (Some("rule".to_owned()), Some("subset".to_owned()));
    assert_eq!(summary(&rule, None, 80), (Some(1), of_rule.clone()));
    assert_eq!(summary(&rule, None, 81), (Some(2), None), "tls is not inherited by port settings");
    assert_eq!(summary(&rule, Some("v1"), 80), (Some(3), of_rule));
    assert_eq!(summary(&rule, Some("v1"), 81), (Some(3), None), "over the rule's settings for the port");
    assert_eq!(summary(&rule, Some("v1"), 82), (None, of_subset), "the subset's settings hide the rule too");
}

#[test]
fn without_a_rule_there_is_no_policy() {
    assert_eq!(effective(&EffectiveRule::default(), None, 80), TrafficPolicy::default());
    assert!(Policy::new(&EffectiveRule::default(), None, 80).is_default());
}

#[test]
fn a_problem_names_the_place_where_the_part_was_written() {
    let rule = rule();
    let path = |subset: Option<&str>, port| {
        let policy = Policy::new(&rule, subset.map(|name| rule.subset(name).unwrap()), port);
        let lb = policy.load_balancer.map(|part| part.error("simple", "m", "c"));
        lb.or(policy.tls.map(|part| part.error("", "m", "c"))).unwrap()
    };
    assert_eq!(path(None, 80).field, "spec.trafficPolicy.loadBalancer.simple");
    assert_eq!(path(None, 81).field, "spec.trafficPolicy.portLevelSettings[0].loadBalancer.simple");
    assert_eq!(path(Some("v1"), 81).field, "spec.subsets[v1].trafficPolicy.loadBalancer.simple");
    assert_eq!(path(Some("v1"), 82).field, "spec.subsets[v1].trafficPolicy.portLevelSettings[0].tls");
    let problem = path(None, 80);
    assert_eq!(problem.object, Some(rule.origins[0].clone()));
    assert_eq!(problem.location.unwrap().line, 7);
}
