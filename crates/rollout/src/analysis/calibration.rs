//! What single endpoints of stable show against themselves.
//!
//! Errors come in bursts: an endpoint stalls for some seconds and is well again. No test that takes requests for
//! exchangeable can tell a candidate's burst from a fault by itself, but endpoints of stable have bursts, too. So
//! the candidate, without its own best stretch, has to show more than any of them did lately with theirs. One more of
//! the same kind rarely does, whatever the bursts look like; the evidence of a faulty one outgrows theirs soon.

use serde::{Deserialize, Serialize};

use super::block::Block;
use super::counted::relative_row;
use super::process::{Onset, Process};
use super::trim::TRIM;
use super::{Part, Tally};

/// So many endpoints are watched at once; it is always the same ones while they are there.
const WATCHED: usize = 8;
/// What endpoints showed is forgotten with this time constant, in seconds: one that broke down for good must not blind
/// the test for the rest of the run.
const MEMORY_SECONDS: f64 = 1_800.0;

/// Each endpoint's evidence begins anew after a restart; the most that was shown is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Calibration {
    #[serde(skip)]
    trials: Vec<Trial>,
    floor: f64,
}

#[derive(Clone, Debug, PartialEq)]
struct Trial {
    endpoint: u64,
    process: Process,
}

impl Calibration {
    /// Takes in a block.
    pub(super) fn add(&mut self, block: &Block, dispersion: f64) {
        self.floor = Self::faded(self.floor, block.until.since(block.from).as_secs_f64());
        let mut pooled = Tally::default();
        block.parts.iter().for_each(|part| pooled.add(part.tally));
        if block.parts.len() < 2 {
            return;
        }
        self.trials.retain(|trial| block.parts.iter().any(|part| part.endpoint == trial.endpoint));
        for part in watched(&block.parts) {
            let rest = Tally::new(pooled.total - part.tally.total, pooled.bad - part.tally.bad);
            if part.tally.total == 0 || rest.total == 0 {
                continue;
            }
            let at = match self.trials.iter().position(|trial| trial.endpoint == part.endpoint) {
                Some(at) => at,
                None if self.trials.len() < WATCHED => {
                    self.trials.push(Trial::new(part.endpoint));
                    self.trials.len() - 1
                }
                None => continue,
            };
            let trial = &mut self.trials[at];
            trial.process.add(block.from, block.until, relative_row(part.tally, rest));
            // Untrimmed: with its own best stretch deleted, the candidate still has to show more than all of this.
            self.floor = self.floor.max(trial.process.log() / dispersion);
        }
    }

    /// The logarithm of the most that any endpoint of stable has shown lately; at least 0.
    pub(super) fn floor(&self) -> f64 {
        self.floor
    }

    /// What was shown this many seconds ago, as it counts now.
    pub(super) fn faded(shown: f64, seconds: f64) -> f64 {
        shown * (-seconds / MEMORY_SECONDS).exp()
    }

    /// The logarithm of what each endpoint that is watched shows now.
    pub(super) fn evidence(&self, dispersion: f64) -> impl Iterator<Item = (u64, f64)> {
        self.trials.iter().map(move |trial| (trial.endpoint, trial.process.log() / dispersion))
    }
}

impl Trial {
    fn new(endpoint: u64) -> Self {
        Self { endpoint, process: Process::new(Onset::Any, TRIM) }
    }
}

/// The endpoints that come first by a mixed key: any few, and the same in every block.
fn watched(parts: &[Part]) -> Vec<&Part> {
    let mut parts: Vec<_> = parts.iter().collect();
    // The multiplier of Fibonacci hashing: neighbouring keys part company in the high bits.
    parts.sort_by_key(|part| part.endpoint.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23));
    parts.truncate(WATCHED);
    parts
}
