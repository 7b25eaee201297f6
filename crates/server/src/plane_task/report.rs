//! Says in the log what is wrong with the objects, once.
//!
//! What sources cannot read, they report themselves. What only shows when objects are put together (a subset that no
//! rule defines) would otherwise be seen by nobody who does not ask the admin API.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use world::{Problem, Severity};

/// How long after a change problems are collected: then a burst of changes costs one look, and none is held up by it.
const DELAY: Duration = Duration::from_millis(200);
/// So many are written out at one time; of the rest only the number is said.
const MOST: usize = 100;

/// What has been said, and when the next look is due.
#[derive(Debug, Default)]
pub(super) struct Report {
    said: BTreeSet<Problem>,
    due: Option<Instant>,
}

impl Report {
    /// Other problems may be there now.
    pub(super) fn something_changed(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + DELAY);
    }

    /// Returns when it is time for [`Report::say`]; never while nothing has changed. Cancel safe.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Logs the problems that are new, and how many are gone.
    pub(super) fn say(&mut self, now: BTreeSet<Problem>) {
        self.due = None;
        let new: Vec<_> = now.difference(&self.said).collect();
        for problem in new.iter().take(MOST) {
            match problem.severity {
                Severity::Error => tracing::warn!("{problem}"),
                Severity::Warning => tracing::info!("{problem}"),
            }
        }
        if new.len() > MOST {
            tracing::warn!(more = new.len() - MOST, "more problems are listed by the admin API at /api/v1/problems");
        }
        let mended = self.said.difference(&now).count();
        if mended > 0 {
            tracing::info!(mended, "problems are gone");
        }
        self.said = now;
    }
}
