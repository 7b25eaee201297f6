//! One e-process: evidence against a null hypothesis that may be looked at any time.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::grid::{self, Row};
use crate::Time;

/// When the alternative may begin to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Onset {
    /// From the first block on.
    Start,
    /// From any block on: a candidate that was healthy for an hour and fails now is not credited with that hour. The
    /// process is a mixture over the block at which it began, half of it on the first, block j taking half of
    /// 1/(j (j + 1)); what has not begun yet counts 1, and is left out, which only lowers the evidence.
    Any,
}

/// Logarithms of a mixture of likelihood ratios.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Process {
    onset: Onset,
    /// For each alternative the logarithm of its likelihood ratio, mixed over onsets.
    logs: Row,
    /// For each alternative the most that any stretch of `trim` has added to it.
    stretches: Row,
    /// What the blocks of the last stretch added.
    recent: VecDeque<(Time, Row)>,
    trim: Duration,
    blocks: u64,
    /// The logarithm of the evidence.
    log: f64,
    /// The largest logarithm of the evidence ever.
    peak: f64,
}

impl Process {
    pub(super) fn new(onset: Onset, trim: Duration) -> Self {
        let logs = match onset {
            Onset::Start => vec![0.0; grid::SIZE],
            Onset::Any => vec![f64::MIN; grid::SIZE],
        };
        Self {
            onset,
            logs,
            stretches: vec![0.0; grid::SIZE],
            recent: VecDeque::new(),
            trim,
            blocks: 0,
            log: 0.0,
            peak: 0.0,
        }
    }

    /// Takes in what one block says for each alternative.
    pub(super) fn add(&mut self, from: Time, until: Time, block: Row) {
        let share = match (self.onset, self.blocks) {
            (Onset::Start, _) => None,
            (Onset::Any, 0) => Some(0.5f64.ln()),
            (Onset::Any, j) => Some(-(2.0 * j as f64 * (j as f64 + 1.0)).ln()),
        };
        for (log, gain) in self.logs.iter_mut().zip(&block) {
            if let Some(share) = share {
                *log = grid::log_add(*log, share);
            }
            *log += gain;
        }
        self.blocks += 1;
        self.recent.push_back((from, block));
        // The newest block stays even when it is longer than a stretch.
        while self.recent.len() > 1 && self.recent.front().is_some_and(|(from, _)| until.since(*from) > self.trim) {
            self.recent.pop_front();
        }
        let mut sums = vec![0.0; grid::SIZE];
        for (_, gains) in self.recent.iter().rev() {
            for ((sum, gain), most) in sums.iter_mut().zip(gains).zip(&mut self.stretches) {
                *sum += gain;
                *most = most.max(*sum);
            }
        }
        self.log = grid::log_mean(self.logs.iter().copied());
        self.peak = self.peak.max(self.log);
    }

    /// Deletes stretches of this length from now on, and of the past as much as the best stretch would have added had it
    /// gone on for so long: of evidence that came evenly exactly what the longer stretch would have had.
    pub(super) fn widen(&mut self, trim: Duration) {
        let ratio = trim.as_secs_f64() / self.trim.as_secs_f64();
        if ratio > 1.0 {
            self.stretches.iter_mut().for_each(|most| *most *= ratio);
            self.trim = trim;
        }
    }

    /// The logarithm of the evidence.
    pub(super) fn log(&self) -> f64 {
        self.log
    }

    /// The same after the best stretch of `trim` is deleted, each alternative's own, and the rest divided by the
    /// dispersion. Never more than [`Process::log`] where that is above 0.
    pub(super) fn log_robust(&self, dispersion: f64) -> f64 {
        let trimmed = self.logs.iter().zip(&self.stretches).map(|(log, stretch)| (log - stretch) / dispersion.max(1.0));
        grid::log_mean(trimmed)
    }

    /// The always-valid p-value: 1 over the most evidence that there ever was.
    pub(super) fn p_value(&self) -> f64 {
        (-self.peak).exp().min(1.0)
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64) -> Row {
        vec![value; grid::SIZE]
    }

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn one_short_burst_leaves_nothing_once_it_is_deleted() {
        let mut process = Process::new(Onset::Start, Duration::from_secs(10));
        for second in 0..5 {
            process.add(at(second), at(second + 1), row(4.0));
        }
        assert!(process.log() > 19.0);
        assert!(process.log_robust(1.0).abs() < 1e-9);
        for second in 5..30 {
            process.add(at(second), at(second + 1), row(1.0));
        }
        assert!((process.log_robust(1.0) - (45.0 - 25.0)).abs() < 1e-9, "{}", process.log_robust(1.0));
    }

    #[test]
    fn a_longer_stretch_takes_away_as_much_of_the_past_as_if_it_had_been_as_long_before() {
        let mut process = Process::new(Onset::Start, Duration::from_secs(10));
        let mut longer = Process::new(Onset::Start, Duration::from_secs(20));
        for second in 0..40 {
            process.add(at(second), at(second + 1), row(1.0));
            longer.add(at(second), at(second + 1), row(1.0));
        }
        process.widen(Duration::from_secs(20));
        assert!((process.log_robust(1.0) - longer.log_robust(1.0)).abs() < 1e-9);
        for second in 40..60 {
            process.add(at(second), at(second + 1), row(2.0));
            longer.add(at(second), at(second + 1), row(2.0));
        }
        let (robust, expected) = (process.log_robust(1.0), longer.log_robust(1.0));
        assert!(robust <= expected && robust > expected - 20.0, "{robust} {expected}");
        process.widen(Duration::from_secs(5));
        assert_eq!(process.log_robust(1.0), robust, "it is never made shorter");
    }

    #[test]
    fn an_hour_of_health_does_not_outweigh_what_comes_after_it() {
        let mut any = Process::new(Onset::Any, Duration::from_secs(10));
        let mut start = Process::new(Onset::Start, Duration::from_secs(10));
        for second in 0..3600 {
            any.add(at(second), at(second + 1), row(-0.5));
            start.add(at(second), at(second + 1), row(-0.5));
        }
        for second in 3600..3640 {
            any.add(at(second), at(second + 1), row(1.0));
            start.add(at(second), at(second + 1), row(1.0));
        }
        assert!(any.log() > 20.0 && start.log() < -1000.0, "{} {}", any.log(), start.log());
    }
}
