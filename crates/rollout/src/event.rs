//! What a run is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use world::api::delivery::{DeploymentIntent, GatePhase, MetricSpec};

use crate::{Evidence, Revision};

/// Something that happened outside of a run. All of them may come at any time, repeatedly and late.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// The endpoints that each revision has; a revision that is missing has none.
    Endpoints(BTreeMap<Revision, Endpoints>),
    /// The record with this sequence number is durable.
    Committed(u64),
    /// It could not be made durable.
    CommitFailed {
        /// Which.
        sequence: u64,
        /// Why, in the store's words.
        words: String,
        /// Somebody else writes with a newer token: this run is not ours any more.
        is_fenced: bool,
    },
    /// Where the nodes stand that the assignment concerns.
    Standing(Standing),
    /// What was measured.
    Evidence(Evidence),
    /// A gate has answered.
    Gate(GateId, GateAnswer),
    /// The intent says something new.
    Edited {
        /// What.
        spec: Box<DeploymentIntent>,
        /// Its generation.
        generation: i64,
        /// The metrics of the profiles that it names, by profile.
        profiles: BTreeMap<String, Vec<MetricSpec>>,
    },
    /// A revision has appeared that is neither stable nor the candidate, or one of both has appeared again.
    NewRevision(Revision),
    /// A freeze holds, for this reason; or none does.
    Frozen(Option<String>),
}

/// How many endpoints there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Those that take traffic.
    pub healthy: u32,
    /// All of them.
    pub total: u32,
}

/// Acknowledgements of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The version of the assignment.
    pub version: u64,
    /// Connected nodes that it concerns. Those that have been away for long are not among them.
    pub concerned: u32,
    /// Of them, those that have accepted all that it led to: their configuration is in force.
    pub accepted: u32,
    /// Of them, those whose traffic the assignment divides: the clients that the intent selects, if it does.
    pub attached: u32,
    /// Of them, those that have refused any of it.
    pub refused: Vec<Refusal>,
    /// Nodes that left lately with an older assignment, which they may still follow. Nobody waits for them.
    pub stale: u32,
}

/// A node's refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which node.
    pub node: String,
    /// Its words.
    pub words: String,
}

/// One question to one gate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GateId {
    /// When it is asked.
    pub phase: GatePhase,
    /// For which step; 0 outside of steps.
    pub step: usize,
    /// Which of the intent's gates; `None` for the webhook of a step.
    pub index: Option<usize>,
}

/// What a gate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateAnswer {
    /// Go on. From a gate of phase `Rollback`: go back.
    Approved,
    /// Ask again later.
    NotYet,
    /// Do not do this at all.
    Refused(String),
    /// It could not be asked, after all retries.
    Failed(String),
}
