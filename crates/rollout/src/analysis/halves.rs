//! The same test between random halves of stable, where every alarm is a false one.
//!
//! That the test keeps its alpha rests on requests being exchangeable, and endpoints that stall, restart or warm up
//! break that. How much they do is seen where nothing is to be found: stable's endpoints are divided at random, and one
//! half is put to the test that the candidate is put to, with the other half as its stable. The share of such trials that
//! raise an alarm is what the test's alpha really is here.
//!
//! A division lasts as long as its trial. The candidate's endpoints are the same ones all the time, and what makes a
//! false alarm is that the trouble of a few endpoints stays in one arm; a division that is drawn anew with every block would
//! spread that trouble over both arms and find the test better than it is. One division for the whole run, on the
//! other hand, would be one trial. So each trial has a division of its own, several go on beside each other, and each
//! division is judged both ways. They share what they see, so a burst raises several alarms or none: the rate is right on
//! average, and less sure than as many independent trials would make it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use world::api::delivery::Tolerance;

use super::block::Block;
use super::calibration::Calibration;
use super::counted::{MEMORY_SECONDS, is_beyond, relative_row};
use super::process::{Onset, Process};
use super::trim::Trim;
use super::{Part, Tally};

/// So many divisions are tried at once.
const DIVISIONS: usize = 4;
/// A trial ends after so many blocks: about as long as a step.
const BLOCKS: u64 = 300;
/// A division is given up when one half has had no request for so many blocks: its endpoints are gone.
const EMPTY: u32 = 20;

/// Trials begin anew after a restart; what those before have shown is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Halves {
    /// What chance begins with.
    seed: u64,
    /// Divisions drawn so far: each is another one.
    drawn: u64,
    #[serde(skip)]
    divisions: Vec<Division>,
    /// Trials that have ended, or raised an alarm.
    concluded: u64,
    alarms: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Division {
    number: u64,
    /// In which half each endpoint is.
    sides: BTreeMap<u64, usize>,
    /// Totals and bad requests of each half, the older the less they count.
    recent: [[f64; 2]; 2],
    /// Each half as the candidate, with the other one as stable.
    trials: [Trial; 2],
    blocks: u64,
    empty: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct Trial {
    process: Process,
    /// The most that an endpoint of the other half has shown: what the candidate's evidence has to exceed.
    floor: f64,
    is_alarmed: bool,
}

/// By what a half is called bad: what the candidate is called bad by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule<'a> {
    /// The logarithm that evidence has to reach.
    pub(super) bound: f64,
    pub(super) dispersion: f64,
    pub(super) tolerance: &'a Tolerance,
    pub(super) trim: &'a Trim,
    pub(super) singles: &'a Calibration,
}

impl Halves {
    /// Divides by chance that begins with `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Takes in a block.
    pub(super) fn add(&mut self, block: &Block, rule: &Rule<'_>) {
        if block.parts.len() < 2 {
            return;
        }
        self.divide(&block.parts, rule.trim);
        for division in &mut self.divisions {
            let alarms = division.add(self.seed, block, rule);
            self.alarms += alarms;
            self.concluded += alarms;
        }
        let concluded = &mut self.concluded;
        self.divisions.retain(|division| {
            let has_ended = division.blocks >= BLOCKS;
            if has_ended {
                *concluded += division.going_on();
            }
            !has_ended && division.empty < EMPTY
        });
    }

    /// Trials that raised an alarm.
    pub(super) fn alarms(&self) -> u64 {
        self.alarms
    }

    /// All trials, those that go on included.
    pub(super) fn trials(&self) -> u64 {
        self.concluded + self.divisions.iter().map(Division::going_on).sum::<u64>()
    }

