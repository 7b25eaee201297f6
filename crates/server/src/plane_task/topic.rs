//! The newest snapshot of one audience, and the streams that follow it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use plane::MemberId;
use snapshot::Snapshot;

use super::tide::Tide;
use crate::journal::{Settled, Trace};

/// The newest snapshot of an audience.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// What its nodes are to have.
    pub(crate) snapshot: Snapshot,
    /// When the earliest of the changes that led from the snapshot before to this one was seen by its source; `None`
    /// for the snapshot that an audience begins with, and where that is not known.
    pub(crate) seen: Option<Instant>,
    /// The change that led to it, or a later one that made no difference to it.
    pub(crate) generation: u64,
    /// Follows the change; `None` for the snapshot that an audience begins with, and for streams that were not told at
    /// once because the change does not concern them.
    pub(super) trace: Option<Arc<Trace>>,
}

/// A latest-value channel to all streams of an audience: whoever is slow skips what it missed. Streams are woken again
/// and again, and none of them has to ask for the next time.
#[derive(Debug)]
pub(super) struct Topic {
    /// Counts what was published; changes while `state` is locked.
    number: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    published: Published,
    listeners: Vec<(MemberId, Waker)>,
    /// Streams that follow, whether they listen yet or not.
    streams: usize,
    tide: Tide,
}

impl Topic {
    /// An audience's first snapshot, which nobody follows yet.
    pub(super) fn new(snapshot: Snapshot, generation: u64) -> Arc<Self> {
        let published = Published { snapshot, seen: None, generation, trace: None };
        let state = State { published, listeners: Vec::new(), streams: 0, tide: Tide::default() };
        Arc::new(Self { number: AtomicU64::new(1), state: Mutex::new(state) })
    }

    /// One more stream follows. Returns the generation after which its steps count.
    pub(super) fn enter(&self) -> u64 {
        let mut state = self.state();
        state.streams += 1;
        state.published.generation
    }

    /// A stream follows no more; nobody waits for it.
    pub(super) fn leave(&self, member: MemberId, counted: u64) {
        let mut state = self.state();
        state.streams -= 1;
        state.listeners.retain(|(listener, _)| *listener != member);
        state.tide.settle(counted, u64::MAX, &Settled::Gone, None, Instant::now());
    }

    /// Wakes `waker` whenever something is published from now on.
    pub(super) fn listen(&self, member: MemberId, waker: &Waker) {
        self.state().listeners.push((member, waker.clone()));
    }

    /// Publishes a snapshot, unless it is what there is.
    pub(super) fn publish(&self, published: Published) {
        let mut state = self.state();
        let State { published: before, streams, tide, listeners } = &mut *state;
        if before.snapshot.same_as(&published.snapshot) {
            return;
        }
        if let Some(trace) = &published.trace {
            tide.rise(trace, *streams);
        }
        let before = std::mem::replace(before, published);
        self.number.fetch_add(1, Ordering::Release);
        listeners.iter().for_each(|(_, waker)| waker.wake_by_ref());
        drop(state);
        // The last use of an old snapshot may take a while to drop.
        drop(before);
    }

    /// Counts what was published: differs from an earlier answer if there is something new. From 1.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// What was published last, with its number.
    pub(super) fn latest(&self) -> (u64, Published) {
        let state = self.state();
        (self.number(), state.published.clone())
    }

    /// A stream has dealt with everything after the generation `from`, up to `to`.
    pub(super) fn settle(&self, from: u64, to: u64, how: &Settled<'_>, sent_at: Option<Instant>) {
        self.state().tide.settle(from, to, how, sent_at, Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
