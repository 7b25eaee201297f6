//! Why a swarm cannot be run at all. What goes wrong with single nodes is counted in the report instead.

use crate::scenario::ScenarioError;

/// Why a swarm cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scenario cannot be run.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The first node could not learn what there is.
    #[error("a first node could not get its configuration from {server}: {reason}")]
    Scout {
        /// The server.
        server: String,
        /// What went wrong last.
        reason: String,
    },
    /// More connections than this process may have.
    #[error(
        "{nodes} nodes need {nodes} connections and this process may open {limit} files; raise the limit with \
         `ulimit -n`, or take fewer nodes"
    )]
    Files {
        /// Nodes.
        nodes: usize,
        /// The limit.
        limit: u64,
    },
    /// A change could not be made.
    #[error("could not make change {number}: {reason}")]
    Trigger {
        /// Which, counted from 0.
        number: u32,
        /// Why not.
        reason: String,
    },
    /// The server's process cannot be watched.
    #[error("could not read what process {pid} has used: {reason}")]
    Process {
        /// Its id.
        pid: u32,
        /// Why not.
        reason: String,
    },
    /// The system refused something that the swarm itself needs.
    #[error("could not set up {what}: {reason}")]
    System {
        /// What for.
        what: &'static str,
        /// The system's words.
        reason: String,
    },
    /// It was interrupted before the nodes knew what to ask for.
    #[error("interrupted")]
    Interrupted,
}
