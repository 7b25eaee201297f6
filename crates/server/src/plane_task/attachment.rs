//! A stream's part in an audience.

use std::sync::Arc;
use std::time::Instant;

use plane::MemberId;
use snapshot::Snapshot;
use tokio::sync::{mpsc, watch};

use super::Tide;
use crate::journal::{Settled, Trace};

/// The newest snapshot of an audience.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// What its nodes are to have.
    pub(crate) snapshot: Snapshot,
    /// When the earliest of the changes that led from the snapshot before to this one was seen by its source; `None`
    /// for the snapshot that an audience begins with.
    pub(crate) seen: Option<Instant>,
    /// The change that led to it; for the first snapshot of an audience the last change before that.
    pub(crate) generation: u64,
    /// Follows the change; `None` for the snapshot that an audience begins with.
    pub(super) trace: Option<Arc<Trace>>,
    /// How far the streams of the audience have got.
    pub(super) tide: Arc<Tide>,
}

/// A place among the streams of an audience.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) published: watch::Receiver<Published>,
    /// The generation after which the tide of the audience counts the stream.
    pub(super) counted: u64,
}

impl Joined {
    /// The tide need not wait for a stream that left.
    fn leave(&self) {
        let tide = self.published.borrow().tide.clone();
        tide.settle(self.counted, u64::MAX, &Settled::Gone, None, Instant::now());
    }
}

/// A node's part in the audience that it belongs to at the time; the audience is compiled for as long as there is one.
/// Dropping it detaches the node.
#[derive(Debug)]
pub(crate) struct Attachment {
    member: MemberId,
    node: Arc<str>,
    joined: Joined,
    /// Other audiences that the node has moved to.
    moves: mpsc::UnboundedReceiver<Joined>,
    detach: mpsc::UnboundedSender<MemberId>,
    /// What was returned last.
    taken: Option<Published>,
    /// The newest generation that the client has dealt with.
    settled: Option<u64>,
    sent_at: Option<Instant>,
}

impl Attachment {
    pub(super) fn new(
        member: MemberId,
        node: Arc<str>,
        mut joined: Joined,
        moves: mpsc::UnboundedReceiver<Joined>,
        detach: mpsc::UnboundedSender<MemberId>,
    ) -> Self {
        // The first snapshot counts as news.
        joined.published.mark_changed();
        Self { member, node, joined, moves, detach, taken: None, settled: None, sent_at: None }
    }

    /// Waits for a snapshot that has not been returned yet, and returns the newest; the first at once. Never returns
    /// once the plane's task has ended. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Published {
        loop {
            tokio::select! {
                biased;
                Some(joined) = self.moves.recv() => self.move_to(joined),
                changed = self.joined.published.changed() => match changed {
                    Ok(()) => {
                        let published = self.joined.published.borrow_and_update().clone();
                        self.taken = Some(published.clone());
                        return published;
                    }
                    // The audience is gone, because the node has moved on; or everything is.
                    Err(_) => match self.moves.recv().await {
                        Some(joined) => self.move_to(joined),
                        None => std::future::pending().await,
                    },
                },
            }
        }
    }

    /// The newest snapshot, whether it was returned or not.
    pub(crate) fn newest(&self) -> Published {
        self.joined.published.borrow().clone()
    }

    /// The client was sent something of what was returned last.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.sent_at = Some(now);
        if let Some(trace) = self.taken.as_ref().and_then(|taken| taken.trace.as_ref()) {
            trace.sent(now);
        }
    }

    /// The client was sent all that it was owed of what was returned last, and has answered; `rejected` if it refuses
    /// something of what it has. Without `sent` nothing was owed.
    pub(crate) fn settled(&mut self, sent: bool, rejected: bool) {
        let Some(taken) = &self.taken else { return };
        let how = if sent { Settled::Answered { node: &self.node, rejected } } else { Settled::Unaffected };
        taken.tide.settle(self.joined.counted, taken.generation, &how, self.sent_at, Instant::now());
        self.joined.counted = self.joined.counted.max(taken.generation);
        self.settled = Some(taken.generation);
    }

    /// The newest generation that the client has dealt with.
    pub(crate) fn settled_generation(&self) -> Option<u64> {
        self.settled
    }

    fn move_to(&mut self, mut joined: Joined) {
        joined.published.mark_changed();
        self.taken = None;
        std::mem::replace(&mut self.joined, joined).leave();
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.joined.leave();
        while let Ok(joined) = self.moves.try_recv() {
            joined.leave();
        }
        // An error means that the plane's task has ended, and with it every audience.
        let _ = self.detach.send(self.member);
    }
}
