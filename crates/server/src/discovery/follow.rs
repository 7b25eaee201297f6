//! The newest of a value, for whoever is polled.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::watch::Receiver;

/// Follows a value that somebody else replaces now and then.
pub(super) struct Follow<T> {
    next: Pin<Box<dyn Future<Output = Option<Receiver<T>>> + Send>>,
}

impl<T> fmt::Debug for Follow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").finish_non_exhaustive()
    }
}

impl<T: Clone + Send + Sync + 'static> Follow<T> {
    /// What comes after what the receiver has seen.
    pub(super) fn new(receiver: Receiver<T>) -> Self {
        Self { next: Box::pin(changed(receiver)) }
    }

    /// The newest value, once for each that was not skipped. To be asked until it is pending.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        match self.next.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                // Nobody replaces it any more.
                self.next = Box::pin(std::future::pending());
                Poll::Pending
            }
            Poll::Ready(Some(mut receiver)) => {
                let value = receiver.borrow_and_update().clone();
                self.next = Box::pin(changed(receiver));
                Poll::Ready(value)
            }
        }
    }
}

async fn changed<T>(mut receiver: Receiver<T>) -> Option<Receiver<T>> {
    receiver.changed().await.ok().map(|()| receiver)
}
