//! What Flagger's and Argo's objects come to, word for word, and that it is valid.
//!
//! `UPDATE_EXPECTED=1 cargo test` writes what comes now; read the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};
use source::import::{Imported, Weight, import};
use source::text::{Options, parse};
use world::Severity;

fn imported(text: &str) -> Imported {
    import(&[("in.yaml".to_owned(), text.as_bytes().to_vec())])
}

/// What `pointsman check` would say against the manifests by themselves.
fn errors(imported: &Imported) -> Vec<String> {
    let mut errors = Vec::new();
    for manifest in &imported.manifests {
        let text = serde_saphyr::to_string(&manifest.object).unwrap();
        let parsed = parse("out.yaml", text.as_bytes(), &Options::default());
        let wrong = parsed.problems.iter().filter(|problem| problem.severity == Severity::Error);
        errors.extend(wrong.map(|problem| format!("{problem}\n{text}")));
        if parsed.objects.len() != 1 {
            errors.push(format!("no object in {text}"));
        }
    }
    errors
}

fn check(name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import");
    let text = std::fs::read_to_string(directory.join(format!("{name}.yaml"))).unwrap();
    let imported = imported(&text);
    assert_eq!(errors(&imported), Vec::<String>::new());
    let mut said = String::new();
    for manifest in &imported.manifests {
        let yaml = serde_saphyr::to_string(&manifest.object).unwrap();
        writeln!(said, "---\n# From {}.\n{}", manifest.origin, yaml.trim_end()).unwrap();
    }
    said.push_str("=== said\n");
    for remark in &imported.remarks {
        writeln!(said, "{remark}").unwrap();
    }
    let path = directory.join(format!("{name}.expected"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &said).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), said, "{name}");
}

#[test]
fn canaries_become_intents() {
    check("flagger");
}

#[test]
fn rollouts_become_intents() {
    check("argo");
}

fn canary(spec: Value) -> Imported {
    let object =
        json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "a"}, "spec": spec});
    imported(&object.to_string())
}

/// No field of a foreign object vanishes: each is in the intent, or in a remark.
#[test]
fn a_field_that_nobody_knows_is_remarked_on_wherever_it_stands() {
    for pointer in
        ["", "/service", "/analysis", "/analysis/metrics/0", "/analysis/webhooks/0", "/analysis/sessionAffinity"]
    {
        let mut spec = json!({
            "targetRef": {"name": "a"},
            "service": {"port": 80},
            "analysis": {
                "stepWeight": 50,
                "metrics": [{"name": "request-success-rate"}],
                "webhooks": [{"type": "confirm-rollout", "url": "https://a"}],
                "sessionAffinity": {"cookieName": "a"},
            },
        });
        spec.pointer_mut(pointer).unwrap()["novel"] = json!(1);
        let imported = canary(spec);
        let found = imported.remarks.iter().any(|r| r.weight == Weight::Lost && r.field.ends_with(".novel"));
        assert!(found, "{pointer}: {:#?}", imported.remarks);
        assert_eq!(errors(&imported), Vec::<String>::new());
    }
}

#[test]
fn weights_pass_to_the_end_whatever_the_stride() {
    for (step, max) in [(1, 100), (3, 50), (7, 100), (50, 20), (100, 100), (20, 60)] {
        let spec = json!({"targetRef": {"name": "a"}, "analysis": {"stepWeight": step, "maxWeight": max}});
        let imported = canary(spec);
        assert_eq!(errors(&imported), Vec::<String>::new(), "{step} up to {max}");
    }
}

#[test]
fn nonsense_is_remarked_on_and_harms_nothing() {
    for spec in [
        json!({}),
        json!(5),
        json!({"targetRef": 5, "service": [], "analysis": "x"}),
        json!({"targetRef": {"name": "a"}, "analysis": {"interval": "often", "threshold": -1, "stepWeights": ["a", 10]}}),
        json!({"targetRef": {"name": "a"}, "analysis": {"stepWeight": -5, "mirror": "yes", "iterations": 1e30}}),
        json!({"targetRef": {"name": "a"}, "analysis": {"metrics": [{}, {"name": "request-duration", "thresholdRange": {"max": -1}}]}}),
    ] {
        assert!(!canary(spec.clone()).remarks.is_empty(), "{spec}");
    }
    for text in ["", "{", "a: [", "- 1\n- 2", "\u{0}", "kind: Canary\napiVersion: flagger.app/v1beta1"] {
        import(&[("x".to_owned(), text.as_bytes().to_vec())]);
    }
    assert!(!import(&[("x".to_owned(), vec![0xff, 0xfe])]).remarks.is_empty());
}
