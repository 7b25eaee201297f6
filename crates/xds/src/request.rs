//! What comes in, and how a stream is refused.

use std::fmt;

use proto::ResourceType;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

/// The two forms of the protocol (rule P-01).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Every request lists all names, and a response to listeners or clusters is the whole set.
    StateOfTheWorld,
    /// Requests and responses say what changed.
    Delta,
}

/// The service that the stream was opened on (rule P-01).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The aggregated service: every type on one stream.
    Aggregated,
    /// A service of one type, which requests need not name (rule P-02).
    Only(ResourceType),
}

/// A message from the client.
#[derive(Clone, Debug)]
pub enum Request {
    /// Of a state-of-the-world stream.
    StateOfTheWorld(DiscoveryRequest),
    /// Of a delta stream.
    Delta(DeltaDiscoveryRequest),
}

/// Why a stream must be closed, with the gRPC status that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub code: Code,
    /// The status message: what is wrong with the request.
    pub message: String,
}

/// The gRPC status codes that close a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request cannot be understood.
    InvalidArgument = 3,
    /// The request asks for more than the limits allow.
    ResourceExhausted = 8,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, message: message.into() }
    }

    pub(crate) fn exhausted(message: impl Into<String>) -> Self {
        Self { code: Code::ResourceExhausted, message: message.into() }
    }
}
