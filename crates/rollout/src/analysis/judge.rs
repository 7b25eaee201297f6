//! All metrics of a run together.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use world::api::delivery::{AnalysisPolicy, MetricSpec, OnMetricError};

use super::counted::{Against, Counted};
use super::edited::asks_the_same;
use super::explain::{Explanation, MetricExplanation, ThresholdExplanation};
use super::threshold::Threshold;
use super::{Arms, Evidence, Observation};
use crate::Time;

/// What speaks against the candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The metric.
    pub metric: String,
    /// In words, with the numbers.
    pub words: String,
}

/// Why nothing can be known. The three are kept apart: none of them is a success, and none is a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absence {
    /// No proxy has reported since then.
    Telemetry(Time),
    /// Proxies report, and the candidate has had no request since then.
    Traffic(Time),
    /// A provider of a critical metric does not answer.
    Provider(Failure),
}

/// Where the evidence stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// A critical metric fails.
    pub failure: Option<Failure>,
    /// A metric that is not critical fails, or one looks bad that nobody can be compared with: no reason to go back, and
    /// none to go on.
    pub hold: Option<Failure>,
    /// Candidate and stable break an SLO together.
    pub shared: Option<Failure>,
    /// What a step still waits for; `None` when every metric passes.
    pub missing: Option<String>,
}

/// The metrics of a run and what is known of each. Survives a restart as it is; the gap is missing data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    alpha: f64,
    beta: f64,
    metrics: Vec<(MetricSpec, State)>,
    /// When proxies reported last.
    heard: Time,
    /// When the candidate was last seen to have traffic.
    busy: Time,
    step_requests: u64,
    /// Who gets what now.
    #[serde(default)]
    arms: Arms,
    /// What chance begins with, where endpoints of stable are divided.
    #[serde(default)]
    seed: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    Counted(Box<Counted>),
    Threshold(Threshold),
}

impl Judge {
    /// Judges by these metrics from `now` on. Chance, where it has a say, begins with `seed`: a judge that is told the same
    /// says the same.
    pub fn new(now: Time, seed: u64, policy: &AnalysisPolicy, metrics: &[MetricSpec]) -> Self {
        let mut judge = Self {
            alpha: policy.alpha,
            beta: policy.beta,
            metrics: Vec::new(),
            heard: now,
            busy: now,
            step_requests: 0,
            arms: Arms::default(),
            seed,
        };
        judge.also(metrics);
        judge
    }

    /// Judges by these as well, if they are new. More metrics share the same `alpha`: each becomes stricter about
    /// calling the candidate bad.
    pub fn also(&mut self, metrics: &[MetricSpec]) {
        for spec in metrics {
            if self.metrics.iter().any(|(known, _)| known.name == spec.name) {
                continue;
            }
            self.metrics.push((spec.clone(), State::of(spec, self.seed)));
        }
    }

    /// What these say of metrics that are judged already holds from now on; what is known of them counts on if the
    /// question is the same.
    pub fn edit(&mut self, metrics: &[MetricSpec]) {
        for new in metrics {
            let Some((spec, state)) = self.metrics.iter_mut().find(|(spec, _)| spec.name == new.name) else { continue };
            match state {
                _ if !asks_the_same(spec, new) => *state = State::of(new, self.seed),
                State::Counted(counted) => counted.edit(spec, new),
                State::Threshold(_) => {}
            }
            spec.clone_from(new);
        }
    }

