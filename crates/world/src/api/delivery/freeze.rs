//! `Freeze`.

use crate::api::schema::{TIME, rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `Freeze.spec`: while it holds, no run advances; rolling back stays allowed. It concerns the services of its own
/// namespace, those of every namespace when it is in the root namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "!has(self.from) || !has(self.until) || timestamp(self.from) < timestamp(self.until)",
            "the freeze ends before it begins",
        ),
    ]))]
pub struct Freeze {
    /// A switch: false lifts the freeze whatever the times say.
    pub active: bool,
    /// From when on, as RFC 3339 in UTC (`2026-12-24T00:00:00Z`); from now on without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[schemars(regex(pattern = TIME))]
    pub from: Option<String>,
    /// Until when; for ever without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[schemars(regex(pattern = TIME))]
    pub until: Option<String>,
    /// Names of the services that it concerns; all of them when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Why, shown wherever a run is held back by it.
    pub reason: String,
}

impl Default for Freeze {
    fn default() -> Self {
        Self { active: true, from: None, until: None, services: Vec::new(), reason: String::new() }
    }
}
