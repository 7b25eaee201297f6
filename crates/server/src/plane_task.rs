//! The task that owns the plane: changes and questions go in, snapshots come out to the streams.
//!
//! It has a thread of its own, because compiling may take seconds and nothing else may wait for it. It is the only
//! writer of snapshots: each audience has a latest-value watch, so a stream that is slow skips what it missed, and
//! no lock is ever held while something is compiled or sent.

mod attachment;
mod input;
mod plane_handle;

pub(crate) use attachment::{Attachment, Published};
pub use input::Input;
pub(crate) use plane_handle::{Counts, PlaneHandle};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use compile::Audience;
use plane::{NodeError, ObjectView, Plane};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use world::{Change, Problem};

use crate::metrics::Metrics;

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
    Detached(Audience),
    Asked(Question),
    Stop,
}

/// The task's state and its channels.
#[derive(Debug)]
pub(crate) struct PlaneTask {
    plane: Plane,
    audiences: HashMap<Audience, watch::Sender<Published>>,
    words: mpsc::Receiver<Word>,
    questions: mpsc::Receiver<Question>,
    /// Holds at most one entry for each attachment that there ever is at one time, so it needs no bound of its own;
    /// an attachment cannot wait for room while it is dropped.
    detached: mpsc::UnboundedReceiver<Audience>,
    detach: mpsc::UnboundedSender<Audience>,
    synced: watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

impl PlaneTask {
    /// The task, not yet running, with the two ways to talk to it.
    pub(crate) fn new(plane: Plane, metrics: Arc<Metrics>) -> (Self, Input, PlaneHandle) {
        let (say, words) = mpsc::channel(CHANGES);
        let (ask, questions) = mpsc::channel(QUESTIONS);
        let (detach, detached) = mpsc::unbounded_channel();
        let (synced, synced_seen) = watch::channel(false);
        let audiences = HashMap::new();
        let task = Self { plane, audiences, words, questions, detached, detach, synced, metrics };
        (task, Input::new(say), PlaneHandle::new(ask, synced_seen))
    }

    /// Runs until `stop` is cancelled. Blocks its thread.
    pub(crate) fn run(mut self, runtime: &tokio::runtime::Handle, stop: &CancellationToken) {
        loop {
            match runtime.block_on(self.next_event(stop)) {
                Event::Said(word) => self.take_in(word),
                Event::Detached(audience) => self.detach(&audience),
                Event::Asked(question) => self.answer(question),
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
            Some(audience) = self.detached.recv() => Event::Detached(audience),
            Some(question) = self.questions.recv() => Event::Asked(question),
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
        let (audience, snapshot) = self.plane.attach(node)?;
        let sender = self
            .audiences
            .entry(audience.clone())
            .or_insert_with(|| watch::Sender::new(Published { snapshot, seen: None }));
        Ok(Attachment::new(audience, sender.subscribe(), self.detach.clone()))
    }

    fn detach(&mut self, audience: &Audience) {
        self.plane.detach(audience);
        // Attachments let go of their watch before they say that they are gone.
        if self.audiences.get(audience).is_some_and(|sender| sender.receiver_count() == 0) {
            self.audiences.remove(audience);
        }
    }
}