    /// Judges by nothing but these from now on; returns the names of those that are gone.
    pub fn keep(&mut self, metrics: &[MetricSpec]) -> Vec<String> {
        let is_kept = |(spec, _): &(MetricSpec, State)| metrics.iter().any(|kept| kept.name == spec.name);
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.metrics).into_iter().partition(is_kept);
        self.metrics = kept;
        gone.into_iter().map(|(spec, _)| spec.name).collect()
    }

    /// Whether it judges by a metric of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.metrics.iter().any(|(spec, _)| spec.name == name)
    }

    /// Uses other chances from now on.
    pub fn set_chances(&mut self, alpha: f64, beta: f64) {
        (self.alpha, self.beta) = (alpha, beta);
    }

    /// Goes on after a restart, with these arms.
    pub fn resume(&mut self, now: Time, arms: Arms) {
        self.arms = arms;
        self.listen_from(now);
    }

    /// Calls metrics as `metrics` does which a record of before, when profiles were no part of names, calls otherwise.
    pub(crate) fn rename(&mut self, metrics: &[MetricSpec]) {
        for named in metrics.iter().filter(|named| !self.knows(&named.name)).cloned().collect::<Vec<_>>() {
            let bare = named.name.split_once('/').map_or(&*named.name, |(_, metric)| metric);
            let is_same = |spec: &MetricSpec| spec.name == bare && asks_the_same(spec, &named);
            if let Some((spec, _)) = self.metrics.iter_mut().find(|(spec, _)| is_same(spec)) {
                spec.name.clone_from(&named.name);
            }
        }
    }

    /// Weights have changed: requests of the step are counted anew, and silence begins now at the earliest.
    pub fn begin_step(&mut self, now: Time, arms: Arms) {
        let alpha = self.test_alpha();
        for (spec, state) in &mut self.metrics {
            if let State::Counted(counted) = state {
                counted.close(spec, alpha, self.arms);
            }
        }
        self.arms = arms;
        self.step_requests = 0;
        self.listen_from(now);
    }

    /// Nothing could be heard before `now`.
    fn listen_from(&mut self, now: Time) {
        self.heard = self.heard.max(now);
        self.busy = self.busy.max(now);
    }

    /// Notes that proxies report, without counting what they say: for the time after a change of weights.
    pub fn hear(&mut self, evidence: &Evidence) {
        if evidence.reporters > 0 {
            self.heard = self.heard.max(evidence.until);
        }
        if candidate_requests(evidence) > 0 {
            self.busy = self.busy.max(evidence.until);
        }
    }

    /// Takes in a report of a time at which stable had everything: what it is like.
    pub fn learn(&mut self, evidence: &Evidence) {
        for (spec, state) in &mut self.metrics {
            let State::Counted(counted) = state else { continue };
            match evidence.metrics.get(&spec.name) {
                Some(Observation::Counts { stable, .. }) => {
                    counted.learn(evidence.until.since(evidence.from), *stable);
                }
                Some(Observation::Since { from, stable, .. }) => counted.learn(evidence.until.since(*from), *stable),
                Some(Observation::Value(_) | Observation::ProviderError(_)) | None => {}
            }
        }
    }

    /// How many requests of stable are remembered, by the metric that knows fewest; `None` when nothing is counted.
    pub fn past_requests(&self) -> Option<f64> {
        let counted = self.metrics.iter().filter(|(spec, _)| !spec.dry_run).filter_map(|(_, state)| match state {
            State::Counted(counted) => Some(counted.past_requests()),
            State::Threshold(_) => None,
        });
        counted.min_by(f64::total_cmp)
    }

    /// Takes in a report.
    pub fn observe(&mut self, evidence: &Evidence) {
        self.hear(evidence);
        self.step_requests = self.step_requests.saturating_add(candidate_requests(evidence));
        let alpha = self.test_alpha();
        for (spec, state) in &mut self.metrics {
            match (state, evidence.metrics.get(&spec.name)) {
                (State::Counted(counted), Some(Observation::Counts { candidate, stable, parts })) => {
                    counted.add((evidence.from, evidence.until), *candidate, *stable, parts, (spec, alpha, self.arms));
                }
                (State::Counted(counted), Some(Observation::Since { from, candidate, stable })) => {
                    counted.add((*from, evidence.until), *candidate, *stable, &[], (spec, alpha, self.arms));
                }
                (State::Counted(counted), Some(Observation::ProviderError(words))) => counted.provider_error(words),
                (State::Threshold(threshold), Some(Observation::Value(value))) => threshold.value(spec, *value),
                (State::Threshold(threshold), Some(Observation::ProviderError(words))) => {
                    threshold.provider_error(spec, words);
                }
                // Counts for a metric that wants a number, or the reverse, say nothing.
                (_, Some(Observation::Counts { .. } | Observation::Since { .. } | Observation::Value(_)) | None) => {}
            }
        }
    }

    /// Requests to the candidate since weights changed last.
    pub fn step_requests(&self) -> u64 {
        self.step_requests
    }

    /// Whether any metric counts requests; without one there is no telling whether there was traffic.
    pub fn counts_requests(&self) -> bool {
        self.metrics.iter().any(|(spec, _)| spec.is_counted())
    }

    /// The longest stretch that is deleted from any metric's evidence; `None` when nothing is counted. Less time than that
    /// cannot have shown anything.
    pub fn trim(&self) -> Option<Duration> {
        let spans = self.metrics.iter().filter_map(|(_, state)| match state {
            State::Counted(counted) => Some(counted.trim()),
            State::Threshold(_) => None,
        });
        spans.max()
    }

    /// What the evidence says now.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let (fail_bound, kept_bound) = self.bounds();
        // Where no metric is critical, those that there are have to be known all the same.
        let is_none_critical = !self.metrics.iter().any(|(spec, _)| spec.critical && !spec.dry_run);
        for (spec, state) in self.metrics.iter().filter(|(spec, _)| !spec.dry_run) {
            let (against, missing) = state.judge(spec, (fail_bound, kept_bound), self.arms);
            let failure = |words: String| Failure { metric: spec.name.clone(), words };
            let slot = match &against {
                Against::Fails(_) if spec.critical => &mut verdict.failure,
                Against::Fails(_) | Against::Alone(_) => &mut verdict.hold,
                Against::Shared(_) => &mut verdict.shared,
                Against::Nothing => {
                    if (spec.critical || is_none_critical) && verdict.missing.is_none() {
                        verdict.missing = missing.map(|words| format!("{}: {words}", spec.name));
                    }
                    continue;
                }
            };
            if let (None, Against::Fails(words) | Against::Shared(words) | Against::Alone(words)) = (&slot, against) {
                *slot = Some(failure(words));
            }
        }
        verdict
    }

    /// What cannot be known, most fundamental first. Whether it has lasted long enough to matter is the caller's to say.
    pub fn absences(&self, now: Time) -> Vec<Absence> {
        let mut absences = Vec::new();
        if self.heard < now {
            absences.push(Absence::Telemetry(self.heard));
        }
        if self.busy < now && self.counts_requests() {
            absences.push(Absence::Traffic(self.busy));
        }
        for (spec, state) in self.metrics.iter().filter(|(spec, _)| spec.critical && !spec.dry_run) {
            let error = match state {
                State::Threshold(threshold) => threshold.error.as_ref(),
                State::Counted(counted) => counted.error().filter(|_| spec.is_of_others()),
            };
            if let Some(words) = error {
                absences.push(Absence::Provider(Failure { metric: spec.name.clone(), words: words.clone() }));
            }
        }
        absences
    }

    /// A critical metric that somebody else answers, and about which nothing is known: its provider does not answer, or
    /// has not given a value yet. In words; `None` when all of them have answered, or their errors count as bad values.
    pub fn unanswered(&self) -> Option<String> {
        let decisive = |spec: &MetricSpec| spec.critical && !spec.dry_run && spec.on_error == OnMetricError::Hold;
        self.metrics.iter().filter(|(spec, _)| decisive(spec)).find_map(|(spec, state)| {
            let (error, is_known) = match state {
                State::Threshold(threshold) => (threshold.error.as_ref(), threshold.last.is_some()),
                State::Counted(_) if !spec.is_of_others() => return None,
                State::Counted(counted) => (counted.error(), counted.is_known()),
            };
            match error {
                Some(words) => Some(format!("{}: the provider does not answer: {words}", spec.name)),
                None if spec.is_of_others() && !is_known => Some(format!("{}: there is no value yet", spec.name)),
                None => None,
            }
        })
    }

    /// Every number that a verdict rests on.
    pub fn explain(&self) -> Explanation {
        let (fail_bound, kept_bound) = self.bounds();
        let metrics = self.metrics.iter().map(|(spec, state)| {
            let verdict = match state.judge(spec, (fail_bound, kept_bound), self.arms) {
                (Against::Fails(words), _) => format!("fails: {words}"),
                (Against::Shared(words), _) => format!("fails, and so does stable: {words}"),
                (Against::Alone(words), _) => format!("holds: {words}"),
                (Against::Nothing, Some(words)) => format!("waits: {words}"),
                (Against::Nothing, None) => "passes".to_owned(),
            };
            let (counted, threshold) = match state {
                State::Counted(counted) => (Some(counted.explain(spec, fail_bound, kept_bound)), None),
                State::Threshold(threshold) => {
                    let explanation = ThresholdExplanation {
                        last: threshold.last,
                        good: threshold.good,
                        bad: threshold.bad,
                        counted: threshold.counted(spec),
                        failure_limit: spec.failure_limit,
                        error: threshold.error.clone(),
                    };
                    (None, Some(explanation))
                }
            };
            MetricExplanation { name: spec.name.clone(), verdict, counted, threshold }
        });
        Explanation {
            alpha: self.alpha,
            beta: self.beta,
            step_requests: self.step_requests,
            metrics: metrics.collect(),
        }
    }

    /// How many tests share the chances: one for each counted metric, two for one with an SLO.
    fn tests(&self) -> f64 {
        let counted = self.metrics.iter().filter(|(spec, _)| spec.is_counted() && !spec.dry_run);
        counted.map(|(spec, _)| 1 + u32::from(spec.acceptable().is_some())).sum::<u32>().max(1).into()
    }

    fn test_alpha(&self) -> f64 {
        self.alpha / self.tests()
    }

    /// The logarithms that evidence against the candidate, and evidence that an SLO is kept, have to reach.
    fn bounds(&self) -> (f64, f64) {
        let kept = self.metrics.iter().filter(|(spec, _)| spec.is_counted() && spec.acceptable().is_some());
        (-self.test_alpha().ln(), (kept.count().max(1) as f64 / self.beta).ln())
    }
}

