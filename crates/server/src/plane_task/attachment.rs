//! A stream's part in an audience.

use std::time::Instant;

use plane::MemberId;
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

/// A node's part in the audience that it belongs to at the time; the audience is compiled for as long as there is one.
/// Dropping it detaches the node.
#[derive(Debug)]
pub(crate) struct Attachment {
    member: MemberId,
    published: watch::Receiver<Published>,
    /// Watches of other audiences that the node has moved to.
    moves: mpsc::UnboundedReceiver<watch::Receiver<Published>>,
    detach: mpsc::UnboundedSender<MemberId>,
}

impl Attachment {
    pub(super) fn new(
        member: MemberId,
        mut published: watch::Receiver<Published>,
        moves: mpsc::UnboundedReceiver<watch::Receiver<Published>>,
        detach: mpsc::UnboundedSender<MemberId>,
    ) -> Self {
        // The first snapshot counts as news.
        published.mark_changed();
        Self { member, published, moves, detach }
    }

    /// Waits for a snapshot that has not been returned yet, and returns the newest; the first at once. Never returns
    /// once the plane's task has ended. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Published {
        loop {
            tokio::select! {
                biased;
                Some(mut published) = self.moves.recv() => {
                    published.mark_changed();
                    self.published = published;
                }
                changed = self.published.changed() => match changed {
                    Ok(()) => return self.published.borrow_and_update().clone(),
                    // The audience is gone, because the node has moved on; or everything is.
                    Err(_) => match self.moves.recv().await {
                        Some(published) => {
                            self.published = published;
                            self.published.mark_changed();
                        }
                        None => std::future::pending().await,
                    },
                },
            }
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // An error means that the plane's task has ended, and with it every audience.
        let _ = self.detach.send(self.member);
    }
}
