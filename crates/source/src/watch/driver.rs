//! The thread of a watch: events in, reads, updates out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use world::{Change, Refusal};

use super::secret_roots::{Look, SecretRoots};
use super::{Options, Seen, Submitted, Writers};
use crate::disk::{self, Root, Stamp};
use crate::{Content, Files, LastGood, Shelf, Update};

/// Events that may wait for the thread. When more come it looks at every file instead.
const WAITING_EVENTS: usize = 1024;

/// A file that is written without a pause is read after this time all the same.
const LONGEST_WRITE: Duration = Duration::from_secs(2);

/// What wakes the thread.
#[derive(Debug)]
pub(super) enum Signal {
    /// Something happened on disk.
    Event(notify::Event, Instant),
    /// Somebody hands objects over.
    Submitted(Box<Submitted>),
    /// The watch is over.
    Stop,
}

pub(super) fn signals() -> (SyncSender<Signal>, Receiver<Signal>) {
    sync_channel(WAITING_EVENTS)
}

/// What one event asks for.
#[derive(Debug, PartialEq, Eq)]
enum Cause {
    /// The file is complete, or gone.
    Complete(PathBuf),
    /// The file is being written.
    Writing(PathBuf),
    /// Anything may have changed.
    Anything,
}

/// A file that some writer holds open.
#[derive(Debug)]
struct Writing {
    since: Instant,
    /// When to look again.
    due: Instant,
    /// What it looked like last.
    stamp: Option<Stamp>,
}

/// A configured path and what was last known of it.
struct Rooted {
    root: Root,
    /// Device and inode when it was last found as it should be.
    identity: Option<(u64, u64)>,
    /// Device and inode that notifications are asked for.
    watched: Option<(u64, u64)>,
    /// Tells of the root and of what is below it. Each incarnation of the root has its own: notify forgets watches by
    /// path, and events of the last incarnation would end the watch on the next.
    watcher: Option<RecommendedWatcher>,
    is_missing: bool,
    known: BTreeMap<PathBuf, Stamp>,
    /// What went since the last settling: it comes back if all of the root turns out to be gone.
    gone: BTreeMap<PathBuf, Stamp>,
}

pub(super) struct Driver {
    options: Options,
    roots: Vec<Rooted>,
    /// Directories of secrets.
    secrets: SecretRoots,
    files: Files,
    /// What was handed over; `None` when nothing is kept.
    shelf: Option<Shelf>,
    /// Last good versions of policies; `None` when nothing is kept.
    last_good: Option<LastGood>,
    /// What has come to be kept, until the events that came before are through.
    submitted: Vec<Submitted>,
    writing: BTreeMap<PathBuf, Writing>,
    /// Where notifications go; `None` without a watch.
    signals: Option<SyncSender<Signal>>,
    /// Tells of the directories that hold the roots.
    beside: Option<RecommendedWatcher>,
    /// Tells of the secrets.
    secret_watcher: Option<RecommendedWatcher>,
    /// When to look at everything once more, see [`Driver::run`].
    second_look: Option<Instant>,
    /// Whether the files' state may differ from what the last update said.
    is_changed: bool,
    /// Set by the notifying side when it had to drop an event.
    overflow: Arc<AtomicBool>,
    /// When the vanished are removed, and when the first cause for it was seen.
    removal: Option<(Instant, Instant)>,
    is_stopped: bool,
}

impl Driver {
    pub(super) fn new(paths: &[PathBuf], options: Options, shelf: Option<Shelf>, last_good: Option<LastGood>) -> Self {
        let mut seen = BTreeSet::new();
        let roots = paths.iter().map(|path| Root::new(path)).filter(|root| seen.insert(root.path.clone()));
        let rooted = |root| Rooted {
            root,
            identity: None,
            watched: None,
            watcher: None,
            is_missing: false,
            known: BTreeMap::new(),
            gone: BTreeMap::new(),
        };
        Self {
            files: Files::new(options.text.clone()),
            shelf,
            last_good,
            submitted: Vec::new(),
            roots: roots.map(rooted).collect(),
            secrets: SecretRoots::new(&options.secrets),
            options,
            writing: BTreeMap::new(),
            signals: None,
            beside: None,
            secret_watcher: None,
            second_look: None,
            is_changed: false,
            overflow: Arc::default(),
            removal: None,
            is_stopped: false,
        }
    }

