//! What the admin API answers, as values: written here, read again by the command line.
//!
//! Field names are snake_case and stable: fields may be added, none is renamed. Texts that have nothing to say are
//! empty, numbers that are not known are 0, and lists are in the order that their documentation states.

mod authority;
mod change;
mod event;
mod intent;
mod load;
mod rollout;
mod standing;
mod time;

pub use authority::{Authority, AuthorityRequest, LackingNode, Root};
pub use change::{Change, ChangedObject, Changes, ObjectChange, ResourceName};
pub use event::{Event, EventKind};
pub use intent::{IntentChange, IntentEvent, IntentObject, IntentTaken, Intents, IntentsTaken};
pub use load::{ClusterLoad, EndpointLoad, LoadSettings, Loads, NodeLoad, PlaceLoad};
pub use rollout::{
    ObservedShare, RevisionEndpoints, Rollout, RolloutAction, RolloutCondition, RolloutEvent, RolloutHold,
    RolloutNodes, RolloutPassage, RolloutPast, RolloutRefusal, RolloutRequest, RolloutWeights, Rollouts,
};
pub use standing::{NodeObject, NodeObjects, ObjectNode, ObjectNodes, ObjectState, Wait};
pub use time::{Timestamp, TimestampError};

use serde::{Deserialize, Serialize};

/// `GET /api/v1/nodes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Nodes {
    /// One entry for each node on each connection, ordered by id, then by the time of the connection.
    pub nodes: Vec<Node>,
    /// When there are more: the value of `after` that asks for them. Empty otherwise.
    #[serde(default)]
    pub next: String,
}

/// An xDS client on one connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The id that the client gave.
    pub id: String,
    /// The cluster that the client gave; may be empty.
    pub cluster: String,
    /// The peer's address, such as `10.0.0.7:41022`, or `unix:` for a client on a Unix socket.
    pub address: String,
    /// The kind of client, such as `envoy` or `gRPC Go`.
    pub user_agent_name: String,
    /// The client's version, such as `1.40.0`.
    pub user_agent_version: String,
    /// The version of the proxy distribution, such as Istio's; empty when the client states none.
    pub distribution_version: String,
    /// Extensions that the client was built without, by name: what names them is left out for it.
    #[serde(default)]
    pub missing_extensions: Vec<String>,
    /// When the connection was opened.
    pub connected_since: Timestamp,
    /// Whether the node runs all that it is to have, as far as it says.
    pub sync: Sync,
    /// The generation of the configuration that it is to have: the last change that concerned it.
    #[serde(default)]
    pub generation: u64,
    /// The newest generation of which it was sent everything and has answered all of it; 0 for none. Of a node with
    /// several streams the oldest one's.
    #[serde(default)]
    pub accepted_generation: u64,
    /// Ports that are gone and that it keeps open because others may still use them, or that others keep open because of
    /// it, in words.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// When it left, and why; absent while it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disconnected: Option<Disconnected>,
    /// One entry for each type that the node has asked for, in the order of their streams.
    pub subscriptions: Vec<Subscription>,
}

/// The end of a node's last stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disconnected {
    /// When.
    pub since: Timestamp,
    /// Why, in words.
    pub reason: String,
}

/// How far a node has got with what it is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// Everything was sent and accepted.
    Synced,
    /// Something was not sent yet, or not answered yet.
    Pending,
    /// Something that it is to have was refused.
    Rejected,
    /// The stream did not answer in time.
    Unknown,
    /// It left. What it accepted last is what it goes on with, if it still runs.
    Disconnected,
}

/// What a node asked for of one type, and how far it has got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// Short name of the type: `cds`, `eds`, `lds`, `rds`, ...
    pub r#type: String,
    /// Type URL.
    pub type_url: String,
    /// The service of the stream: `ads`, or the short name of its only type.
    pub service: String,
    /// The form of the protocol: `sotw` or `delta`.
    pub variant: String,
    /// Whether all resources of the type are subscribed.
    pub wildcard: bool,
    /// How many resources are subscribed by name.
    pub subscribed_count: usize,
    /// The version sent last; empty before the first response.
    pub sent_version: String,
    /// The version accepted last; empty before the first acceptance.
    pub accepted_version: String,
    /// How many resources the node was sent last and refused.
    #[serde(default)]
    pub refused_count: usize,
    /// What resources wait for, in words, ordered by resource.
    pub waiting: Vec<String>,
    /// The last rejection; absent when nothing was ever rejected on the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rejection: Option<Rejection>,
}

/// A refusal (NACK) by a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// The version that was refused.
    pub version: String,
    /// The node's own words.
    pub message: String,
    /// When it arrived.
    pub time: Timestamp,
}

