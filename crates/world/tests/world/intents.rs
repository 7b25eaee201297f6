//! What a deployment intent names has to be there, and one intent governs a port.
#![allow(clippy::unwrap_used)]

use world::api::delivery::DeploymentIntent;
use world::{Kind, World};

use crate::support::{apply, object, remove};

/// A service with pods of two revisions.
fn shop() -> World {
    let mut world = World::default();
    let service = r#"{"selector":{"app":"reviews"},"ports":[{"port":9080,"name":"http"}]}"#;
    apply(&mut world, object("Service shop/reviews", service));
    for (name, version, ip) in [("a", "v1", "10.0.0.1"), ("b", "v2", "10.0.0.2")] {
        let labels = format!("app=reviews,version={version}");
        apply(&mut world, object(&format!("Pod shop/{name} {labels}"), "{}"));
        let slice = format!(
            r#"{{"addressType":"IPv4","ports":[{{"name":"http","port":9080}}],
                "endpoints":[{{"addresses":["{ip}"],"targetRef":{{"kind":"Pod","name":"{name}","namespace":"shop"}}}}]}}"#
        );
        apply(&mut world, object(&format!("EndpointSlice shop/{name} kubernetes.io/service-name=reviews"), &slice));
    }
    world
}

fn said(world: &World) -> Vec<String> {
    world.problems().iter().map(|p| format!("{}: {}", p.field, p.message)).collect()
}

#[test]
fn an_intent_that_finds_everything_has_no_problem() {
    let mut world = shop();
    let spec = r#"{"service":{"name":"reviews","ports":[9080]},"revisions":{"stable":"v1","candidate":"v2"}}"#;
    apply(&mut world, object("DeploymentIntent shop/reviews", spec));
    assert_eq!(said(&world), Vec::<String>::new());
}

#[test]
fn a_service_a_port_and_a_profile_that_are_not_there_are_told() {
    let mut world = shop();
    apply(&mut world, object("DeploymentIntent shop/one", r#"{"service":{"name":"rewievs"}}"#));
    let spec = r#"{"service":{"name":"reviews","ports":[80]},"analysis":{"profiles":["envoy-default","mine"]},
        "attach":{"routes":["checkout"]}}"#;
    apply(&mut world, object("DeploymentIntent shop/two", spec));
    assert_eq!(
        said(&world),
        [
            "spec.service.name: there is no service \"rewievs\" in namespace \"shop\"",
            "spec.analysis.profiles[1]: there is no AnalysisProfile \"mine\"",
            "spec.attach.routes[0]: no VirtualService has an http route named \"checkout\"",
            "spec.service.ports[0]: service \"reviews\" has no port 80",
        ]
    );
    apply(&mut world, object("AnalysisProfile istio-system/mine", r#"{"metrics":[{"name":"a"}]}"#));
    let routes = r#"{"hosts":["reviews"],"http":[{"name":"checkout","route":[{"destination":{"host":"reviews"}}]}]}"#;
    apply(&mut world, object("VirtualService shop/reviews", routes));
    assert_eq!(said(&world).len(), 2, "{:?}", said(&world));
}

#[test]
fn of_two_intents_for_one_port_the_first_counts() {
    let mut world = shop();
    apply(&mut world, object("DeploymentIntent shop/a", r#"{"service":{"name":"reviews","ports":[9080]}}"#));
    apply(&mut world, object("DeploymentIntent other/b", r#"{"service":{"name":"reviews","namespace":"shop"}}"#));
    assert_eq!(
        said(&world),
        ["spec.service: traffic of service \"shop/reviews\" is already governed by DeploymentIntent other/b"]
    );
    remove(&mut world, Kind::DeploymentIntent, "other", "b");
    assert_eq!(said(&world), Vec::<String>::new());
}

#[test]
fn a_label_that_splits_nothing_and_a_revision_without_endpoints_are_told() {
    let mut world = shop();
    apply(
        &mut world,
        object("DeploymentIntent shop/a", r#"{"service":{"name":"reviews"},"revisions":{"label":"rev"}}"#),
    );
    assert_eq!(
        said(&world),
        ["spec.revisions.label: none of the 2 endpoints of service \"reviews\" has a label \"rev\""]
    );
    let spec = r#"{"service":{"name":"reviews"},"revisions":{"stable":"v0","candidate":"v2"}}"#;
    apply(&mut world, object("DeploymentIntent shop/a", spec));
    let message = "no endpoint of service \"reviews\" has version=v0; there are: v1, v2";
    assert_eq!(said(&world), [format!("spec.revisions.stable: {message}")]);
}

#[test]
fn an_intent_is_written_as_it_is_read() {
    let spec = r#"{"service":{"name":"a","ports":[80]},"protocol":"GRPC","revisions":{"stable":"v1"},
        "strategy":{"type":"Canary","canary":{"steps":[{"setWeight":0.5},{"pause":{"duration":"90s"}},{"gate":{"manual":true}},
        {"headerRoute":{"name":"x","match":[{"header":{"name":"a","exact":"b"}}]}},{"mirror":{"percent":10}},
        {"requireEndpoints":{"percentOfStable":50}},{"setWeight":100}]}},
        "stickiness":{"mode":"Hash","key":[{"header":"x-user"},{"sourceIp":true}]},
        "rollback":{"mode":"Ramp","ramp":"30s"},"gates":[{"phase":"PrePromote","url":"https://a"}]}"#;
    let intent: DeploymentIntent = serde_json::from_str(spec).unwrap();
    let text = serde_json::to_string(&intent).unwrap();
    assert_eq!(serde_json::from_str::<DeploymentIntent>(&text).unwrap(), intent, "{text}");
    for (kind, block) in
        [("BlueGreen", r#""blueGreen":{"switch":{"ramp":"5m"}}"#), ("Rolling", r#""rolling":{"batch":"20%"}"#)]
    {
        let spec = format!(r#"{{"service":{{"name":"a"}},"strategy":{{"type":"{kind}",{block}}}}}"#);
        let intent: DeploymentIntent = serde_json::from_str(&spec).unwrap();
        let text = serde_json::to_string(&intent).unwrap();
        assert_eq!(serde_json::from_str::<DeploymentIntent>(&text).unwrap(), intent, "{text}");
    }
}
