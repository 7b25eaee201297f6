//! A stream's part in an audience.

use std::time::Instant;

use compile::Audience;
use snapshot::Snapshot;
use tokio::sync::{mpsc, watch};

/// The newest snapshot of an audience.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// What its nodes are to have.
    pub(crate) snapshot: Snapshot,
    /// When the earliest of the changes that led from the snapshot before to this one was seen by its source; `None`
    /// for the snapshot that an audience begins with.
    pub(crate) seen: Option<Instant>,
}

/// A node of an audience; the audience is compiled for as long as there is one. Dropping it detaches the node.
#[derive(Debug)]
pub(crate) struct Attachment {
    audience: Audience,
    /// `None` only while it is dropped.
    published: Option<watch::Receiver<Published>>,
    detach: mpsc::UnboundedSender<Audience>,
}

impl Attachment {
    pub(super) fn new(
        audience: Audience,
        mut published: watch::Receiver<Published>,
        detach: mpsc::UnboundedSender<Audience>,
    ) -> Self {
        // The first snapshot counts as news.
        published.mark_changed();
        Self { audience, published: Some(published), detach }
    }

    /// The audience.
    pub(crate) fn audience(&self) -> &Audience {
        &self.audience
    }

    /// Waits for a snapshot that has not been returned yet, and returns the newest; the first at once. Never returns
    /// once the plane's task has ended. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Published {
        let published = self.published.as_mut().expect("it is taken only by drop");
        if published.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        published.borrow_and_update().clone()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.published = None;
        // An error means that the plane's task has ended, and with it every audience.
        let _ = self.detach.send(self.audience.clone());
    }
}
