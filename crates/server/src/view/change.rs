//! One change, from the file to the last acknowledgement.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// `GET /api/v1/changes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// The last 256, newest first.
    pub changes: Vec<Change>,
}

/// What changed, whom it concerned, and how long each stage took. Times are seconds since the source saw the change
/// (the first, when several were published together).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Counts changes in the life of the server, from 1.
    pub generation: u64,
    /// When it was published.
    pub time: Timestamp,
    /// The objects; at most 100.
    pub objects: Vec<ChangedObject>,
    /// How many objects there are in all.
    pub object_count: usize,
    /// The resources that are new, changed or gone, ordered by type and name; at most 100.
    pub resources: Vec<ResourceName>,
    /// Whether there may be more than those.
    pub has_more_resources: bool,
    /// Distinct snapshots that changed.
    pub audiences: usize,
    /// Streams of those audiences, when it was published; of a change of nothing but endpoints those that may ask for
    /// these.
    pub streams: usize,
    /// Of them: were sent what follows from it and accepted that, or something newer.
    pub accepted: usize,
    /// Have answered, and refuse something of what they have.
    pub rejected: usize,
    /// Had not asked for anything that it changes.
    pub unaffected: usize,
    /// Ended before.
    pub gone: usize,
    /// Have still to answer.
    pub outstanding: usize,
    /// The node that answered last; empty while none has.
    pub last_node: String,
    /// Until the server began to take it in.
    pub begun_seconds: f64,
    /// Until it was taken in.
    pub applied_seconds: f64,
    /// Until everything was compiled.
    pub compiled_seconds: f64,
    /// Until the first response left; absent before.
    pub first_sent_seconds: Option<f64>,
    /// Until the last answer so far; the last of all when nothing is outstanding.
    pub last_acknowledged_seconds: Option<f64>,
}

/// An object that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedObject {
    /// As `kind/namespace/name`.
    pub object: String,
    /// Its generation since; 0 when it is gone.
    pub generation: i64,
    /// What happened to it.
    pub change: ObjectChange,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectChange {
    /// It is new, or says something else.
    Applied,
    /// It is gone.
    Removed,
    /// Ports of workloads that it no longer leads to were held, and are closed.
    Released,
}

/// Names a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceName {
    /// Short name of the type.
    pub r#type: String,
    /// Its name.
    pub name: String,
}
