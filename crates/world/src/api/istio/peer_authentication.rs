//! `PeerAuthentication`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::WorkloadSelector;

/// `PeerAuthentication.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PeerAuthentication {
    /// The workloads that it is for; all of the namespace without it, and of the mesh in the root namespace.
    pub selector: Option<WorkloadSelector>,
    pub mtls: Option<PeerMtls>,
    /// By the workload's port, a decimal number. Only together with a selector.
    pub port_level_mtls: BTreeMap<String, PeerMtls>,
}

/// `mtls`, and each value of `portLevelMtls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PeerMtls {
    pub mode: PeerMtlsMode,
}

/// What a workload takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PeerMtlsMode {
    /// What the level above says.
    #[default]
    Unset,
    /// Plaintext only; TLS goes to the workload as it is.
    Disable,
    /// Both.
    Permissive,
    /// Only connections whose client proves an identity of the mesh.
    Strict,
}
