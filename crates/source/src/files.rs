//! What each file said last, and the changes that follow when it says something else.
//!
//! Pure: contents are handed in. Two rules keep a slip of an editor from taking traffic down. An object whose new
//! version is invalid keeps its last good one; policies that never had one have a stand-in, which lets nobody in. A file
//! that cannot be read as a whole loses no object: what it no longer shows may stand in the part that cannot be read.
//!
//! ```text
//!   take(file, content) ──▶ Apply at once ┐
//!                                         ├─▶ Update
//!   settle()            ──▶ Remove        ┘
//! ```
//! Removals are a step of their own so that an object that moves between files, or whose file is replaced in several
//! steps, is never gone in between: the caller settles when nothing has happened for a moment.

use std::collections::btree_map::Entry as BTreeEntry;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use identity::TlsSecret;
use world::{Change, Location, Object, ObjectRef, Problem, Severity};

use crate::SecretFolders;
use crate::text::{self, Options, Parsed, SecretDefinition};

/// What a file holds now. `Debug` does not show it, because a file may hold keys.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Text(Vec<u8>),
    /// The file does not exist any more.
    Gone,
    /// It exists but cannot be read, for this reason.
    Unreadable(String),
}

/// One step of the source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// New and changed objects in the order of files and of their text, then removals by kind, namespace and name.
    pub changes: Vec<Change>,
    /// Everything that is wrong now, in all files, by file and line. It replaces what the last update said.
    pub problems: Arc<[Problem]>,
    /// All certificates and keys of gateways that are in force now. It replaces what the last update said.
    pub secrets: TlsSecrets,
}

/// Certificates and keys of gateways, by the `Secret` that they stand in.
pub type TlsSecrets = BTreeMap<ObjectRef, Arc<TlsSecret>>;

/// The state of a set of files.
#[derive(Debug)]
pub struct Files {
    options: Options,
    files: BTreeMap<Arc<str>, File>,
    /// The files that define an object, keep its last good version or have a stand-in for it.
    holders: HashMap<ObjectRef, BTreeSet<Arc<str>>>,
    /// Objects that more than one file defines.
    contested: BTreeSet<ObjectRef>,
    /// What is in force.
    in_force: HashMap<ObjectRef, Arc<Object>>,
    /// What of that is no good version, but stands in for one.
    standing_in: BTreeSet<ObjectRef>,
    /// The texts of policies as they were read last, as JSON.
    guards: HashMap<ObjectRef, Arc<str>>,
    /// Whether what [`Files::guards`] says has changed.
    has_new_guards: bool,
    /// Objects in force that no file holds, until they are settled.
    vanished: BTreeSet<ObjectRef>,
    /// Files that are gone, until they are settled.
    gone: BTreeMap<Arc<str>, File>,
    /// Configured paths that are gone, with the reason.
    missing: BTreeMap<Arc<str>, String>,
    /// What directories of secrets hold.
    folders: SecretFolders,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// In the order of the text, each object once: its first definition counts.
    objects: Vec<Arc<Object>>,
    /// Where in `objects` each is.
    positions: HashMap<ObjectRef, usize>,
    /// Further definitions of objects that this file has defined already.
    repeated: Vec<Arc<Object>>,
    /// Last good versions of what this file defined and does not show any more in a form that can be used.
    kept: BTreeMap<ObjectRef, Arc<Object>>,
    refused: BTreeSet<ObjectRef>,
    /// What is in force instead of those among the refused of which no good version is known.
    stand_ins: BTreeMap<ObjectRef, Arc<Object>>,
    /// The texts of those among `objects` and `kept` that keep somebody out.
    guards: BTreeMap<ObjectRef, Arc<str>>,
    /// Last good versions among them, as with objects. The first definition counts.
    secrets: BTreeMap<ObjectRef, SecretDefinition>,
    /// Further definitions of secrets that this file has defined already.
    repeated_secrets: Vec<SecretDefinition>,
    others: Vec<ObjectRef>,
    problems: Vec<Problem>,
    /// It is no file, but an object that was handed over: it stands behind every file.
    is_applied: bool,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Content::Gone => f.write_str("Gone"),
            Content::Unreadable(why) => f.debug_tuple("Unreadable").field(why).finish(),
        }
    }
}

