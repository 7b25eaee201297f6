//! What happens, in order: the last changes with their traces, and events for whoever listens.
//!
//! Events that are rare (a publication, a rejection, a node that comes or goes) are always kept, in a ring, so that
//! somebody who comes late or lost a connection learns what led here. Those that come with every response (sent,
//! accepted, waiting) are made and kept only while somebody listens and for a minute after: with nobody there, they
//! cost one atomic load each.
//!
//! A listener has no queue. It remembers the number of the event that it was given last and reads on in the ring, so a
//! slow one costs nothing and is told how many events were overwritten before it came to them.

mod feed;
mod filter;
mod ring;
mod trace;

pub(crate) use feed::Feed;
pub(crate) use filter::EventFilter;
pub(crate) use trace::{About, NAMES, Settled, Trace};

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::view::{Event, EventKind};
use ring::{Batch, Ring};

/// Changes that are remembered.
const CHANGES: usize = 256;
/// How long frequent events go on being kept when the last listener has left, for it to come back.
const LINGER: Duration = Duration::from_secs(60);
/// Nobody has listened for long; everybody does.
const NEVER: u64 = 0;
const ALWAYS: u64 = u64::MAX;

/// Collects what happens.
#[derive(Debug)]
pub(crate) struct Journal {
    begun: Instant,
    ring: Mutex<Ring>,
    changes: Mutex<VecDeque<Arc<Trace>>>,
    /// The number of the last event, for listeners to wait on.
    last: watch::Sender<u64>,
    /// Until when frequent events are kept, in milliseconds since `begun`.
    frequent_until: AtomicU64,
}

impl Journal {
    /// An empty one.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            ring: Mutex::default(),
            changes: Mutex::default(),
            last: watch::Sender::new(0),
            frequent_until: AtomicU64::new(NEVER),
        })
    }

    /// Whether events of this kind are kept now. Whoever makes one asks first.
    pub(crate) fn wants(&self, kind: EventKind) -> bool {
        if !kind.is_frequent() {
            return true;
        }
        match self.frequent_until.load(Ordering::Relaxed) {
            NEVER => false,
            ALWAYS => true,
            until => {
                let is_over = self.now() >= until;
                if is_over {
                    // Should a listener come at this moment, it has set another value, which stays.
                    let _ = self.frequent_until.compare_exchange(until, NEVER, Ordering::Relaxed, Ordering::Relaxed);
                }
                !is_over
            }
        }
    }

    /// Keeps an event, which gets its number and the time.
    pub(crate) fn record(&self, mut event: Event) {
        event.time = SystemTime::now().into();
        let mut ring = self.ring();
        let number = ring.push(event);
        drop(ring);
        if self.last.receiver_count() > 0 {
            self.last.send_if_modified(|last| {
                let is_newer = number > *last;
                *last = number.max(*last);
                is_newer
            });
        }
    }

    /// A change is published.
    pub(crate) fn published(&self, trace: &Arc<Trace>) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.len() == CHANGES {
            changes.pop_front();
        }
        changes.push_back(trace.clone());
        drop(changes);
        let about = trace.about();
        self.record(Event {
            generation: about.generation,
            objects: about.objects.iter().map(|changed| changed.object.clone()).collect(),
            resources: about.resources.clone(),
            audiences: about.audiences,
            count: about.object_count,
            ..Event::new(EventKind::Published)
        });
    }

    /// The last changes, newest first.
    pub(crate) fn changes(&self) -> Vec<Arc<Trace>> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.iter().rev().cloned().collect()
    }

    /// One change, if it is among the last.
    pub(crate) fn change(&self, generation: u64) -> Option<Arc<Trace>> {
        self.changes().into_iter().find(|trace| trace.generation() == generation)
    }

    /// Begins to listen: from the event after `after` on, if it is still there, else from now on.
    pub(crate) fn listen(self: &Arc<Self>, after: Option<u64>) -> Listener {
        let news = self.last.subscribe();
        let mut ring = self.ring();
        ring.listeners += 1;
        if self.frequent_until.swap(ALWAYS, Ordering::Relaxed) == NEVER {
            ring.frequent_from_here();
        }
        let position = after.unwrap_or(ring.last());
        drop(ring);
        Listener { journal: self.clone(), news, position }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(ALWAYS - 1)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the stream of events.
#[derive(Debug)]
pub(crate) struct Listener {
    journal: Arc<Journal>,
    news: watch::Receiver<u64>,
    /// The event that was read last.
    position: u64,
}

impl Listener {
    /// The events since the last call, at most so many at a time; empty when there are none.
    pub(crate) fn read(&mut self) -> Vec<Arc<Event>> {
        self.news.mark_unchanged();
        let Batch { events, position } = self.journal.ring().after(self.position);
        self.position = position;
        events
    }

    /// Waits for more events. May be dropped while it waits.
    pub(crate) async fn changed(&mut self) {
        // An event that came between the last reading and this call has marked the channel as changed.
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut ring = self.journal.ring();
        ring.listeners -= 1;
        if ring.listeners == 0 {
            let until = self.journal.now().saturating_add(u64::try_from(LINGER.as_millis()).unwrap_or(0));
            self.journal.frequent_until.store(until.max(1), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
