//! One metric that counts requests in two arms.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use world::api::delivery::{MetricKind, MetricSpec};

use super::block::Block;
use super::calibration::Calibration;
use super::explain::{CountedExplanation, ProcessExplanation};
use super::grid::{self, Row};
use super::process::{Onset, Process};
use super::{Part, Tally};
use crate::Time;

/// The stretch that is deleted to begin with: longer than most bursts, and what it adds to the time to detect.
pub(crate) const TRIM: Duration = Duration::from_secs(10);
/// Recent shares forget with this time constant, in seconds.
const MEMORY_SECONDS: f64 = 60.0;
/// Without statistics: this share of errors, over so long and so many requests, is enough. In the simulation 40 % took
/// 11 of 100 healthy candidates back for bursts of 30 % over five seconds, one half takes 2.
const FAST_RATE: f64 = 0.5;
const FAST_SPAN: Duration = Duration::from_secs(5);
const FAST_REQUESTS: u64 = 50;
/// A candidate that fails half of its requests is as often a little below one half as above. So less is enough, too, if
/// it is more than this by so many standard deviations: of 500 requests 46.6 %. Few requests of a burst seem to be more
/// than they are, and for them one half stays the rule.
const FAST_SURELY: f64 = 0.4;
const FAST_DEVIATIONS: f64 = 3.0;
/// The stretch is looked at in parts of at least this length, however often reports come.
const FAST_PART: Duration = Duration::from_millis(900);
/// One part of that stretch has a say of its own with so many requests.
const FAST_REPORT: u64 = 5;
/// Evidence beyond this, untrimmed, is a reason to wait: it is rare by chance, and comes soon when there is a cause.
const DOUBT: f64 = 5.0;
/// A share of stable counts as known with so many recent requests.
const KNOWN_REQUESTS: f64 = 50.0;

/// What the numbers say against the candidate.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Against {
    /// Nothing, or not enough.
    Nothing,
    /// This, in words.
    Fails(String),
    /// It breaks the SLO, and so does stable.
    Shared(String),
}

/// The state of one such metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Counted {
    block: Block,
    relative: Process,
    slo: Option<Process>,
    kept: Option<Process>,
    candidate: Tally,
    stable: Tally,
    /// Totals and bad ones of both arms, the older the less they count.
    recent: [[f64; 2]; 2],
    /// Pearson's statistic among stable's endpoints within blocks, and its degrees of freedom.
    chi_square: f64,
    freedom: f64,
    /// The last few seconds in parts, both arms.
    fast: VecDeque<(Time, Time, Tally, Tally)>,
    /// How many endpoints stable had in the last block.
    block_parts: u32,
    calibration: Calibration,
}

impl Counted {
    pub(super) fn new(spec: &MetricSpec) -> Self {
        let bounded = spec.acceptable().is_some();
        Self {
            block: Block::default(),
            relative: Process::new(Onset::Any, TRIM),
            slo: bounded.then(|| Process::new(Onset::Any, TRIM)),
            kept: bounded.then(|| Process::new(Onset::Start, TRIM)),
            candidate: Tally::default(),
            stable: Tally::default(),
            recent: [[0.0; 2]; 2],
            chi_square: 0.0,
            freedom: 0.0,
            fast: VecDeque::new(),
            block_parts: 0,
            calibration: Calibration::default(),
        }
    }

    /// Whether anything was measured at all.
    pub(super) fn has_data(&self) -> bool {
        self.candidate.total > 0
    }

    /// Takes in counts. `alpha` is this test's own.
    pub(super) fn add(
        &mut self,
        span: (Time, Time),
        candidate: Tally,
        stable: Tally,
        parts: &[Part],
        spec: &MetricSpec,
        alpha: f64,
    ) {
        self.candidate.add(candidate);
        self.stable.add(stable);
        match self.fast.back_mut() {
            Some(last) if last.1.since(last.0) < FAST_PART => {
                last.1 = span.1;
                last.2.add(candidate);
                last.3.add(stable);
            }
            Some(_) | None => self.fast.push_back((span.0, span.1, candidate, stable)),
        }
        // The newest reports that span the stretch together.
        while self.fast.get(1).is_some_and(|next| span.1.since(next.0) >= FAST_SPAN) {
            self.fast.pop_front();
        }
        if let Some(block) = self.block.add(span, candidate, stable, parts) {
            self.judge(&block, spec, alpha);
        }
    }

    /// Weights change: what was counted under the old ones is a block of its own.
    pub(super) fn close(&mut self, spec: &MetricSpec, alpha: f64) {
        let block = std::mem::take(&mut self.block);
        self.fast.clear();
        if block.candidate.total > 0 || block.stable.total > 0 {
            self.judge(&block, spec, alpha);
        }
    }

