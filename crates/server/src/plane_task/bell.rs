//! Wakes the streams of an audience.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use plane::MemberId;

/// Rings for all who listen, again and again: thousands of streams are woken by every change, and none of them has to
/// ask for the next one.
#[derive(Debug, Default)]
pub(super) struct Bell {
    listeners: Mutex<BTreeMap<MemberId, Waker>>,
}

impl Bell {
    /// Wakes `waker` whenever it rings from now on.
    pub(super) fn listen(&self, member: MemberId, waker: &Waker) {
        self.listeners().insert(member, waker.clone());
    }

    /// Wakes a member no more.
    pub(super) fn forget(&self, member: MemberId) {
        self.listeners().remove(&member);
    }

    /// Wakes all who listen.
    pub(super) fn ring(&self) {
        self.listeners().values().for_each(Waker::wake_by_ref);
    }

    fn listeners(&self) -> MutexGuard<'_, BTreeMap<MemberId, Waker>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