    /// Alarms per trial; `None` before any has come to an end.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.concluded > 0).then(|| self.alarms as f64 / self.trials() as f64)
    }

    /// The test is another one from now on: what is known of the old one says nothing about it.
    pub(super) fn begin_anew(&mut self) {
        self.divisions.clear();
        (self.concluded, self.alarms) = (0, 0);
    }

    /// Draws divisions until there are enough, each unlike the others: two endpoints can be divided in one way only.
    fn divide(&mut self, parts: &[Part], trim: &Trim) {
        for _ in 0..DIVISIONS * 3 {
            if self.divisions.len() >= DIVISIONS {
                return;
            }
            let sides = draw(self.seed, self.drawn, parts);
            let is_known = self.divisions.iter().any(|known| known.is_like(&sides));
            if !is_known {
                let trial = Trial { process: Process::new(Onset::Any, trim.span()), floor: 0.0, is_alarmed: false };
                let trials = [trial.clone(), trial];
                let recent = [[0.0; 2]; 2];
                self.divisions.push(Division { number: self.drawn, sides, recent, trials, blocks: 0, empty: 0 });
            }
            self.drawn += 1;
        }
    }
}

impl Division {
    /// How many of its trials raise an alarm now.
    fn add(&mut self, seed: u64, block: &Block, rule: &Rule<'_>) -> u64 {
        let mut halves = [Tally::default(); 2];
        for part in &block.parts {
            // Who comes later is drawn by itself.
            let number = self.number;
            let side = self.sides.entry(part.endpoint).or_insert_with(|| side(mixed(seed, number, part.endpoint)));
            halves[*side].add(part.tally);
        }
        if halves.iter().any(|half| half.total == 0) {
            self.empty += 1;
            return 0;
        }
        (self.empty, self.blocks) = (0, self.blocks + 1);
        let span = block.until.since(block.from).as_secs_f64();
        for (recent, half) in self.recent.iter_mut().zip(halves) {
            let fade = (-span / MEMORY_SECONDS).exp();
            *recent = [recent[0] * fade + half.total as f64, recent[1] * fade + half.bad as f64];
        }
        let mut alarms = 0;
        for (own, trial) in self.trials.iter_mut().enumerate() {
            let other = 1 - own;
            let shown = rule.singles.evidence(rule.dispersion);
            let shown = shown.filter(|(endpoint, _)| self.sides.get(endpoint) == Some(&other));
            trial.floor = Calibration::faded(trial.floor, span);
            trial.floor = shown.fold(trial.floor, |most, (_, log)| most.max(log));
            trial.process.add(block.from, block.until, relative_row(halves[own], halves[other]));
            let rates = [own, other].map(|side| self.recent[side][1] / self.recent[side][0].max(1.0));
            let is_bad = trial.process.log() >= rule.bound
                && trial.process.log_robust(rule.dispersion) >= rule.bound + trial.floor
                && is_beyond(rule.tolerance, rates[0], rates[1]);
            if is_bad && !trial.is_alarmed {
                trial.is_alarmed = true;
                alarms += 1;
            }
        }
        alarms
    }

    /// Trials without an alarm so far.
    fn going_on(&self) -> u64 {
        self.trials.iter().filter(|trial| !trial.is_alarmed).count() as u64
    }

    /// Whether `sides` divides its endpoints as this does.
    fn is_like(&self, sides: &BTreeMap<u64, usize>) -> bool {
        let same = sides.iter().filter(|(endpoint, side)| self.sides.get(endpoint) == Some(side)).count();
        same == 0 || same == sides.len()
    }
}

/// Halves of equal size, or as equal as they can be.
fn draw(seed: u64, number: u64, parts: &[Part]) -> BTreeMap<u64, usize> {
    let mut endpoints: Vec<_> = parts.iter().map(|part| part.endpoint).collect();
    endpoints.sort_by_key(|endpoint| mixed(seed, number, *endpoint));
    let half = endpoints.len() / 2;
    endpoints.into_iter().enumerate().map(|(at, endpoint)| (endpoint, usize::from(at >= half))).collect()
}

fn side(mixed: u64) -> usize {
    (mixed >> 63) as usize
}

/// The finalizer of SplitMix64, over all three: any bit of the answer depends on every bit of them.
fn mixed(seed: u64, number: u64, endpoint: u64) -> u64 {
    [seed, number, endpoint].into_iter().fold(0, |state, next| {
        let mut z = (state ^ next).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}
