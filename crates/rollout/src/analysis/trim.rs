//! How much of the evidence is deleted before it counts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::halves::Halves;
use crate::Time;

/// The stretch that is deleted to begin with: longer than most bursts, and what it adds to the time to detect.
pub(crate) const TRIM: Duration = Duration::from_secs(10);
/// No more than this is deleted: a candidate that is bad all the time goes back a minute later then, and a burst that
/// outlasts it is hardly one any more.
const MOST: Duration = Duration::from_secs(60);

/// The length of the stretch, and what it has been raised for. It is not lowered again within the run: bursts are
/// minutes apart, and quiet between them says nothing about the next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Trim {
    span: Duration,
    raises: Vec<Raise>,
}

/// One time that it was raised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Raise {
    pub(super) at: Time,
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// So many comparisons of halves of stable had raised an alarm,
    pub(super) alarms: u64,
    /// of so many.
    pub(super) trials: u64,
}

impl Default for Trim {
    fn default() -> Self {
        Self { span: TRIM, raises: Vec::new() }
    }
}

impl Trim {
    pub(super) fn span(&self) -> Duration {
        self.span
    }

    pub(super) fn raises(&self) -> &[Raise] {
        &self.raises
    }

    /// Twice as much, up to a minute, if halves of stable call each other bad more often than `alpha`. Whether it changed.
    pub(super) fn raise(&mut self, at: Time, halves: &Halves, alpha: f64) -> bool {
        let (alarms, trials) = (halves.alarms(), halves.trials());
        if self.span >= MOST || alarms as f64 <= alpha * trials as f64 {
            return false;
        }
        let to = (self.span * 2).min(MOST);
        self.raises.push(Raise { at, from: self.span, to, alarms, trials });
        self.span = to;
        true
    }
}
