//! The way in for sources.

use std::time::Instant;

use tokio::sync::mpsc;
use world::{Change, Fetched, KeySource, Problem};

use super::Word;
use crate::Stopped;

/// Takes what sources say to the plane. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Input {
    say: mpsc::Sender<Word>,
}

impl Input {
    pub(super) fn new(say: mpsc::Sender<Word>) -> Self {
        Self { say }
    }

    /// Takes in changes, together with all problems that the sources have now. `seen` is when the source noticed the
    /// change; the latency metrics begin there. Waits while 64 updates are queued. Updates that queue up are compiled
    /// and published together.
    ///
    /// # Errors
    /// The server has been shut down.
    pub async fn apply(&self, changes: Vec<Change>, problems: Vec<Problem>, seen: Instant) -> Result<(), Stopped> {
        self.say.send(Word::Changed { changes, problems, seen }).await.map_err(|_| Stopped)
    }

    /// [`Input::apply`] for a thread outside of the runtime.
    ///
    /// # Errors
    /// The server has been shut down.
    pub fn apply_blocking(&self, changes: Vec<Change>, problems: Vec<Problem>, seen: Instant) -> Result<(), Stopped> {
        self.say.blocking_send(Word::Changed { changes, problems, seen }).map_err(|_| Stopped)
    }

    /// Takes in what rollouts have decided, with all problems that they have now.
    ///
    /// # Errors
    /// The server has been shut down.
    pub(crate) async fn decide(&self, changes: Vec<Change>, problems: Vec<Problem>) -> Result<(), Stopped> {
        let seen = Instant::now();
        self.say.send(Word::Decided { changes, problems, seen }).await.map_err(|_| Stopped)
    }

    /// Takes in what fetching a key set has led to, or that it is no longer fetched.
    ///
    /// # Errors
    /// The server has been shut down.
    pub(crate) async fn fetched(&self, source: KeySource, fetched: Option<Fetched>) -> Result<(), Stopped> {
        let seen = Instant::now();
        self.say.send(Word::Fetched { source, fetched, seen }).await.map_err(|_| Stopped)
    }

    /// Says that everything that the sources had at the start has been given to [`Input::apply`]. Until then streams
    /// are refused as UNAVAILABLE and `/readyz` answers 503; and after it for a few seconds more, as long as key sets that
    /// tokens are verified by have not been asked for.
    ///
    /// # Errors
    /// The server has been shut down.
    pub async fn set_synced(&self) -> Result<(), Stopped> {
        self.say.send(Word::Synced).await.map_err(|_| Stopped)
    }
}
