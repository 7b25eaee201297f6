//! What is wrong with an input, said so that its author can mend it.

use std::fmt;

use serde::Serialize;

use crate::{Location, ObjectRef};

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Part of the object has no effect, or traffic is refused because of it. `check` exits with 1.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

/// One thing that is wrong with one object (or with a file, when no object could be read from it).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// The object; `None` when the text did not get as far as an object.
    pub object: Option<ObjectRef>,
    /// Path of the field, such as `spec.http[0].route[1].destination.subset`; empty for the object as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What is done instead, such as "the route answers 503".
    pub consequence: String,
    /// A way out; may be several lines, such as a manifest ready to paste. Empty when there is none.
    pub hint: String,
    /// Where it was read.
    pub location: Option<Location>,
}

impl Problem {
    /// An error of `object` at `field`.
    pub fn error(object: &ObjectRef, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            object: Some(object.clone()),
            field: field.into(),
            message: message.into(),
            consequence: String::new(),
            hint: String::new(),
            location: None,
        }
    }

    /// A warning about `object` at `field`.
    pub fn warning(object: &ObjectRef, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(object, field, message) }
    }

    /// Adds what is done instead.
    #[must_use]
    pub fn consequence(mut self, consequence: impl Into<String>) -> Self {
        self.consequence = consequence.into();
        self
    }

    /// Adds a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds where it was read.
    #[must_use]
    pub fn at(mut self, location: Option<Location>) -> Self {
        self.location = location;
        self
    }
}

/// `error: mesh.yaml:12:7: VirtualService default/reviews: spec.http[0]: <message>; <consequence>` and the hint below.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        })?;
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.consequence.is_empty() {
            write!(f, "; {}", self.consequence)?;
        }
        for line in self.hint.lines() {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}
