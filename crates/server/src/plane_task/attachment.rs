//! A stream's part in an audience.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use plane::MemberId;
use snapshot::Snapshot;
use tokio::sync::{mpsc, watch};

use super::progress::Progress;
use super::{Bell, Tide};
use crate::journal::{Settled, Trace};
use crate::mailbox;

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
    /// Wakes those who wait for the next one.
    pub(super) bell: Arc<Bell>,
}

/// A place among the streams of an audience.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) published: watch::Receiver<Published>,
    /// The generation after which the tide of the audience counts the stream.
    pub(super) counted: u64,
    /// The generation that was published last when it joined: what it begins with is no older.
    pub(super) since: u64,
    /// The stream's task is woken by the bell of the audience.
    pub(super) is_listening: bool,
}

impl Joined {
    /// The tide need not wait for a stream that left.
    fn leave(&self, member: MemberId) {
        let Published { bell, tide, .. } = self.published.borrow().clone();
        bell.forget(member);
        tide.settle(self.counted, u64::MAX, &Settled::Gone, None, Instant::now());
    }
}

/// What attachments tell the plane's task.
#[derive(Debug)]
pub(super) enum Told {
    /// It is gone.
    Detached(MemberId),
    /// Its client has settled this generation; told only while the task wants to know.
    Settled(MemberId, u64),
}

/// A node's part in the audience that it belongs to at the time; the audience is compiled for as long as there is one.
/// Dropping it detaches the node.
#[derive(Debug)]
pub(crate) struct Attachment {
    member: MemberId,
    node: Arc<str>,
    joined: Joined,
    /// Other audiences that the node has moved to.
    moves: mailbox::Receiver<Joined>,
    tell: mpsc::UnboundedSender<Told>,
    progress: Arc<Progress>,
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
        moves: mailbox::Receiver<Joined>,
        tell: mpsc::UnboundedSender<Told>,
        progress: Arc<Progress>,
    ) -> Self {
        // The first snapshot counts as news.
        joined.published.mark_changed();
        Self { member, node, joined, moves, tell, progress, taken: None, settled: None, sent_at: None }
    }

    /// The newest snapshot, if it was not returned yet; the first at once. Otherwise `cx` is woken when there is one; it
    /// must be of the same task each time. Never ready once the plane's task has ended.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Published> {
        while let Poll::Ready(joined) = self.moves.poll(cx) {
            self.move_to(joined);
        }
        // The bell is asked for first, so that it cannot ring unheard in between.
        if !std::mem::replace(&mut self.joined.is_listening, true) {
            self.joined.published.borrow().bell.listen(self.member, cx.waker());
        }
        match self.joined.published.has_changed() {
            Ok(true) => {
                let published = self.joined.published.borrow_and_update().clone();
                self.taken = Some(published.clone());
                Poll::Ready(published)
            }
            // Without a sender the audience is gone, because the node has moved on, which it is told; or everything is.
            Ok(false) | Err(_) => Poll::Pending,
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
        let settled = taken.generation.max(self.joined.since);
        if self.progress.settle(settled) {
            // An error means that the plane's task has ended.
            let _ = self.tell.send(Told::Settled(self.member, settled));
        }
    }

    /// The newest generation that the client has dealt with.
    pub(crate) fn settled_generation(&self) -> Option<u64> {
        self.settled
    }

    fn move_to(&mut self, mut joined: Joined) {
        joined.published.mark_changed();
        self.taken = None;
        std::mem::replace(&mut self.joined, joined).leave(self.member);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.joined.leave(self.member);
        while let Some(joined) = self.moves.take() {
            joined.leave(self.member);
        }
        // An error means that the plane's task has ended, and with it every audience.
        let _ = self.tell.send(Told::Detached(self.member));
    }
}
