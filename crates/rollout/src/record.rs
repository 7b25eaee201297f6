//! What a run needs to go on after a restart.

use std::fmt;

use serde::{Deserialize, Serialize};
use world::api::delivery::{DeploymentIntent, Weight};

use crate::action::TakenAction;
use crate::effect::Successor;
use crate::event::{GateAnswer, GateId, Refusal};
use crate::metrics::Profiles;
use crate::{Assignment, Judge, Revision, Time};

/// What a run is to do: fixed when it begins, but for edits of the intent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The run's name, unique among all runs ever.
    pub run: String,
    /// The intent's generation.
    pub generation: i64,
    /// What the intent says.
    pub spec: DeploymentIntent,
    /// The metrics of the profiles that it names, by profile.
    pub profiles: Profiles,
    /// Where traffic is.
    pub stable: Revision,
    /// Where it goes.
    pub candidate: Revision,
    /// Counted from 1.
    pub attempt: u32,
    /// The candidate was good before: no steps.
    pub is_fast: bool,
    /// Revisions that completed runs left, the last first.
    pub known_good: Vec<Revision>,
    /// Revisions whose clusters the run before has left; see [`crate::Successor::lingering`].
    pub lingering: Vec<Revision>,
    /// Above the version of every assignment of the service so far.
    pub first_version: u64,
    /// The writer's token: a store refuses records with an older one.
    pub fence: u64,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not begun: something holds it.
    Pending,
    /// Every node gets the candidate's clusters, and the candidate its endpoints.
    Preparing,
    /// Gates of phase `PreRun` are asked.
    PreGate,
    /// In a step.
    Step {
        /// Which, from 0.
        index: usize,
        /// Where in it.
        stage: Stage,
    },
    /// The candidate has everything it is to get; its evidence is judged once more.
    Bake,
    /// The candidate takes over stable's role.
    Promoting,
    /// What was stable finishes what it has begun.
    Draining,
    /// The candidate is stable.
    Completed,
    /// On the way back to stable.
    RollingBack,
    /// Stable has everything.
    RolledBack,
    /// Stable has everything, because another revision is to come.
    Superseded,
}

/// Where in a step a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Conditions of going on are looked at.
    Guard,
    /// A new assignment is on its way to the nodes.
    Applying,
    /// It has arrived; what is counted now says nothing yet.
    Settling,
    /// For time, evidence or somebody.
    Waiting,
    /// Nodes refused: weights are back at the last ones that all of them accepted.
    Blocked,
}

impl Phase {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Preparing => "Preparing",
            Phase::PreGate => "PreGate",
            Phase::Step { stage: Stage::Guard, .. } => "Guard",
            Phase::Step { stage: Stage::Applying, .. } => "Applying",
            Phase::Step { stage: Stage::Settling, .. } => "Settling",
            Phase::Step { stage: Stage::Waiting, .. } => "Waiting",
            Phase::Step { stage: Stage::Blocked, .. } => "Blocked",
            Phase::Bake => "Bake",
            Phase::Promoting => "Promoting",
            Phase::Draining => "Draining",
            Phase::Completed => "Completed",
            Phase::RollingBack => "RollingBack",
            Phase::RolledBack => "RolledBack",
            Phase::Superseded => "Superseded",
        }
    }

    /// The step's index.
    pub fn step(self) -> Option<usize> {
        match self {
            Phase::Step { index, .. } => Some(index),
            _ => None,
        }
    }

    /// Whether nothing more is decided: weights stay as they are.
    pub fn is_terminal(self) -> bool {
        matches!(self, Phase::Completed | Phase::RolledBack | Phase::Superseded)
    }

    /// Terminal, or on the way back: neither advances.
    pub fn is_over(self) -> bool {
        self.is_terminal() || self == Phase::RollingBack
    }
}

/// `step 2: Settling`.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step() {
            Some(index) => write!(f, "step {index}: {}", self.as_str()),
            None => f.write_str(self.as_str()),
        }
    }
}

