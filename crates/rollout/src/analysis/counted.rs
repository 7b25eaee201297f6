//! One metric that counts requests in two arms.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use world::api::delivery::{MetricKind, MetricSpec, Tolerance};

use super::block::Block;
use super::calibration::Calibration;
use super::explain::{CountedExplanation, ProcessExplanation, RaiseExplanation};
use super::grid::{self, Row};
use super::halves::{Halves, Rule};
use super::past::Past;
use super::process::{Onset, Process};
use super::trim::Trim;
use super::unaided::{PLAIN, Unaided};
use super::{Arms, Part, Tally};
use crate::Time;

/// Recent shares forget with this time constant, in seconds.
pub(super) const MEMORY_SECONDS: f64 = 60.0;
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

/// A share of bad requests of this much or more is beyond all alternatives: there is nothing to be tested.
const MOST: f64 = 0.49;

/// What the numbers say against the candidate.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Against {
    /// Nothing, or not enough.
    Nothing,
    /// This, in words.
    Fails(String),
    /// It breaks the SLO, and so does stable.
    Shared(String),
    /// It looks bad, and there is nobody to compare it with: no reason to go back, and none to go on.
    Alone(String),
}

/// What the candidate is measured by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Measure {
    /// Stable beside it.
    Stable,
    /// This share of bad requests, from what stable was like.
    Past(f64),
    /// Nothing but what is acceptable in itself.
    Itself,
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
    #[serde(default)]
    halves: Halves,
    #[serde(default)]
    trim: Trim,
    /// What stable was like.
    #[serde(default)]
    past: Past,
    /// Of a metric without an SLO, while there is nobody to compare with.
    #[serde(default)]
    unaided: Option<Box<Unaided>>,
    /// What whoever counts said last, while he does not.
    #[serde(default)]
    error: Option<String>,
}

impl Counted {
    /// Nothing known yet; chance begins with `seed`.
    pub(super) fn new(spec: &MetricSpec, seed: u64) -> Self {
        let trim = Trim::default();
        let (slo, kept) = absolute(spec, &trim);
        Self {
            block: Block::default(),
            relative: Process::new(Onset::Any, trim.span()),
            slo,
            kept,
            candidate: Tally::default(),
            stable: Tally::default(),
            recent: [[0.0; 2]; 2],
            chi_square: 0.0,
            freedom: 0.0,
            fast: VecDeque::new(),
            block_parts: 0,
            calibration: Calibration::default(),
            halves: Halves::new(seed),
            trim,
            past: Past::default(),
            unaided: None,
            error: None,
        }
    }

    /// The metric says something else from now on: an absolute test against another share begins anew.
    pub(super) fn edit(&mut self, old: &MetricSpec, new: &MetricSpec) {
        if old.acceptable() != new.acceptable() {
            (self.slo, self.kept) = absolute(new, &self.trim);
        }
    }

    /// Takes in requests of stable from before the candidate had any.
    pub(super) fn learn(&mut self, span: Duration, stable: Tally) {
        self.error = None;
        self.past.add(span, stable);
    }

    /// How many requests of stable are remembered.
    pub(super) fn past_requests(&self) -> f64 {
        self.past.requests()
    }

    /// Whoever counts does not answer.
    pub(super) fn provider_error(&mut self, words: &str) {
        self.error = Some(words.to_owned());
    }

    /// What whoever counts said last, while he does not.
    pub(super) fn error(&self) -> Option<&String> {
        self.error.as_ref()
    }

    /// Whether anything was ever counted.
    pub(super) fn is_known(&self) -> bool {
        self.candidate.total > 0 || self.stable.total > 0 || self.past_requests() > 0.0
    }

