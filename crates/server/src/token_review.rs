//! Service account tokens that the API server of a cluster is asked about (TokenReview).
//!
//! ```text
//!  token ──▶ what it claims ──▶ Memory ──known──▶ outcome
//!                                 │ unknown
//!                                 └──▶ question (one for each token) ──▶ Line ──▶ Reviewing ──TokenReview──▶ API server
//! ```
//!
//! Anybody can invent tokens that look like a cluster's. What they cost is bounded by the [`Line`], in which origins take
//! turns: whoever invents many waits for itself.
//!
//! A token is known by its hash only, here and in the memory; it is held itself while a question about it is on its way,
//! and shows in no `Debug`, error or log. Whoever cannot be proved because the API server does not answer is told to try
//! again, and let in by nobody: there is no outcome "perhaps".

mod answer;
mod api_server;
mod line;
mod memory;
mod origin;
mod reviewing;
mod settings;
mod turns;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use identity::{ClaimedAccount, Pod, TokenError, Workload};
use tokio::sync::{Notify, watch};

use crate::StateError;
use crate::metrics::Metrics;
use api_server::ApiServer;
use line::Line;
use memory::{Memory, TokenHash};
pub(crate) use origin::Origin;
pub(crate) use reviewing::Reviewing;
pub use settings::TokenReviewSettings;

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Whose it is.
    Proved(Arc<Proved>),
    /// It proves nothing, and why, for the log.
    Refused(Arc<str>),
    /// Nobody could say, and why, for the log.
    Failed(Arc<str>),
}

/// What the API server says of a token that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proved {
    pub(crate) workload: Workload,
    /// The pod that it is bound to, if it is.
    pub(crate) pod: Option<Pod>,
}

/// What became of asking.
#[derive(Debug)]
pub(crate) enum Asked {
    /// It was known.
    Known(Outcome),
    /// An answer is on its way.
    Underway(Underway),
}

/// An answer that is on its way, for everybody who asks about the token meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Underway(watch::Receiver<Option<Outcome>>);

/// Asks about tokens, and remembers the answers for a short while.
#[derive(Clone)]
pub(crate) struct TokenReviews {
    desk: Arc<Desk>,
}

/// What those who ask and the task that answers share.
struct Desk {
    audience: String,
    proof_kept: Duration,
    known: Mutex<Known>,
    /// Something was put into the line.
    has_questions: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Known {
    memory: Memory,
    underway: HashMap<TokenHash, Underway>,
    line: Line<Question>,
    /// Nobody answers any more.
    is_closed: bool,
}

/// A question about one token.
struct Question {
    token: String,
    hash: TokenHash,
    /// Of whoever asked first.
    origin: Origin,
    asked: Instant,
    /// The end that the token names.
    expires: SystemTime,
    answer: watch::Sender<Option<Outcome>>,
}

impl fmt::Debug for TokenReviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviews").field("audience", &self.desk.audience).finish_non_exhaustive()
    }
}

impl TokenReviews {
    /// Ready to ask, and the task that answers. Reads the configuration of the cluster; does not ask it anything yet.
    ///
    /// # Errors
    /// [`StateError::Settings`] when there is no cluster that could be asked.
    pub(crate) async fn open(
        settings: &TokenReviewSettings,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Reviewing), StateError> {
        let server = ApiServer::open(settings).await.map_err(StateError::Settings)?;
        let desk = Arc::new(Desk {
            audience: settings.audience.clone(),
            proof_kept: settings.proof_kept,
            known: Mutex::default(),
            has_questions: Notify::new(),
            metrics,
        });
        let reviewing = Reviewing::new(server, desk.clone(), settings.patience);
        Ok((Self { desk }, reviewing))
    }

    /// What a token claims, and what is known of it or will be.
    ///
    /// # Errors
    /// [`TokenError`] when it could prove nothing whatever the cluster says. Nobody is asked then.
    pub(crate) fn ask(&self, token: &str, origin: Origin) -> Result<(ClaimedAccount, Asked), TokenError> {
        let claimed = ClaimedAccount::read(token, &self.desk.audience, SystemTime::now())?;
        let asked = self.desk.ask(token, origin, claimed.expires);
        Ok((claimed, asked))
    }
}

