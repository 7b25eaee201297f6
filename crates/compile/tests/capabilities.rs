//! What a client was built without is not sent to it, and the objects that ask for it are told.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use compile::{Audience, Compiler, Extension, Extensions, HostDelivery, Interception, Options, Proxy, Secrets};
use proto::ResourceType;
use snapshot::Snapshot;
use world::{Change, Kind, Meta, Object, ObjectRef, Settings, Spec, World};

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: s1}
spec: {clusterIP: 10.1.0.1, ports: [{name: http, port: 80}, {name: grpc-web, port: 90}, {name: any, port: 91}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: s1}
spec:
  hosts: [s1]
  http:
    - fault: {delay: {fixedDelay: 1s, percentage: {value: 10}}}
      corsPolicy: {allowOrigins: [{exact: https://a.test}]}
      route: [{destination: {host: s1, port: {number: 80}}}]
";

/// A run that is judged by logs.
fn logged() -> Change {
    let assignment = serde_json::json!({
        "version": 1, "split": {"Weights": [["v1", 100]]}, "routes": [], "mirror": null, "stickiness": {}, "fallback": null,
    });
    let run = serde_json::json!({
        "service": {"name": "s1", "ports": [80]}, "label": "version", "stable": "v1", "candidate": "v1", "accessLog": true,
        "assignment": assignment,
    });
    let spec = Spec::RolloutRun(serde_json::from_value(run).unwrap());
    let reference = ObjectRef::new(Kind::RolloutRun, "default", "run");
    Change::Apply(Object { reference, meta: Meta::default(), spec }.into())
}

fn sidecar(lacks: Extensions) -> Audience {
    Audience {
        proxy: Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: Some(3128) },
        namespace: "default".into(),
        labels: Arc::default(),
        addresses: Vec::new(),
        hosts: HostDelivery::Inline,
        lacks,
        secrets: Secrets::Stream,
        control_plane: None,
    }
}

/// Which of the extensions are named anywhere in the snapshot.
fn named(snapshot: &Snapshot) -> Vec<Extension> {
    let values: Vec<_> =
        ResourceType::ALL.into_iter().flat_map(|kind| snapshot.iter(kind)).map(|cell| cell.value()).collect();
    let is_named = |extension: &Extension| {
        let name = extension.name().as_bytes();
        values.iter().any(|value| value.windows(name.len()).any(|window| window == name))
    };
    Extension::ALL.into_iter().filter(is_named).collect()
}

#[test]
fn filters_that_a_client_was_built_without_are_left_out_for_it_alone() {
    let parsed = source::text::parse("test.yaml", MESH.as_bytes(), &source::Options::default());
    assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
    let mut world = World::new(Settings::default());
    parsed.objects.into_iter().for_each(|object| _ = world.apply(Change::Apply(object)));
    world.apply(logged());
    let mut compiler = Compiler::new(Options::default());
    let whole = compiler.add(&world, &sidecar(Extensions::default())).1;
    assert_eq!(named(&whole), Extension::ALL);
    assert_eq!(compiler.problems(), []);

    let bare = sidecar(Extensions::lacking(["envoy.filters.http.router"]));
    let reduced = compiler.add(&world, &bare).1;
    assert_eq!(named(&reduced), []);
    assert_eq!(reduced.dangling(), []);
    let said: Vec<_> = compiler.problems().iter().map(ToString::to_string).collect();
    for (field, name) in [("fault", "envoy.filters.http.fault"), ("corsPolicy", "envoy.filters.http.cors")] {
        let of_field =
            |problem: &&String| problem.contains(&format!("VirtualService default/s1: spec.http[0].{field}"));
        let problem = said.iter().find(of_field).unwrap_or_else(|| panic!("nothing about {field} in {said:?}"));
        assert!(problem.contains(name) && problem.contains("it is left out for them"), "{problem}");
    }

    let no_cors =
        sidecar(Extensions::lacking(Extension::ALL.into_iter().filter(|e| *e != Extension::Cors).map(Extension::name)));
    let reduced = compiler.add(&world, &no_cors).1;
    let others = Extension::ALL.into_iter().filter(|extension| *extension != Extension::Cors);
    assert_eq!(named(&reduced), others.collect::<Vec<_>>());
    compiler.remove(compiler.id(&bare).unwrap());
    compiler.remove(compiler.id(&no_cors).unwrap());
    assert_eq!(compiler.problems(), [], "the problem goes with the clients that had it");
}
