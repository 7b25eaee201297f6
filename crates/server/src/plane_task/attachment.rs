//! A stream's part in an audience.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use plane::MemberId;
use tokio::sync::mpsc;

use super::progress::Progress;
use super::topic::Topic;
use super::{Interest, Published};
use crate::journal::Settled;
use crate::mailbox;

/// A place among the streams of an audience.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) topic: Arc<Topic>,
    /// What was taken last of the topic, by its number there.
    pub(super) taken: u64,
    /// The generation after which the tide of the audience counts the stream.
    pub(super) counted: u64,
    /// The generation that was published last when it joined: what it begins with is no older.
    pub(super) since: u64,
    /// The stream's task is woken by the topic.
    pub(super) is_listening: bool,
}

/// What attachments tell the plane's task.
#[derive(Debug)]
pub(super) enum Told {
    /// It is gone.
    Detached(MemberId),
    /// Its client has settled this generation; told only while the task wants to know.
    Settled(MemberId, u64),
    /// Its client asks for other assignments of endpoints than before; which, its progress says.
    Interested(MemberId),
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
    may_have_gateway_secrets: bool,
}

impl Attachment {
    pub(super) fn new(
        member: MemberId,
        node: Arc<str>,
        joined: Joined,
        moves: mailbox::Receiver<Joined>,
        tell: mpsc::UnboundedSender<Told>,
        progress: Arc<Progress>,
        may_have_gateway_secrets: bool,
    ) -> Self {
        Self {
            member,
            node,
            joined,
            moves,
            tell,
            progress,
            taken: None,
            settled: None,
            sent_at: None,
            may_have_gateway_secrets,
        }
    }

    /// The node's place in the plane.
    pub(crate) fn member(&self) -> MemberId {
        self.member
    }

    /// Whether the node could be a gateway by what was known when it came.
    pub(crate) fn may_have_gateway_secrets(&self) -> bool {
        self.may_have_gateway_secrets
    }

    /// The newest snapshot, if it was not returned yet; the first at once. Otherwise `cx` is woken when there is one; it
    /// must be of the same task each time. Never ready once the plane's task has ended.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Published> {
        while let Poll::Ready(joined) = self.moves.poll(cx) {
            self.move_to(joined);
        }
        // It listens first, so that nothing is published unheard in between.
        if !std::mem::replace(&mut self.joined.is_listening, true) {
            self.joined.topic.listen(self.member, cx.waker());
        }
        if self.joined.topic.number() == self.joined.taken {
            return Poll::Pending;
        }
        let (number, published) = self.joined.topic.latest();
        self.joined.taken = number;
        self.taken = Some(published.clone());
        Poll::Ready(published)
    }

    /// The newest snapshot, whether it was returned or not.
    pub(crate) fn newest(&self) -> Published {
        self.joined.topic.latest().1
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
        self.joined.topic.settle(self.joined.counted, taken.generation, &how, self.sent_at);
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

    /// The client asks for these assignments of endpoints from now on. Changes of others may come a little later.
    pub(crate) fn interested(&self, interest: Interest) {
        if self.progress.put_interest(interest) {
            // An error means that the plane's task has ended.
            let _ = self.tell.send(Told::Interested(self.member));
        }
    }

    fn move_to(&mut self, joined: Joined) {
        self.taken = None;
        std::mem::replace(&mut self.joined, joined).leave(self.member);
    }
}

impl Joined {
    fn leave(&self, member: MemberId) {
        self.topic.leave(member, self.counted);
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
