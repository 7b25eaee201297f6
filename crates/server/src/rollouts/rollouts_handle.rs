//! The way to ask about rollouts, and to act on them.

use rollout::{ActError, Action};
use tokio::sync::{mpsc, oneshot, watch};

use super::Ask;
use crate::{Stopped, view};

/// Asks the rollouts' task. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct RolloutsHandle {
    ask: mpsc::Sender<Ask>,
    /// Rises whenever something may be different.
    news: watch::Receiver<u64>,
}

impl RolloutsHandle {
    pub(super) fn new(ask: mpsc::Sender<Ask>, news: watch::Receiver<u64>) -> Self {
        Self { ask, news }
    }

    /// Every intent with its current run.
    pub(crate) async fn all(&self) -> Result<view::Rollouts, Stopped> {
        self.question(|reply| Ask::All { reply }).await
    }

    /// The intent of this name, or of the run of this name.
    pub(crate) async fn one(&self, namespace: &str, name: &str) -> Result<Option<view::Rollout>, Stopped> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.question(|reply| Ask::One { namespace, name, reply }).await
    }

    /// Takes an action; answers with how things stand right after it.
    pub(crate) async fn act(
        &self,
        namespace: &str,
        name: &str,
        action: Action,
    ) -> Result<Result<view::Rollout, ActError>, Stopped> {
        let (namespace, name, action) = (namespace.to_owned(), name.to_owned(), Box::new(action));
        self.question(|reply| Ask::Act { namespace, name, action, reply }).await
    }

    /// Changes whenever something may be different.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }

    async fn question<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.ask.send(ask(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
