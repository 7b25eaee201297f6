//! The load reporting service: clients tell what traffic they send, and are told what to tell (rule P-70).
//!
//! One task for each reporting stream; all of them add to one table. What is asked for is a latest value that every
//! stream watches, so a change reaches open streams at once.

mod service;

pub(crate) use service::LoadService;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use load::{Policy, StreamId, Table};
use tokio::sync::watch;

/// What clients have reported, and what they are asked for.
#[derive(Debug)]
pub struct LoadReports {
    table: Mutex<Table>,
    policy: watch::Sender<Policy>,
    streams: AtomicU64,
}

impl LoadReports {
    pub(crate) fn new(policy: Policy) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), policy: watch::Sender::new(policy), streams: AtomicU64::new(0) })
    }

    /// What is asked for now.
    pub fn policy(&self) -> Policy {
        self.policy.borrow().clone()
    }

    /// Changes what is asked for; open streams are told at once.
    pub fn change_policy(&self, change: impl FnOnce(&mut Policy)) {
        self.policy.send_if_modified(|policy| {
            let before = policy.clone();
            change(policy);
            *policy != before
        });
    }

    /// The sums, locked: read what is needed and let go.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed))
    }
}