impl File {
    fn defines(&self, reference: &ObjectRef) -> Option<&Arc<Object>> {
        self.positions.get(reference).map(|at| &self.objects[*at])
    }

    fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.kept.is_empty() && self.problems.is_empty() && self.secrets.is_empty()
    }

    fn references(&self) -> impl Iterator<Item = &ObjectRef> {
        self.objects.iter().map(|o| &o.reference).chain(self.kept.keys()).chain(self.stand_ins.keys())
    }
}

impl Files {
    /// No files yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            files: BTreeMap::new(),
            holders: HashMap::new(),
            contested: BTreeSet::new(),
            in_force: HashMap::new(),
            standing_in: BTreeSet::new(),
            guards: HashMap::new(),
            has_new_guards: false,
            vanished: BTreeSet::new(),
            gone: BTreeMap::new(),
            missing: BTreeMap::new(),
            folders: SecretFolders::default(),
        }
    }

    /// Takes in what `file` holds now and settles at once.
    pub fn apply(&mut self, file: &str, content: Content) -> Update {
        let mut changes = self.take(file, content);
        changes.extend(self.settle());
        self.update(changes)
    }

    /// These changes, with everything else as it is now.
    pub(crate) fn update(&self, changes: Vec<Change>) -> Update {
        Update { changes, problems: self.problems(), secrets: self.secrets() }
    }

    /// The certificates and keys of gateways that are in force: of several definitions the first by file and position.
    /// What only a file has that is gone counts until that is settled.
    pub fn secrets(&self) -> TlsSecrets {
        let files = self.files.values().chain(self.gone.values());
        let mut all = TlsSecrets::new();
        for secret in files.flat_map(|file| file.secrets.values()) {
            all.entry(secret.reference.clone()).or_insert_with(|| secret.content.clone());
        }
        for secret in self.folders.definitions() {
            all.entry(secret.reference.clone()).or_insert_with(|| secret.content.clone());
        }
        all
    }

    /// Takes in what directories of secrets hold now. What files define counts before it. True if that is anything new.
    pub(crate) fn set_folders(&mut self, folders: SecretFolders) -> bool {
        let is_new = self.folders != folders;
        self.folders = folders;
        is_new
    }

    /// Takes in what `file` holds now and returns the objects that are new or different because of it. Objects that it
    /// no longer holds stay in force until [`Files::settle`].
    pub fn take(&mut self, file: &str, content: Content) -> Vec<Change> {
        let name: Arc<str> = match self.files.get_key_value(file) {
            Some((name, _)) => name.clone(),
            None => file.into(),
        };
        let old = self.files.remove(&name).unwrap_or_default();
        let new = match content {
            Content::Text(bytes) => Some(succeed(&old, text::parse(&name, &bytes, &self.options), &name)),
            Content::Gone => None,
            Content::Unreadable(reason) => Some(File {
                problems: vec![file_problem(&name, format!("the file cannot be read: {reason}"), KEPT)],
                ..old.clone()
            }),
        };
        self.replace(name, old, new)
    }

    /// Puts back a file that was [`Content::Gone`] since the last [`Files::settle`]: it went with a whole path that
    /// says nothing any more. Returns what changes by that; nothing when the file is there or was never gone.
    pub fn restore(&mut self, file: &str) -> Vec<Change> {
        match self.gone.remove_entry(file) {
            Some((name, state)) if !self.files.contains_key(&name) => self.replace(name, File::default(), Some(state)),
            Some(_) | None => Vec::new(),
        }
    }

    /// Takes in an object that was handed over, under the name of its place. While a file defines the object, the file
    /// counts. Returns what changes.
    pub(crate) fn put(&mut self, place: &str, parsed: Parsed) -> Vec<Change> {
        let name: Arc<str> = place.into();
        let old = self.files.remove(&name).unwrap_or_default();
        let new = File { is_applied: true, ..succeed(&old, parsed, &name) };
        self.replace(name, old, Some(new))
    }

    /// Takes an object away that was handed over. What a file says of it counts from then on; without one it is gone at
    /// once: unlike a file it does not come back by itself.
    pub(crate) fn withdraw(&mut self, place: &str, reference: &ObjectRef) -> Vec<Change> {
        let Some((name, old)) = self.files.remove_entry(place) else { return Vec::new() };
        let mut changes = self.replace(name.clone(), old, None);
        self.gone.remove(&name);
        let is_refused = self.files.values().any(|file| file.refused.contains(reference));
        if !is_refused && self.vanished.remove(reference) && self.in_force.remove(reference).is_some() {
            changes.push(Change::Remove(reference.clone()));
        }
        changes
    }

    /// Where a file has this object, in a form that can be used or not.
    pub(crate) fn owner(&self, reference: &ObjectRef) -> Option<Location> {
        let mut files = self.files.iter().filter(|(_, file)| !file.is_applied);
        files.find_map(|(name, file)| {
            if let Some(object) = file.defines(reference) {
                return object.meta.location.clone();
            }
            let has_it = file.kept.contains_key(reference) || file.refused.contains(reference);
            has_it.then(|| Location { file: name.clone(), line: 0, column: 0 })
        })
    }

    /// Whether what [`Files::guards`] says has changed since this was asked last.
    pub(crate) fn take_new_guards(&mut self) -> bool {
        std::mem::take(&mut self.has_new_guards)
    }

    /// The policies of each file in their last good version, as JSON.
    pub(crate) fn guards(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        let of_files = self.files.iter().filter(|(_, file)| !file.is_applied);
        of_files.flat_map(|(name, file)| file.guards.values().map(move |text| (name, text)))
    }

    /// Remembers last good versions of policies that a file is known to have had, before it is read for the first time.
    /// They are in force until it says something else.
    pub(crate) fn remember(&mut self, file: &str, good: Vec<(Arc<Object>, Arc<str>)>) -> Vec<Change> {
        let guards = good.iter().map(|(object, text)| (object.reference.clone(), text.clone())).collect();
        let kept = good.into_iter().map(|(object, _)| (object.reference.clone(), object)).collect();
        self.replace(file.into(), File::default(), Some(File { kept, guards, ..File::default() }))
    }

    /// How texts are read.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    fn replace(&mut self, name: Arc<str>, old: File, new: Option<File>) -> Vec<Change> {
        let guards = new.iter().flat_map(|new| &new.guards);
        self.guards.extend(guards.map(|(reference, text)| (reference.clone(), text.clone())));
        self.has_new_guards |= new.as_ref().map_or(!old.guards.is_empty(), |new| new.guards != old.guards);
        for reference in old.references() {
            if let Some(holders) = self.holders.get_mut(reference) {
                holders.remove(&name);
                if holders.is_empty() {
                    self.holders.remove(reference);
                }
            }
        }
        let mut touched: Vec<ObjectRef> = Vec::new();
        if let Some(new) = &new {
            for reference in new.references() {
                self.holders.entry(reference.clone()).or_default().insert(name.clone());
            }
            touched.extend(new.references().cloned());
        }
        touched.extend(old.references().cloned());
        match new {
            Some(new) => {
                self.gone.remove(&name);
                self.files.insert(name, new);
            }
            // Of a file that is gone already there is nothing to remember anew.
            None if old.is_empty() => {}
            None => {
                self.gone.insert(name, old);
            }
        }
        let mut done = BTreeSet::new();
        touched.retain(|reference| done.insert(reference.clone()));
        touched.into_iter().filter_map(|reference| self.decide(reference)).collect()
    }

    /// Removes what no file holds any more. An object that some file still names in a broken form stays: it has moved
    /// there, and its last good version holds until that is mended.
    pub fn settle(&mut self) -> Vec<Change> {
        self.gone.clear();
        let mut changes = Vec::new();
        for reference in std::mem::take(&mut self.vanished) {
            let is_good = !self.standing_in.remove(&reference);
            let heir = self.files.iter_mut().find(|(_, file)| is_good && file.refused.contains(&reference));
            if let Some((name, file)) = heir
                && let Some(object) = self.in_force.get(&reference)
            {
                file.kept.insert(reference.clone(), object.clone());
                if let Some(text) = self.guards.get(&reference) {
                    file.guards.insert(reference.clone(), text.clone());
                    self.has_new_guards = true;
                }
                self.holders.entry(reference).or_default().insert(name.clone());
                continue;
            }
            self.in_force.remove(&reference);
            self.guards.remove(&reference);
            changes.push(Change::Remove(reference));
        }
        changes
    }

    /// Whether [`Files::settle`] would have something to decide.
    pub fn is_unsettled(&self) -> bool {
        !self.vanished.is_empty() || !self.gone.is_empty()
    }

    /// Notes that a configured path is gone (`Some` reason) or back (`None`). What its files said stays in force: the
    /// caller does not report them as [`Content::Gone`] meanwhile.
    pub fn set_missing(&mut self, path: &str, reason: Option<String>) {
        match reason {
            Some(reason) => self.missing.insert(path.into(), reason),
            None => self.missing.remove(path),
        };
    }

    /// Everything that is wrong now, by file and line.
    pub fn problems(&self) -> Arc<[Problem]> {
        let mut problems: Vec<Problem> = self.files.values().flat_map(|f| f.problems.iter().cloned()).collect();
        problems.extend(self.repeated());
        problems.extend(self.repeated_secrets());
        problems.extend(self.folders.problems().cloned());
        for (path, reason) in &self.missing {
            problems.push(file_problem(path, format!("the path cannot be read: {reason}"), KEPT));
        }
        let place = |p: &Problem| p.location.as_ref().map(|l| (l.file.clone(), l.line, l.column));
        problems.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
        problems.into()
    }

    /// Objects without a meaning for traffic that stand in the files, by file and position.
    pub fn others(&self) -> impl Iterator<Item = (&Arc<str>, &ObjectRef)> {
        self.files.iter().flat_map(|(name, file)| file.others.iter().map(move |other| (name, other)))
    }

    /// What is in force, in no particular order.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.in_force.values()
    }

    /// The version of an object that counts: the first definition by file name and position, else a kept one. What was
    /// handed over counts last.
    fn winner(&self, reference: &ObjectRef) -> Option<Arc<Object>> {
        let holders = self.holders.get(reference)?;
        let files = || holders.iter().filter_map(|name| self.files.get(name));
        let defined =
            |is_applied| files().filter(move |f| f.is_applied == is_applied).find_map(|f| f.defines(reference));
        let kept = || files().find_map(|file| file.kept.get(reference));
        defined(false).or_else(kept).or_else(|| defined(true)).cloned()
    }

    /// What stands in for an object of which no good version is known.
    fn stand_in(&self, reference: &ObjectRef) -> Option<Arc<Object>> {
        let is_known = self.in_force.contains_key(reference) && !self.standing_in.contains(reference);
        let holders = self.holders.get(reference).filter(|_| !is_known)?;
        let files = holders.iter().filter_map(|name| self.files.get(name));
        files.filter_map(|file| file.stand_ins.get(reference)).next().cloned()
    }

    fn decide(&mut self, reference: ObjectRef) -> Option<Change> {
        let definitions = self.definitions(&reference).count();
        match definitions {
            0 | 1 => self.contested.remove(&reference),
            _ => self.contested.insert(reference.clone()),
        };
        let winner = if let Some(winner) = self.winner(&reference) {
            self.standing_in.remove(&reference);
            winner
        } else if let Some(stand_in) = self.stand_in(&reference) {
            self.standing_in.insert(reference.clone());
            stand_in
        } else {
            if self.in_force.contains_key(&reference) {
                self.vanished.insert(reference);
            }
            return None;
        };
        self.vanished.remove(&reference);
        if self.in_force.get(&reference).is_some_and(|current| **current == *winner) {
            return None;
        }
        self.in_force.insert(reference, winner.clone());
        Some(Change::Apply(winner))
    }

    /// The first definition of an object in each file that has one, by file name, and then the one that was handed over.
    fn definitions(&self, reference: &ObjectRef) -> impl Iterator<Item = &Arc<Object>> {
        let holders = self.holders.get(reference);
        let files = move || holders.into_iter().flatten().filter_map(|name| self.files.get(name));
        let of_files = files().filter(|file| !file.is_applied);
        let all = of_files.chain(files().filter(|file| file.is_applied));
        all.filter_map(|file| file.defines(reference))
    }

    /// Definitions of objects that an earlier definition has taken.
    fn repeated(&self) -> Vec<Problem> {
        let across = self.contested.iter().flat_map(|reference| self.definitions(reference).skip(1));
        let within = self.files.values().flat_map(|file| &file.repeated);
        across.chain(within).filter_map(|loser| self.taken(loser)).collect()
    }

    fn taken(&self, loser: &Object) -> Option<Problem> {
        let winner = self.definitions(&loser.reference).next()?;
        Some(defined_twice(&loser.reference, winner.meta.location.as_ref(), loser.meta.location.clone()))
    }

    /// The same of secrets.
    fn repeated_secrets(&self) -> Vec<Problem> {
        let mut first: BTreeMap<&ObjectRef, &Location> = BTreeMap::new();
        let mut problems = Vec::new();
        let of_files = self.files.values().flat_map(|file| file.secrets.values().chain(&file.repeated_secrets));
        for secret in of_files.chain(self.folders.definitions()) {
            let winner = *first.entry(&secret.reference).or_insert(&secret.location);
            if *winner != secret.location {
                problems.push(defined_twice(&secret.reference, Some(winner), Some(secret.location.clone())));
            }
        }
        problems
    }
}

