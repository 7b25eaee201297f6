//! What a deployment intent names has to be there, and one intent governs a port.
#![allow(clippy::unwrap_used)]

use world::api::delivery::DeploymentIntent;
use world::{Kind, Severity, World};

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
fn routes_that_all_name_subsets_leave_nothing_to_divide() {
    let mut world = shop();
    apply(&mut world, object("DeploymentIntent shop/a", r#"{"service":{"name":"reviews"}}"#));
    let routes =
        |http: &str| object("VirtualService shop/reviews", &format!(r#"{{"hosts":["reviews"],"http":[{http}]}}"#));
    let to = |subset: &str| {
        format!(r#"{{"name":"r{subset}","route":[{{"destination":{{"host":"reviews","subset":"{subset}"}}}}]}}"#)
    };
    apply(&mut world, routes(&to("v1")));
    assert_eq!(
        said(&world),
        ["spec.service: all routes to reviews.shop.svc.cluster.local name subsets, as VirtualService shop/reviews \
          spec.http[0].route[0] names \"v1\": they leave nothing to divide"]
    );
    assert_eq!(world.refused_intents().len(), 1, "no run is started");
    // One that names none suffices.
    apply(&mut world, routes(&format!("{},{}", to("v1"), to(""))));
    assert_eq!(said(&world), Vec::<String>::new());
    // Unless the intent does not mean it.
    apply(
        &mut world,
        object("DeploymentIntent shop/a", r#"{"service":{"name":"reviews"},"attach":{"routes":["rv1"]}}"#),
    );
    assert!(said(&world).concat().contains("nothing to divide"), "{:?}", said(&world));
    apply(&mut world, object("DeploymentIntent shop/a", r#"{"service":{"name":"reviews"}}"#));
    // What is gone takes nothing.
    apply(&mut world, routes(&to("v1")));
    assert_eq!(said(&world).len(), 1);
    remove(&mut world, Kind::VirtualService, "shop", "reviews");
    assert_eq!(said(&world), Vec::<String>::new());
    // The routes of other hosts leave the service's own.
    let other = to("v1");
    apply(&mut world, object("VirtualService shop/reviews", &format!(r#"{{"hosts":["a.test"],"http":[{other}]}}"#)));
    assert_eq!(said(&world), Vec::<String>::new());
}

#[test]
fn a_route_has_to_lead_to_the_service_and_a_run_is_told_when_it_does_no_more() {
    let mut world = shop();
    let routes = |host: &str| {
        format!(
            r#"{{"hosts":["a.test"],"http":[{{"name":"checkout","route":[{{"destination":{{"host":"{host}"}}}}]}}]}}"#
        )
    };
    let spec = r#"{"service":{"name":"reviews"},"attach":{"routes":["checkout"]}}"#;
    apply(&mut world, object("DeploymentIntent shop/a", spec));
    let run = r#"{"service":{"name":"reviews"},"attach":{"routes":["checkout"]},"label":"version","stable":"v1",
        "candidate":"v2","assignment":{"version":1,"split":{"Weights":[["v2",5],["v1",95]]},"routes":[],"mirror":null,
        "stickiness":{},"fallback":null}}"#;
    apply(&mut world, object("RolloutRun shop/a-1", run));
    apply(&mut world, object("VirtualService shop/edge", &routes("reviews")));
    assert_eq!(said(&world), Vec::<String>::new());
    apply(&mut world, object("VirtualService shop/edge", &routes("ratings")));
    let message = "the http route named \"checkout\" does not lead to reviews.shop.svc.cluster.local";
    assert_eq!(said(&world), vec![format!("spec.attach.routes[0]: {message}"); 2], "of the intent and of its run");
    remove(&mut world, Kind::VirtualService, "shop", "edge");
    let message = "no VirtualService has an http route named \"checkout\"";
    assert_eq!(said(&world), vec![format!("spec.attach.routes[0]: {message}"); 2]);
}

#[test]
fn prometheus_is_no_source_of_what_counts_requests() {
    let mut world = shop();
    let spec = |profiles: &str| {
        format!(
            r#"{{"service":{{"name":"reviews"}},"analysis":{{"source":"Prometheus","prometheusUrl":"http://p",
                "profiles":[{profiles}]}}}}"#
        )
    };
    apply(
        &mut world,
        object("AnalysisProfile shop/mine", r#"{"metrics":[{"name":"a","kind":"PromQuery","query":"up"}]}"#),
    );
    apply(&mut world, object("DeploymentIntent shop/a", &spec(r#""mine""#)));
    assert_eq!(said(&world), Vec::<String>::new());
    assert!(world.refused_intents().is_empty());
    apply(&mut world, object("DeploymentIntent shop/a", &spec(r#""mine","envoy-default""#)));
    let message =
        "source Prometheus cannot answer metric \"error-rate\" of profile \"envoy-default\": it counts requests";
    assert_eq!(said(&world), [format!("spec.analysis.source: {message}")]);
    assert_eq!(world.refused_intents().len(), 1, "no run is started");
}

#[test]
fn a_gateway_that_is_not_there_or_leads_elsewhere_is_told() {
    let mut world = shop();
    let spec = |gateway: &str| {
        format!(r#"{{"service":{{"name":"reviews"}},"attach":{{"mesh":false,"gateways":["{gateway}"]}}}}"#)
    };
    let routes =
        |gateway: &str, http: &str| format!(r#"{{"gateways":["{gateway}"],"hosts":["a.test"],"http":[{http}]}}"#);
    let to = |host: &str| format!(r#"{{"route":[{{"destination":{{"host":"{host}"}}}}]}}"#);
    apply(&mut world, object("DeploymentIntent shop/a", &spec("egde")));
    let missing = "spec.attach.gateways[0]: there is no Gateway \"egde\" in namespace \"shop\"";
    assert_eq!(said(&world), [missing]);
    assert_eq!(world.refused_intents().len(), 1, "no run is started");
    apply(&mut world, object("Gateway infra/edge", "{}"));
    let hint = world.problems()[0].hint.clone();
    assert!(hint.contains("There are: infra/edge"), "{hint}");
    apply(&mut world, object("DeploymentIntent shop/a", &spec("mesh")));
    let problem = world.problems().remove(0);
    assert!(problem.hint.contains("spec.attach.mesh"), "{problem}");

    let idle = "spec.attach.gateways[0]: no VirtualService of Gateway infra/edge leads to \
                reviews.shop.svc.cluster.local";
    apply(&mut world, object("DeploymentIntent shop/a", &spec("infra/edge")));
    assert_eq!(said(&world), [idle]);
    assert!(world.refused_intents().is_empty(), "a route may come later");
    for (http, expected) in [
        (to("ratings"), vec![idle]),
        (to("reviews"), vec![]),
        (r#"{"delegate":{"name":"inner"}}"#.to_owned(), vec![]),
        (r#"{"delegate":{"name":"outer"}}"#.to_owned(), vec![idle]),
    ] {
        let delegate = format!(r#"{{"http":[{}]}}"#, to("reviews"));
        apply(&mut world, object("VirtualService shop/inner", &delegate));
        apply(&mut world, object("VirtualService shop/edge", &routes("infra/edge", &http)));
        assert_eq!(said(&world), expected, "{http}");
    }
    // A Gateway of the intent's own namespace.
    apply(&mut world, object("Gateway shop/own", "{}"));
    apply(&mut world, object("VirtualService shop/edge", &routes("own", &to("reviews"))));
    for name in ["own", "./own", "shop/own"] {
        apply(&mut world, object("DeploymentIntent shop/a", &spec(name)));
        assert_eq!(said(&world), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn logs_of_gateways_are_not_promised() {
    let mut world = shop();
    let spec = r#"{"service":{"name":"reviews"},"attach":{"gateways":["edge"]},"analysis":{"source":"AccessLog"}}"#;
    apply(&mut world, object("DeploymentIntent shop/a", spec));
    apply(&mut world, object("Gateway shop/edge", "{}"));
    let routes = r#"{"gateways":["edge"],"hosts":["*"],"http":[{"route":[{"destination":{"host":"reviews"}}]}]}"#;
    apply(&mut world, object("VirtualService shop/edge", routes));
    assert_eq!(said(&world), ["spec.attach.gateways: gateways are not told to log requests"]);
    assert!(world.refused_intents().is_empty());
}

#[test]
fn endpoints_that_take_no_traffic_are_there_and_finished_pods_are_not() {
    let mut world = World::default();
    apply(&mut world, object("Service shop/reviews", r#"{"selector":{"app":"reviews"},"ports":[{"port":80}]}"#));
    for (name, version, status) in [
        ("a", "v1", r#""phase":"Running""#),
        ("b", "v1", r#""phase":"Pending""#),
        ("c", "v2", r#""phase":"Running","conditions":[{"type":"Ready","status":"False"}]"#),
        ("d", "v0", r#""phase":"Succeeded""#),
    ] {
        let address = u32::from(name.as_bytes()[0]);
        let pod = format!(r#"{{"status":{{"podIP":"10.0.0.{address}",{status}}}}}"#);
        apply(&mut world, object(&format!("Pod shop/{name} app=reviews,version={version}"), &pod));
    }
    let service = world.service_named("shop", "reviews").unwrap();
    let counts = |of: std::collections::BTreeMap<String, u32>| of.into_iter().collect::<Vec<_>>();
    assert_eq!(counts(world.revisions(&service, &[], "version")), [("v1".to_owned(), 1)]);
    assert_eq!(counts(world.deployed(&service, &[], "version")), [("v1".to_owned(), 2), ("v2".to_owned(), 1)]);
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

/// The fields of what is said, with whether no run is started for it.
fn fields(world: &World) -> Vec<(String, bool)> {
    world.problems().into_iter().map(|p| (p.field, p.severity == Severity::Error)).collect()
}

#[test]
fn what_needs_requests_is_refused_where_only_connections_come_and_told_where_both_do() {
    let mut world = shop();
    let ports = r#"{"selector":{"app":"reviews"},"ports":[{"port":9080,"name":"http"},{"port":9090,"name":"tcp"}]}"#;
    apply(&mut world, object("Service shop/reviews", ports));
    let spec = |ports: &str, rest: &str| {
        format!(r#"{{"service":{{"name":"reviews","ports":[{ports}]}},"revisions":{{"stable":"v1"}},{rest}}}"#)
    };
    let cookie = r#""stickiness":{"mode":"Cookie"}"#;
    let said_of = |world: &mut World, spec: &str| {
        apply(world, object("DeploymentIntent shop/reviews", spec));
        fields(world)
    };
    assert_eq!(said_of(&mut world, &spec("9080", cookie)), []);
    assert_eq!(said_of(&mut world, &spec("", cookie)), [("spec.stickiness.mode".to_owned(), false)]);
    assert_eq!(said_of(&mut world, &spec("9090", cookie)), [("spec.stickiness.mode".to_owned(), true)]);
    assert_eq!(world.refused_intents().len(), 1, "no run is started");
    let steps = r#""strategy":{"canary":{"steps":[{"headerRoute":{"name":"a","match":[{"method":"GET"}]}},
        {"mirror":{"percent":5}},{"headerRoute":{"name":"a","enabled":false}},{"setWeight":100}]}}"#;
    let of_steps = ["headerRoute", "mirror"].into_iter().zip(0..);
    let of_steps: Vec<_> =
        of_steps.map(|(name, at)| (format!("spec.strategy.canary.steps[{at}].{name}"), true)).collect();
    assert_eq!(said_of(&mut world, &spec("9090", steps)), of_steps);
    let preview = r#""strategy":{"type":"BlueGreen","blueGreen":{"preview":{"match":[{"method":"GET"}]}}}"#;
    assert_eq!(said_of(&mut world, &spec("9090", preview)), [("spec.strategy.blueGreen.preview".to_owned(), true)]);
    let mirror = r#""strategy":{"type":"Mirror"}"#;
    assert_eq!(said_of(&mut world, &spec("9090", mirror)), [("spec.strategy.type".to_owned(), true)]);
    let meant = r#""protocol":"HTTP","stickiness":{"mode":"Cookie"}"#;
    assert_eq!(said_of(&mut world, &spec("", meant)), [], "the other port is not meant");
    assert_eq!(said_of(&mut world, &spec("9090", meant)), [("spec.stickiness.mode".to_owned(), true)]);
    let weights = r#""strategy":{"canary":{"steps":[{"setWeight":100}]}}"#;
    assert_eq!(said_of(&mut world, &spec("9090", weights)), []);
}

#[test]
fn files_from_which_nothing_was_rolled_out_are_doubted() {
    let mut world = shop();
    let doubts =
        |world: &World| world.doubts(1_000_000_000_000).into_iter().map(|p| (p.field, p.message)).collect::<Vec<_>>();
    let rolling = r#"{"service":{"name":"reviews"},"strategy":{"type":"Rolling","rolling":{"maxUnavailable":5000}}}"#;
    apply(&mut world, object("DeploymentIntent shop/reviews", rolling));
    let said = doubts(&world);
    let expected = [
        ("spec.revisions.stable", "until a run has completed, nothing says which of v1, v2 is stable"),
        ("spec.strategy.rolling.maxUnavailable", "5000 may be missing, and no revision has more than 1 endpoints"),
    ];
    let expected = expected.map(|(field, message)| (field.to_owned(), message.to_owned()));
    assert!(expected.iter().all(|one| said.contains(one)) && said.len() == 2, "{said:#?}");
    let decided = r#"{"service":{"name":"reviews"},"revisions":{"candidate":"v2"}}"#;
    apply(&mut world, object("DeploymentIntent shop/reviews", decided));
    assert_eq!(doubts(&world).len(), 0);
    let test = |end: &str| {
        format!(
            r#"{{"service":{{"name":"reviews"}},"revisions":{{"stable":"v1"}},"strategy":{{"type":"AB","ab":{{"endAt":"{end}",
                "variants":[{{"name":"a","revision":"v1","share":50}},{{"name":"b","revision":"v8","share":50}}]}}}}}}"#
        )
    };
    // The doubts are those of a day in September 2001.
    apply(&mut world, object("DeploymentIntent shop/reviews", &test("2001-09-09T01:46:41Z")));
    let unknown = (
        "spec.strategy.ab.variants[1].revision",
        "no endpoint of service \"reviews\" has version=v8; there are: v1, v2",
    );
    assert_eq!(doubts(&world), [unknown].map(|(field, message)| (field.to_owned(), message.to_owned())));
    apply(&mut world, object("DeploymentIntent shop/reviews", &test("2001-09-09T01:46:40Z")));
    let over = ("spec.strategy.ab.endAt", "the time of the test was over at 2001-09-09T01:46:40Z");
    assert_eq!(doubts(&world), [over, unknown].map(|(field, message)| (field.to_owned(), message.to_owned())));
}

#[test]
fn a_freeze_of_an_unknown_service_is_told_until_it_is_there() {
    let mut world = shop();
    apply(&mut world, object("Freeze shop/a", r#"{"services":["reviews","ratings"]}"#));
    apply(&mut world, object("Freeze istio-system/a", r#"{"services":["anywhere"]}"#));
    assert_eq!(said(&world), ["spec.services[1]: there is no service \"ratings\" in namespace \"shop\""]);
    apply(&mut world, object("Service shop/ratings", r#"{"ports":[{"port":80}]}"#));
    assert_eq!(said(&world), Vec::<String>::new());
    remove(&mut world, Kind::Service, "shop", "ratings");
    apply(&mut world, object("Freeze shop/a", r#"{"services":["reviews"]}"#));
    assert_eq!(said(&world), Vec::<String>::new());
}
