//! How far a member has got with what is published.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by a member's attachment, which writes it, and the plane's task, which reads it when a workload loses
/// something. Only while something is held does the task want to be told of each step.
#[derive(Debug)]
pub(super) struct Progress {
    settled: AtomicU64,
    is_awaited: Arc<AtomicBool>,
}

impl Progress {
    /// Of a member that has settled nothing. `is_awaited` is the same for all members.
    pub(super) fn new(is_awaited: Arc<AtomicBool>) -> Self {
        Self { settled: AtomicU64::new(0), is_awaited }
    }

    /// The newest generation that was settled, 0 for none. From here on every step is told, until the task says
    /// otherwise: a step is seen here, or told, whichever of the two comes first.
    pub(super) fn look(&self) -> u64 {
        self.is_awaited.store(true, Ordering::SeqCst);
        self.settled.load(Ordering::SeqCst)
    }

    /// Takes a step; whether the plane's task wants to be told.
    pub(super) fn settle(&self, generation: u64) -> bool {
        self.settled.store(generation, Ordering::SeqCst);
        self.is_awaited.load(Ordering::SeqCst)
    }
}