impl Underway {
    /// The answer.
    pub(crate) async fn outcome(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            // The question was given up: for others, or because the server ends.
            Ok(None) | Err(_) => not_asked(),
        }
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a token, or will be.
    fn ask(&self, token: &str, origin: Origin, expires: SystemTime) -> Asked {
        let (hash, now) = (hash(token), Instant::now());
        let mut known = self.lock();
        if let Some(outcome) = known.memory.recall(&hash, now) {
            return Asked::Known(outcome);
        }
        if let Some(underway) = known.underway.get(&hash) {
            return Asked::Underway(underway.clone());
        }
        if known.is_closed {
            return Asked::Known(not_asked());
        }
        let (answer, awaited) = watch::channel(None);
        let underway = Underway(awaited);
        known.underway.insert(hash, underway.clone());
        let standing = known.memory.standing(&origin, now);
        let question = Question { token: token.to_owned(), hash, origin, asked: now, expires, answer };
        // Dropping it tells those who wait for it.
        if let Some(out) = known.line.put(origin, standing, question) {
            known.underway.remove(&out.hash);
            self.metrics.token_not_reviewed();
        }
        drop(known);
        self.has_questions.notify_one();
        Asked::Underway(underway)
    }

    /// The next question that somebody waits for.
    fn take(&self) -> Option<Question> {
        let mut known = self.lock();
        loop {
            let question = known.line.take()?;
            // One of those who wait is the place where others would find it.
            if question.answer.receiver_count() > 1 {
                return Some(question);
            }
            known.underway.remove(&question.hash);
        }
    }

    /// Gives up what waits, and whatever would be asked.
    fn close(&self) {
        let mut known = self.lock();
        known.is_closed = true;
        known.line.clear();
        known.underway.clear();
    }

    /// Tells everybody who waits for it, and remembers it for those who come later.
    fn settle(&self, question: Question, outcome: Outcome) {
        let left = question.expires.duration_since(SystemTime::now()).unwrap_or_default();
        let (mut known, now) = (self.lock(), Instant::now());
        known.memory.note(question.hash, outcome.clone(), now, left.min(self.proof_kept));
        if let Outcome::Proved(_) = outcome {
            known.memory.note_origin(question.origin, now);
        }
        known.underway.remove(&question.hash);
        drop(known);
        // Nobody may be waiting any more.
        question.answer.send_replace(Some(outcome));
    }
}

/// What becomes of a question that was given up.
fn not_asked() -> Outcome {
    Outcome::Failed("too many tokens are being asked about, or the server is ending".into())
}

/// SHA-256 of the token.
fn hash(token: &str) -> TokenHash {
    let mut hash = TokenHash::default();
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn desk() -> Desk {
        Desk {
            audience: String::new(),
            proof_kept: Duration::from_secs(60),
            known: Mutex::default(),
            has_questions: Notify::new(),
            metrics: Metrics::new(),
        }
    }

    fn ask(desk: &Desk, token: &str) -> Underway {
        match desk.ask(token, Origin::V6(0), SystemTime::now() + Duration::from_secs(60)) {
            Asked::Underway(underway) => underway,
            Asked::Known(outcome) => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn a_question_that_nobody_waits_for_any_more_is_not_asked_but_when_it_comes_again() {
        let desk = desk();
        drop(ask(&desk, "gone"));
        let (one, other) = (ask(&desk, "kept"), ask(&desk, "kept"));
        drop(one);
        assert_eq!(desk.take().unwrap().token, "kept");
        assert!(desk.take().is_none());
        let again = ask(&desk, "gone");
        assert_eq!(desk.take().unwrap().token, "gone");
        drop((other, again));
    }

    #[tokio::test]
    async fn who_waits_when_nobody_answers_any_more_is_told_and_so_is_who_comes_then() {
        let desk = desk();
        let (taken, waiting) = (ask(&desk, "taken"), ask(&desk, "waiting"));
        drop(desk.take());
        assert_eq!(taken.outcome().await, not_asked());
        desk.close();
        assert_eq!(waiting.outcome().await, not_asked());
        let late = desk.ask("late", Origin::V6(0), SystemTime::now());
        assert!(matches!(late, Asked::Known(outcome) if outcome == not_asked()));
    }
}
