//! `RequestAuthentication`.

use serde::Deserialize;

use super::{PolicyTarget, WorkloadSelector};

/// `RequestAuthentication.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct RequestAuthentication {
    pub selector: Option<WorkloadSelector>,
    pub target_refs: Vec<PolicyTarget>,
}
