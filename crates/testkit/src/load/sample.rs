//! What came of one request.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One request.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was due to be written, after waiting for its turn.
    pub begun: Instant,
    /// From then until the last byte of the response, connecting included.
    pub took: Duration,
    /// What came back.
    pub outcome: Outcome,
    /// Whether that is what the plan expects.
    pub expected: bool,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole response.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The status of gRPC, from the trailers or, if there is only a header section, from there.
        grpc_status: Option<u16>,
        /// The header `x-backend`.
        backend: Option<Arc<str>>,
        /// The header `x-mark`, by which a route says that it was the one.
        mark: Option<Arc<str>>,
    },
    /// No whole response, for this reason.
    Broken(Arc<str>),
}

impl Sample {
    /// When the last byte of the response had arrived.
    pub fn finished(&self) -> Instant {
        self.begun + self.took
    }

    /// The backend that answered, if one did and said who it is.
    pub fn backend(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Answer { backend, .. } => backend.as_deref(),
            Outcome::Broken(_) => None,
        }
    }

    /// What the route that governed the request set as `x-mark`.
    pub fn mark(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Answer { mark, .. } => mark.as_deref(),
            Outcome::Broken(_) => None,
        }
    }

    /// The HTTP status, if there was a whole response.
    pub fn status(&self) -> Option<u16> {
        match self.outcome {
            Outcome::Answer { status, .. } => Some(status),
            Outcome::Broken(_) => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Answer { status, grpc_status, backend, .. } => {
                write!(f, "status {status}")?;
                if let Some(grpc_status) = grpc_status {
                    write!(f, ", grpc-status {grpc_status}")?;
                }
                write!(f, " from {}", backend.as_deref().unwrap_or("an unnamed backend"))
            }
            Outcome::Broken(reason) => f.write_str(reason),
        }
    }
}
