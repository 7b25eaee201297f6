//! CustomResourceDefinitions of our own kinds: what an API server needs to store them, and to refuse what is wrong with
//! one before anybody reads it.
//!
//! Shape, words, defaults and descriptions come from the types of [`world::api`] themselves; bounds and the rules
//! between fields stand beside the fields there. What remains for the validation of this crate alone: regular
//! expressions that compile, Envoy's own messages, and everything that needs a second object. A schema is narrower in
//! two ways: weights are numbers in it, where files may also say `"12.5%"`, and lists that rules look into have 64
//! entries at most, because an API server reckons what a rule costs from how much it may have to read.

mod structural;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use world::Kind;
use world::api::delivery::{AnalysisProfile, DEFAULT_PROFILE, DeploymentIntent, Freeze, RolloutRun, RunStatus};
use world::api::pointsman::XdsResource;
use world::api::policy::RateLimitPolicy;

/// A kind and what people see of it.
struct Definition {
    group: &'static str,
    kind: Kind,
    plural: &'static str,
    short_names: &'static [&'static str],
    /// Name, type, and path of each column that `kubectl get` shows.
    columns: &'static [(&'static str, &'static str, &'static str)],
    spec: Value,
    status: Value,
}

/// The definitions in the order of their names, as an API server takes them.
pub fn all() -> Vec<Value> {
    let definitions = [
        Definition {
            group: "delivery.pointsman.dev",
            kind: Kind::AnalysisProfile,
            plural: "analysisprofiles",
            short_names: &["approf"],
            columns: &[("Metrics", "string", ".spec.metrics[*].name")],
            spec: schema::<AnalysisProfile>(),
            status: open(),
        },
        Definition {
            group: "delivery.pointsman.dev",
            kind: Kind::DeploymentIntent,
            plural: "deploymentintents",
            short_names: &["intent"],
            columns: &[
                ("Service", "string", ".spec.service.name"),
                ("Strategy", "string", ".spec.strategy.type"),
                ("Suspended", "boolean", ".spec.suspend"),
            ],
            spec: schema::<DeploymentIntent>(),
            status: open(),
        },
        Definition {
            group: "delivery.pointsman.dev",
            kind: Kind::Freeze,
            plural: "freezes",
            short_names: &[],
            columns: &[
                ("Active", "boolean", ".spec.active"),
                ("From", "string", ".spec.from"),
                ("Until", "string", ".spec.until"),
                ("Reason", "string", ".spec.reason"),
            ],
            spec: schema::<Freeze>(),
            status: open(),
        },
        Definition {
            group: "policy.pointsman.dev",
            kind: Kind::RateLimitPolicy,
            plural: "ratelimitpolicies",
            short_names: &["rlp"],
            columns: &[("Limits", "string", ".spec.limits[*].name")],
            spec: schema::<RateLimitPolicy>(),
            status: open(),
        },
        Definition {
            group: "delivery.pointsman.dev",
            kind: Kind::RolloutRun,
            plural: "rolloutruns",
            short_names: &["run"],
            columns: &[
                ("Intent", "string", ".spec.intent"),
                ("Stable", "string", ".spec.stable"),
                ("Candidate", "string", ".spec.candidate"),
                ("Phase", "string", ".status.phase"),
                ("Weight", "number", ".status.weight"),
                ("Acknowledged", "number", ".status.acknowledgedWeight"),
                ("Reason", "string", ".status.reason"),
            ],
            spec: schema::<RolloutRun>(),
            status: schema::<RunStatus>(),
        },
        Definition {
            group: "networking.pointsman.dev",
            kind: Kind::XdsResource,
            plural: "xdsresources",
            short_names: &["xr"],
            columns: &[("Types", "string", ".spec.resources[*].@type")],
            spec: schema::<XdsResource>(),
            status: open(),
        },
    ];
    definitions.into_iter().map(Definition::object).collect()
}

/// The structural schema of one type.
fn schema<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::openapi3();
    // An API server takes no references.
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = Value::from(settings.into_generator().into_root_schema_for::<T>());
    structural::rewrite(&mut schema);
    schema
}

/// A status of which no field is promised.
fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

impl Definition {
    fn object(mut self) -> Value {
        let description = self.spec.as_object_mut().and_then(|spec| spec.shift_remove("description"));
        let columns = self.columns.iter().map(|(name, kind, path)| {
            // A key with a character that a path gives a meaning to is quoted.
            json!({"name": name, "type": kind, "jsonPath": path.replace(".@type", "['@type']")})
        });
        let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
        let kind = self.kind.as_str();
        let mut schema = json!({
            "type": "object",
            "description": description,
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": self.spec,
                "status": self.status,
            },
        });
        if self.kind == Kind::AnalysisProfile {
            let rule = format!("self.metadata.name != '{DEFAULT_PROFILE}'");
            schema["x-kubernetes-validations"] = json!([{"rule": rule, "message": "the name is not the built-in one"}]);
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{}", self.plural, self.group)},
            "spec": {
                "group": self.group,
                "names": {
                    "kind": kind,
                    "listKind": format!("{kind}List"),
                    "plural": self.plural,
                    "singular": kind.to_lowercase(),
                    "shortNames": self.short_names,
                    "categories": ["pointsman"],
                },
                "scope": "Namespaced",
                "versions": [{
                    "name": "v1alpha1",
                    "served": true,
                    "storage": true,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns.chain([age]).collect::<Vec<_>>(),
                    "schema": {"openAPIV3Schema": schema},
                }],
            },
        })
    }
}
