//! What Flagger's and Argo's objects come to, word for word, and that it is valid.
//!
//! `UPDATE_EXPECTED=1 cargo test` writes what comes now; read the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};
use source::import::{Imported, Weight, import};
use source::text::{Options, parse};
use world::{Problem, Severity};

fn imported(text: &str) -> Imported {
    import(&[("in.yaml".to_owned(), text.as_bytes().to_vec())])
}

/// What `pointsman check` would say against the manifests by themselves, but for variables that nothing stands for: those
/// are told as losses, and are the author's to mend.
fn errors(imported: &Imported) -> Vec<String> {
    let mut errors = Vec::new();
    let is_told = |problem: &Problem| {
        let variable = problem.message.strip_prefix("there is no variable ");
        variable.is_some_and(|name| imported.remarks.iter().any(|remark| remark.to_string().contains(name)))
    };
    for manifest in &imported.manifests {
        let text = serde_saphyr::to_string(&manifest.object).unwrap();
        let parsed = parse("out.yaml", text.as_bytes(), &Options::default());
        let wrong = parsed.problems.iter().filter(|problem| problem.severity == Severity::Error && !is_told(problem));
        errors.extend(wrong.map(|problem| format!("{problem}\n{text}")));
        if parsed.objects.len() != 1 && !parsed.problems.iter().any(is_told) {
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

fn rollout(spec: Value, others: &str) -> Imported {
    let object =
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "a"}, "spec": spec});
    imported(&format!("{object}\n{others}"))
}

fn has_lost(imported: &Imported, words: &str) -> bool {
    imported.remarks.iter().any(|remark| remark.weight == Weight::Lost && remark.to_string().contains(words))
}

fn object<'i>(imported: &'i Imported, kind: &str) -> &'i Value {
    &imported.manifests.iter().find(|manifest| manifest.object["kind"] == kind).unwrap().object["spec"]
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

/// The intent is printed all the same, for somebody to mend; but not as if it were one that works.
#[test]
fn what_would_be_refused_is_told() {
    let imported = canary(json!({"analysis": {"stepWeight": 50}}));
    assert!(has_lost(&imported, "the DeploymentIntent that is printed is refused until it is mended at spec.service"));
    assert!(!errors(&imported).is_empty());
}

#[test]
fn weights_that_fall_may_fall() {
    let imported = canary(json!({"targetRef": {"name": "a"}, "analysis": {"stepWeights": [10, 30, 20]}}));
    assert_eq!(errors(&imported), Vec::<String>::new());
    assert_eq!(object(&imported, "DeploymentIntent")["strategy"]["canary"]["allowDecrease"], true);
}

#[test]
fn a_test_whose_requests_cannot_be_told_apart_waits_for_somebody() {
    let matches = json!([{"headers": {"a": {"exact": "1"}, "b": {"exact": "2"}}}]);
    let imported = canary(json!({"targetRef": {"name": "a"}, "analysis": {"iterations": 5, "match": matches}}));
    assert!(has_lost(&imported, "no match can be said"));
    let steps = &object(&imported, "DeploymentIntent")["strategy"]["canary"]["steps"];
    assert_eq!(*steps, json!([{"pause": {}}, {"setWeight": 100}]));
}

#[test]
fn a_threshold_says_what_it_holds_for() {
    let metrics = json!([{"name": "request-success-rate", "interval": "30s", "thresholdRange": {"min": 99}}]);
    let spec = json!({"targetRef": {"name": "a"}, "analysis": {"threshold": 5, "stepWeight": 50, "metrics": metrics}});
    let said: Vec<_> = canary(spec).remarks.into_iter().map(|remark| remark.field).collect();
    assert!(said.iter().any(|field| field == "spec.analysis.threshold"), "{said:?}");
    assert!(said.iter().any(|field| field == "spec.analysis.metrics[0].interval"), "{said:?}");
}

#[test]
fn variables_of_flagger_stand_for_what_they_do_there() {
    let template = json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "MetricTemplate", "metadata": {"name": "t"},
        "spec": {
            "provider": {"type": "prometheus", "address": "http://p"},
            "query": "{{ name }} {{ target }} {{ service }} {{ namespace }} {{ interval }} {{ variables.x }}",
        },
    });
    let metric = json!({"name": "m", "templateRef": {"name": "t"}, "thresholdRange": {"max": 1},
        "templateVariables": {"x": "y"}});
    let spec = json!({
        "targetRef": {"name": "workload"}, "service": {"name": "front"},
        "analysis": {"stepWeight": 50, "metrics": [metric]},
    });
    let canary =
        json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "a"}, "spec": spec});
    let imported = imported(&format!("{canary}\n---\n{template}"));
    assert_eq!(object(&imported, "AnalysisProfile")["metrics"][0]["query"], "a workload front default 60s y");
}

#[test]
fn metrics_that_argo_only_shows_are_only_shown() {
    let metric = |name: &str| {
        json!({"name": name, "interval": "10s", "count": 3, "successCondition": "result[0] < 1",
            "provider": {"prometheus": {"address": "http://p", "query": "q"}}})
    };
    let template = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate", "metadata": {"name": "t"},
        "spec": {"metrics": [metric("errors"), metric("latency")]},
    });
    let step = |dry: &str| json!({"analysis": {"templates": [{"templateName": "t"}], "dryRun": [{"metricName": dry}]}});
    for (dry, expected) in [(".*", [true, true]), ("^err", [true, false]), ("rate", [false, false])] {
        let spec = json!({"strategy": {"canary": {"stableService": "a", "steps": [{"setWeight": 10}, step(dry)]}}});
        let imported = rollout(spec, &format!("---\n{template}"));
        let metrics = object(&imported, "AnalysisProfile")["metrics"].as_array().unwrap();
        let dry_runs: Vec<_> = metrics.iter().map(|metric| metric["dryRun"] == true).collect();
        assert_eq!(dry_runs, expected, "{dry}");
        assert_eq!(has_lost(&imported, "dryRun: no metric"), expected == [false, false], "{dry}");
    }
}

#[test]
fn what_argo_measures_otherwise_is_told() {
    let metric = |name: &str, often: Value| {
        let mut metric = json!({"name": name, "successCondition": "result < 1",
            "provider": {"web": {"url": "https://w"}}});
        metric.as_object_mut().unwrap().extend(often.as_object().unwrap().clone());
        metric
    };
    let template = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate", "metadata": {"name": "t"},
        "spec": {"metrics": [metric("once", json!({})), metric("thrice", json!({"interval": "10s", "count": 3}))]},
    });
    let analysis = json!({"templates": [{"templateName": "t"}]});
    let services = json!({"virtualServices": [{"name": "one"}, {"name": "two"}]});
    let canary = json!({"stableService": "a", "analysis": analysis, "steps": [{"setWeight": 10}],
        "trafficRouting": {"istio": services}});
    let imported = rollout(
        json!({"strategy": {"canary": canary}, "rollbackWindow": {"revisions": 12}}),
        &format!("---\n{template}"),
    );
    assert!(has_lost(&imported, "without an interval Argo measured it once"));
    assert!(has_lost(&imported, "spec.metrics[1].count: beside the steps"));
    assert!(has_lost(&imported, "spec.rollbackWindow.revisions"));
    let names = imported.remarks.iter().filter(|remark| remark.field.ends_with(".name")).count();
    assert_eq!(names, 2);
    assert!(has_lost(&rollout(json!({"replicas": 1}), ""), "there is no strategy"));
}
