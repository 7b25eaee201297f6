//! The task that owns the plane: changes and questions go in, snapshots come out to the streams.
//!
//! It has a thread of its own, because compiling may take seconds and nothing else may wait for it. It is the only
//! writer of snapshots: each audience has a [`Topic`] with the newest one, so a stream that is slow skips what it missed,
//! and no lock is ever held while something is compiled or sent. Streams that a change does not concern are told of it
//! a second later, with all others that did not concern them ([`Interests`]).

mod attachment;
mod catalog;
mod changed;
mod input;
mod interests;
mod lookout;
mod plane_handle;
mod progress;
mod report;
mod secrets;
mod tide;
mod topic;

pub(crate) use attachment::Attachment;
pub(crate) use catalog::Catalogued;
pub use input::Input;
pub(crate) use interests::Interest;
pub(crate) use plane_handle::{Counts, PlaneHandle};
pub(crate) use topic::Published;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use compile::{AudienceId, Update};
use plane::{Held, Kept, MemberId, Membership, Moment, NodeError, ObjectView, Plane, Publication};
use snapshot::Snapshot;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use world::{Change, Fetched, Key, KeySource, Kind, ObjectRef, Problem, SecretList};

use crate::gateway_secrets::Inventory;
use crate::journal::{About, Journal, NAMES, Trace};
use crate::jwks::Wanted;
use crate::mailbox::{self, mailbox};
use crate::metrics::Metrics;
use crate::quotas::Limits;
use crate::view::{self, EventKind};
use attachment::{Joined, Told};
use catalog::Catalog;
use changed::Changed;
use interests::{Column, Interests};
use lookout::Lookout;
use progress::Progress;
use report::Report;
use secrets::Secrets;
use topic::Topic;

/// Updates of sources that may wait. When it is full the source waits: [`Input::apply`] does not return.
const CHANGES: usize = 64;
/// Questions that may wait. When it is full those who ask wait.
const QUESTIONS: usize = 1024;

/// The reasons for which ports of workloads, and the last endpoints of revisions, are held, in metrics.
const STILL_USED: &str = "still_used";
const ENDPOINTS_GONE: &str = "endpoints_gone";
const MODES_CHANGED: &str = "modes_changed";

/// How long streams wait at the start for the key sets that their listeners want: proxies that come back with a server
/// that was started again would else refuse tokens until it has fetched the keys.
const WAIT_FOR_KEYS: Duration = Duration::from_secs(5);

/// How long streams that a change does not concern may have an older snapshot: then an old one is not kept alive for
/// long, and nobody looks behind who is not.
const CATCH_UP: Duration = Duration::from_secs(1);

