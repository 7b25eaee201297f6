//! What is wrong between objects is told at the line of the field, as what is wrong with one of them is.
#![allow(clippy::unwrap_used)]

use compile::Options;
use plane::Plane;
use world::{Change, Settings};

const MANIFEST: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  ports: [{name: http, port: 9080}]
---
apiVersion: delivery.pointsman.dev/v1alpha1
kind: DeploymentIntent
metadata: {name: one, namespace: shop}
spec:
  attach:
    routes:
    - checkout
  analysis:
    profiles: [envoy-default, nope]
  service:
    ports: [9080, 80]
    name: reviews
---
apiVersion: delivery.pointsman.dev/v1alpha1
kind: DeploymentIntent
metadata: {name: two, namespace: shop}
spec:
  service: {name: rewievs}
---
apiVersion: delivery.pointsman.dev/v1alpha1
kind: DeploymentIntent
metadata: {name: three, namespace: shop}
spec:
  historyLimit: 5
  service: {name: reviews}
";

#[test]
fn an_expression_that_envoy_would_refuse_is_told_before_there_is_a_run() {
    let manifest = |regex: &str| {
        format!(
            "apiVersion: delivery.pointsman.dev/v1alpha1\nkind: DeploymentIntent\nmetadata: {{name: a}}\nspec:\n  \
             service: {{name: a}}\n  strategy:\n    type: BlueGreen\n    blueGreen:\n      preview:\n        match:\n        \
             - header: {{name: x, regex: \"{regex}\"}}\n"
        )
    };
    let said = |regex: &str| {
        let parsed = source::text::parse("a.yaml", manifest(regex).as_bytes(), &source::Options::default());
        let mut plane = Plane::new(Settings::default(), Options::default());
        plane.apply(parsed.objects.into_iter().map(Change::Apply), parsed.problems);
        let of_regex = plane.problems().into_iter().filter(|problem| problem.field.ends_with("regex"));
        of_regex.map(|problem| (problem.field.clone(), problem.location.unwrap().to_string())).collect::<Vec<_>>()
    };
    assert_eq!(said("a{30}"), []);
    let field = "spec.strategy.blueGreen.preview.match[0].header.regex";
    assert_eq!(said("[a-z]{500}"), [(field.to_owned(), "a.yaml:11:29".to_owned())]);
}

#[test]
fn problems_of_intents_point_at_the_field() {
    let parsed = source::text::parse("mesh.yaml", MANIFEST.as_bytes(), &source::Options::default());
    assert_eq!(parsed.problems, []);
    let mut plane = Plane::new(Settings::default(), Options::default());
    plane.apply(parsed.objects.into_iter().map(Change::Apply), parsed.problems);
    let said = plane.check(0).into_iter().map(|problem| {
        let place = problem.location.unwrap().to_string();
        (problem.object.unwrap().name.to_string(), problem.field, place)
    });
    let said: Vec<_> = said.collect();
    for (name, field, place) in [
        ("one", "spec.attach.routes[0]", "mesh.yaml:13:7"),
        ("one", "spec.analysis.profiles[1]", "mesh.yaml:15:31"),
        ("one", "spec.service.ports[1]", "mesh.yaml:17:19"),
        // Nothing is written there: the nearest field around it.
        ("one", "spec.revisions.label", "mesh.yaml:7:1"),
        ("two", "spec.service.name", "mesh.yaml:24:13"),
        ("three", "spec.service", "mesh.yaml:31:3"),
    ] {
        let expected = (name.to_owned(), field.to_owned(), place.to_owned());
        assert!(said.contains(&expected), "{expected:?} in {said:#?}");
    }
}