fn defined_twice(reference: &ObjectRef, winner: Option<&Location>, loser: Option<Location>) -> Problem {
    let place = winner.map(Location::to_string).unwrap_or_default();
    let problem = Problem::error(reference, "", format!("the object is already defined at {place}"));
    let problem = problem.consequence("this definition is not applied");
    problem.hint("Remove one of the two, or give it another name or namespace.").at(loser)
}

pub(crate) const KEPT: &str = "what it said before stays in force until it can be read again";

fn file_problem(file: &str, message: String, consequence: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        object: None,
        field: String::new(),
        message,
        consequence: consequence.to_owned(),
        hint: String::new(),
        location: Some(Location { file: file.into(), line: 0, column: 0 }),
    }
}

/// The file's next state: what it says now, and last good versions of what it no longer says properly.
fn succeed(old: &File, parsed: Parsed, name: &Arc<str>) -> File {
    let Parsed { objects, mut problems, refused, stand_ins, guards, secrets, others, unreadable } = parsed;
    let refused: BTreeSet<_> = refused.into_iter().collect();
    let mut file = File::default();
    for object in objects {
        let next = file.objects.len();
        match file.positions.entry(object.reference.clone()) {
            Entry::Occupied(_) => file.repeated.push(object),
            Entry::Vacant(free) => {
                free.insert(next);
                file.objects.push(object);
            }
        }
    }
    for stand_in in stand_ins {
        file.stand_ins.entry(stand_in.reference.clone()).or_insert(stand_in);
    }
    for (reference, text) in guards {
        file.guards.entry(reference).or_insert(text);
    }
    for secret in secrets {
        match file.secrets.entry(secret.reference.clone()) {
            BTreeEntry::Occupied(_) => file.repeated_secrets.push(secret),
            BTreeEntry::Vacant(free) => _ = free.insert(secret),
        }
    }
    for (reference, secret) in &old.secrets {
        if unreadable || refused.contains(reference) {
            file.secrets.entry(reference.clone()).or_insert_with(|| secret.clone());
        }
    }
    let before = old.kept.values().chain(&old.objects);
    let missing = before.filter(|o| !file.positions.contains_key(&o.reference));
    let kept: BTreeMap<ObjectRef, Arc<Object>> = missing
        .filter(|o| unreadable || refused.contains(&o.reference))
        .map(|o| (o.reference.clone(), o.clone()))
        .collect();
    for (reference, text) in old.guards.iter().filter(|(reference, _)| kept.contains_key(reference)) {
        file.guards.insert(reference.clone(), text.clone());
    }
    let silent: Vec<String> = kept.keys().filter(|r| !refused.contains(r)).map(ObjectRef::to_string).collect();
    if !silent.is_empty() {
        let message = format!("a part of the file cannot be read, and it no longer shows {}", listed(&silent));
        let mut problem = file_problem(name, message, "these stay in force until all of the file can be read");
        problem.severity = Severity::Warning;
        problems.push(problem);
    }
    File { kept, refused, others, problems, ..file }
}

/// The first five, and how many more.
fn listed(names: &[String]) -> String {
    match names {
        [shown @ .., _] if names.len() > 5 => {
            format!("{} and {} more", shown[..5].join(", "), names.len() - 5)
        }
        _ => names.join(", "),
    }
}