/// What sources say.
#[derive(Debug)]
enum Word {
    Changed {
        changes: Vec<Change>,
        problems: Vec<Problem>,
        seen: Instant,
    },
    /// What rollouts have decided, with all problems that they have.
    Decided {
        changes: Vec<Change>,
        problems: Vec<Problem>,
        seen: Instant,
    },
    /// What fetching a key set has led to, or that it is no longer fetched.
    Fetched {
        source: KeySource,
        fetched: Option<Fetched>,
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
    Generation { reference: ObjectRef, reply: oneshot::Sender<i64> },
    Attached { run: ObjectRef, reply: oneshot::Sender<Option<HashSet<MemberId>>> },
    Problems { reply: oneshot::Sender<Vec<Problem>> },
    Held { reply: oneshot::Sender<Vec<Held>> },
    Counts { reply: oneshot::Sender<Counts> },
}

enum Event {
    Said(Word),
    Told(Told),
    Asked(Question),
    /// It is time to give up something that is held.
    Due,
    /// There are other secrets, or one is over.
    Secrets,
    /// It is time to tell streams what does not concern them.
    CatchUp,
    /// Streams have waited for key sets as long as they may.
    Served,
    /// It is time to say what is wrong.
    Report,
    Stop,
}

/// The task's state and its channels.
#[derive(Debug)]
pub(crate) struct PlaneTask {
    plane: Plane,
    audiences: HashMap<AudienceId, Arc<Topic>>,
    interests: Interests,
    /// When streams that were left out are told; `None` while there are none.
    catch_up: Option<Instant>,
    members: HashMap<MemberId, Member>,
    /// Attachments tell of each step that their clients take.
    is_awaited: Arc<AtomicBool>,
    words: mpsc::Receiver<Word>,
    questions: mpsc::Receiver<Question>,
    /// Holds at most one departure of each attachment that there ever is at one time, one word that its client asks for
    /// something else, and one step for each publication, of which there are none while nobody reads; so it needs no
    /// bound of its own. An attachment cannot wait for room while it is dropped.
    told: mpsc::UnboundedReceiver<Told>,
    told_by: mpsc::UnboundedSender<Told>,
    synced: watch::Sender<bool>,
    /// Until when streams may wait for key sets, once the sources have said everything.
    synced_by: Option<Instant>,
    key_sets: watch::Sender<Wanted>,
    metrics: Arc<Metrics>,
    journal: Arc<Journal>,
    /// Counts the changes that were published.
    generation: u64,
    report: Report,
    lookout: Lookout,
    catalog: Catalog,
    limits: Limits,
    secrets: Secrets,
}

/// An attachment, from this side.
#[derive(Debug)]
struct Member {
    /// Where it learns that it belongs to another audience now.
    moves: mailbox::Sender<Joined>,
    progress: Arc<Progress>,
    audience: AudienceId,
    column: Column,
}

/// When the parts of a publication were done, and since when its source has known.
#[derive(Clone, Copy, Debug)]
struct Course {
    seen: Option<Instant>,
    begun: Instant,
    applied: Instant,
    compiled: Instant,
}

impl PlaneTask {
    /// The task, not yet running, with the two ways to talk to it.
    /// It is told by `inventory` which secrets there are for gateways.
    pub(crate) fn new(
        plane: Plane,
        inventory: watch::Receiver<Option<Arc<Inventory>>>,
        metrics: Arc<Metrics>,
        journal: Arc<Journal>,
    ) -> (Self, Input, PlaneHandle) {
        let (say, words) = mpsc::channel(CHANGES);
        let (ask, questions) = mpsc::channel(QUESTIONS);
        let (told_by, told) = mpsc::unbounded_channel();
        let (synced, synced_seen) = watch::channel(false);
        let (audiences, members) = (HashMap::new(), HashMap::new());
        let lookout = Lookout::new(plane.world());
        let picture = lookout.subscribe();
        let catalog = Catalog::default();
        let listed = catalog.subscribe();
        let (key_sets, wanted) = watch::channel(Wanted::new());
        let limits = Limits::new(plane.world().settings().root_namespace.clone());
        let table = limits.subscribe();
        let task = Self {
            plane,
            audiences,
            interests: Interests::default(),
            catch_up: None,
            members,
            is_awaited: Arc::default(),
            words,
            questions,
            told,
            told_by,
            synced,
            synced_by: None,
            key_sets,
            metrics,
            journal,
            generation: 0,
            report: Report::default(),
            lookout,
            catalog,
            limits,
            secrets: Secrets::new(inventory),
        };
        (task, Input::new(say), PlaneHandle::new(ask, synced_seen, picture, listed, wanted, table))
    }

    /// Runs until `stop` is cancelled. Blocks its thread.
    pub(crate) fn run(mut self, runtime: &tokio::runtime::Handle, stop: &CancellationToken) {
        loop {
            match runtime.block_on(self.next_event(stop)) {
                Event::Said(word) => self.take_in(word),
                Event::Told(Told::Detached(member)) => self.detach(member),
                Event::Told(Told::Settled(member, generation)) => {
                    self.plane.settled(member, generation, Instant::now());
                }
                Event::Told(Told::Interested(member)) => self.note_interest(member),
                Event::Due => self.release(),
                Event::Secrets => {
                    if let Some(secrets) = self.secrets.take() {
                        self.publish(Vec::new(), None, Vec::new(), Some(secrets), &[]);
                    }
                }
                Event::CatchUp => self.catch_up(),
                Event::Served => self.serve_streams(),
                Event::Asked(question) => self.answer(question),
                Event::Report => self.report.say(self.plane.found_problems()),
                Event::Stop => return,
            }
        }
    }

