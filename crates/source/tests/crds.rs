//! The definitions that an API server is given say what the validation here says.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

#[path = "crds/admission.rs"]
mod admission;

use std::collections::BTreeSet;
use std::path::Path;

use admission::{Admission, nodes};
use serde_json::Value;

fn definition(kind: &str) -> Value {
    source::crds::all().into_iter().find(|crd| crd.pointer("/spec/names/kind").unwrap() == kind).unwrap()
}

/// The cases of a file in `problems/`: name, manifest, and whether the object is refused.
fn cases(file: &str) -> Vec<(String, Value, bool)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/problems").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let cases = text.split_once("=== ").unwrap().1.split("\n=== ");
    cases
        .map(|case| {
            let (name, rest) = case.split_once('\n').unwrap();
            let (manifest, said) = rest.split_once(">>>\n").unwrap();
            let is_refused = said.lines().any(|line| line.starts_with("error: "));
            (name.to_owned(), serde_saphyr::from_str(manifest).unwrap(), is_refused)
        })
        .collect()
}

const FILES: [&str; 2] = ["deployment_intent.txt", "delivery.txt"];

/// Spellings that files may use beside the one that an API server takes.
const NARROWER: [&str; 1] = ["steps of every kind"];

/// What only a look at the meaning of a value finds: Envoy's messages, the writer of a run.
const UNSEEN: [&str; 2] = ["a switch that is none", "a run"];

#[test]
fn the_schemas_refuse_what_the_validation_refuses_and_nothing_else() {
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    for (name, object, is_refused) in FILES.into_iter().flat_map(cases) {
        let kind = object["kind"].as_str().unwrap();
        let refusals = Admission::of(&definition(kind)).refusals(&object);
        let expected = (is_refused || NARROWER.contains(&&*name)) && !UNSEEN.contains(&&*name);
        if refusals.is_empty() == expected {
            wrong.push(format!("{name}: {refusals:#?}"));
        }
        looked_at += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(looked_at > 40, "{looked_at} cases");
}

#[test]
fn every_rule_refuses_something() {
    let mut kept = BTreeSet::new();
    for crd in source::crds::all() {
        let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        for (_, node) in nodes(schema) {
            let rules = node.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
            kept.extend(rules.map(|rule| rule["message"].as_str().unwrap().to_owned()));
        }
    }
    for (_, object, _) in FILES.into_iter().flat_map(cases) {
        let admission = Admission::of(&definition(object["kind"].as_str().unwrap()));
        for broken in admission.broken(&object) {
            let (_, why) = broken.split_once(": ").unwrap();
            kept.retain(|message| !why.starts_with(&format!("{message}: Bool(false)")));
        }
    }
    assert!(kept.is_empty(), "no sample breaks: {kept:#?}");
}

#[test]
fn raw_resources_that_are_valid_pass() {
    let admission = Admission::of(&definition("XdsResource"));
    for (name, object, is_refused) in
        cases("xds_resource.txt").into_iter().filter(|(_, o, _)| o["kind"] == "XdsResource")
    {
        let refusals = admission.refusals(&object);
        assert!(is_refused || refusals.is_empty(), "{name}: {refusals:#?}");
    }
}

#[test]
fn the_schemas_are_structural_and_described() {
    for crd in source::crds::all() {
        let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        for (path, node) in nodes(schema) {
            let is_open = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
            assert!(node.contains_key("type") || is_open.iter().any(|key| node.contains_key(*key)), "{path}: {node:?}");
            for foreign in ["$ref", "oneOf", "allOf", "nullable", "title", "const"] {
                assert!(!node.contains_key(foreign), "{path}: {foreign}");
            }
            assert!(!node.contains_key("anyOf") || node.contains_key("x-kubernetes-int-or-string"), "{path}");
            let is_field = path.starts_with(".spec.") && !path.ends_with("[]") && !path.ends_with("{}");
            assert!(
                !is_field || node.contains_key("description") || path.ends_with(".@type"),
                "{path}: no description"
            );
            if let Some(default) = node.get("default") {
                let wrong = jsonschema::draft202012::new(&Value::Object(node.clone())).unwrap();
                assert!(wrong.is_valid(default), "{path}: {default}");
            }
        }
    }
}
