//! Problems of one object as they are collected.

use std::fmt::Display;

use world::{ObjectRef, Problem};

use super::{REFUSED, Verdict};

/// The problems found so far.
pub(super) struct Findings {
    object: ObjectRef,
    problems: Vec<Problem>,
    is_refused: bool,
}

/// The problem just added, for what a few of them say beyond field and message.
pub(super) struct Added<'f>(&'f mut Problem);

impl Added<'_> {
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        self.0.hint = hint.into();
        self
    }
}

impl Findings {
    pub(super) fn new(object: &ObjectRef) -> Self {
        Self { object: object.clone(), problems: Vec::new(), is_refused: false }
    }

    pub(super) fn into_verdict(self) -> Verdict {
        Verdict { problems: self.problems, is_refused: self.is_refused }
    }

    /// Refuses the object.
    pub(super) fn error(&mut self, field: impl Display, message: impl Into<String>) -> Added<'_> {
        self.is_refused = true;
        self.add(Problem::error(&self.object, field.to_string(), message).consequence(REFUSED))
    }

    /// An error that lets the object pass, because to leave it out would be worse; `consequence` says what happens.
    pub(super) fn in_force(
        &mut self,
        field: impl Display,
        message: impl Into<String>,
        consequence: impl Into<String>,
    ) -> Added<'_> {
        self.add(Problem::error(&self.object, field.to_string(), message).consequence(consequence))
    }

    /// Lets the object pass; `consequence` says what happens.
    pub(super) fn warning(
        &mut self,
        field: impl Display,
        message: impl Into<String>,
        consequence: impl Into<String>,
    ) -> Added<'_> {
        self.add(Problem::warning(&self.object, field.to_string(), message).consequence(consequence))
    }

    fn add(&mut self, problem: Problem) -> Added<'_> {
        self.problems.push(problem);
        Added(self.problems.last_mut().expect("a problem was just pushed"))
    }

    /// A port of 0, which nothing listens on. Larger numbers than 65535 do not fit the type.
    pub(super) fn port(&mut self, field: impl Display, number: u16) {
        if number == 0 {
            self.error(field, "port 0 is not a port").hint("Use a number from 1 to 65535.");
        }
    }

    /// A share in percent.
    pub(super) fn percent(&mut self, field: impl Display, value: f64) {
        // Written so that NaN is refused too.
        if !(0.0..=100.0).contains(&value) {
            self.error(field, format!("{value} is not a percentage")).hint("Use a number from 0 to 100.");
        }
    }

    /// A value of a closed list of words.
    pub(super) fn one_of(&mut self, field: impl Display, value: Option<&str>, known: &[&str]) {
        if let Some(value) = value.filter(|v| !known.contains(v)) {
            self.error(field, format!("unknown value \"{value}\"")).hint(format!("Known: {}.", known.join(", ")));
        }
    }
}