    /// What has waited as long as it may comes first, however much else there is. Then changes: they are what somebody
    /// waits to see. Then departures, so that nobody compiles for them.
    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            () = until(self.plane.due()) => Event::Due,
            Some(word) = self.words.recv() => Event::Said(word),
            () = until(self.synced_by) => Event::Served,
            () = until(self.catch_up) => Event::CatchUp,
            () = self.secrets.changed() => Event::Secrets,
            Some(told) = self.told.recv() => Event::Told(told),
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
        let mut key_sets = Vec::new();
        let mut next = Some(first);
        while let Some(word) = next {
            match word {
                Word::Changed { changes: more, problems: now, seen } => {
                    changes.extend(more);
                    problems = Some(now);
                    seen_at.push(seen);
                }
                Word::Decided { changes: more, problems: now, seen } => {
                    changes.extend(more);
                    self.plane.set_rollout_problems(now);
                    seen_at.push(seen);
                }
                Word::Fetched { source, fetched, seen } => {
                    key_sets.push((source, fetched));
                    seen_at.push(seen);
                }
                Word::Synced => self.synced_by = Some(Instant::now() + WAIT_FOR_KEYS),
            }
            next = self.words.try_recv().ok();
        }
        if !seen_at.is_empty() {
            let secrets = self.secrets.take();
            self.publish(changes, problems, key_sets, secrets, &seen_at);
        }
        if self.synced_by.is_some() && self.has_asked_for_keys() {
            self.serve_streams();
        }
    }

    /// Whether each key set that is wanted was asked for at least once.
    fn has_asked_for_keys(&self) -> bool {
        self.key_sets.borrow().keys().all(|source| self.plane.world().key_set(source).is_some())
    }

