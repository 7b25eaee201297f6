//! The task that owns the plane: changes and questions go in, snapshots come out to the streams.
//!
//! It has a thread of its own, because compiling may take seconds and nothing else may wait for it. It is the only
//! writer of snapshots: each audience has a latest-value watch, so a stream that is slow skips what it missed, and
//! no lock is ever held while something is compiled or sent.

mod attachment;
mod input;
mod plane_handle;
mod report;

pub(crate) use attachment::{Attachment, Published};
pub use input::Input;
pub(crate) use plane_handle::{Counts, PlaneHandle};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use compile::Audience;
use plane::{MemberId, Membership, NodeError, ObjectView, Plane};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use world::{Change, Problem};

use crate::metrics::Metrics;
use report::Report;

/// Updates of sources that may wait. When it is full the source waits: [`Input::apply`] does not return.
const CHANGES: usize = 64;
/// Questions that may wait. When it is full those who ask wait.
const QUESTIONS: usize = 1024;

/// What sources say.
#[derive(Debug)]
enum Word {
    Changed {
        changes: Vec<Change>,
        problems: Vec<Problem>,
        seen: Instant,
    },
    /// Everything that the sources had at the start has been said.
    Synced,
}

/// What streams and the admin API ask.
#[derive(Debug)]
enum Question {
    Attach { node: Box<plane::Node>, reply: oneshot::Sender<Result<Attachment, NodeError>> },
    Objects { reply: oneshot::Sender<Vec<ObjectView>> },
    Problems { reply: oneshot::Sender<Vec<Problem>> },
    Counts { reply: oneshot::Sender<Counts> },
}

enum Event {
    Said(Word),
    Detached(MemberId),
    Asked(Question),
    /// It is time to say what is wrong.
    Report,
    Stop,
}

/// The task's state and its channels.
#[derive(Debug)]
pub(crate) struct PlaneTask {
    plane: Plane,
    audiences: HashMap<Audience, watch::Sender<Published>>,
    /// Where each attachment learns that it belongs to another audience now.
    members: HashMap<MemberId, mpsc::UnboundedSender<watch::Receiver<Published>>>,
    words: mpsc::Receiver<Word>,
    questions: mpsc::Receiver<Question>,
    /// Holds at most one entry for each attachment that there ever is at one time, so it needs no bound of its own;
    /// an attachment cannot wait for room while it is dropped.
    detached: mpsc::UnboundedReceiver<MemberId>,
    detach: mpsc::UnboundedSender<MemberId>,
    synced: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    report: Report,
}

impl PlaneTask {
    /// The task, not yet running, with the two ways to talk to it.
    pub(crate) fn new(plane: Plane, metrics: Arc<Metrics>) -> (Self, Input, PlaneHandle) {
        let (say, words) = mpsc::channel(CHANGES);
        let (ask, questions) = mpsc::channel(QUESTIONS);
        let (detach, detached) = mpsc::unbounded_channel();
        let (synced, synced_seen) = watch::channel(false);
        let (audiences, members) = (HashMap::new(), HashMap::new());
        let task = Self {
            plane,
            audiences,
            members,
            words,
            questions,
            detached,
            detach,
            synced,
            metrics,
            report: Report::default(),
        };
        (task, Input::new(say), PlaneHandle::new(ask, synced_seen))
    }

    /// Runs until `stop` is cancelled. Blocks its thread.
    pub(crate) fn run(mut self, runtime: &tokio::runtime::Handle, stop: &CancellationToken) {
        loop {
            match runtime.block_on(self.next_event(stop)) {
                Event::Said(word) => self.take_in(word),
                Event::Detached(member) => self.detach(member),
                Event::Asked(question) => self.answer(question),
                Event::Report => self.report.say(self.plane.found_problems()),
                Event::Stop => return,
            }
        }
    }

