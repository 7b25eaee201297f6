//! What happened on a stream, for logs, metrics and the roster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::ResourceType;
use snapshot::{Name, Version};

use crate::{HeldBack, Node, Wait};

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The first request said who the client is.
    Identified(Arc<Node>),
    /// The client's context parameters changed; it is the same client (rule P-09).
    ParametersChanged(Arc<Node>),
    /// The set of subscribed resources changed.
    Subscribed {
        /// Of this type.
        resource_type: ResourceType,
        /// Whether it holds everything.
        wildcard: bool,
        /// Names that it holds besides.
        names: usize,
    },
    /// A type was asked for that is not known here; the stream lives on (rule P-05).
    UnknownType {
        /// As it was asked.
        type_url: String,
    },
    /// A response was handed out; heartbeats of resources with a TTL say nothing new and take nothing away.
    Sent {
        /// Type of its resources.
        resource_type: ResourceType,
        /// Its nonce.
        nonce: String,
        /// Its version.
        version: Version,
        /// New and changed resources in it.
        changed: usize,
        /// Resources that it takes away.
        removed: usize,
        /// Bytes of the message.
        bytes: usize,
    },
    /// The client accepted a response.
    Accepted {
        /// Type of its resources.
        resource_type: ResourceType,
        /// Its nonce.
        nonce: String,
        /// Its version.
        version: Version,
        /// From being handed out to its acknowledgement.
        after: Duration,
    },
    /// The client rejected a response.
    Rejected(Rejection),
    /// Something in a rejected response was found to be at fault; it alone is held back from now on.
    Isolated(HeldBack),
    /// Something that was found to be at fault has changed or is gone, so it is not held back any more. Should its new
    /// form be refused, too, it is isolated once more.
    Cleared(HeldBack),
    /// The client refused so much in a row that nothing more of what it refused is tried; it stays held back.
    SearchGivenUp {
        /// Type of the resources.
        resource_type: ResourceType,
        /// Resources and parts that were not tried.
        untried: usize,
    },
    /// Resources began to wait for another type.
    Waiting {
        /// Their type.
        resource_type: ResourceType,
        /// How many began.
        count: usize,
        /// What the first of them waits for.
        wait: Wait,
    },
    /// Resources waited as long as they may and went on without what they waited for.
    WaitExpired {
        /// Their type.
        resource_type: ResourceType,
        /// How many.
        count: usize,
        /// What the first of them waited for.
        wait: Wait,
    },
    /// A response was not acknowledged in time; it no longer keeps the next one back.
    Overdue {
        /// Type of its resources.
        resource_type: ResourceType,
        /// Its nonce.
        nonce: String,
    },
}

/// A response that the client rejected (rule P-14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Type of its resources.
    pub resource_type: ResourceType,
    /// Its nonce.
    pub nonce: String,
    /// Its version.
    pub version: Version,
    /// The client's status code.
    pub code: i32,
    /// The client's words.
    pub message: Arc<str>,
    /// When it came.
    pub at: Instant,
    /// Resources of the response that the words name; all that changed in it when there was only one; often empty.
    pub suspects: Vec<Name>,
}