    /// From now on streams are served.
    fn serve_streams(&mut self) {
        self.synced_by = None;
        self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    /// Takes in changes, with all problems that sources have now if they have said so, what fetching keys has led to, and
    /// which secrets there are, and publishes what follows.
    fn publish(
        &mut self,
        changes: Vec<Change>,
        problems: Option<Vec<Problem>>,
        key_sets: Vec<(KeySource, Option<Fetched>)>,
        secrets: Option<SecretList>,
        seen_at: &[Instant],
    ) {
        let begun = Instant::now();
        let changed: Vec<_> = changes.iter().take(NAMES).map(changed_object).collect();
        let object_count = changes.len();
        self.limits.note(&changes);
        let is_shown = changes.iter().filter(|change| self.lookout.note(change)).count() > 0;
        let listed: Vec<_> = changes.iter().filter_map(Catalog::concerned).collect();
        let wants_keys = changes.iter().any(|change| changed_object(change).0.kind == Kind::RequestAuthentication);
        let mut touched = match problems {
            Some(problems) => self.plane.take_in(changes, problems),
            None => self.plane.take_in_changes(changes),
        };
        self.catalog.update(&listed, self.plane.world());
        if let Some(secrets) = secrets {
            touched.extend(self.plane.take_in_secrets(secrets));
        }
        for (source, fetched) in key_sets {
            touched.extend(self.plane.take_in_key_set(source, fetched));
        }
        if wants_keys {
            let wanted = self.plane.world().wanted_key_sets();
            self.key_sets.send_if_modified(|before| std::mem::replace(before, wanted.clone()) != wanted);
        }
        if is_shown || self.lookout.concerns(&touched) {
            self.lookout.look(self.plane.world(), &self.plane.refused_intents());
        }
        let applied = Instant::now();
        self.generation += u64::from(object_count > 0 || touched.iter().any(|key| matches!(key, Key::KeySet(_))));
        let moment = Moment { generation: self.generation, now: applied };
        let members = &self.members;
        let settled = |member: MemberId| members.get(&member).map_or(0, |member| member.progress.look());
        let publication = self.plane.compile(&touched, &moment, &settled);
        let course = Course { seen: seen_at.iter().min().copied(), begun, applied, compiled: Instant::now() };
        self.is_awaited.store(self.plane.due().is_some(), Ordering::SeqCst);
        let objects = changed.into_iter().map(|(reference, change)| self.describe_change(&reference, change)).collect();
        self.report.something_changed();
        publication.held.iter().for_each(|held| self.hold_begins(held));
        self.announce(publication, objects, object_count, course, seen_at);
    }

    /// Takes away what nobody can use any more.
    fn release(&mut self) {
        let begun = Instant::now();
        self.generation += 1;
        let members = &self.members;
        let settled = |member: MemberId| members.get(&member).map_or(0, |member| member.progress.look());
        let publication = self.plane.release(&Moment { generation: self.generation, now: begun }, &settled);
        let course = Course { seen: None, begun, applied: begun, compiled: Instant::now() };
        self.is_awaited.store(self.plane.due().is_some(), Ordering::SeqCst);
        let objects: BTreeSet<_> = publication.held.iter().map(|held| &held.object).collect();
        let released = |object: &&ObjectRef| self.describe_change(object, view::ObjectChange::Released);
        let (objects, object_count) = (objects.iter().take(NAMES).map(released).collect(), objects.len());
        publication.held.iter().for_each(|held| self.hold_ends(held));
        self.announce(publication, objects, object_count, course, &[]);
    }

    /// A workload lost a port, or a revision its endpoints, and keeps what it lost.
    fn hold_begins(&self, held: &Held) {
        self.metrics.waiting(reason(held), held.count());
        tracing::info!(count = held.count(), "{held}; it is kept for now");
        self.journal.record(event(EventKind::Held, held));
    }

    /// What was kept is taken away, because nobody can use it, or because it was kept for too long.
    fn hold_ends(&self, held: &Held) {
        let seconds = held.since.elapsed().as_secs_f64();
        let kind = if held.missing.is_empty() {
            tracing::info!(count = held.count(), seconds, "{held}; it is taken away");
            EventKind::Released
        } else {
            self.metrics.wait_expired(reason(held), held.count());
            let missing = &held.missing[..held.missing.len().min(NAMES)];
            tracing::warn!(count = held.count(), seconds, ?missing, "{held}; it is taken away all the same");
            EventKind::WaitExpired
        };
        self.journal.record(view::Event { seconds: Some(seconds), ..event(kind, held) });
    }

    /// Publishes what was compiled, and tells of it.
    fn announce(
        &mut self,
        publication: Publication,
        objects: Vec<view::ChangedObject>,
        object_count: usize,
        course: Course,
        seen_at: &[Instant],
    ) {
        let Course { seen, begun, applied, compiled } = course;
        let changed = Changed::by(&publication.update);
        let (work, audiences) = (publication.update.work, self.plane.reach(&publication.update));
        let about = About {
            generation: self.generation,
            time: SystemTime::now(),
            seen: seen.unwrap_or(begun),
            begun,
            applied,
            compiled,
            objects,
            object_count,
            resources: changed.names(),
            has_more_resources: changed.has_more,
            audiences,
        };
        let trace = Trace::new(about, self.metrics.clone());
        if object_count > 0 {
            self.journal.published(&trace);
        }
        let concerned = self.concerned(&publication.update, &changed);
        self.send(publication, concerned, &trace, seen);
        trace.published();
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

    /// Hands snapshots to the streams of these audiences, and to those that have moved.
    fn send(
        &mut self,
        publication: Publication,
        concerned: BTreeSet<AudienceId>,
        trace: &Arc<Trace>,
        seen: Option<Instant>,
    ) {
        for audience in concerned {
            self.tell(audience, seen, Some(trace));
        }
        for membership in publication.moved {
            let (member, audience) = (membership.member, membership.audience);
            let joined = self.join(membership.audience, membership.snapshot);
            if let Some(attached) = self.members.get_mut(&member) {
                attached.audience = audience;
                self.interests.move_to(attached.column, audience);
                // An attachment that is gone will say so.
                let _ = attached.moves.send(joined);
            }
        }
        for audience in publication.left {
            self.audiences.remove(&audience);
        }
    }

    /// The audiences with streams that an update concerns. If it is of endpoints only, and of few names, these are those
    /// with streams that may ask for one of the names; the others are told later.
    fn concerned(&mut self, update: &Update, changed: &Changed<'_>) -> BTreeSet<AudienceId> {
        let Some(names) = changed.endpoints() else { return self.plane.concerned(update).into_iter().collect() };
        if update.turns.is_empty() {
            return BTreeSet::new();
        }
        self.catch_up.get_or_insert_with(|| Instant::now() + CATCH_UP);
        self.interests.concerned(names)
    }

    /// Publishes what an audience is to have, if that is something else than what it was told.
    fn tell(&mut self, audience: AudienceId, seen: Option<Instant>, trace: Option<&Arc<Trace>>) {
        let Some(topic) = self.audiences.get(&audience) else { return };
        let snapshot = self.plane.snapshot(audience);
        topic.publish(Published { snapshot, seen, generation: self.generation, trace: trace.cloned() });
    }

    /// Tells all streams of what does not concern them.
    fn catch_up(&mut self) {
        self.catch_up = None;
        for audience in self.audiences.keys().copied().collect::<Vec<_>>() {
            self.tell(audience, None, None);
        }
    }

    /// A stream asks for other endpoints than before: it may have been left out.
    fn note_interest(&mut self, member: MemberId) {
        let Some(Member { audience, column, progress, .. }) = self.members.get(&member) else { return };
        if let Some(interest) = progress.take_interest() {
            self.interests.set(*column, &interest);
        }
        let audience = *audience;
        if self.catch_up.is_some() {
            self.tell(audience, None, None);
        }
    }

    fn describe_change(&self, reference: &ObjectRef, change: view::ObjectChange) -> view::ChangedObject {
        view::ChangedObject { object: reference.path(), generation: self.plane.world().generation(reference), change }
    }

    fn answer(&mut self, question: Question) {
        // Whoever no longer waits for the answer has gone; an attachment that comes back detaches itself.
        match question {
            Question::Attach { node, reply } => drop(reply.send(self.attach(&node))),
            Question::Objects { reply } => drop(reply.send(self.plane.objects())),
            Question::Object { reference, reply } => drop(reply.send(self.plane.object(&reference))),
            Question::Generation { reference, reply } => drop(reply.send(self.plane.world().generation(&reference))),
            Question::Attached { run, reply } => drop(reply.send(self.plane.attached(&run))),
            Question::Problems { reply } => drop(reply.send(self.plane.problems())),
            Question::Held { reply } => drop(reply.send(self.plane.held())),
            Question::Counts { reply } => drop(reply.send(Counts::of(&self.plane))),
        }
    }

    fn attach(&mut self, node: &plane::Node) -> Result<Attachment, NodeError> {
        let Membership { member, audience, snapshot } = self.plane.attach(node)?;
        let joined = self.join(audience, snapshot);
        // Each place that it moves to is taken there, so that none is lost.
        let (moved, moves) = mailbox(usize::MAX);
        let progress = Arc::new(Progress::new(self.is_awaited.clone()));
        let column = self.interests.enter(audience);
        self.members.insert(member, Member { moves: moved, progress: progress.clone(), audience, column });
        // A new audience may be the first for which an object is wrong.
        self.report.something_changed();
        let may_have_secrets = self.plane.may_have_gateway_secrets(node);
        let id = node.id.as_str().into();
        Ok(Attachment::new(member, id, joined, moves, self.told_by.clone(), progress, may_have_secrets))
    }

    /// A place in an audience, which is to have this now.
    fn join(&mut self, audience: AudienceId, snapshot: Snapshot) -> Joined {
        let generation = self.generation;
        let topic = match self.audiences.get(&audience) {
            Some(topic) => {
                topic.publish(Published { snapshot, seen: None, generation, trace: None });
                topic.clone()
            }
            None => {
                let topic = Topic::new(snapshot, generation);
                self.audiences.insert(audience, topic.clone());
                topic
            }
        };
        let counted = topic.enter();
        Joined { topic, taken: 0, counted, since: generation, is_listening: false }
    }

    fn detach(&mut self, member: MemberId) {
        if let Some(Member { column, .. }) = self.members.remove(&member) {
            self.interests.leave(column);
        }
        if let Some(audience) = self.plane.detach(member, Instant::now()) {
            self.audiences.remove(&audience);
        }
    }
}

fn reason(held: &Held) -> &'static str {
    match held.kept {
        Kept::Inbound { .. } => STILL_USED,
        Kept::Endpoints { .. } => ENDPOINTS_GONE,
        Kept::Modes => MODES_CHANGED,
    }
}

fn event(kind: EventKind, held: &Held) -> view::Event {
    view::Event {
        generation: held.generation,
        objects: vec![held.object.path()],
        count: held.count(),
        message: held.to_string(),
        ..view::Event::new(kind)
    }
}

/// Returns at this time; never if there is none. Cancel safe.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn changed_object(change: &Change) -> (ObjectRef, view::ObjectChange) {
    match change {
        Change::Apply(object) => (object.reference.clone(), view::ObjectChange::Applied),
        Change::Remove(reference) => (reference.clone(), view::ObjectChange::Removed),
    }
}
