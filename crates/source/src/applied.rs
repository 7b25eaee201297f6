//! Objects that were handed over through the API: what is asked of them is checked as if it stood in a file, and what
//! follows is said as a whole before anything of it is done.
//!
//! Pure; [`Shelf`] does the IO. Three rules: files count before what was handed over, so an object that a file has is
//! not taken; all objects of a document are taken, or none; an object's generation rises whenever it says something new,
//! also over its own deletion, so whoever remembers one never mistakes another object for it.

#[allow(clippy::disallowed_methods, reason = "this module is the IO")]
mod shelf;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use world::{
    Acceptance, Application, Deletion, Effect, Kind, Location, Object, ObjectRef, Problem, Refusal, Severity, Spec,
    Submission, Taken,
};

use crate::files::Files;
use crate::text::{self, Options, Parsed};

pub use shelf::{Shelf, ShelfError};

/// The kinds that can be handed over. Everything else belongs to whoever deploys it.
const KINDS: [Kind; 3] = [Kind::DeploymentIntent, Kind::AnalysisProfile, Kind::Freeze];
/// What a document is called in its problems.
const DOCUMENT: &str = "document";
const NOT_TAKEN: &str = "nothing of the document is applied";
/// The form of what is kept.
const FORMAT: u64 = 1;
/// Everything that is kept has fewer bytes: far more than the intents of a large mesh, and little enough to be written
/// whole.
const MAX_BYTES: usize = 32 << 20;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq)]
struct Applied {
    /// Each as a manifest, with its generation and the time when it came.
    manifests: BTreeMap<ObjectRef, Value>,
    /// The highest generation of an object that is gone: whatever comes begins above it.
    passed: i64,
}

/// What follows from a submission.
#[derive(Debug)]
struct Verdict {
    /// What is to be kept; `None` when nothing changes.
    next: Option<Applied>,
    /// The objects that say something new, as they are read from what is kept.
    new: Vec<(ObjectRef, Parsed)>,
    /// The object that goes.
    gone: Option<ObjectRef>,
    acceptance: Acceptance,
}

impl Applied {
    /// What is written to the disk.
    fn text(&self) -> String {
        let manifests: Vec<_> = self.manifests.values().collect();
        json!({"format": FORMAT, "passed": self.passed, "objects": manifests}).to_string()
    }

