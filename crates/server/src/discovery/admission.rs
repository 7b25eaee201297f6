//! How many streams are at their first response at one time.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// Lets new streams in, in the order of their arrival (rule P-79): when a whole fleet reconnects at once, those that
/// are let in are served at full speed, and later responses of the others are not slowed down.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    turns: Arc<Semaphore>,
}

/// A stream's turn; the next one's begins when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// At most `at_once` turns at one time, at least one.
    pub(super) fn new(at_once: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self, metrics: &Metrics) -> Turn {
        let begin = Instant::now();
        // The semaphore is never closed; were it, everyone would be let in.
        let permit = self.turns.clone().acquire_owned().await.ok();
        metrics.admitted(begin.elapsed());
        Turn { _permit: permit }
    }
}
