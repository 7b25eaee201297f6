//! A candidate that there is nobody to compare with.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Tally;
use super::counted::absolute_row;
use super::grid;
use super::process::{Onset, Process};
use crate::Time;

/// Without an SLO, and without stable to compare with: a candidate with this share of bad requests does not go on, and
/// one passes when it is shown to have fewer.
pub(super) const PLAIN: f64 = 0.05;

/// Evidence of a share of bad requests beyond [`PLAIN`], and of one below it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Unaided {
    pub(super) beyond: Process,
    pub(super) within: Process,
}

impl Unaided {
    /// Without evidence; `trim` is the length of the stretch that is deleted from it.
    pub(super) fn new(trim: Duration) -> Self {
        Self { beyond: Process::new(Onset::Any, trim), within: Process::new(Onset::Start, trim) }
    }

    pub(super) fn add(&mut self, from: Time, until: Time, candidate: Tally) {
        self.beyond.add(from, until, absolute_row(candidate, PLAIN, grid::worse_than(PLAIN)));
        self.within.add(from, until, absolute_row(candidate, PLAIN, grid::better_than(PLAIN)));
    }

    /// Deletes stretches of this length from now on.
    pub(super) fn widen(&mut self, trim: Duration) {
        self.beyond.widen(trim);
        self.within.widen(trim);
    }
}