impl State {
    /// Nothing known yet.
    fn of(spec: &MetricSpec, seed: u64) -> Self {
        match spec.is_counted() {
            true => State::Counted(Box::new(Counted::new(spec, seed))),
            false => State::Threshold(Threshold::default()),
        }
    }

    /// What there is against the candidate, and what is missing for it.
    fn judge(&self, spec: &MetricSpec, bounds: (f64, f64), arms: Arms) -> (Against, Option<String>) {
        match self {
            State::Counted(counted) => {
                let error = counted.error().filter(|_| spec.is_of_others());
                let missing = match error {
                    Some(words) => Some(format!("the provider does not answer: {words}")),
                    None => counted.missing(spec, bounds, arms).map(str::to_owned),
                };
                (counted.against(spec, bounds.0, arms), missing)
            }
            State::Threshold(threshold) if threshold.has_failed(spec) => {
                let count = threshold.counted(spec);
                let last =
                    threshold.last.map_or_else(|| "there is no value".to_owned(), |v| format!("the last is {v}"));
                let words = format!("{count} bad values, more than the {} forgiven; {last}", spec.failure_limit);
                (Against::Fails(words), None)
            }
            State::Threshold(threshold) => {
                let missing = match (&threshold.error, threshold.last) {
                    (Some(words), _) => Some(format!("the provider does not answer: {words}")),
                    (None, None) => Some("there is no value yet".to_owned()),
                    (None, Some(_)) if threshold.in_a_row > 0 => Some("the last value is bad".to_owned()),
                    (None, Some(_)) => None,
                };
                (Against::Nothing, missing)
            }
        }
    }
}

/// Requests to the candidate, by the metric that counted most of them: those that proxies count, if they count any.
/// What others count comes late, and is the same requests again.
fn candidate_requests(evidence: &Evidence) -> u64 {
    let (mut own, mut others) = (None::<u64>, 0);
    for observation in evidence.metrics.values() {
        match observation {
            Observation::Counts { candidate, .. } => own = Some(own.unwrap_or(0).max(candidate.total)),
            Observation::Since { candidate, .. } => others = others.max(candidate.total),
            Observation::Value(_) | Observation::ProviderError(_) => {}
        }
    }
    own.unwrap_or(others)
}