/// `GET /api/v1/nodes/{id}/config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// The node's id.
    pub node_id: String,
    /// What was sent, ordered by type URL and name, then by the stream it was sent on.
    pub resources: Vec<Resource>,
}

/// One resource as it was sent to one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Short name of the type.
    pub r#type: String,
    /// Type URL.
    pub type_url: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether the node has taken it.
    pub state: ResourceState,
    /// The node's words when it has refused it; empty otherwise.
    pub rejection: String,
    /// The objects that it came from, as `kind/namespace/name`, in order.
    pub origins: Vec<String>,
    /// The resource as JSON with `@type`; what Envoy's API marks as sensitive is `[redacted]`.
    pub body: serde_json::Value,
}

/// Whether a node has taken a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceState {
    /// Accepted.
    Accepted,
    /// Sent and not answered yet, or to be sent.
    Pending,
    /// In a response that was refused. The node goes on with the version before it, if there was one; some clients
    /// take the good resources of a refused response all the same.
    Rejected,
}

/// `GET /api/v1/objects`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Objects {
    /// Ordered by kind, namespace and name.
    pub objects: Vec<Object>,
    /// Ids of nodes whose streams did not answer in time, ordered: the lists of nodes say nothing about them.
    pub silent_nodes: Vec<String>,
    /// When there are more: the value of `after` that asks for them. Empty otherwise.
    #[serde(default)]
    pub next: String,
}

/// An object that somebody wrote, and where it has arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its kind, such as `VirtualService`.
    pub kind: String,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.generation`; where the source has none, how many times the object has said something new since the
    /// server was started. 0 when it could not be read.
    pub generation: i64,
    /// All that is known of it in one word.
    pub state: ObjectState,
    /// The file that it was read from; empty when it came from elsewhere, or could not be read.
    pub file: String,
    /// The line in that file, from 1; 0 when not known.
    pub line: u32,
    /// What is wrong with it, in order.
    pub problems: Vec<Problem>,
    /// Ports of workloads that it no longer leads to and that stay open because nodes may still use them, in words.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// How many nodes it concerns that have accepted all that came of it.
    #[serde(default)]
    pub accepted: usize,
    /// How many nodes it concerns that have still to get or to answer something.
    #[serde(default)]
    pub pending: usize,
    /// How many nodes have refused something that came of it.
    #[serde(default)]
    pub rejected: usize,
    /// Ids of the first of the nodes that have accepted it, ordered.
    pub accepted_nodes: Vec<String>,
    /// Ids of the first of the nodes that have still to get or to answer something, ordered.
    pub pending_nodes: Vec<String>,
    /// The first of the nodes that have refused something that came of it, ordered by id.
    pub rejected_nodes: Vec<NodeRejection>,
}

/// A refusal, seen from an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRejection {
    /// Who refused.
    pub node_id: String,
    /// Type URL of the resource that was refused.
    pub type_url: String,
    /// Its name.
    pub resource: String,
    /// Its version.
    pub version: String,
    /// The node's own words.
    pub message: String,
    /// When the node refused it.
    pub time: Timestamp,
}

/// `GET /api/v1/problems`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Problems {
    /// Errors first.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `error` (part of the object has no effect, or traffic is refused because of it) or `warning`.
    pub severity: String,
    /// The object as `kind/namespace/name`; empty when none could be read.
    pub object: String,
    /// Path of the field, such as `spec.http[0].route[1].weight`; empty for the object as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What is done instead.
    pub consequence: String,
    /// A way out; may have several lines, and may be empty.
    pub hint: String,
    /// The file that the object was read from; empty when it came from elsewhere.
    pub file: String,
    /// The line in that file, from 1; 0 when not known.
    pub line: u32,
}

/// What every answer with a status of 400 or more consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What was asked for and why it failed.
    pub error: String,
    /// A way out.
    pub hint: String,
    /// Of objects that were refused: all that is wrong with them, and what is doubtful.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl From<&world::Problem> for Problem {
    fn from(problem: &world::Problem) -> Self {
        Self {
            severity: match problem.severity {
                world::Severity::Error => "error".to_owned(),
                world::Severity::Warning => "warning".to_owned(),
            },
            object: problem.object.as_ref().map(world::ObjectRef::path).unwrap_or_default(),
            field: problem.field.clone(),
            message: problem.message.clone(),
            consequence: problem.consequence.clone(),
            hint: problem.hint.clone(),
            file: problem.location.as_ref().map(|location| location.file.to_string()).unwrap_or_default(),
            line: problem.location.as_ref().map_or(0, |location| location.line),
        }
    }
}
