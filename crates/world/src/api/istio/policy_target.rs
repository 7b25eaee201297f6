//! What a policy can be attached to instead of selecting workloads.

use serde::Deserialize;

/// `targetRefs[]` of a policy: an object of the Gateway API, or a Service behind a waypoint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PolicyTarget {
    pub group: String,
    pub kind: String,
    pub name: String,
    pub namespace: Option<String>,
}
