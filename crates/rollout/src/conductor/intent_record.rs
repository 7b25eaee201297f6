//! What is stored of an intent beside its runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use world::api::delivery::{DeploymentIntent, MetricSpec};

use super::{PassedOver, Seen};
use crate::{Revision, Time};

/// What a restart needs to know of an intent: what it said, where its service's traffic is when no run says so, and
/// how far its runs are counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntentRecord {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Rises with every record of the intent.
    pub sequence: u64,
    /// What it said last that could be carried out.
    pub spec: DeploymentIntent,
    /// The metrics of the profiles that it named.
    pub profiles: BTreeMap<String, Vec<MetricSpec>>,
    /// Counts what it said, from 1. Sources that are files count from 1 at every start.
    pub generation: i64,
    /// The service's namespace and name, as runs name it.
    pub service: (String, String),
    /// The label that revisions are values of, here and in what is in force; `spec` asks for another one until the run
    /// that goes on is back. Empty in records that are older than this field: what `spec` says.
    #[serde(default)]
    pub label: String,
    /// Where traffic is: the candidate of the last run that completed.
    pub stable: Option<Revision>,
    /// Revisions that completed runs left, the last first; the last ten.
    pub known_good: Vec<Revision>,
    /// Which revisions came, in order.
    pub seen: Seen,
    /// Revisions that no run begins for by itself.
    #[serde(default)]
    pub passed_over: PassedOver,
    /// The number of the last run.
    pub runs: u64,
    /// Runs up to this number were of an intent of the same name that was deleted, or of another label.
    pub retired: u64,
    /// And this was the largest version of their assignments.
    pub retired_version: u64,
    /// What is in force before the first run: everything to this revision, under this version.
    pub baseline: Option<(Revision, u64)>,
    /// The intent was deleted and nothing is in force on its account any more.
    pub is_released: bool,
    /// When it first said something that could be carried out. Not in records that are older than this field.
    #[serde(default)]
    pub came: Option<Time>,
    /// Whether what it says is carried out.
    #[serde(default)]
    pub accepted: Option<Acceptance>,
}

/// Whether what an intent says is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acceptance {
    /// Whether it is.
    pub is_accepted: bool,
    /// Why not, or `Valid`.
    pub words: String,
    /// Since when that is so.
    pub since: Option<Time>,
}

impl Acceptance {
    /// Whether both are for the same reason, whenever that began.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        (self.is_accepted, &self.words) == (other.is_accepted, &other.words)
    }
}
