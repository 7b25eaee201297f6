//! Objects that somebody hands over to be kept, beside those that sources find by themselves: what is asked for, and
//! what comes of it. Who takes submissions, and where objects are kept, is for others to say.

use crate::{Location, ObjectRef, Problem};

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    /// Objects are to say this from now on.
    Apply(Application),
    /// An object is to go.
    Delete(Deletion),
}

/// Objects that are handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Application {
    /// One or more objects as a file would have them, in YAML or JSON. All of them are taken, or none.
    pub document: String,
    /// When this is said, the document has this object and no other.
    pub only: Option<ObjectRef>,
    /// The generation that whoever applies has seen, 0 for an object that must not exist. Only for a single object.
    pub expected_generation: Option<i64>,
    /// Whether nothing is to be changed: the answer is what it would be.
    pub is_dry_run: bool,
}

/// An object that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Which.
    pub reference: ObjectRef,
    /// The generation that whoever deletes has seen.
    pub expected_generation: Option<i64>,
    /// Whether nothing is to be changed: the answer is what it would be.
    pub is_dry_run: bool,
}

/// What came of a submission that was taken. It is durable by then, unless it was a dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acceptance {
    /// One for each object, in the order of the document.
    pub objects: Vec<Taken>,
    /// Warnings about the objects, in the order of the document.
    pub warnings: Vec<Problem>,
}

/// One object of a submission that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub reference: ObjectRef,
    /// Its generation: rises whenever it says something new. Of a deleted object the last one.
    pub generation: i64,
    /// What has become of it.
    pub effect: Effect,
}

/// What a submission has done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It did not exist.
    Created,
    /// It says something else now.
    Changed,
    /// It said the same before.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl Effect {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Created => "created",
            Effect::Changed => "changed",
            Effect::Unchanged => "unchanged",
            Effect::Deleted => "deleted",
        }
    }
}

/// Why a submission was not taken. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The objects are wrong; everything that is wrong with them, in the order of the document.
    #[error("{}", listed(.0))]
    Invalid(Vec<Problem>),
    /// A file has the object, and files count before what is handed over.
    #[error("{reference} is defined by {place}")]
    Owned {
        /// Which.
        reference: ObjectRef,
        /// Where.
        place: Location,
    },
    /// The object is at another generation than whoever asks has seen.
    #[error("{reference} is at generation {found}, not at {expected}")]
    Moved {
        /// Which.
        reference: ObjectRef,
        /// What whoever asks has seen, 0 for no object.
        expected: i64,
        /// What there is, 0 for no object.
        found: i64,
    },
    /// There is no such object.
    #[error("there is no {0}")]
    NotFound(ObjectRef),
    /// Nothing that is handed over is kept here.
    #[error("this server keeps no objects that are handed to it: it has no state directory")]
    NoState,
    /// It could not be made durable.
    #[error("it cannot be stored: {0}")]
    NotStored(String),
    /// More is asked at one time than can be done.
    #[error("too much is asked at one time")]
    Busy,
    /// The server ends, or takes nothing from anybody.
    #[error("nobody takes objects here")]
    Nobody,
}

/// So many problems stand in a message; of the rest only the number.
const LISTED: usize = 5;

fn listed(problems: &[Problem]) -> String {
    let mut words: Vec<String> = problems.iter().take(LISTED).map(in_short).collect();
    if problems.len() > LISTED {
        words.push(format!("and {} more", problems.len() - LISTED));
    }
    words.join("; ")
}

/// Object, field and message.
fn in_short(problem: &Problem) -> String {
    let object = problem.object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
    let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
    format!("{object}{field}{}", problem.message)
}

impl Refusal {
    /// A way out, in a sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Refusal::Invalid(_) => "mend the document and apply it again",
            Refusal::Owned { .. } => "change it in that file; or take it out of the file first, and apply it then",
            Refusal::Moved { .. } => "look at what it says now, and decide again",
            Refusal::NotFound(_) => "the list of objects says what there is",
            Refusal::NoState => "start the server with --state-dir, or write a file below --config",
            Refusal::NotStored(_) => "make room on the disk of the state directory, and try again",
            Refusal::Busy => "try again in a moment",
            Refusal::Nobody => "try again when the server has been restarted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_refusal_names_objects_and_fields_and_says_how_many_it_leaves_out() {
        let intent = ObjectRef::new(Kind::DeploymentIntent, "shop", "web");
        let problem = |at: usize| Problem::error(&intent, format!("spec.strategy.canary.steps[{at}]"), "too much");
        let refusal = Refusal::Invalid((0..7).map(problem).collect());
        let words = refusal.to_string();
        assert!(words.starts_with("DeploymentIntent shop/web: spec.strategy.canary.steps[0]: too much; "), "{words}");
        assert!(words.ends_with("; and 2 more"), "{words}");
    }
}
