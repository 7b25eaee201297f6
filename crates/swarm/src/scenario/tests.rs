#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn a_scenario_with_every_phase_is_read() {
    let text = "
name: all of it
nodes: 1000
variant: sotw
node: full
namespaces: [shop, blog]
labels: { app: front }
endpoints: { each: 50 }
slow: 10%
nack: 1%
silent: 2.5%
phases:
  - connect: { rate: 500, jitter: 20% }
  - hold: { seconds: 1.5 }
  - change:
      trigger: { rename: { file: mesh/a.yaml, from: [even.yaml, odd.yaml] } }
      repeat: 10
      expect: [rds, vhds]
  - change: { trigger: { run: 'touch $CHANGE' }, nodes: 20 }
  - stream: { trigger: { post: { url: 'http://127.0.0.1:1/x', body: '{}' } }, seconds: 10 }
  - reconnect: { share: 50%, versions: false }
";
    let scenario = Scenario::from_yaml(text, "a.yaml").unwrap();
    assert_eq!((scenario.nodes, scenario.variant, scenario.node), (1000, Variant::Sotw, NodeSize::Full));
    assert_eq!((scenario.slow.of(1000), scenario.silent.of(1000)), (100, 25));
    assert_eq!(scenario.endpoints.each, Some(50));
    let names: Vec<_> = scenario.phases.iter().map(Phase::name).collect();
    assert_eq!(names, ["connect", "hold", "change", "change", "stream", "reconnect"]);
    let Phase::Change(change) = &scenario.phases[2] else { panic!() };
    assert_eq!(change.expect, [Type(ResourceType::Route), Type(ResourceType::VirtualHost)]);
    assert_eq!((change.repeat, change.timeout_seconds), (10, 30.0));
}

#[test]
fn what_is_left_out_has_a_default() {
    assert_eq!(Scenario::from_yaml("nodes: 100", "a.yaml").unwrap(), Scenario::default());
}

#[test]
fn mistakes_are_named_with_file_line_and_field() {
    for (text, expected) in [
        ("nodes: many", vec!["\"a.yaml\"", "nodes", "line 1"]),
        ("nodes: 3\nphases:\n  - connect: {}\n  - hold: { second: 3 }", vec!["phases[1].hold", "second", "line 4"]),
        ("node: huge", vec!["node", "huge", "full"]),
        ("slow: 10", vec!["slow", "10"]),
        ("phases:\n  - dance: {}", vec!["phases[0]", "dance", "reconnect"]),
        ("phases:\n  - connect: {}\n  - change: { repeat: 2 }", vec!["phases[1].change", "trigger"]),
        ("phases:\n  - hold: { seconds: 1 }", vec!["phases[0]", "connect"]),
        ("phases:\n  - connect: { rate: 0 }", vec!["phases[0].connect.rate"]),
        ("phases:\n  - connect: { timeout_seconds: .nan }", vec!["phases[0].connect.timeout_seconds"]),
        ("nodes: 0", vec!["nodes", "at least one"]),
        ("slow: 60%\nnack: 40%", vec!["no well-behaved node"]),
        ("phases:\n  - connect: {}\n  - change: { trigger: { run: x }, expect: [xds] }", vec!["expect", "\"xds\""]),
        ("phases:\n  - connect: {}\n  - change: { trigger: { post: { url: ftp } } }", vec!["post.url", "http://"]),
    ] {
        let error = Scenario::from_yaml(text, "a.yaml").unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{text}\n{error}");
    }
}

#[test]
fn every_scenario_of_the_benchmarks_is_read() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/scenarios");
    let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.iter().any(|file| file.ends_with("weight-change.yaml")), "{files:?}");
    for file in files {
        Scenario::from_file(&file).unwrap();
    }
}

#[test]
fn the_scenario_of_the_documentation_is_read() {
    let text = include_str!("../../../../docs/swarm.md");
    let scenario = text.split("```yaml").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(Scenario::from_yaml(scenario, "docs/swarm.md").unwrap().phases.len(), 5);
}