    /// Reads what [`Applied::text`] wrote.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn read(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match value["format"].as_u64() {
            Some(FORMAT) => {}
            Some(other) => return Err(format!("it has format {other}, and this version reads format {FORMAT}")),
            None => return Err("it has no format".to_owned()),
        }
        let objects = value["objects"].as_array().ok_or("it has no list of objects")?;
        let mut manifests = BTreeMap::new();
        for manifest in objects {
            let named = |part: &str| manifest.pointer(part).and_then(Value::as_str).ok_or("an object has no name");
            let kind = Kind::named(named("/kind")?);
            let reference = ObjectRef::new(kind, named("/metadata/namespace")?, named("/metadata/name")?);
            manifests.insert(reference, manifest.clone());
        }
        Ok(Self { manifests, passed: value["passed"].as_i64().unwrap_or(0) })
    }

    /// Every object as it reads now.
    fn parsed<'a>(&'a self, options: &'a Options) -> impl Iterator<Item = (&'a ObjectRef, Parsed)> {
        self.manifests.iter().map(|(reference, manifest)| (reference, parse(reference, manifest, options)))
    }

    fn generation(&self, reference: &ObjectRef) -> i64 {
        let manifest = self.manifests.get(reference);
        manifest.and_then(|manifest| manifest.pointer("/metadata/generation")?.as_i64()).unwrap_or(0)
    }

    /// What follows from a submission made at `time` (RFC 3339).
    fn decide(&self, submission: &Submission, time: &str, files: &Files) -> Result<Verdict, Refusal> {
        match submission {
            Submission::Apply(application) => self.apply(application, time, files),
            Submission::Delete(deletion) => self.delete(deletion, files),
        }
    }

    fn apply(&self, application: &Application, time: &str, files: &Files) -> Result<Verdict, Refusal> {
        let options = files.options();
        let Parsed { objects, problems: mut said, others, .. } =
            text::parse(DOCUMENT, application.document.as_bytes(), options);
        said.extend(others.iter().map(|other| not_taken(other, None)));
        said.extend(unfit(&objects, application));
        said.extend(governed_twice(&objects, files));
        let is_wrong = |said: &[Problem]| said.iter().any(|problem| problem.severity == Severity::Error);
        if objects.is_empty() && !is_wrong(&said) {
            said.push(general("the document has no object that can be applied", "Say apiVersion, kind and metadata."));
        }
        if is_wrong(&said) {
            return Err(Refusal::Invalid(said));
        }
        for object in &objects {
            if let Some(place) = files.owner(&object.reference) {
                return Err(Refusal::Owned { reference: object.reference.clone(), place });
            }
        }
        if let (Some(expected), [object]) = (application.expected_generation, &*objects) {
            self.expect(&object.reference, expected)?;
        }
        let mut next = self.clone();
        let (mut new, mut taken) = (Vec::new(), Vec::new());
        for object in objects {
            let reference = object.reference.clone();
            let found = self.generation(&reference);
            let before = self.manifests.get(&reference).map(|manifest| parse(&reference, manifest, options));
            let before = before.as_ref().and_then(|parsed| parsed.objects.first());
            let (effect, generation) = match before {
                Some(before) if says_the_same(before, &object) => (Effect::Unchanged, found),
                _ if found > 0 => (Effect::Changed, found + 1),
                _ => (Effect::Created, self.passed + 1),
            };
            taken.push(Taken { reference: reference.clone(), generation, effect });
            if effect == Effect::Unchanged {
                continue;
            }
            let mut kept = Object::clone(&object);
            kept.meta.created = before.map_or_else(|| time.into(), |before| before.meta.created.clone());
            let manifest = kept.manifest(generation).ok_or_else(unwritable)?;
            let parsed = parse(&reference, &manifest, options);
            // What is read after a restart must be what was taken.
            if !matches!(&*parsed.objects, [read] if read.reference == reference && says_the_same(read, &object)) {
                return Err(unwritable());
            }
            next.manifests.insert(reference.clone(), manifest);
            new.push((reference, parsed));
        }
        if next.text().len() > MAX_BYTES {
            return Err(Refusal::NotStored(format!("all that is kept would have more than {MAX_BYTES} bytes")));
        }
        let is_new = !new.is_empty() && !application.is_dry_run;
        let acceptance = Acceptance { objects: taken, warnings: said };
        Ok(Verdict { next: is_new.then_some(next), new, gone: None, acceptance })
    }

    fn delete(&self, deletion: &Deletion, files: &Files) -> Result<Verdict, Refusal> {
        let reference = &deletion.reference;
        if !self.manifests.contains_key(reference) {
            return Err(match files.owner(reference) {
                Some(place) => Refusal::Owned { reference: reference.clone(), place },
                None => Refusal::NotFound(reference.clone()),
            });
        }
        let generation = self.generation(reference);
        if let Some(expected) = deletion.expected_generation {
            self.expect(reference, expected)?;
        }
        let mut next = self.clone();
        next.manifests.remove(reference);
        next.passed = next.passed.max(generation);
        let taken = Taken { reference: reference.clone(), generation, effect: Effect::Deleted };
        let acceptance = Acceptance { objects: vec![taken], warnings: Vec::new() };
        let (next, gone) = if deletion.is_dry_run { (None, None) } else { (Some(next), Some(reference.clone())) };
        Ok(Verdict { next, new: Vec::new(), gone, acceptance })
    }

    fn expect(&self, reference: &ObjectRef, expected: i64) -> Result<(), Refusal> {
        match self.generation(reference) {
            found if found == expected => Ok(()),
            found => Err(Refusal::Moved { reference: reference.clone(), expected, found }),
        }
    }
}