    fn judge(&mut self, block: &Block, spec: &MetricSpec, alpha: f64) {
        let (candidate, stable) = (block.candidate, block.stable);
        let fade = (-block.until.since(block.from).as_secs_f64() / MEMORY_SECONDS).exp();
        for (recent, new) in self.recent.iter_mut().zip([candidate, stable]) {
            *recent = [recent[0] * fade + new.total as f64, recent[1] * fade + new.bad as f64];
        }
        self.spread(&block.parts);
        self.block_parts = block.parts.len() as u32;
        if candidate.total > 0 && stable.total > 0 {
            self.relative.add(block.from, block.until, relative_row(candidate, stable));
        }
        if let Some(bound) = spec.acceptable().filter(|_| candidate.total > 0) {
            if let Some(slo) = &mut self.slo {
                slo.add(block.from, block.until, absolute_row(candidate, bound, grid::worse_than(bound)));
            }
            if let Some(kept) = &mut self.kept {
                kept.add(block.from, block.until, absolute_row(candidate, bound, grid::better_than(bound)));
            }
        }
        let dispersion = self.dispersion();
        self.calibration.add(block, -alpha.ln(), dispersion);
    }

    /// Adds to Pearson's statistic what one block says about stable's endpoints.
    fn spread(&mut self, parts: &[Part]) {
        let mut pooled = Tally::default();
        parts.iter().for_each(|part| pooled.add(part.tally));
        let busy = parts.iter().filter(|part| part.tally.total > 0);
        let (Some(rate), count) = (pooled.rate(), busy.clone().count()) else { return };
        // Without bad requests, or with nothing else, there is no spread to be seen.
        if count < 2 || rate == 0.0 || rate == 1.0 {
            return;
        }
        for part in busy {
            let total = part.tally.total as f64;
            self.chi_square += (part.tally.bad as f64 - total * rate).powi(2) / (total * rate * (1.0 - rate));
        }
        self.freedom += (count - 1) as f64;
    }

    fn dispersion(&self) -> f64 {
        // A handful of degrees of freedom would make the estimate a lottery.
        if self.freedom < 10.0 { 1.0 } else { (self.chi_square / self.freedom).max(1.0) }
    }

    /// What endpoints of stable have shown, scaled to the candidate where it has fewer requests than one of them:
    /// evidence grows with requests.
    fn floor(&self) -> f64 {
        let busy = self.block_parts as f64 * self.recent[0][0];
        self.calibration.floor() * (busy / self.recent[1][0].max(1.0)).min(1.0)
    }

    fn recent_rate(&self, arm: usize) -> Option<f64> {
        let [total, bad] = self.recent[arm];
        (total >= 1.0).then(|| bad / total)
    }

    /// What there is against the candidate, beyond `bound` (a logarithm).
    pub(super) fn against(&self, spec: &MetricSpec, bound: f64) -> Against {
        if let Some(words) = self.fails_at_once(spec) {
            return Against::Fails(words);
        }
        let (candidate, stable) = (self.recent_rate(0), self.recent_rate(1));
        let exceeds = |process: &Process, floor: f64| {
            process.log() >= bound && process.log_robust(self.dispersion()) >= bound + floor
        };
        if let (Some(candidate), Some(stable)) = (candidate, stable)
            && exceeds(&self.relative, self.floor())
            && candidate - stable >= spec.tolerance.delta
            && candidate >= stable * spec.tolerance.ratio
        {
            return Against::Fails(format!(
                "{} of the candidate's requests are {} lately, and {} of stable's; e-value {:.3e} beyond {:.0}",
                percent(candidate),
                bad_word(spec),
                percent(stable),
                self.relative.log().exp().min(1e300),
                bound.exp()
            ));
        }
        if let (Some(slo), Some(limit), Some(candidate)) = (&self.slo, spec.acceptable(), candidate)
            && exceeds(slo, 0.0)
            && candidate > limit
        {
            let words = format!(
                "{} of the candidate's requests are {} lately, more than the {} that are acceptable",
                percent(candidate),
                bad_word(spec),
                percent(limit)
            );
            let is_shared = self.recent[1][0] >= KNOWN_REQUESTS && stable.is_some_and(|rate| rate > limit);
            return if is_shared { Against::Shared(words) } else { Against::Fails(words) };
        }
        Against::Nothing
    }

