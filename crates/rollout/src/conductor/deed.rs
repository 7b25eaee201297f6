//! What a conductor wants done.

use std::time::Duration;

use world::{Change, ObjectRef};

use super::IntentRecord;
use crate::effect::{GateQuestion, Notice};
use crate::{Record, Revision};

/// Something to do, in the order in which deeds are polled. Performing one twice does no harm.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Deed {
    /// Make a run's record durable in place of the one before, then say [`crate::Event::Committed`] or
    /// [`crate::Event::CommitFailed`].
    SaveRun {
        /// The run.
        run: ObjectRef,
        /// Its record.
        record: Box<Record>,
    },
    /// Make an intent's record durable in place of the one before, then say
    /// [`Conductor::intent_saved`](super::Conductor::intent_saved). Not after a later deed is durable.
    SaveIntent(Box<IntentRecord>),
    /// Let the world take these in, in one update.
    Change(Vec<Change>),
    /// Ask a gate and answer with [`crate::Event::Gate`].
    AskGate {
        /// For this run.
        run: ObjectRef,
        /// What.
        question: GateQuestion,
    },
    /// Tell those who want to know.
    Notify {
        /// Of this run.
        run: ObjectRef,
        /// What.
        notice: Notice,
        /// Where it is posted.
        urls: Vec<String>,
    },
    /// Have proxies report about the clusters of these revisions this often.
    LoadReports {
        /// For this run.
        run: ObjectRef,
        /// Of which; none when the run is over.
        revisions: Vec<Revision>,
        /// How often.
        interval: Duration,
    },
    /// Nothing is sent to this revision any more.
    SafeToScaleDown {
        /// The run that left it.
        run: ObjectRef,
        /// Which.
        revision: Revision,
    },
    /// Remove a run's record: it is beyond what the intent keeps.
    ForgetRun(ObjectRef),
}
