//! The last events.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::view::{Event, EventKind};

/// Events that are kept; a change that reaches 1,000 nodes makes about 2,000.
const KEPT: usize = 4096;
/// Events that are handed out at one time.
const BATCH: usize = 256;

/// Numbers events and keeps the last of them.
#[derive(Debug, Default)]
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    last: u64,
    /// Who reads.
    pub(super) listeners: usize,
    /// Before this one frequent events were not kept.
    frequent_from: u64,
}

/// What a listener is given.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Arc<Event>>,
    /// The event that was read last.
    pub(super) position: u64,
}

impl Ring {
    /// Keeps an event and returns its number.
    pub(super) fn push(&mut self, event: Event) -> u64 {
        self.last += 1;
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(Event { id: self.last, ..event }));
        self.last
    }

    /// The number of the newest event; 0 when there never was one.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// From here on frequent events are kept, too.
    pub(super) fn frequent_from_here(&mut self) {
        self.frequent_from = self.last + 1;
    }

    /// What comes after `position`. Whatever is no longer there, or never was kept, is told by an event that says so.
    pub(super) fn after(&self, position: u64) -> Batch {
        let mut events = Vec::new();
        let mut from = position + 1;
        if position > self.last {
            // The number is of another life of the server.
            from = 1;
            events.push(gap(0, "these events are of another life of the server, which began again with number 1"));
        }
        let first = self.last + 1 - self.events.len() as u64;
        if from < first {
            let lost = first - from;
            events.push(Arc::new(Event {
                lost,
                message: format!("{lost} events came before they could be read, and are gone"),
                ..Event::new(EventKind::Lost)
            }));
            from = first;
        }
        if from < self.frequent_from && position < self.last {
            events.push(gap(from - 1, "nobody listened for a while: sent, accepted and waiting were not recorded"));
        }
        let at = usize::try_from(from - first).unwrap_or(usize::MAX);
        events.extend(self.events.iter().skip(at).take(BATCH).cloned());
        let position = events.last().map_or(from - 1, |event| event.id).max(from - 1);
        Batch { events, position: position.min(self.last) }
    }
}

fn gap(id: u64, message: &str) -> Arc<Event> {
    Arc::new(Event { id, message: message.to_owned(), ..Event::new(EventKind::Lost) })
}
