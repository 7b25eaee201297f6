//! The task that owns the plane: changes and questions go in, snapshots come out to the streams.
//!
//! It has a thread of its own, because compiling may take seconds and nothing else may wait for it. It is the only
//! writer of snapshots: each audience has a latest-value watch, so a stream that is slow skips what it missed, and
//! no lock is ever held while something is compiled or sent.

mod attachment;
mod bell;
mod input;
mod plane_handle;
mod report;
mod tide;

pub(crate) use attachment::{Attachment, Published};
pub use input::Input;
pub(crate) use plane_handle::{Counts, PlaneHandle};

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use compile::Audience;
use plane::{MemberId, Membership, NodeError, ObjectView, Plane, Publication};
use proto::ResourceType;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use world::{Change, ObjectRef, Problem};

use crate::journal::{About, Journal, NAMES, Trace};
use crate::metrics::Metrics;
use crate::view;
use attachment::Joined;
use bell::Bell;
use report::Report;
use tide::Tide;

/// Updates of sources that may wait. When it is full the source waits: [`Input::apply`] does not return.
const CHANGES: usize = 64;
/// Questions that may wait. When it is full those who ask wait.
const QUESTIONS: usize = 1024;

/// Of so many audiences a publication's resources are named; there may be thousands that have the same.
const AUDIENCES_LOOKED_AT: usize = 32;

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
    Object { reference: ObjectRef, reply: oneshot::Sender<Option<ObjectView>> },
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
    members: HashMap<MemberId, mpsc::UnboundedSender<Joined>>,
    words: mpsc::Receiver<Word>,
    questions: mpsc::Receiver<Question>,
    /// Holds at most one entry for each attachment that there ever is at one time, so it needs no bound of its own;
    /// an attachment cannot wait for room while it is dropped.
    detached: mpsc::UnboundedReceiver<MemberId>,
    detach: mpsc::UnboundedSender<MemberId>,
    synced: watch::Sender<bool>,
    metrics: Arc<Metrics>,
    journal: Arc<Journal>,
    /// Counts the changes that were published.
    generation: u64,
    report: Report,
}

impl PlaneTask {
    /// The task, not yet running, with the two ways to talk to it.
    pub(crate) fn new(plane: Plane, metrics: Arc<Metrics>, journal: Arc<Journal>) -> (Self, Input, PlaneHandle) {
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
            journal,
            generation: 0,
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
        let begun = Instant::now();
        let changed: Vec<_> = changes.iter().take(NAMES).map(changed_object).collect();
        let object_count = changes.len();
        let touched = self.plane.take_in(changes, problems);
        let applied = Instant::now();
        let publication = self.plane.compile(&touched);
        let compiled = Instant::now();
        self.generation += u64::from(object_count > 0);
        let (resources, has_more_resources) = self.changed_resources(&publication);
        let seen = seen_at.iter().min().copied();
        let about = About {
            generation: self.generation,
            time: SystemTime::now(),
            seen: seen.unwrap_or(begun),
            begun,
            applied,
            compiled,
            objects: changed.into_iter().map(|(reference, change)| self.describe_change(&reference, change)).collect(),
            object_count,
            resources,
            has_more_resources,
            audiences: publication.snapshots.len(),
        };
        let trace = Trace::new(about, self.metrics.clone());
        if object_count > 0 {
            self.journal.published(&trace);
        }
        let (work, audiences) = (publication.work, publication.snapshots.len());
        self.send(publication, &trace, seen);
        trace.published();
        self.report.something_changed();
        let took = begun.elapsed();
        self.metrics.published(took, work, seen_at);
        tracing::debug!(
            generation = self.generation,
            objects = object_count,
            audiences,
            units = work.units,
            resources = work.resources,
            micros = took.as_micros(),
            "published"
        );
    }

