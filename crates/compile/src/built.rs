//! A value and what was wrong on the way to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use world::{ObjectRef, Problem};

/// What a builder returns: always a usable value, and beside it the problems of its input.
#[derive(Clone, Debug)]
pub struct Built<T> {
    /// The value.
    pub value: T,
    /// What was wrong, and what was done instead.
    pub problems: Vec<Problem>,
    /// Names of the clusters that the value refers to.
    pub clusters: BTreeSet<Arc<str>>,
    /// The objects that the value came from.
    pub origins: BTreeSet<ObjectRef>,
}

impl<T> Built<T> {
    /// A value without problems, references or origins.
    pub fn new(value: T) -> Self {
        Self { value, problems: Vec::new(), clusters: BTreeSet::new(), origins: BTreeSet::new() }
    }

    /// The same findings about another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Built<U> {
        Built { value: change(self.value), problems: self.problems, clusters: self.clusters, origins: self.origins }
    }

    /// Takes over the findings of a part and returns its value.
    pub fn absorb<U>(&mut self, part: Built<U>) -> U {
        self.problems.extend(part.problems);
        self.clusters.extend(part.clusters);
        self.origins.extend(part.origins);
        part.value
    }
}
