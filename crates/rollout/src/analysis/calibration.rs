//! The same test between halves of stable, where every alarm is a false one.

use std::time::Duration;

use super::block::Block;
use super::counted::relative_row;
use super::process::{Onset, Process};
use super::{Part, Tally};

/// So many ways of cutting stable's endpoints in two are tried at once.
const CUTS: usize = 6;
/// A trial ends without an alarm after so many blocks: about as long as a step.
const BLOCKS: u64 = 300;
/// No longer stretch than this is ever deleted.
const LONGEST_TRIM: Duration = Duration::from_secs(60);

/// Not kept over a restart: it begins anew, and the trim that it led to is kept elsewhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Calibration {
    trials: Vec<Process>,
    ended: u64,
    alarms: u64,
}

impl Calibration {
    /// Takes in a block. Returns a longer trim when alarms are more frequent than `alpha` allows.
    pub(super) fn add(&mut self, block: &Block, alpha: f64, trim: Duration, dispersion: f64) -> Option<Duration> {
        if block.parts.len() < 2 {
            return None;
        }
        if self.trials.len() < CUTS {
            self.trials = vec![Process::new(Onset::Any, trim); CUTS];
        }
        let mut is_raised = false;
        for (cut, trial) in self.trials.iter_mut().enumerate() {
            let (one, other) = halves(&block.parts, cut);
            if one.total == 0 || other.total == 0 {
                continue;
            }
            trial.add(block.from, block.until, relative_row(one, other));
            let is_alarm = trial.log_robust(dispersion) >= -alpha.ln();
            if is_alarm || trial.blocks() >= BLOCKS {
                self.ended += 1;
                self.alarms += u64::from(is_alarm);
                is_raised |= is_alarm;
                *trial = Process::new(Onset::Any, trim);
            }
        }
        let too_many = self.alarms >= 2 && self.rate().is_some_and(|rate| rate > alpha);
        (is_raised && too_many && trim < LONGEST_TRIM).then(|| {
            // What was seen under the shorter trim says nothing about the longer one.
            *self = Self::default();
            (trim * 2).min(LONGEST_TRIM)
        })
    }

    /// Alarms per trial that has ended; `None` before the first.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.ended > 0).then(|| self.alarms as f64 / self.ended as f64)
    }

    pub(super) fn ended(&self) -> u64 {
        self.ended
    }
}

/// One cut: a bit of each endpoint's mixed key decides its half.
fn halves(parts: &[Part], cut: usize) -> (Tally, Tally) {
    let mut halves = (Tally::default(), Tally::default());
    for part in parts {
        // The multiplier of Fibonacci hashing: neighbouring keys part company in the high bits.
        let mixed =
            part.endpoint.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        match mixed >> (58 - 5 * cut) & 1 {
            0 => halves.0.add(part.tally),
            _ => halves.1.add(part.tally),
        }
    }
    halves
}