/// The object that is kept as this manifest.
fn parse(reference: &ObjectRef, manifest: &Value, options: &Options) -> Parsed {
    let mut parsed = text::parse(&place(reference), manifest.to_string().as_bytes(), options);
    let nowhere = |location: &mut Option<Location>| {
        // The text is one line that nobody sees.
        if let Some(location) = location {
            (location.line, location.column) = (0, 0);
        }
    };
    parsed.problems.iter_mut().for_each(|problem| nowhere(&mut problem.location));
    for object in &mut parsed.objects {
        nowhere(&mut Arc::make_mut(object).meta.location);
    }
    parsed
}

/// Where an object stands that was handed over: `api:deploymentintent/shop/web`.
fn place(reference: &ObjectRef) -> String {
    format!("api:{}", reference.path())
}

/// Whatever the time, the place and the generation are.
fn says_the_same(a: &Object, b: &Object) -> bool {
    a.spec == b.spec && a.meta.labels == b.meta.labels && a.meta.annotations == b.meta.annotations
}

fn unwritable() -> Refusal {
    Refusal::NotStored("it cannot be written down so that it reads the same afterwards".to_owned())
}

fn not_taken(reference: &ObjectRef, place: Option<&Location>) -> Problem {
    let message = format!("{} cannot be applied", reference.kind);
    let problem = Problem::error(reference, "kind", message).consequence(NOT_TAKEN);
    problem.hint("DeploymentIntent, AnalysisProfile and Freeze can; the rest is read from files.").at(place.cloned())
}

/// An error of the document as a whole.
fn general(message: &str, hint: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        object: None,
        field: String::new(),
        message: message.to_owned(),
        consequence: NOT_TAKEN.to_owned(),
        hint: hint.to_owned(),
        location: None,
    }
}

/// What keeps these objects from being taken together.
fn unfit(objects: &[Arc<Object>], application: &Application) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, object) in objects.iter().enumerate() {
        let error = |field: &str, message: String| {
            let problem = Problem::error(&object.reference, field, message).consequence(NOT_TAKEN);
            problem.at(object.meta.location.clone())
        };
        if !KINDS.contains(&object.reference.kind) {
            problems.push(not_taken(&object.reference, object.meta.location.as_ref()));
        }
        if objects[..at].iter().any(|other| other.reference == object.reference) {
            problems.push(error("metadata.name", "the document has the object twice".to_owned()));
        }
        if let Some(only) = application.only.as_ref().filter(|only| **only != object.reference) {
            problems.push(error("metadata.name", format!("this was to be {only}")));
        }
    }
    if application.expected_generation.is_some() && objects.len() > 1 {
        problems.push(general("a generation is expected of several objects at once", "Apply each of them alone."));
    }
    problems
}

/// Intents among `objects` that govern a port of a service which another intent governs.
fn governed_twice(objects: &[Arc<Object>], files: &Files) -> Vec<Problem> {
    let is_replaced = |other: &Arc<Object>| objects.iter().any(|object| object.reference == other.reference);
    let others = files.objects().filter(|other| !is_replaced(other));
    let all: Vec<_> = others.chain(objects).filter_map(|object| Some((object, service(object)?))).collect();
    let mut problems = Vec::new();
    for object in objects {
        let Some((namespace, selector)) = service(object) else { continue };
        let meets = |(other, (theirs, governed)): &&(&Arc<Object>, (&str, &world::api::delivery::ServiceSelector))| {
            let is_other = other.reference != object.reference;
            is_other && *theirs == namespace && governed.name == selector.name && selector.meets(&governed.ports)
        };
        if let Some((other, _)) = all.iter().find(meets) {
            let name = &selector.name;
            let message =
                format!("traffic of service \"{namespace}/{name}\" is already governed by {}", other.reference);
            let problem = Problem::error(&object.reference, "spec.service", message).consequence(NOT_TAKEN);
            let hint = "One intent governs a port of a service: delete the other one first.";
            problems.push(problem.hint(hint).at(object.meta.location.clone()));
        }
    }
    problems
}

/// Namespace and selector of the service that an intent governs.
fn service(object: &Object) -> Option<(&str, &world::api::delivery::ServiceSelector)> {
    let Spec::DeploymentIntent(intent) = &object.spec else { return None };
    let namespace = intent.service.namespace.as_deref().unwrap_or(&object.reference.namespace);
    Some((namespace, &intent.service))
}

#[cfg(test)]
mod tests;
