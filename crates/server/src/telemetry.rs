//! What clients report about their traffic, as evidence for runs.
//!
//! One task for each stream of metrics or access logs; they and the load reporting streams add to one ledger. One task
//! for each run that wants to know: it reads the ledger at its interval, and asks the providers of its other metrics.

mod providers;
mod reports;
mod stream_task;

pub use reports::{Reports, RunTargets};
pub(crate) use stream_task::{LogService, MetricsService};

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evidence::{Ledger, StreamId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::LoadReports;

/// What clients report, and the way to follow it.
#[derive(Debug)]
pub struct Telemetry {
    ledger: Mutex<Ledger>,
    loads: Arc<LoadReports>,
    streams: AtomicU64,
    draining: CancellationToken,
    tasks: TaskTracker,
}

impl Telemetry {
    pub(crate) fn new(loads: Arc<LoadReports>, draining: CancellationToken, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self { ledger: Mutex::default(), loads, streams: AtomicU64::new(0), draining, tasks })
    }

    /// Begins to count for a run. Evidence comes at its interval until the answer is dropped, also when nothing was
    /// reported. Clients are asked for load reports as often, if they are of use.
    pub fn open(self: &Arc<Self>, targets: RunTargets) -> Reports {
        Reports::open(self.clone(), targets)
    }

    /// The sums, locked: read what is needed and let go.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed))
    }
}
