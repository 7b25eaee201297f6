//! What a run wants done.

use std::time::Duration;

use crate::event::GateId;
use crate::{Assignment, Record, Revision};

/// Something to do, in the order in which effects are polled. Performing one twice does no harm.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Effect {
    /// Make this durable, if the store's token is not newer than the record's, then say [`crate::Event::Committed`] or
    /// [`crate::Event::CommitFailed`] with its sequence number. A newer record replaces older ones.
    Commit(Box<Record>),
    /// Let this assignment be part of the world. Its record is durable.
    Publish(Assignment),
    /// Ask a gate and answer with [`crate::Event::Gate`].
    AskGate(GateQuestion),
    /// Tell those who want to know.
    Notify(Notice),
    /// Have proxies report about the clusters of these revisions this often; none of them: as seldom as ever.
    LoadReports {
        /// Of which.
        revisions: Vec<Revision>,
        /// How often.
        interval: Duration,
    },
    /// Begin another run for the same service, with assignments above this one's version: this run has let go of it
    /// and publishes nothing more. A second request for the same attempt means the same run.
    StartRun(Successor),
    /// Nothing is sent to this revision any more, every concerned node has said so, and it has drained.
    SafeToScaleDown(Revision),
}

/// A question to a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateQuestion {
    /// For the answer.
    pub id: GateId,
    /// Whom.
    pub url: String,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How often it is tried again.
    pub retries: u32,
    /// The run.
    pub run: String,
    /// Its candidate.
    pub candidate: Revision,
}

impl GateQuestion {
    /// Between two attempts there is no more time than this.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);
}

/// Something that happened in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// In one word, as `notify[].events` selects it: `Phase`, `Action`, `Blocked`, `Verdict`, `Edit`.
    pub event: &'static str,
    /// In a sentence.
    pub text: String,
}

/// The run that comes after.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Successor {
    /// Where traffic is.
    pub stable: Revision,
    /// Where it goes.
    pub candidate: Revision,
    /// Counted from 1 for each candidate.
    pub attempt: u32,
    /// The candidate was good before: no steps.
    pub is_fast: bool,
    /// Revisions whose clusters are still there: nothing is sent to them, and the next run takes them away at its end.
    pub lingering: Vec<Revision>,
}