    /// Takes in counts: of which metric, with which alpha of its own, under which weights.
    pub(super) fn add(
        &mut self,
        span: (Time, Time),
        candidate: Tally,
        stable: Tally,
        parts: &[Part],
        (spec, alpha, arms): (&MetricSpec, f64, Arms),
    ) {
        self.error = None;
        self.candidate.add(candidate);
        self.stable.add(stable);
        // Once stable has nothing to serve, what still ends there is not what it was like.
        if arms != Arms::Candidate {
            self.past.add(span.1.since(span.0), stable);
        }
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
            self.judge(&block, spec, alpha, arms);
        }
    }

    /// Weights change: what was counted under the old ones is a block of its own.
    pub(super) fn close(&mut self, spec: &MetricSpec, alpha: f64, arms: Arms) {
        let block = std::mem::take(&mut self.block);
        self.fast.clear();
        if block.candidate.total > 0 || block.stable.total > 0 {
            self.judge(&block, spec, alpha, arms);
        }
    }

    fn judge(&mut self, block: &Block, spec: &MetricSpec, alpha: f64, arms: Arms) {
        let (candidate, stable) = (block.candidate, block.stable);
        let fade = (-block.until.since(block.from).as_secs_f64() / MEMORY_SECONDS).exp();
        for (recent, new) in self.recent.iter_mut().zip([candidate, stable]) {
            *recent = [recent[0] * fade + new.total as f64, recent[1] * fade + new.bad as f64];
        }
        self.spread(&block.parts);
        if stable.total > 0 {
            self.block_parts = block.parts.len() as u32;
        }
        match self.measure(spec, alpha, arms) {
            Measure::Stable if candidate.total > 0 && stable.total > 0 => {
                self.relative.add(block.from, block.until, relative_row(candidate, stable));
            }
            // The same process goes on: under the null each factor is 1 on average, or less, in both.
            Measure::Past(limit) if candidate.total > 0 && limit < MOST => {
                let worse = grid::log_odds_ratios().map(|d| limit * d.exp() / (1.0 - limit + limit * d.exp()));
                self.relative.add(block.from, block.until, absolute_row(candidate, limit, worse));
            }
            Measure::Itself if candidate.total > 0 && spec.acceptable().is_none() => {
                let unaided = self.unaided.get_or_insert_with(|| Box::new(Unaided::new(self.trim.span())));
                unaided.add(block.from, block.until, candidate);
            }
            Measure::Stable | Measure::Past(_) | Measure::Itself => {}
        }
        if let Some(bound) = spec.acceptable().filter(|_| candidate.total > 0) {
            if let Some(slo) = &mut self.slo {
                slo.add(block.from, block.until, absolute_row(candidate, bound, grid::worse_than(bound)));
            }
            if let Some(kept) = &mut self.kept {
                kept.add(block.from, block.until, absolute_row(candidate, bound, grid::better_than(bound)));
            }
        }
        self.calibrate(block, spec, alpha);
    }

    /// What one block of stable's endpoints says about the test itself.
    fn calibrate(&mut self, block: &Block, spec: &MetricSpec, alpha: f64) {
        let dispersion = self.dispersion();
        self.calibration.add(block, dispersion);
        let (tolerance, trim, singles) = (&spec.tolerance, &self.trim, &self.calibration);
        self.halves.add(block, &Rule { bound: -alpha.ln(), dispersion, tolerance, trim, singles });
        if self.trim.raise(block.until, &self.halves, alpha) {
            self.halves.begin_anew();
            let span = self.trim.span();
            self.relative.widen(span);
            self.slo.iter_mut().chain(&mut self.kept).for_each(|process| process.widen(span));
            if let Some(unaided) = &mut self.unaided {
                unaided.widen(span);
            }
        }
    }

    /// The length of the stretch that is deleted from evidence.
    pub(super) fn trim(&self) -> Duration {
        self.trim.span()
    }

    /// What the candidate is measured by; `alpha` is this test's own.
    fn measure(&self, spec: &MetricSpec, alpha: f64, arms: Arms) -> Measure {
        match arms {
            Arms::Both => Measure::Stable,
            Arms::Candidate => self.past.limit(&spec.tolerance, alpha).map_or(Measure::Itself, Measure::Past),
            Arms::Chosen => Measure::Itself,
        }
    }

    /// The share of bad requests of stable, now or, once it has none, in the past.
    fn stable_rate(&self, arms: Arms) -> Option<f64> {
        match arms {
            Arms::Candidate => self.past.rate(),
            Arms::Both | Arms::Chosen => self.recent_rate(1).filter(|_| self.recent[1][0] >= KNOWN_REQUESTS),
        }
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
    pub(super) fn against(&self, spec: &MetricSpec, bound: f64, arms: Arms) -> Against {
        if let Some(words) = self.fails_at_once(spec, arms) {
            return Against::Fails(words);
        }
        let exceeds = |process: &Process, floor: f64| {
            process.log() >= bound && process.log_robust(self.dispersion()) >= bound + floor
        };
        let words = |candidate: f64, and: String| {
            let (candidate, bad) = (percent(candidate), bad_word(spec));
            format!("{candidate} of the candidate's requests are {bad} lately, {and}")
        };
        let beyond =
            |process: &Process| format!("e-value {:.3e} beyond {:.0}", process.log().exp().min(1e300), bound.exp());
        if self.differs(spec, bound, arms) && exceeds(&self.relative, self.floor()) {
            let rates = (self.recent_rate(0).unwrap_or_default(), self.recent_rate(1).unwrap_or_default());
            match self.measure(spec, (-bound).exp(), arms) {
                Measure::Stable => {
                    let and = format!("and {} of stable's; {}", percent(rates.1), beyond(&self.relative));
                    return Against::Fails(words(rates.0, and));
                }
                Measure::Past(limit) => {
                    let was = self.past.rate().unwrap_or_default();
                    let (was, limit, beyond) = (percent(was), percent(limit), beyond(&self.relative));
                    let and = format!(
                        "and {was} of stable's were while it had any, which allows for {limit} at most; {beyond}"
                    );
                    return Against::Fails(words(rates.0, and));
                }
                Measure::Itself => {}
            }
        }
        let candidate = self.recent_rate(0);
        if let (Some(slo), Some(limit), Some(candidate)) = (&self.slo, spec.acceptable(), candidate)
            && exceeds(slo, 0.0)
            && candidate > limit
        {
            let words = words(candidate, format!("more than the {} that are acceptable", percent(limit)));
            let is_shared = self.stable_rate(arms).is_some_and(|rate| rate > limit);
            return if is_shared { Against::Shared(words) } else { Against::Fails(words) };
        }
        if let (Measure::Itself, Some(unaided), Some(candidate)) =
            (self.measure(spec, (-bound).exp(), arms), &self.unaided, candidate)
            && exceeds(&unaided.beyond, 0.0)
            && candidate > PLAIN
        {
            let and = format!(
                "more than {}, and nothing of stable's can be compared with them; {}",
                percent(PLAIN),
                beyond(&unaided.beyond)
            );
            return Against::Alone(words(candidate, and));
        }
        Against::Nothing
    }

    /// Whether the candidate has been worse lately than what it is measured by and the metric tolerates.
    fn differs(&self, spec: &MetricSpec, bound: f64, arms: Arms) -> bool {
        let Some(candidate) = self.recent_rate(0) else { return false };
        match self.measure(spec, (-bound).exp(), arms) {
            Measure::Stable => self.recent_rate(1).is_some_and(|stable| is_beyond(&spec.tolerance, candidate, stable)),
            Measure::Past(limit) => candidate > limit,
            Measure::Itself => false,
        }
    }

    /// About half of all requests fail, and not stable's: no statistics are needed.
    fn fails_at_once(&self, spec: &MetricSpec, arms: Arms) -> Option<String> {
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
        let stable = if arms == Arms::Candidate { self.past.rate() } else { stable.rate() };
        let is_alone = stable.is_none_or(|stable| stable < rate / 2.0);
        is_alone
            .then(|| format!("{} of {} requests in {:?} failed", percent(rate), candidate.total, last.1.since(first.0)))
    }

    /// What has to be known before the candidate passes; `None` when it is.
    pub(super) fn missing(&self, spec: &MetricSpec, (fail, kept): (f64, f64), arms: Arms) -> Option<&'static str> {
        let measure = self.measure(spec, (-fail).exp(), arms);
        let is_bounded = spec.acceptable().is_some();
        let is_within = |unaided: &Unaided| unaided.within.log() >= kept;
        if self.candidate.total == 0 {
            Some("no request to the candidate has been counted")
        } else if self.is_doubtful(spec, fail, arms) {
            Some("the evidence leans against the candidate, and is not enough yet")
        } else if !self.is_kept(kept) {
            Some("there is not enough evidence that the SLO is kept")
        } else if is_bounded {
            None
        } else if measure == Measure::Stable && self.relative.blocks() == 0 {
            Some("no requests to candidate and stable have been counted side by side")
        } else if measure == Measure::Itself && !self.unaided.as_deref().is_some_and(is_within) {
            Some(
                "nothing of stable's can be compared, and it is not shown yet that less than 5% of its requests are bad",
            )
        } else {
            None
        }
    }

    /// Whether the evidence leans against the candidate, without being enough: no time to go on.
    fn is_doubtful(&self, spec: &MetricSpec, fail: f64, arms: Arms) -> bool {
        let leans = |process: &Process| process.log() >= DOUBT.ln();
        let differs = match (self.measure(spec, (-fail).exp(), arms), self.recent_rate(0), self.recent_rate(1)) {
            (Measure::Stable, Some(candidate), Some(stable)) => candidate - stable >= spec.tolerance.delta,
            (Measure::Stable, Some(_), None) => true,
            (Measure::Past(limit), Some(candidate), _) => candidate > limit,
            (_, None, _) | (Measure::Itself, ..) => false,
        };
        let of_itself = self.unaided.as_ref().filter(|_| arms != Arms::Both);
        (differs && leans(&self.relative))
            || self.slo.as_ref().is_some_and(leans)
            || of_itself.is_some_and(|unaided| self.recent_rate(0) > Some(PLAIN) && leans(&unaided.beyond))
    }

    /// Whether there is evidence that the SLO is kept, beyond `bound`; true without an SLO.
    fn is_kept(&self, bound: f64) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.log() >= bound)
    }

    /// What halves of stable say about the test, in a sentence; `alpha` is the test's own.
    fn calibration_words(&self, alpha: f64) -> String {
        match self.block_parts {
            0 => "not possible: nothing tells the endpoints of stable apart for this metric".to_owned(),
            1 => "not possible: only one endpoint of stable has requests".to_owned(),
            endpoints => format!(
                "{} of {} comparisons between random halves of stable's {endpoints} endpoints raised a false alarm; \
                 {} are allowed",
                self.halves.alarms(),
                self.halves.trials(),
                percent(alpha)
            ),
        }
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
            trim_seconds: self.trim.span().as_secs_f64(),
            trim_raises: self.trim.raises().iter().map(RaiseExplanation::from).collect(),
            endpoint_e_value: self.floor().exp().min(1e300),
            calibration: self.calibration_words((-fail_bound).exp()),
            false_alarm_rate: self.halves.rate(),
            false_alarms: self.halves.alarms(),
            trials: self.halves.trials(),
        }
    }
}

/// The tests against what is acceptable in itself: that it is not kept, and that it is.
fn absolute(spec: &MetricSpec, trim: &Trim) -> (Option<Process>, Option<Process>) {
    let process = |onset: Onset| spec.acceptable().map(|_| Process::new(onset, trim.span()));
    (process(Onset::Any), process(Onset::Start))
}

/// Whether `candidate` is worse than `stable` by more than is tolerated.
pub(super) fn is_beyond(tolerance: &Tolerance, candidate: f64, stable: f64) -> bool {
    candidate - stable >= tolerance.delta && candidate >= stable * tolerance.ratio
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
pub(super) fn absolute_row(arm: Tally, bound: f64, alternatives: impl Iterator<Item = f64>) -> Row {
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
