//! What is written of an intent or a profile: all that is not said by leaving it out.

use serde::Serialize;
use serde_json::{Map, Value, json};
use world::Severity;
use world::api::delivery::{
    AnalysisProfile, BlueGreen, Canary, DeploymentIntent, GateSpec, HeaderRoute, MetricSpec, MirrorStep, Rolling,
};

use crate::text::{self, Options};

/// An object as it is to be applied, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `Canary shop/reviews (canary.yaml:1)`.
    pub origin: String,
    /// `apiVersion`, `kind`, `metadata` and `spec`, in this order.
    pub object: Value,
}

impl Manifest {
    pub(super) fn intent(origin: String, namespace: &str, name: &str, intent: &DeploymentIntent) -> Self {
        let mut spec = beside(json!(intent), DeploymentIntent::default());
        let strategy = spec.get_mut("strategy").and_then(Value::as_object_mut);
        if let Some(strategy) = strategy {
            each(strategy, "canary", |canary| {
                let steps = canary["steps"].clone();
                *canary = beside(canary.take(), Canary::default());
                canary["steps"] = steps;
                for step in canary["steps"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                    each(step, "headerRoute", |route| *route = beside(route.take(), HeaderRoute::default()));
                    each(step, "mirror", |mirror| *mirror = beside(mirror.take(), MirrorStep::default()));
                }
            });
            each(strategy, "blueGreen", |block| *block = beside(block.take(), BlueGreen::default()));
            each(strategy, "rolling", |block| *block = beside(block.take(), Rolling::default()));
        }
        for gate in spec.get_mut("gates").and_then(Value::as_array_mut).into_iter().flatten() {
            let phase = gate["phase"].clone();
            *gate = beside(gate.take(), GateSpec::default());
            gate["phase"] = phase;
        }
        Self::new(origin, "DeploymentIntent", namespace, name, spec)
    }

    pub(super) fn profile(origin: String, namespace: &str, name: &str, profile: &AnalysisProfile) -> Self {
        let metrics = profile.metrics.iter().map(|metric| {
            let mut written = Map::new();
            written.insert("name".to_owned(), json!(metric.name));
            written.insert("kind".to_owned(), json!(metric.kind));
            if let Value::Object(rest) = beside(json!(metric), MetricSpec::default()) {
                written.extend(rest);
            }
            Value::Object(written)
        });
        let spec = json!({"metrics": metrics.collect::<Vec<_>>()});
        Self::new(origin, "AnalysisProfile", namespace, name, spec)
    }

    /// Fields that are wrong by themselves, with what is wrong about them.
    pub(super) fn errors(&self) -> Vec<(String, String)> {
        let parsed = text::parse("", self.object.to_string().as_bytes(), &Options::default());
        let errors = parsed.problems.into_iter().filter(|problem| problem.severity == Severity::Error);
        errors.map(|problem| (problem.field, problem.message)).collect()
    }

    fn new(origin: String, kind: &str, namespace: &str, name: &str, spec: Value) -> Self {
        let object = json!({
            "apiVersion": "delivery.pointsman.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        });
        Self { origin, object }
    }
}

fn each(fields: &mut Map<String, Value>, name: &str, change: impl FnOnce(&mut Value)) {
    if let Some(value) = fields.get_mut(name) {
        change(value);
    }
}

/// What `value` says beside the default of its type.
fn beside<T: Serialize>(value: Value, default: T) -> Value {
    without(value, &json!(default)).unwrap_or_else(|| json!({}))
}

fn without(value: Value, default: &Value) -> Option<Value> {
    match (value, default) {
        (value, default) if value == *default => None,
        (Value::Object(fields), Value::Object(defaults)) => {
            let rest = fields.into_iter().filter_map(|(name, value)| {
                let rest = without(value, defaults.get(&name).unwrap_or(&Value::Null))?;
                Some((name, rest))
            });
            Some(Value::Object(rest.collect()))
        }
        (value, _) => Some(value),
    }
}
