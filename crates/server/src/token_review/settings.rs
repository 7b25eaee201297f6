//! What the operator decides about asking a cluster.

use std::path::PathBuf;
use std::time::Duration;

/// Which cluster is asked about tokens, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenReviewSettings {
    /// The file that says how the API server is reached. Without it the files that `KUBECONFIG` names count, and without
    /// these what a pod is given by its cluster.
    pub kubeconfig: Option<PathBuf>,
    /// Which context of the file counts; the file's current one when absent.
    pub context: Option<String>,
    /// The audience that tokens must be for.
    pub audience: String,
    /// How long a question may take, from when it comes up.
    pub patience: Duration,
    /// How long an answer that proves something is remembered, at most, and never beyond the token's end.
    pub proof_kept: Duration,
}

impl TokenReviewSettings {
    /// The cluster that the environment names, for this audience: five seconds for a question, a minute for an answer.
    pub fn new(audience: &str) -> Self {
        Self {
            kubeconfig: None,
            context: None,
            audience: audience.to_owned(),
            patience: Duration::from_secs(5),
            proof_kept: Duration::from_secs(60),
        }
    }
}
