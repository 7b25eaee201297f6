//! How far a member has got with what is published, and what it asks for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Interest;

/// Shared by a member's attachment, which writes it, and the plane's task, which reads it when a workload loses
/// something. Only while something is held does the task want to be told of each step.
#[derive(Debug)]
pub(super) struct Progress {
    settled: AtomicU64,
    is_awaited: Arc<AtomicBool>,
    /// What the task does not know yet. The latest counts, so a client that changes its mind all the time is no work.
    interest: Mutex<Option<Interest>>,
}

impl Progress {
    /// Of a member that has settled nothing. `is_awaited` is the same for all members.
    pub(super) fn new(is_awaited: Arc<AtomicBool>) -> Self {
        Self { settled: AtomicU64::new(0), is_awaited, interest: Mutex::default() }
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

    /// Puts what the client asks for now; whether the task is to be told, because it has taken all that was put before.
    pub(super) fn put_interest(&self, interest: Interest) -> bool {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner).replace(interest).is_none()
    }

    /// Takes what was put last.
    pub(super) fn take_interest(&self) -> Option<Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_is_told_once_however_often_a_client_changes_its_mind() {
        let progress = Progress::new(Arc::default());
        let names = |count: usize| Interest::of(["a", "b"][..count].iter().copied());
        assert!(progress.put_interest(names(0)));
        assert!(!progress.put_interest(names(1)), "it has not looked yet");
        assert!(!progress.put_interest(Interest::All));
        assert!(matches!(progress.take_interest(), Some(Interest::All)), "the last one counts");
        assert!(progress.take_interest().is_none());
        assert!(progress.put_interest(names(2)), "and the next one is told again");
    }
}