    pub(super) fn into_files(self) -> Files {
        self.files
    }

    /// Asks for notifications. Where they cannot be had, looking every so often remains.
    pub(super) fn subscribe(&mut self, signals: &SyncSender<Signal>) {
        self.signals = Some(signals.clone());
        self.beside = self.notifier();
        for rooted in &self.roots {
            // The root itself is replaced, made or moved in the directory that holds it.
            if let (Some(watcher), Some(parent)) = (&mut self.beside, rooted.root.path.parent()) {
                let _ = watcher.watch(parent, RecursiveMode::NonRecursive);
            }
        }
        for at in 0..self.roots.len() {
            self.watch_root(at);
        }
        self.secret_watcher = self.notifier();
        for path in self.secrets.paths() {
            if let Some(watcher) = &mut self.secret_watcher {
                // One that is made later, or made again, is looked at every so often.
                let _ = watcher.watch(path, RecursiveMode::Recursive);
            }
        }
    }

    fn notifier(&self) -> Option<RecommendedWatcher> {
        let (signals, overflow) = (self.signals.clone()?, self.overflow.clone());
        let forward = move |event: notify::Result<notify::Event>| match event {
            // Reading, ours above all: it must not wake the thread that reads.
            Ok(event) if is_reading(event.kind) => {}
            Ok(event) => {
                if let Err(TrySendError::Full(_)) = signals.try_send(Signal::Event(event, Instant::now())) {
                    overflow.store(true, Ordering::Release);
                }
            }
            Err(_) => overflow.store(true, Ordering::Release),
        };
        match notify::recommended_watcher(forward) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, poll = ?self.options.poll, "cannot be notified of file changes, only polling");
                None
            }
        }
    }

    /// Watches a root as it is now, and no longer as it was.
    fn watch_root(&mut self, at: usize) {
        if self.signals.is_none() {
            return;
        }
        let path = self.roots[at].root.path.clone();
        self.roots[at].watcher = None;
        self.roots[at].watched = disk::stamp(&path).map(|s| s.identity());
        let Some(mut watcher) = self.notifier() else { return };
        if let Err(error) = watcher.watch(&path, RecursiveMode::Recursive)
            && path.exists()
        {
            tracing::warn!(path = %path.display(), %error, "cannot be notified of changes here, only polling");
        }
        self.roots[at].watcher = Some(watcher);
    }

    /// Reads everything and settles.
    pub(super) fn load(&mut self) -> Update {
        let (mut changes, strays) = self.remember();
        changes.extend(self.scan(Instant::now(), Writers::Ignored));
        // Files that are not looked at any more. What they said may stand in another one now.
        changes.extend(strays.iter().flat_map(|name| self.files.take(name, Content::Gone)));
        self.look_at_secrets(Instant::now(), Writers::Ignored);
        // Afterwards: what a file defines is never in force in another form before.
        changes.extend(self.shelf.iter().flat_map(|shelf| shelf.fill(&mut self.files)));
        changes.extend(self.files.settle());
        self.roots.iter_mut().for_each(|rooted| rooted.gone.clear());
        self.keep_last_good();
        self.removal = None;
        self.is_changed = false;
        self.files.update(newest(changes))
    }

    /// Puts the last good versions of policies where they stood before the restart. Returns what changes, and the names of
    /// files that no path leads to any more.
    fn remember(&mut self) -> (Vec<Change>, Vec<Arc<str>>) {
        let (mut changes, mut strays) = (Vec::new(), Vec::new());
        for (path, good) in self.last_good.iter().flat_map(|last_good| last_good.read(&self.options.text)) {
            let rooted = self.roots.iter_mut().find_map(|rooted| Some((rooted.root.name_of(&path)?, rooted)));
            let name = match rooted {
                Some((name, rooted)) => {
                    rooted.known.insert(path, Stamp::NEVER);
                    name
                }
                None => {
                    let name: Arc<str> = path.to_string_lossy().into();
                    strays.push(name.clone());
                    name
                }
            };
            changes.extend(self.files.remember(&name, good));
        }
        (changes, strays)
    }

    /// Writes the last good versions of policies down if they have changed. What is just being replaced is waited for.
    fn keep_last_good(&mut self) {
        if let Some(last_good) = &mut self.last_good
            && !self.files.is_unsettled()
            && self.files.take_new_guards()
        {
            last_good.keep(&self.files);
        }
    }

    pub(super) fn run(mut self, inbox: &Receiver<Signal>, mut deliver: impl FnMut(Seen) -> ControlFlow<()>) {
        let mut next_poll = Instant::now() + self.options.poll;
        let mut told = self.files.update(Vec::new());
        while !self.is_stopped {
            let woken = self.wait(inbox, next_poll);
            let mut changes = Vec::new();
            let mut at = None;
            let mut anything = self.overflow.swap(false, Ordering::AcqRel);
            for (cause, seen) in woken {
                at.get_or_insert(seen);
                match cause {
                    Cause::Complete(path) => changes.extend(self.look(&path)),
                    Cause::Writing(path) => self.note_writing(path, seen),
                    Cause::Anything => anything = true,
                }
            }
            let now = Instant::now();
            if anything {
                // A directory that was just made is watched by notify a moment after it tells of it: what was
                // written into it in between is seen by looking twice.
                self.second_look = Some(now + self.options.quiet);
            } else if self.second_look.is_some_and(|due| due <= now) {
                self.second_look = None;
                anything = true;
            }
            if now >= next_poll {
                next_poll = now + self.options.poll;
                anything = true;
            }
            if anything {
                // A look at everything takes a while: what is known already does not wait for it.
                if let Some(seen) = self.update(std::mem::take(&mut changes), at.unwrap_or(now), &mut told)
                    && deliver(seen).is_break()
                {
                    return;
                }
                changes = self.scan(now, Writers::Awaited);
                self.look_at_secrets(now, Writers::Awaited);
            }
            changes.extend(self.finished_writing(now));
            let is_quiet = at.is_none() && changes.is_empty();
            let mut at = at.unwrap_or(now);
            if let Some((removed, since)) = self.settle(at, is_quiet) {
                if changes.is_empty() {
                    at = since;
                }
                changes.extend(removed);
            }
            if let Some(seen) = self.update(changes, at, &mut told)
                && deliver(seen).is_break()
            {
                return;
            }
            for submitted in std::mem::take(&mut self.submitted) {
                if self.carry_out(submitted, &mut told, &mut deliver).is_break() {
                    return;
                }
            }
        }
    }

    /// Does what was submitted, and answers when it has been delivered.
    fn carry_out(
        &mut self,
        submitted: Submitted,
        told: &mut Update,
        deliver: &mut impl FnMut(Seen) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Submitted { submission, time, reply } = submitted;
        let at = Instant::now();
        let taken = match &mut self.shelf {
            Some(shelf) => shelf.take(&submission, &time, &mut self.files),
            None => Err(Refusal::NoState),
        };
        let (changes, answer) = match taken {
            Ok((changes, acceptance)) => (changes, Ok(acceptance)),
            Err(refusal) => (Vec::new(), Err(refusal)),
        };
        self.is_changed |= answer.is_ok();
        let delivered = self.update(changes, at, told).map_or(ControlFlow::Continue(()), deliver);
        // Whoever no longer waits for the answer has gone; what was taken stays taken.
        let _ = reply.send(answer);
        delivered
    }

    /// The update that says so, if there is anything to say; `told` is the last one without its changes.
    fn update(&mut self, changes: Vec<Change>, at: Instant, told: &mut Update) -> Option<Seen> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        self.keep_last_good();
        let update = self.files.update(changes);
        if update.changes.is_empty() && update.problems == told.problems && update.secrets == told.secrets {
            return None;
        }
        let (problems, secrets) = (update.problems.clone(), update.secrets.clone());
        *told = Update { changes: Vec::new(), problems, secrets };
        Some(Seen { update, at })
    }

    /// Waits for the first event or the next deadline, then takes every event that is there.
    fn wait(&mut self, inbox: &Receiver<Signal>, next_poll: Instant) -> Vec<(Cause, Instant)> {
        let deadlines = self.writing.values().map(|w| w.due);
        let deadlines = deadlines.chain(self.removal.map(|(due, _)| due)).chain(self.second_look);
        let deadline = deadlines.fold(next_poll, Instant::min);
        let mut woken: Vec<(Cause, Instant)> = Vec::new();
        let mut signal = match inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(signal) => Some(signal),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.is_stopped = true;
                None
            }
        };
        while let Some(received) = signal {
            match received {
                Signal::Stop => {
                    self.is_stopped = true;
                    return Vec::new();
                }
                Signal::Submitted(submitted) => self.submitted.push(*submitted),
                Signal::Event(event, seen) => {
                    self.forget_watches(&event);
                    for cause in self.causes(&event) {
                        // Several events of one file are one cause, at the place of the last.
                        let earlier = woken.iter().position(|(other, _)| same_file(other, &cause));
                        let seen = earlier.map_or(seen, |at| woken.remove(at).1);
                        woken.push((cause, seen));
                    }
                }
            }
            signal = inbox.try_recv().ok();
        }
        woken
    }

    /// A root that was removed, moved or made anew must be watched anew, even under the inode that it had before.
    fn forget_watches(&mut self, event: &notify::Event) {
        let is_identity =
            matches!(event.kind, EventKind::Remove(_) | EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_)));
        for rooted in self.roots.iter_mut().filter(|r| is_identity && event.paths.contains(&r.root.path)) {
            rooted.watched = None;
        }
    }

    fn causes(&self, event: &notify::Event) -> Vec<Cause> {
        if event.need_rescan() {
            return vec![Cause::Anything];
        }
        let is_open = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            EventKind::Access(_) => return Vec::new(),
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any | ModifyKind::Other) => true,
            EventKind::Create(CreateKind::File) => true,
            // Changed times or permissions: the file may have become readable.
            EventKind::Modify(ModifyKind::Metadata(_)) => false,
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return Vec::new(),
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => false,
            EventKind::Create(_) | EventKind::Any | EventKind::Other => return vec![Cause::Anything],
        };
        let mut causes = Vec::new();
        for path in &event.paths {
            if self.roots.iter().any(|r| r.root.takes(path)) {
                let path = path.clone();
                // A symbolic link is never half-written.
                causes.push(if is_open && !path.is_symlink() { Cause::Writing(path) } else { Cause::Complete(path) });
            } else if self.secrets.covers(path) || self.matters(path, &event.kind) {
                causes.push(Cause::Anything);
            }
        }
        causes
    }

    /// Whether something that is not a manifest can change which manifests there are: a directory, a symbolic link
    /// such as `..data`, or a root itself.
    fn matters(&self, path: &Path, kind: &EventKind) -> bool {
        let is_beside = !self.roots.iter().any(|r| path.starts_with(&r.root.path));
        if is_beside {
            // Of what stands beside a root, nothing; a root that is a link may go through it, which polling sees.
            return false;
        }
        let is_content = matches!(kind, EventKind::Modify(ModifyKind::Data(_)) | EventKind::Access(_));
        let name = path.file_name().unwrap_or_default();
        let is_plainly_hidden = disk::is_hidden(name) && !name.as_encoded_bytes().starts_with(b"..");
        !is_content && !is_plainly_hidden
    }

    fn note_writing(&mut self, path: PathBuf, seen: Instant) {
        let stamp = disk::stamp(&path);
        let due = seen + self.options.quiet;
        self.writing.entry(path).or_insert(Writing { since: seen, due, stamp });
    }

    /// Reads the files whose writers have paused for long enough, or never do.
    fn finished_writing(&mut self, now: Instant) -> Vec<Change> {
        let due: Vec<PathBuf> = self.writing.iter().filter(|(_, w)| w.due <= now).map(|(p, _)| p.clone()).collect();
        let mut changes = Vec::new();
        for path in due {
            let stamp = disk::stamp(&path);
            let Some(writing) = self.writing.get_mut(&path) else { continue };
            if writing.stamp != stamp && now < writing.since + LONGEST_WRITE {
                writing.stamp = stamp;
                writing.due = now + self.options.quiet;
            } else {
                changes.extend(self.look(&path));
            }
        }
        changes
    }

    /// Reads one file if it differs from what is known.
    fn look(&mut self, path: &Path) -> Vec<Change> {
        self.writing.remove(path);
        let Some(at) = self.roots.iter().position(|r| r.root.takes(path)) else { return Vec::new() };
        match disk::stamp(path) {
            Some(stamp) => self.read(at, path, stamp),
            // Whether the file is gone or all of its root is for the whole look to say.
            None => self.scan_root(at, Instant::now(), Writers::Awaited),
        }
    }

    fn read(&mut self, at: usize, path: &Path, stamp: Stamp) -> Vec<Change> {
        let rooted = &mut self.roots[at];
        if rooted.known.get(path) == Some(&stamp) {
            return Vec::new();
        }
        let Some(name) = rooted.root.name_of(path) else { return Vec::new() };
        // The stamp is older than the bytes: what is written in between is seen as a difference next time.
        rooted.known.insert(path.to_owned(), stamp);
        let content = disk::read(path, self.options.text.max_file_bytes);
        if content == Content::Gone {
            rooted.known.remove(path);
            rooted.gone.insert(path.to_owned(), stamp);
        }
        self.take(&name, content)
    }

    fn set_missing(&mut self, at: usize, reason: Option<String>) -> Vec<Change> {
        self.is_changed = true;
        let rooted = &mut self.roots[at];
        let mut changes = Vec::new();
        if reason.is_some() {
            for (path, stamp) in std::mem::take(&mut rooted.gone) {
                if let Some(name) = rooted.root.name_of(&path) {
                    changes.extend(self.files.restore(&name));
                }
                rooted.known.insert(path, stamp);
            }
        }
        self.files.set_missing(&rooted.root.name, reason);
        changes
    }

    fn take(&mut self, name: &str, content: Content) -> Vec<Change> {
        self.is_changed = true;
        self.files.take(name, content)
    }

    fn look_at_secrets(&mut self, now: Instant, writers: Writers) {
        if self.secrets.look(writers) == Look::Again {
            self.second_look = Some(now + self.options.quiet);
        }
        self.is_changed |= self.files.set_folders(self.secrets.folders().clone());
    }

    /// Compares every file of every root.
    fn scan(&mut self, now: Instant, writers: Writers) -> Vec<Change> {
        (0..self.roots.len()).flat_map(|at| self.scan_root(at, now, writers)).collect()
    }

    fn scan_root(&mut self, at: usize, now: Instant, writers: Writers) -> Vec<Change> {
        let identity = disk::stamp(&self.roots[at].root.path).map(|s| s.identity());
        if identity.is_some() && identity != self.roots[at].watched {
            // Before it is listed, so that nothing is missed in between.
            self.watch_root(at);
        }
        let rooted = &mut self.roots[at];
        let found = match rooted.root.manifests() {
            Ok(found) => found,
            Err(error) => {
                rooted.watched = None;
                if !rooted.is_missing {
                    rooted.is_missing = true;
                    return self.set_missing(at, Some(error.to_string()));
                }
                return Vec::new();
            }
        };
        let is_other = rooted.identity.is_some() && rooted.identity != identity;
        if (is_other || rooted.is_missing) && found.is_empty() && !(rooted.known.is_empty() && rooted.gone.is_empty()) {
            // An unmounted volume leaves an empty directory; one that is made again starts as one.
            if !rooted.is_missing {
                rooted.is_missing = true;
                return self.set_missing(at, Some("it is another directory now, and empty".to_owned()));
            }
            return Vec::new();
        }
        rooted.identity = identity;
        let was_missing = std::mem::take(&mut rooted.is_missing);
        if was_missing {
            self.set_missing(at, None);
        }
        let mut changes = Vec::new();
        for (path, stamp) in &found {
            if self.roots[at].known.get(path) == Some(stamp) {
                continue;
            }
            if writers == Writers::Awaited && self.writing.contains_key(path) {
                continue;
            }
            if writers == Writers::Awaited && stamp.is_empty() {
                // Most probably truncated by a writer that is about to fill it.
                self.note_writing(path.clone(), now);
                continue;
            }
            changes.extend(self.read(at, path, *stamp));
        }
        let gone: Vec<PathBuf> = self.roots[at].known.keys().filter(|p| !found.contains_key(*p)).cloned().collect();
        for path in gone {
            if let Some(stamp) = self.roots[at].known.remove(&path) {
                self.roots[at].gone.insert(path.clone(), stamp);
            }
            self.writing.remove(&path);
            if let Some(name) = self.roots[at].root.name_of(&path) {
                changes.extend(self.take(&name, Content::Gone));
            }
        }
        changes
    }

    /// Removes what has vanished once nothing has happened for a while, and says when it was first missed. `at` is when
    /// this turn's cause was seen.
    fn settle(&mut self, at: Instant, is_quiet: bool) -> Option<(Vec<Change>, Instant)> {
        if !self.files.is_unsettled() {
            self.removal = None;
            return None;
        }
        let now = Instant::now();
        let (due, since) = *self.removal.get_or_insert((now + self.options.removal_delay, at));
        let is_patient = now < since + LONGEST_WRITE;
        // A file that is being written may hold what has vanished elsewhere.
        if is_patient && (!is_quiet || !self.writing.is_empty()) {
            self.removal = Some((now + self.options.removal_delay, since));
            return None;
        }
        if now < due && is_patient {
            return None;
        }
        self.removal = None;
        self.is_changed = true;
        self.roots.iter_mut().for_each(|rooted| rooted.gone.clear());
        Some((self.files.settle(), since))
    }
}

/// What is left of the changes of a first look: the newest of each object. Nobody has seen what is removed again.
fn newest(mut changes: Vec<Change>) -> Vec<Change> {
    let mut seen = BTreeSet::new();
    changes.reverse();
    changes.retain(|change| match change {
        Change::Apply(object) => seen.insert(object.reference.clone()),
        Change::Remove(reference) => {
            seen.insert(reference.clone());
            false
        }
    });
    changes.reverse();
    changes
}

/// Whether somebody has opened, read or closed a file without changing it.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

fn same_file(a: &Cause, b: &Cause) -> bool {
    match (a, b) {
        (Cause::Complete(a) | Cause::Writing(a), Cause::Complete(b) | Cause::Writing(b)) => a == b,
        (Cause::Anything, Cause::Anything) => true,
        (Cause::Complete(_) | Cause::Writing(_), Cause::Anything)
        | (Cause::Anything, Cause::Complete(_) | Cause::Writing(_)) => false,
    }
}
