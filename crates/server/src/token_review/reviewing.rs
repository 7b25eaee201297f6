//! The task that asks the API server.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::api_server::ApiServer;
use super::{Desk, Outcome, Question};

/// Questions that are asked at one time; the others wait. It bounds what a flood of tokens costs the cluster.
const AT_ONCE: usize = 32;

/// Asks what there is to ask.
pub(crate) struct Reviewing {
    server: ApiServer,
    desk: Arc<Desk>,
    patience: Duration,
    /// The last question had no answer, and that was said.
    is_failing: bool,
}

impl fmt::Debug for Reviewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviewing").field("is_failing", &self.is_failing).finish_non_exhaustive()
    }
}

enum Event {
    Asked(Question),
    Answered(Question, Outcome),
}

impl Reviewing {
    pub(super) fn new(server: ApiServer, desk: Arc<Desk>, patience: Duration) -> Self {
        Self { server, desk, patience, is_failing: false }
    }

    /// Asks until `stop` is cancelled. What has no answer then fails.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut underway = FuturesUnordered::new();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                question = next(&self.desk), if underway.len() < AT_ONCE => Event::Asked(question),
                Some((question, outcome)) = underway.next() => Event::Answered(question, outcome),
            };
            match event {
                Event::Asked(question) => underway.push(review(self.server.clone(), question, self.patience)),
                Event::Answered(question, outcome) => self.answered(question, outcome),
            }
        }
    }

    fn answered(&mut self, question: Question, outcome: Outcome) {
        let took = question.asked.elapsed();
        match &outcome {
            Outcome::Failed(reason) if !self.is_failing => {
                tracing::error!(
                    reason = &**reason,
                    "service account tokens cannot be proved: who brings one is told to try again"
                );
                self.is_failing = true;
            }
            Outcome::Failed(reason) => tracing::debug!(reason = &**reason, "a token could not be proved"),
            Outcome::Proved(_) | Outcome::Refused(_) if self.is_failing => {
                tracing::info!("service account tokens can be proved again");
                self.is_failing = false;
            }
            Outcome::Proved(_) | Outcome::Refused(_) => {}
        }
        let word = match &outcome {
            Outcome::Proved(_) => "proved",
            Outcome::Refused(_) => "refused",
            Outcome::Failed(_) => "failed",
        };
        self.desk.metrics.token_reviewed(word, took);
        self.desk.settle(question, outcome);
    }
}

impl Drop for Reviewing {
    fn drop(&mut self) {
        self.desk.close();
    }
}

/// The next question, when there is one.
async fn next(desk: &Desk) -> Question {
    loop {
        match desk.take() {
            Some(question) => return question,
            None => desk.has_questions.notified().await,
        }
    }
}

/// One question and its answer. The time that it has waited for its turn counts.
async fn review(server: ApiServer, question: Question, patience: Duration) -> (Question, Outcome) {
    let late = || Outcome::Failed(format!("the API server did not answer within {patience:?}").into());
    let left = (question.asked + patience).saturating_duration_since(Instant::now());
    if left.is_zero() {
        return (question, late());
    }
    let outcome = tokio::time::timeout(left, server.review(&question.token)).await.unwrap_or_else(|_| late());
    (question, outcome)
}
