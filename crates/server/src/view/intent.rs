//! Intents and what belongs to them, as the admin API shows them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Problem, Rollout};

/// `GET /api/v1/intents`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Intents {
    /// Ordered by kind, namespace and name.
    pub objects: Vec<IntentObject>,
}

/// `GET /api/v1/intents/{kind}/{namespace}/{name}`: a DeploymentIntent, AnalysisProfile, Freeze or RolloutRun.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntentObject {
    /// What it is.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Rises whenever it says something new.
    pub generation: i64,
    /// Whether it was applied through the API, so that the API may change and delete it.
    pub applied: bool,
    /// Where it was read otherwise, as `file:line`; empty for runs, which are written by the server.
    pub place: String,
    /// The object with every default written out.
    pub manifest: Value,
    /// What is wrong with it, in order.
    pub problems: Vec<Problem>,
    /// What becomes of it: of a DeploymentIntent, and of its current run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// One event of `GET /api/v1/intents/events`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntentEvent {
    /// What has happened.
    pub change: IntentChange,
    /// The object as it is now, of a deleted one as it was told last; absent for `synced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<IntentObject>,
}

/// What has happened to an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentChange {
    /// It is there: at first all that there are, later those that are new.
    Added,
    /// It, or what becomes of it, is different.
    Modified,
    /// It is gone.
    Deleted,
    /// All that there were at the beginning have been told.
    #[default]
    Synced,
}

impl IntentChange {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            IntentChange::Added => "added",
            IntentChange::Modified => "modified",
            IntentChange::Deleted => "deleted",
            IntentChange::Synced => "synced",
        }
    }
}

/// The answer to objects that were applied or deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntentsTaken {
    /// One for each object, in the order of the document.
    pub objects: Vec<IntentTaken>,
    /// What is doubtful about them, in the order of the document.
    pub warnings: Vec<Problem>,
}

/// An object that was applied or deleted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IntentTaken {
    /// What it is.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Rises whenever it says something new; of a deleted object the last one.
    pub generation: i64,
    /// `created`, `changed`, `unchanged` or `deleted`.
    pub effect: String,
}
