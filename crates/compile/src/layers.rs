//! Layers and the units that they are made of.

use std::collections::BTreeSet;

use snapshot::Snapshot;
use world::{Key, Problem, World};

use crate::{Audience, Options, Work};

/// The layers of one audience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stack;

impl Stack {
    pub(crate) fn of(_world: &World, _audience: &Audience) -> Self {
        Self
    }
}

#[derive(Debug)]
pub(crate) struct Layers {
    #[allow(dead_code)]
    options: Options,
}

impl Layers {
    pub(crate) fn new(options: Options) -> Self {
        Self { options }
    }
    pub(crate) fn retain_stack(&mut self, _stack: &Stack) {}
    pub(crate) fn release_stack(&mut self, _stack: &Stack) {}
    pub(crate) fn build(&mut self, _world: &World) {}
    pub(crate) fn update(&mut self, _world: &World, _touched: &BTreeSet<Key>) -> Work {
        Work::default()
    }
    pub(crate) fn snapshot(&self, _stack: &Stack) -> Snapshot {
        Snapshot::default()
    }
    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        std::iter::empty()
    }
}