    /// Changes come first: they are what somebody waits to see. Then departures, so that nobody compiles for them.
    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            Some(word) = self.words.recv() => Event::Said(word),
            Some(member) = self.detached.recv() => Event::Detached(member),
            Some(question) = self.questions.recv() => Event::Asked(question),
            () = self.report.due() => Event::Report,
            else => Event::Stop,
        }
    }

    /// Takes in what was said and whatever else has been said meanwhile, and publishes once.
    fn take_in(&mut self, first: Word) {
        let mut changes = Vec::new();
        let mut problems = None;
        let mut seen_at = Vec::new();
        let mut is_synced = false;
        let mut next = Some(first);
        while let Some(word) = next {
            match word {
                Word::Changed { changes: more, problems: now, seen } => {
                    changes.extend(more);
                    problems = Some(now);
                    seen_at.push(seen);
                }
                Word::Synced => is_synced = true,
            }
            next = self.words.try_recv().ok();
        }
        if let Some(problems) = problems {
            self.publish(changes, problems, &seen_at);
        }
        if is_synced {
            self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        }
    }

    fn publish(&mut self, changes: Vec<Change>, problems: Vec<Problem>, seen_at: &[Instant]) {
        let begin = Instant::now();
        let changed_objects = changes.len();
        let publication = self.plane.apply(changes, problems);
        let changed_audiences = publication.snapshots.len();
        let seen = seen_at.iter().min().copied();
        for (audience, snapshot) in publication.snapshots {
            if let Some(sender) = self.audiences.get(&audience) {
                sender.send_replace(Published { snapshot, seen });
            }
        }
        let has_moved = !publication.moved.is_empty();
        for membership in publication.moved {
            let member = membership.member;
            let published = self.watch(membership);
            if let Some(attachment) = self.members.get(&member) {
                // An attachment that is gone will say so.
                let _ = attachment.send(published);
            }
        }
        if has_moved {
            self.drop_audiences();
        }
        self.report.something_changed();
        let took = begin.elapsed();
        self.metrics.published(took, publication.work, seen_at);
        tracing::debug!(
            objects = changed_objects,
            audiences = changed_audiences,
            units = publication.work.units,
            resources = publication.work.resources,
            micros = took.as_micros(),
            "published"
        );
    }

    fn answer(&mut self, question: Question) {
        // Whoever no longer waits for the answer has gone; an attachment that comes back detaches itself.
        match question {
            Question::Attach { node, reply } => drop(reply.send(self.attach(&node))),
            Question::Objects { reply } => drop(reply.send(self.plane.objects())),
            Question::Problems { reply } => drop(reply.send(self.plane.problems())),
            Question::Counts { reply } => drop(reply.send(Counts::of(&self.plane))),
        }
    }

    fn attach(&mut self, node: &plane::Node) -> Result<Attachment, NodeError> {
        let membership = self.plane.attach(node)?;
        let member = membership.member;
        let published = self.watch(membership);
        let (moved, moves) = mpsc::unbounded_channel();
        self.members.insert(member, moved);
        // A new audience may be the first for which an object is wrong.
        self.report.something_changed();
        Ok(Attachment::new(member, published, moves, self.detach.clone()))
    }

    /// The watch of the audience of a membership.
    fn watch(&mut self, membership: Membership) -> watch::Receiver<Published> {
        let Membership { audience, snapshot, .. } = membership;
        let new = || watch::Sender::new(Published { snapshot, seen: None });
        self.audiences.entry(audience).or_insert_with(new).subscribe()
    }

    fn detach(&mut self, member: MemberId) {
        self.members.remove(&member);
        if self.plane.detach(member).is_some() {
            self.drop_audiences();
        }
    }

    /// Forgets the watches of audiences that are no longer compiled. Attachments let go of their watch before they say
    /// that they are gone, or move on to another one when they are told.
    fn drop_audiences(&mut self) {
        let compiled = self.plane.snapshots();
        self.audiences.retain(|audience, _| compiled.contains_key(audience));
    }
}