    /// Hands the snapshots to the streams.
    fn send(&mut self, publication: Publication, trace: &Arc<Trace>, seen: Option<Instant>) {
        for (audience, snapshot) in publication.snapshots {
            if let Some(sender) = self.audiences.get(&audience) {
                let Published { tide, bell, .. } = sender.borrow().clone();
                tide.rise(trace, sender.receiver_count());
                let generation = trace.generation();
                let trace = Some(trace.clone());
                sender.send_replace(Published { snapshot, seen, generation, trace, tide, bell: bell.clone() });
                bell.ring();
            }
        }
        let has_moved = !publication.moved.is_empty();
        for membership in publication.moved {
            let member = membership.member;
            let joined = self.join(membership);
            if let Some(attachment) = self.members.get(&member) {
                // An attachment that is gone will say so.
                let _ = attachment.send(joined);
            }
        }
        if has_moved {
            self.drop_audiences();
        }
    }

    fn describe_change(&self, reference: &ObjectRef, change: view::ObjectChange) -> view::ChangedObject {
        view::ChangedObject { object: reference.path(), generation: self.plane.world().generation(reference), change }
    }

    /// Names of resources that this publication changes, at most [`NAMES`], and whether there are more. Layers are
    /// shared, so few of them are looked at, and each is compared by what differs.
    fn changed_resources(&self, publication: &Publication) -> (Vec<view::ResourceName>, bool) {
        let mut looked_at = HashSet::new();
        let mut found = BTreeSet::new();
        for (audience, new) in publication.snapshots.iter().take(AUDIENCES_LOOKED_AT) {
            let Some(sender) = self.audiences.get(audience) else { continue };
            let old = sender.borrow().snapshot.clone();
            if old.layers().len() != new.layers().len() {
                continue;
            }
            for (old, new) in old.layers().iter().zip(new.layers()) {
                if Arc::ptr_eq(old, new) || !looked_at.insert((Arc::as_ptr(old), Arc::as_ptr(new))) {
                    continue;
                }
                for resource_type in ResourceType::ALL {
                    for name in new.changed_names(old, resource_type) {
                        found.insert((resource_type, name.to_string()));
                        if found.len() > NAMES {
                            return (names(found), true);
                        }
                    }
                }
            }
        }
        (names(found), publication.snapshots.len() > AUDIENCES_LOOKED_AT)
    }

    fn answer(&mut self, question: Question) {
        // Whoever no longer waits for the answer has gone; an attachment that comes back detaches itself.
        match question {
            Question::Attach { node, reply } => drop(reply.send(self.attach(&node))),
            Question::Objects { reply } => drop(reply.send(self.plane.objects())),
            Question::Object { reference, reply } => drop(reply.send(self.plane.object(&reference))),
            Question::Problems { reply } => drop(reply.send(self.plane.problems())),
            Question::Counts { reply } => drop(reply.send(Counts::of(&self.plane))),
        }
    }

    fn attach(&mut self, node: &plane::Node) -> Result<Attachment, NodeError> {
        let membership = self.plane.attach(node)?;
        let member = membership.member;
        let joined = self.join(membership);
        let (moved, moves) = mpsc::unbounded_channel();
        self.members.insert(member, moved);
        // A new audience may be the first for which an object is wrong.
        self.report.something_changed();
        Ok(Attachment::new(member, node.id.as_str().into(), joined, moves, self.detach.clone()))
    }

    /// A place in the audience of a membership.
    fn join(&mut self, membership: Membership) -> Joined {
        let Membership { audience, snapshot, .. } = membership;
        let generation = self.generation;
        let (tide, bell) = Default::default();
        let first = || Published { snapshot, seen: None, generation, trace: None, tide, bell };
        let published = self.audiences.entry(audience).or_insert_with(|| watch::Sender::new(first())).subscribe();
        let counted = published.borrow().generation;
        Joined { published, counted, is_listening: false }
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

fn changed_object(change: &Change) -> (ObjectRef, view::ObjectChange) {
    match change {
        Change::Apply(object) => (object.reference.clone(), view::ObjectChange::Applied),
        Change::Remove(reference) => (reference.clone(), view::ObjectChange::Removed),
    }
}

/// As the API says them, at most [`NAMES`].
fn names(found: BTreeSet<(ResourceType, String)>) -> Vec<view::ResourceName> {
    let named = |(resource_type, name): (ResourceType, String)| view::ResourceName {
        r#type: resource_type.short().to_owned(),
        name,
    };
    found.into_iter().take(NAMES).map(named).collect()
}