    /// About half of all requests fail, and not stable's: no statistics are needed.
    fn fails_at_once(&self, spec: &MetricSpec) -> Option<String> {
        let (first, last) = (self.fast.front()?, self.fast.back()?);
        if spec.kind != MetricKind::ErrorRate || last.1.since(first.0) < FAST_SPAN {
            return None;
        }
        let (mut candidate, mut stable) = (Tally::default(), Tally::default());
        for (_, _, of_candidate, of_stable) in &self.fast {
            candidate.add(*of_candidate);
            stable.add(*of_stable);
        }
        let deviation = (FAST_SURELY * (1.0 - FAST_SURELY) / candidate.total.max(1) as f64).sqrt();
        let needed = FAST_RATE.min(FAST_SURELY + FAST_DEVIATIONS * deviation);
        let rate = candidate.rate().filter(|rate| *rate >= needed && candidate.total >= FAST_REQUESTS)?;
        // A burst that is over within the stretch is none of this rule's.
        let is_steady = self.fast.iter().all(|(_, _, of_candidate, _)| {
            of_candidate.total < FAST_REPORT || of_candidate.rate().is_some_and(|rate| rate >= FAST_RATE / 2.0)
        });
        if !is_steady {
            return None;
        }
        let is_alone = stable.rate().is_none_or(|stable| stable < rate / 2.0);
        is_alone
            .then(|| format!("{} of {} requests in {:?} failed", percent(rate), candidate.total, last.1.since(first.0)))
    }

    /// Whether the evidence leans against the candidate, without being enough: no time to go on.
    pub(super) fn is_doubtful(&self, spec: &MetricSpec) -> bool {
        let leans = |process: &Process| process.log() >= DOUBT.ln();
        let differs = match (self.recent_rate(0), self.recent_rate(1)) {
            (Some(candidate), Some(stable)) => candidate - stable >= spec.tolerance.delta,
            (Some(_), None) => true,
            (None, _) => false,
        };
        (differs && leans(&self.relative)) || self.slo.as_ref().is_some_and(leans)
    }

    /// Whether there is evidence that the SLO is kept, beyond `bound`; true without an SLO.
    pub(super) fn is_kept(&self, bound: f64) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.log() >= bound)
    }

    pub(super) fn explain(&self, spec: &MetricSpec, fail_bound: f64, kept_bound: f64) -> CountedExplanation {
        let dispersion = self.dispersion();
        let process = |process: &Process, bound: f64| ProcessExplanation {
            e_value: process.log().exp().min(1e300),
            robust_e_value: process.log_robust(dispersion).exp().min(1e300),
            bound: bound.exp(),
            p_value: process.p_value(),
            blocks: process.blocks(),
        };
        CountedExplanation {
            candidate: [self.candidate.total, self.candidate.bad],
            stable: [self.stable.total, self.stable.bad],
            recent_rates: [self.recent_rate(0), self.recent_rate(1)],
            tolerance: [spec.tolerance.delta, spec.tolerance.ratio],
            relative: process(&self.relative, fail_bound),
            slo: self.slo.as_ref().map(|slo| process(slo, fail_bound)),
            kept: self.kept.as_ref().map(|kept| process(kept, kept_bound)),
            dispersion,
            trim_seconds: TRIM.as_secs_f64(),
            endpoint_e_value: self.floor().exp().min(1e300),
            false_alarm_rate: self.calibration.rate(),
            trials: self.calibration.ended(),
        }
    }
}

/// What a block says for each odds ratio, given how many bad requests it has.
pub(super) fn relative_row(candidate: Tally, stable: Tally) -> Row {
    let sum = |one: u64, other: u64| one.saturating_add(other) as f64;
    let (requests, bad) = (sum(candidate.total, stable.total), sum(candidate.bad, stable.bad));
    let share = candidate.total as f64 / requests.max(1.0);
    let gain = |d: f64| candidate.bad as f64 * d - bad * (share * d.exp() + 1.0 - share).ln();
    grid::log_odds_ratios().map(gain).collect()
}

/// What a block says for each share of bad requests, against exactly `bound`.
fn absolute_row(arm: Tally, bound: f64, alternatives: impl Iterator<Item = f64>) -> Row {
    let (bad, good) = (arm.bad as f64, (arm.total - arm.bad) as f64);
    alternatives.map(|p| bad * (p / bound).ln() + good * ((1.0 - p) / (1.0 - bound)).ln()).collect()
}

fn percent(rate: f64) -> String {
    format!("{:.2}%", rate * 100.0)
}

fn bad_word(spec: &MetricSpec) -> String {
    match (spec.kind, spec.latency_ms) {
        (MetricKind::LatencyFraction, Some(millis)) => format!("slower than {millis} ms"),
        _ => "bad".to_owned(),
    }
}
