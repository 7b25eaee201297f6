//! Events as a stream, for HTTP and gRPC.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{EventFilter, Listener};
use crate::view::Event;

/// The events that pass a filter, one at a time, until the server ends.
#[derive(Debug)]
pub(crate) struct Feed {
    listener: Listener,
    filter: EventFilter,
    ready: VecDeque<Arc<Event>>,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Feed {
    /// What `listener` reads.
    pub(crate) fn new(listener: Listener, filter: EventFilter, end: CancellationToken) -> Self {
        Self { listener, filter, ready: VecDeque::new(), end: Box::pin(end.cancelled_owned()) }
    }

    /// The next event; `None` when the server ends. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let batch = self.listener.read();
            if batch.is_empty() {
                tokio::select! {
                    () = &mut self.end => return None,
                    () = self.listener.changed() => {}
                }
            }
            self.ready.extend(batch.into_iter().filter(|event| self.filter.takes(event)));
        }
    }
}
