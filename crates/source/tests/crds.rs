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

const FILES: [&str; 3] = ["deployment_intent.txt", "delivery.txt", "rate_limit_policy.txt"];

/// Spellings that files may use beside the one that an API server takes.
const NARROWER: [&str; 1] = ["steps of every kind"];

/// What only a look at the meaning of a value finds: Envoy's messages, the writer of a run, what a query names.
const UNSEEN: [&str; 3] = ["a switch that is none", "a run", "paths and variables that are none"];

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

/// What an API server refuses in a definition, beside what [`the_schemas_are_structural_and_described`] looks at.
#[test]
fn the_extensions_of_the_schemas_are_those_that_an_api_server_takes() {
    let known = ["int-or-string", "preserve-unknown-fields", "list-type", "list-map-keys", "map-type", "validations"];
    let mut rules = 0;
    for crd in source::crds::all() {
        let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        for (path, node) in nodes(schema) {
            for key in node.keys().filter_map(|key| key.strip_prefix("x-kubernetes-")) {
                assert!(known.contains(&key), "{path}: x-kubernetes-{key}");
            }
            let extension = |name: &str| node.get(&format!("x-kubernetes-{name}"));
            for flag in ["int-or-string", "preserve-unknown-fields"] {
                assert!(extension(flag).is_none_or(|value| *value == true), "{path}: {flag} can only be true");
            }
            let alternatives = serde_json::json!([{"type": "integer"}, {"type": "string"}]);
            assert!(
                extension("int-or-string").is_none()
                    || (!node.contains_key("type") && node.get("anyOf").is_none_or(|any| *any == alternatives)),
                "{path}: a number or a text has no type, and no other alternatives: {node:?}"
            );
            // A list has one schema for all of its items; fields are named or free, never both.
            assert!(node.get("type") != Some(&"array".into()) || node["items"].is_object(), "{path}: items");
            assert!(!(node.contains_key("properties") && node.contains_key("additionalProperties")), "{path}");
            if let Some(list_type) = extension("list-type") {
                assert_eq!(node["type"], "array", "{path}: x-kubernetes-list-type");
                let items = &node["items"];
                let is_scalar = !["object", "array"].contains(&items["type"].as_str().unwrap());
                match list_type.as_str().unwrap() {
                    "atomic" => {}
                    "set" => assert!(is_scalar, "{path}: a set of {items}"),
                    "map" => {
                        for key in extension("list-map-keys").unwrap().as_array().unwrap() {
                            let field = &items["properties"][key.as_str().unwrap()];
                            let is_required = items["required"].as_array().is_some_and(|names| names.contains(key));
                            assert!(!["object", "array"].contains(&field["type"].as_str().unwrap()), "{path}: {key}");
                            assert!(is_required || field.get("default").is_some(), "{path}: {key} may be absent");
                        }
                    }
                    other => panic!("{path}: a list is no {other}"),
                }
            }
            for rule in extension("validations").and_then(Value::as_array).into_iter().flatten() {
                rules += 1;
                let known = ["rule", "message"];
                assert!(rule.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{path}: {rule}");
                let message = rule["message"].as_str().unwrap();
                assert!(!message.is_empty() && !message.contains('\n') && message.len() <= 2048, "{path}: {message}");
                assert!(cel::Program::compile(rule["rule"].as_str().unwrap()).is_ok(), "{path}: {rule}");
            }
            if let Some(words) = node.get("enum").and_then(Value::as_array) {
                let different: BTreeSet<_> = words.iter().map(ToString::to_string).collect();
                assert!(!words.is_empty() && different.len() == words.len(), "{path}: {words:?}");
            }
        }
    }
    assert!(rules > 20, "{rules} rules");
}
