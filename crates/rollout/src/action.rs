//! What people can do to a run.

use serde::{Deserialize, Serialize};

use crate::{Revision, Time};

/// An action, as somebody wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Chosen by whoever asks: the same action a second time does nothing, and another one of this id is refused.
    pub id: String,
    /// The run that is meant.
    pub run: String,
    /// The step that whoever asks saw; the action is refused when the run is elsewhere by now.
    pub expected_step: Option<usize>,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// What.
    pub verb: Verb,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Whatever the run waits for has happened: go on.
    Promote,
    /// This variant of an A/B test, by its name or its revision, has won: everything to it.
    PromoteVariant(String),
    /// Everything to the candidate, without further steps.
    PromoteFull,
    /// Stay where it is; going back stays possible.
    Pause,
    /// The opposite of pausing.
    Resume,
    /// Everything to stable.
    Abort,
    /// Once more: the step, if it is blocked; the run, if it has gone back.
    Retry,
    /// Leave this step out.
    SkipStep,
    /// Everything to stable, then to this revision, which was good before.
    RollbackTo(Revision),
}

/// An action that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenAction {
    /// When.
    pub at: Time,
    /// What.
    pub action: Action,
}

/// Why an action is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// It is meant for another run.
    #[error("run \"{asked}\" is not the current one, which is \"{current}\"")]
    WrongRun {
        /// The run that was meant.
        asked: String,
        /// The one that there is.
        current: String,
    },
    /// The run has moved.
    #[error("the run is not in step {expected} any more: {now}")]
    Moved {
        /// Where whoever asked saw it.
        expected: usize,
        /// Where it is.
        now: String,
    },
    /// Another action has this id.
    #[error("the id \"{id}\" is that of a {verb} that was taken, which is another action")]
    IdTaken {
        /// The id.
        id: String,
        /// What was done under it.
        verb: &'static str,
    },
    /// The action makes no sense in this phase.
    #[error("cannot {verb} while the run is {phase}: {hint}")]
    NotNow {
        /// The verb in words.
        verb: &'static str,
        /// The phase in words.
        phase: String,
        /// What would be possible.
        hint: String,
    },
}

impl Verb {
    /// What it is done to, if that is not the run as a whole.
    pub fn object(&self) -> Option<&str> {
        match self {
            Verb::PromoteVariant(variant) => Some(variant),
            Verb::RollbackTo(revision) => Some(revision.as_str()),
            Verb::Promote
            | Verb::PromoteFull
            | Verb::Pause
            | Verb::Resume
            | Verb::Abort
            | Verb::Retry
            | Verb::SkipStep => None,
        }
    }

    /// In words.
    pub fn as_str(&self) -> &'static str {
        match self {
            Verb::Promote | Verb::PromoteVariant(_) => "promote",
            Verb::PromoteFull => "promote-full",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Abort => "abort",
            Verb::Retry => "retry",
            Verb::SkipStep => "skip-step",
            Verb::RollbackTo(_) => "roll-back-to",
        }
    }
}
