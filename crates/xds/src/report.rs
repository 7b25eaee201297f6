//! What a stream says about itself when asked.

use std::sync::Arc;
use std::time::Instant;

use proto::ResourceType;
use snapshot::{Cell, Name, Origin, Version};

use crate::{Rejection, Waiting};

/// A resource that the client was sent.
#[derive(Clone, Debug)]
pub struct Holding {
    /// The resource, exactly as sent.
    pub cell: Arc<Cell>,
    /// How the client took it.
    pub state: HoldingState,
    /// What the client accepted last under the name, as far as that is known: it goes on with that until it accepts
    /// `cell`. Until a suspect was tried the client may hold `cell` all the same: a rejection is of a response, and
    /// clients differ in what they apply of it (rule P-15).
    pub in_force: Option<Arc<Cell>>,
    /// The version of the published resource that this is, or that this is all of but for `refused_parts`.
    pub stands_for: Version,
    /// Parts that the client refused: `cell` has them in the form that the client accepted last, or not at all.
    pub refused_parts: Vec<HeldBack>,
}

/// How the client took a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HoldingState {
    /// Not acknowledged yet.
    Sent,
    /// Accepted; or told by the client itself when it came back.
    Accepted,
    /// In a response that the client rejected, and held back since.
    Rejected {
        /// The client's words.
        message: Arc<str>,
        /// When they came.
        since: Instant,
        /// What is known of this resource's fault.
        verdict: Verdict,
    },
}

/// What is known of the fault of something that was in a rejected response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It may be at fault, and will be tried.
    Suspect,
    /// It may be at fault, but the client refused so much else that the search was given up.
    Untried,
    /// It is at fault: the client refuses it alone, or names it, or accepts everything else.
    Culprit,
}

/// A resource, or a part of one, that is not sent because the client refused it. It is sent again when its content
/// changes, and not before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// The type of the resource.
    pub resource_type: ResourceType,
    /// The resource.
    pub name: Name,
    /// The part, such as a virtual host of a route configuration; `None` for the whole resource.
    pub part: Option<Name>,
    /// The version of what is refused: of the part, if it is one.
    pub version: Version,
    /// The client's words.
    pub message: Arc<str>,
    /// When they came.
    pub since: Instant,
    /// What is known of its fault.
    pub verdict: Verdict,
    /// Objects that it came from; one may come more than once.
    pub origins: Arc<[Origin]>,
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
    /// Resources, and parts of resources, that are held back: suspects and the untried included.
    pub refused: usize,
    /// Those of them that are at fault, by name and part.
    pub culprits: Vec<HeldBack>,
    /// The last rejection.
    pub last_rejection: Option<Rejection>,
    /// Resources that wait for another type, in order of name.
    pub waiting: Vec<Waiting>,
}
