//! What happened, as the event stream tells it.

use serde::{Deserialize, Serialize};

use super::{ResourceName, Timestamp};

/// One thing that happened. Fields that say nothing about it are empty or 0, and left out of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Counts events in the life of the server, from 1; 0 for what is told to one listener only.
    #[serde(skip_serializing_if = "is_zero")]
    pub id: u64,
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// The change that it belongs to: for what happens on a stream, the newest that the stream knew.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// The node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_id: String,
    /// Short name of the type of resources.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// The version of the response.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Objects as `kind/namespace/name`: those that changed, those that a rejection goes back to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// Resources: those that changed, those that a rejection is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceName>,
    /// How many: objects of a publication, new and changed resources of a response, resources that wait, workloads that
    /// hold a port.
    #[serde(skip_serializing_if = "is_nothing")]
    pub count: usize,
    /// How many resources a response takes away.
    #[serde(skip_serializing_if = "is_nothing")]
    pub removed: usize,
    /// Distinct snapshots that a publication changed.
    #[serde(skip_serializing_if = "is_nothing")]
    pub audiences: usize,
    /// Events that are gone.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// From a response being handed out until it was answered; how long a port was held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The client's words, or the reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A change was compiled and published.
    Published,
    /// A response was handed out.
    Sent,
    /// A node accepted a response.
    Accepted,
    /// A node rejected a response.
    Rejected,
    /// What a node refuses was found, and is held back from it alone.
    Isolated,
    /// What was held back is no longer.
    Cleared,
    /// A node said who it is.
    Connected,
    /// The stream of a node ended.
    Disconnected,
    /// Resources began to wait for another type.
    Waiting,
    /// Resources waited as long as they may; or a port of workloads was held as long as it may be, and was closed.
    WaitExpired,
    /// A port of workloads is gone, and stays open, because nodes may still use it.
    Held,
    /// Such a port was closed, because nobody can use it any more.
    Released,
    /// Events before this point are not told.
    Lost,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 13] = [
        EventKind::Published,
        EventKind::Sent,
        EventKind::Accepted,
        EventKind::Rejected,
        EventKind::Isolated,
        EventKind::Cleared,
        EventKind::Connected,
        EventKind::Disconnected,
        EventKind::Waiting,
        EventKind::WaitExpired,
        EventKind::Held,
        EventKind::Released,
        EventKind::Lost,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Published => "published",
            EventKind::Sent => "sent",
            EventKind::Accepted => "accepted",
            EventKind::Rejected => "rejected",
            EventKind::Isolated => "isolated",
            EventKind::Cleared => "cleared",
            EventKind::Connected => "connected",
            EventKind::Disconnected => "disconnected",
            EventKind::Waiting => "waiting",
            EventKind::WaitExpired => "wait_expired",
            EventKind::Held => "held",
            EventKind::Released => "released",
            EventKind::Lost => "lost",
        }
    }

    /// Whether there is one with every response.
    pub(crate) fn is_frequent(self) -> bool {
        match self {
            EventKind::Sent | EventKind::Accepted | EventKind::Waiting => true,
            EventKind::Published
            | EventKind::Rejected
            | EventKind::Isolated
            | EventKind::Cleared
            | EventKind::Connected
            | EventKind::Disconnected
            | EventKind::WaitExpired
            | EventKind::Held
            | EventKind::Released
            | EventKind::Lost => false,
        }
    }
}

impl Event {
    /// An event that says nothing yet.
    pub fn new(kind: EventKind) -> Self {
        Self {
            id: 0,
            time: Timestamp::default(),
            kind,
            generation: 0,
            node_id: String::new(),
            r#type: String::new(),
            version: String::new(),
            objects: Vec::new(),
            resources: Vec::new(),
            count: 0,
            removed: 0,
            audiences: 0,
            lost: 0,
            seconds: None,
            message: String::new(),
        }
    }
}

/// For reading what was left out.
impl Default for Event {
    fn default() -> Self {
        Self::new(EventKind::Lost)
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_nothing(number: &usize) -> bool {
    *number == 0
}
