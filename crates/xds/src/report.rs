//! What a stream says about itself when asked.

use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Cell, Version};

use crate::{Rejection, Waiting};

/// A resource that the client was sent.
#[derive(Clone, Debug)]
pub struct Holding {
    /// The resource, exactly as sent.
    pub cell: Arc<Cell>,
    /// How the client took it.
    pub state: HoldingState,
}

/// How the client took a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HoldingState {
    /// Not acknowledged yet.
    Sent,
    /// Accepted; or told by the client itself when it came back.
    Accepted,
    /// In a response that the client rejected. It may hold it all the same: a rejection is of a response, and clients
    /// differ in what they apply of it (rule P-15).
    Rejected {
        /// The client's words.
        message: Arc<str>,
    },
}

/// How one type stands on a stream.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The type.
    pub resource_type: ResourceType,
    /// Whether everything is subscribed to.
    pub wildcard: bool,
    /// Names subscribed to besides.
    pub names: usize,
    /// Version of the last response; `None` before the first.
    pub sent: Option<Version>,
    /// Version of the last response that was accepted.
    pub accepted: Option<Version>,
    /// Responses that were neither accepted nor rejected.
    pub unacknowledged: usize,
    /// Resources that are wanted, that the client was sent last, and that it rejected.
    pub refused: usize,
    /// The last rejection.
    pub last_rejection: Option<Rejection>,
    /// Resources that wait for another type, in order of name.
    pub waiting: Vec<Waiting>,
}
