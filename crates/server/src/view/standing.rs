//! Objects and nodes, each seen from the other.

use serde::{Deserialize, Serialize};

use super::{Node, Object, ResourceState};

/// All that is known of an object in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectState {
    /// Every connected node that it concerns has accepted all that came of its newest generation.
    Accepted,
    /// Some have still to get or to answer something.
    Pending,
    /// Some refuse something of it.
    Rejected,
    /// It concerns no connected node.
    Unused,
    /// It could not be read.
    Unread,
}

impl ObjectState {
    /// All of them, for those who ask for one by name.
    pub const ALL: [ObjectState; 5] =
        [ObjectState::Accepted, ObjectState::Pending, ObjectState::Rejected, ObjectState::Unused, ObjectState::Unread];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectState::Accepted => "accepted",
            ObjectState::Pending => "pending",
            ObjectState::Rejected => "rejected",
            ObjectState::Unused => "unused",
            ObjectState::Unread => "unread",
        }
    }
}

/// `GET /api/v1/objects/{kind}/{namespace}/{name}`: an object with its nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectNodes {
    /// The object.
    #[serde(flatten)]
    pub object: Object,
    /// The nodes that it concerns, ordered by id.
    pub nodes: Vec<ObjectNode>,
    /// Ids of nodes whose streams did not answer in time, ordered: nothing is said about them.
    pub silent_nodes: Vec<String>,
    /// When there are more nodes: the value of `after` that asks for them. Empty otherwise.
    pub next: String,
}

/// How a node stands to an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectNode {
    /// The node's id.
    pub node_id: String,
    /// Whether it has accepted all that came of the object's newest generation.
    pub state: ResourceState,
    /// The generation of the object that the node runs: the oldest of those of its resources; 0 when it runs nothing
    /// of the object.
    pub generation: i64,
    /// What it has not accepted and why, in words; at most 8.
    pub why: Vec<String>,
}

/// `GET /api/v1/nodes/{id}`: a node with the objects that concern it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeObjects {
    /// The node, once for each of its connections; one that left is told of for a while.
    pub connections: Vec<Node>,
    /// The objects, ordered by kind, namespace and name; empty when it is not connected.
    pub objects: Vec<NodeObject>,
}

/// How an object stands at a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeObject {
    /// The object as `kind/namespace/name`.
    pub object: String,
    /// The object's newest generation; 0 when it is gone and the node still holds something of it.
    pub newest_generation: i64,
    /// The generation that the node runs.
    pub generation: i64,
    /// Whether it has accepted all that came of the newest.
    pub state: ResourceState,
    /// What it has not accepted and why, in words; at most 8.
    pub why: Vec<String>,
}

/// `GET /api/v1/wait`: whether something is so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// Whether it is.
    pub met: bool,
    /// What is, in a sentence.
    pub summary: String,
    /// Who is missing and why, one line each; at most 20, the last of which says how many more there are.
    pub missing: Vec<String>,
    /// What is wrong with the object, one text each.
    pub problems: Vec<String>,
}
