//! Service account tokens that the API server of a cluster is asked about (TokenReview).
//!
//! ```text
//!  token ──▶ what it claims ──▶ Memory ──known──▶ outcome
//!                                 │ unknown
//!                                 └──▶ question (one for each token) ──▶ Reviewing ──TokenReview──▶ API server
//! ```
//!
//! A token is known by its hash only, here and in the memory; it is held itself while a question about it is on its way,
//! and shows in no `Debug`, error or log. Whoever cannot be proved because the API server does not answer is told to try
//! again, and let in by nobody: there is no outcome "perhaps".

mod answer;
mod api_server;
mod memory;
mod reviewing;
mod settings;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use identity::{ClaimedAccount, Pod, TokenError, Workload};
use tokio::sync::{mpsc, watch};

use crate::StateError;
use crate::metrics::Metrics;
use api_server::ApiServer;
use memory::{Memory, TokenHash};
pub(crate) use reviewing::Reviewing;
pub use settings::TokenReviewSettings;

/// Questions that may wait for their turn. Beyond that callers are told to try again.
const WAITING: usize = 1024;

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
    questions: mpsc::Sender<Question>,
}

/// What those who ask and the task that answers share.
struct Desk {
    audience: String,
    proof_kept: Duration,
    known: Mutex<Known>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Known {
    memory: Memory,
    underway: HashMap<TokenHash, Underway>,
}

/// A question about one token.
struct Question {
    token: String,
    hash: TokenHash,
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
        let (questions, waiting) = mpsc::channel(WAITING);
        let desk = Arc::new(Desk {
            audience: settings.audience.clone(),
            proof_kept: settings.proof_kept,
            known: Mutex::default(),
            metrics,
        });
        let reviewing = Reviewing::new(server, waiting, desk.clone(), settings.patience);
        Ok((Self { desk, questions }, reviewing))
    }

    /// What a token claims, and what is known of it or will be.
    ///
    /// # Errors
    /// [`TokenError`] when it could prove nothing whatever the cluster says. Nobody is asked then.
    pub(crate) fn ask(&self, token: &str) -> Result<(ClaimedAccount, Asked), TokenError> {
        let claimed = ClaimedAccount::read(token, &self.desk.audience, SystemTime::now())?;
        let asked = self.ask_about(token, claimed.expires);
        Ok((claimed, asked))
    }

    fn ask_about(&self, token: &str, expires: SystemTime) -> Asked {
        let (hash, now) = (hash(token), Instant::now());
        let mut known = self.desk.lock();
        if let Some(outcome) = known.memory.recall(&hash, now) {
            return Asked::Known(outcome);
        }
        if let Some(underway) = known.underway.get(&hash) {
            return Asked::Underway(underway.clone());
        }
        let (answer, awaited) = watch::channel(None);
        let question = Question { token: token.to_owned(), hash, asked: now, expires, answer };
        if self.questions.try_send(question).is_err() {
            self.desk.metrics.token_not_reviewed();
            return Asked::Known(Outcome::Failed("too many tokens are being asked about".into()));
        }
        let underway = Underway(awaited);
        known.underway.insert(hash, underway.clone());
        Asked::Underway(underway)
    }
}

impl Underway {
    /// The answer.
    pub(crate) async fn outcome(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            // Whoever answers has gone, because the server ends.
            Ok(None) | Err(_) => Outcome::Failed("the server is ending".into()),
        }
    }
}

impl Desk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits for it, and remembers it for those who come later.
    fn settle(&self, question: Question, outcome: Outcome) {
        let left = question.expires.duration_since(SystemTime::now()).unwrap_or_default();
        let mut known = self.lock();
        known.memory.note(question.hash, outcome.clone(), Instant::now(), left.min(self.proof_kept));
        known.underway.remove(&question.hash);
        drop(known);
        // Nobody may be waiting any more.
        question.answer.send_replace(Some(outcome));
    }
}

/// SHA-256 of the token.
fn hash(token: &str) -> TokenHash {
    let mut hash = TokenHash::default();
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}
