//! `RolloutRun`.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{Assignment, Attach, IntentProtocol, ServiceSelector, Split, Weight};
use crate::Protocol;
use crate::api::schema;

/// An assignment is a run's own note of what is in force, which nobody else writes.
fn anything(_: &mut SchemaGenerator) -> Schema {
    schema::anything()
}

/// `RolloutRun.spec`: one attempt to carry an intent out. Written by Pointsman alone; but for the assignment it never
/// changes. The object's generation is the assignment's version, so that who has accepted the one is known by the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutRun {
    /// The name of the DeploymentIntent in the same namespace.
    pub intent: String,
    /// Its generation when the run began.
    pub intent_generation: i64,
    /// Whose traffic moves; with the namespace.
    pub service: ServiceSelector,
    /// Which clients and routes.
    pub attach: Attach,
    /// What the ports carry.
    pub protocol: IntentProtocol,
    /// The label whose values are the revisions.
    pub label: String,
    /// From this revision.
    pub stable: String,
    /// To this one.
    pub candidate: String,
    /// Counted from 1; retries raise it.
    pub attempt: u32,
    /// Clients of the service send the server a log of their requests, by which the run is judged.
    pub access_log: bool,
    /// What is in force; none before the run has anything to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub assignment: Option<Assignment>,
}

impl RolloutRun {
    /// Whether routes divide the requests to a port that carries this, rather than endpoints its connections. A port that
    /// declares nothing has both.
    pub fn divides_requests(&self, protocol: Protocol) -> bool {
        match (self.assignment.as_ref().map(|assignment| &assignment.split), protocol, self.protocol) {
            (None | Some(Split::Endpoints(_)), _, _) | (_, _, IntentProtocol::Tcp) => false,
            (Some(Split::Weights(_)), Protocol::Auto, _) => true,
            (Some(Split::Weights(_)), protocol, _) => protocol.is_http(),
        }
    }
}

/// `RolloutRun.status`: where the attempt stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RunStatus {
    /// The phase in one word, such as `Preparing` or `RolledBack`.
    pub phase: String,
    /// The step's index, while it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// What the candidate is configured to take.
    pub weight: Weight,
    /// What every concerned node is known to have accepted.
    pub acknowledged_weight: Weight,
    /// Why it is held, or ended; empty when it goes on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it began and ended, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
}
