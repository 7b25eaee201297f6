//! The same test of single endpoints of stable against the others, where every alarm is a false one.
//!
//! Errors come in bursts: an endpoint stalls for some seconds and is well again. No test that takes requests for
//! exchangeable can tell a candidate's burst from a fault by itself, but endpoints of stable have bursts, too. So
//! the candidate, without its own best stretch, has to show more than any of them did lately with theirs. One more of
//! the same kind rarely does, whatever the bursts look like; the evidence of a faulty one outgrows theirs soon.

use serde::{Deserialize, Serialize};

use super::block::Block;
use super::counted::{TRIM, relative_row};
use super::process::{Onset, Process};
use super::{Part, Tally};

/// So many endpoints are watched at once; it is always the same ones while they are there.
const WATCHED: usize = 8;
/// A trial ends after so many blocks: about as long as a step.
const BLOCKS: u64 = 300;
/// What endpoints showed is forgotten with this time constant, in seconds: one that broke down for good must not blind
/// the test for the rest of the run.
const MEMORY_SECONDS: f64 = 1_800.0;

/// Trials begin anew after a restart; what they have shown is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Calibration {
    #[serde(skip)]
    trials: Vec<Trial>,
    ended: u64,
    alarms: u64,
    floor: f64,
}

#[derive(Clone, Debug, PartialEq)]
struct Trial {
    endpoint: u64,
    process: Process,
    is_alarmed: bool,
}

impl Calibration {
    /// Takes in a block; `bound` is a logarithm.
    pub(super) fn add(&mut self, block: &Block, bound: f64, dispersion: f64) {
        self.floor *= (-block.until.since(block.from).as_secs_f64() / MEMORY_SECONDS).exp();
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
            trial.is_alarmed |= trial.process.log() >= bound && trial.process.log_robust(dispersion) >= bound;
            // The process goes on: the candidate's remembers its bursts for as long, too.
            if trial.process.blocks().is_multiple_of(BLOCKS) {
                self.ended += 1;
                self.alarms += u64::from(std::mem::take(&mut trial.is_alarmed));
            }
        }
    }

    /// The logarithm of the most that any endpoint of stable has shown lately; at least 0.
    pub(super) fn floor(&self) -> f64 {
        self.floor
    }

    /// Alarms per trial that has ended; `None` before the first.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.ended > 0).then(|| self.alarms as f64 / self.ended as f64)
    }

    pub(super) fn ended(&self) -> u64 {
        self.ended
    }
}

impl Trial {
    fn new(endpoint: u64) -> Self {
        Self { endpoint, process: Process::new(Onset::Any, TRIM), is_alarmed: false }
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