/// Why a run went back, or ended without going forward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The evidence is against the candidate.
    Failed {
        /// By which metric.
        metric: String,
        /// With which numbers.
        words: String,
    },
    /// Candidate and stable broke an SLO together, and the policy is to go back.
    SharedIncident(String),
    /// A revision that took traffic has no healthy endpoint any more.
    EndpointsGone(Revision),
    /// It was not ready in time.
    CandidateNeverReady(String),
    /// Nodes refused its configuration, or did not answer, until the deadline.
    NotAccepted(Vec<Refusal>),
    /// None of the clients that the intent selects was connected, until the deadline. Whom it selects, in words.
    NoClientMatches(String),
    /// No verdict in time, and the policy is to go back.
    Inconclusive,
    /// No traffic, and the policy is to go back.
    NoTraffic,
    /// No telemetry, and the policy is to go back.
    TelemetryLoss,
    /// Somebody said so.
    Aborted {
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// A gate said so.
    Gate(String),
    /// Another revision came.
    NewRevision(Revision),
    /// The intent asks for something else.
    Edited,
    /// The time of an A/B test was over without a winner.
    TestEnded,
    /// Somebody has named the winner of an A/B test, which is not the candidate.
    Decided {
        /// The revision that has won.
        revision: Revision,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// A mirror test passed; it promotes nothing.
    TestPassed,
}

impl Reason {
    /// Whether users may be hurt by every moment that it takes: such a rollback is never ramped.
    pub(crate) fn is_urgent(&self) -> bool {
        match self {
            Reason::Failed { .. }
            | Reason::SharedIncident(_)
            | Reason::EndpointsGone(_)
            | Reason::NotAccepted(_)
            | Reason::TelemetryLoss
            | Reason::Gate(_) => true,
            Reason::CandidateNeverReady(_)
            | Reason::NoClientMatches(_)
            | Reason::Inconclusive
            | Reason::NoTraffic
            | Reason::Aborted { .. }
            | Reason::NewRevision(_)
            | Reason::Edited
            | Reason::TestEnded
            | Reason::Decided { .. }
            | Reason::TestPassed => false,
        }
    }
}

/// In a sentence.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Failed { metric, words } => write!(f, "{metric} failed: {words}"),
            Reason::SharedIncident(words) => write!(f, "candidate and stable failed together: {words}"),
            Reason::EndpointsGone(revision) => write!(f, "\"{revision}\" has no healthy endpoint any more"),
            Reason::CandidateNeverReady(words) => write!(f, "the candidate was not ready in time: {words}"),
            Reason::NotAccepted(refusals) => {
                f.write_str("nodes did not accept it: ")?;
                crate::run::hold::write_refusals(f, refusals)
            }
            Reason::NoClientMatches(words) => write!(f, "nobody was connected whom the intent selects: {words}"),
            Reason::Inconclusive => f.write_str("there was no verdict in time"),
            Reason::NoTraffic => f.write_str("the candidate got no request"),
            Reason::TelemetryLoss => f.write_str("no proxy reported"),
            Reason::Aborted { actor, reason } => write!(f, "aborted by {actor}: {reason}"),
            Reason::Gate(words) => f.write_str(words),
            Reason::NewRevision(revision) => write!(f, "\"{revision}\" came"),
            Reason::Edited => f.write_str("the intent asks for something else"),
            Reason::TestEnded => f.write_str("the time of the test was over without a winner"),
            Reason::Decided { revision, actor, reason } => {
                write!(f, "\"{revision}\" has won the test, says {actor}: {reason}")
            }
            Reason::TestPassed => f.write_str("the test passed; it promotes nothing"),
        }
    }
}

/// What one gate was asked and said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRecord {
    /// Which question.
    pub id: GateId,
    /// When it was answered.
    pub at: Time,
    /// How.
    pub answer: GateAnswer,
}

/// A step of the run's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// When.
    pub at: Time,
    /// Into which phase.
    pub phase: Phase,
    /// With which weight of the candidate.
    pub weight: Weight,
}

/// What a run waited for when its record was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// In one word.
    pub word: String,
    /// Since when.
    pub since: Time,
    /// Whether somebody has to mend something before it can go on.
    pub is_blocking: bool,
}

/// A run as it is stored: a few kilobytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Rises with every record of the run.
    pub sequence: u64,
    /// What it is to do.
    pub plan: Plan,
    /// An edit that holds from the next step on.
    pub next_spec: Option<Box<DeploymentIntent>>,
    /// What profiles say from the next step on, if that is something else.
    #[serde(default)]
    pub next_profiles: Option<Profiles>,
    /// Where it is.
    pub phase: Phase,
    /// Since when.
    pub since: Time,
    /// When it began.
    pub started: Time,
    /// The last point in time that it knew of; time never goes back behind it.
    pub now: Time,
    /// What is in force or on its way.
    pub assignment: Assignment,
    /// The last one that every concerned node had accepted.
    pub acknowledged: Assignment,
    /// The one that every concerned node had accepted before that.
    pub before: Assignment,
    /// When every concerned node had accepted `assignment`; `None` until then.
    pub settled: Option<Time>,
    /// How many nodes were concerned when they were counted last.
    pub nodes: u32,
    /// How many endpoints stable had when the run began.
    pub basis: u32,
    /// Why it went back.
    pub reason: Option<Reason>,
    /// What to go back for as soon as stable has endpoints to take the traffic.
    pub wanted: Option<Reason>,
    /// Nodes that refused the last assignment, or did not answer in time (with empty words).
    pub refusals: Vec<Refusal>,
    /// Who has paused it, and why.
    pub paused: Option<(String, String)>,
    /// Somebody has promoted the step that it is in.
    pub is_promoted: bool,
    /// Telemetry was lost and weights went back a step for it; once is enough.
    pub has_stepped_back: bool,
    /// The weight that a ramp back began with.
    pub ramp_from: Option<Weight>,
    /// Clusters of the revisions that are left are gone, or the next run's to take away.
    pub is_released: bool,
    /// What nothing is sent to any more since then.
    pub left: Vec<Revision>,
    /// The run that comes after.
    pub successor: Option<Successor>,
    /// A revision that waits for this run to end.
    pub queued: Option<Revision>,
    /// What gates have said.
    pub gates: Vec<GateRecord>,
    /// What people have done; the last hundred.
    pub actions: Vec<TakenAction>,
    /// The phases so far; the last hundred.
    pub history: Vec<Passage>,
    /// What it waits for. Not in records that are older than this field.
    #[serde(default)]
    pub held: Option<Held>,
    /// Since when nothing blocks it; `None` before anything has.
    #[serde(default)]
    pub unblocked: Option<Time>,
    /// What is known of the candidate.
    pub judge: Judge,
}

impl Record {
    /// The weight of the candidate as it is configured.
    pub fn weight(&self) -> Weight {
        self.assignment.weight_of(&self.plan.candidate)
    }

    /// Whether any request, or copy of one, is meant to reach a revision other than stable.
    pub(crate) fn is_exposed(&self) -> bool {
        self.assignment.revisions().iter().any(|r| **r != self.plan.stable && self.assignment.reaches(r))
    }
}
