//! The way from the API to whoever keeps objects that are handed over.

use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};
use world::{Acceptance, Refusal, Submission};

use crate::view::Timestamp;

/// Submissions that may wait. When it is full those who submit wait.
const WAITING: usize = 16;

/// A submission, and to whom the answer goes.
#[derive(Debug)]
pub struct Submitted {
    /// What is asked for.
    pub submission: Submission,
    /// When it was asked for, as RFC 3339.
    pub time: String,
    /// Takes the answer: what was taken is durable by then, and has been given to the server.
    pub reply: oneshot::Sender<Result<Acceptance, Refusal>>,
}

/// Takes submissions to whoever keeps objects. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    submit: mpsc::Sender<Submitted>,
}

impl Intake {
    /// The way, and its other end. When that is dropped nothing is taken.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Submitted>) {
        let (submit, submitted) = mpsc::channel(WAITING);
        (Self { submit }, submitted)
    }

    /// Submits and waits for the answer.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<Acceptance, Refusal> {
        let (reply, answer) = oneshot::channel();
        let time = Timestamp::from(SystemTime::now()).to_string();
        self.submit.send(Submitted { submission, time, reply }).await.map_err(|_| Refusal::Nobody)?;
        answer.await.unwrap_or(Err(Refusal::Nobody))
    }
}
