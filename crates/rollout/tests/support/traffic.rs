//! Made-up traffic in two arms, second by second, and what a judge makes of it.
#![allow(dead_code)]

use std::collections::BTreeMap;

use rollout::{Evidence, Judge, Observation, Part, Tally, Time};
use world::api::delivery::{AnalysisPolicy, AnalysisProfile, MetricSpec};

use crate::random::Random;

/// Harmless bursts of each pod by itself: this long, this far apart on average, with this share of errors.
#[derive(Clone, Copy, Debug)]
pub struct Bursts {
    pub seconds: f64,
    pub every_seconds: f64,
    pub errors: f64,
}

/// Errors of both arms together, between two points in time.
#[derive(Clone, Copy, Debug)]
pub struct Incident {
    pub from_second: u64,
    pub until_second: u64,
    pub errors: f64,
}

#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    pub rps: f64,
    /// The candidate's share.
    pub share: f64,
    pub stable_errors: f64,
    pub candidate_errors: f64,
    /// The candidate is as good as stable before.
    pub bad_from_second: u64,
    pub bursts: Option<Bursts>,
    pub incident: Option<Incident>,
    /// Errors come in groups of this many, as retries of one broken request do.
    pub group: u64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            rps: 100.0,
            share: 0.1,
            stable_errors: 0.001,
            candidate_errors: 0.001,
            bad_from_second: 0,
            bursts: None,
            incident: None,
            group: 1,
        }
    }
}

/// One second: the candidate's only pod, and stable's.
#[derive(Clone, Debug)]
pub struct Second {
    pub candidate: Tally,
    pub stable: Tally,
    pub parts: Vec<Part>,
}

/// As many pods of stable as make each of them as busy as the candidate's one.
pub const STABLE_PODS: usize = 9;

impl Traffic {
    pub fn seconds(&self, random: &mut Random, count: u64) -> Vec<Second> {
        let mut bursting = [0.0f64; STABLE_PODS + 1];
        (0..count).map(|second| self.second(random, second, &mut bursting)).collect()
    }

    /// The next second. `bursting` is what each pod has left of its burst, in seconds.
    pub fn second(&self, random: &mut Random, second: u64, bursting: &mut [f64; STABLE_PODS + 1]) -> Second {
        let mut tallies = [Tally::default(); STABLE_PODS + 1];
        for (pod, tally) in tallies.iter_mut().enumerate() {
            let is_candidate = pod == 0;
            let share = if is_candidate { self.share } else { (1.0 - self.share) / STABLE_PODS as f64 };
            let is_bad = is_candidate && second >= self.bad_from_second;
            let mut errors = if is_bad { self.candidate_errors } else { self.stable_errors };
            if let Some(bursts) = self.bursts {
                bursting[pod] -= 1.0;
                if random.chance(1.0 / bursts.every_seconds) {
                    bursting[pod] = bursts.seconds;
                }
                if bursting[pod] > 0.0 {
                    errors = errors.max(bursts.errors);
                }
            }
            if let Some(incident) = self.incident
                && (incident.from_second..incident.until_second).contains(&second)
            {
                errors = errors.max(incident.errors);
            }
            let total = random.poisson(self.rps * share);
            let bad = match self.group {
                1 => random.binomial(total, errors),
                group => random.binomial(total, errors / group as f64) * group,
            };
            *tally = Tally::new(total, bad);
        }
        let parts = tallies[1..].iter().enumerate();
        let parts = parts.map(|(pod, tally)| Part { endpoint: pod as u64 * 7919 + 13, tally: *tally }).collect();
        let mut stable = Tally::default();
        tallies[1..].iter().for_each(|tally| stable.add(*tally));
        Second { candidate: tallies[0], stable, parts }
    }
}

pub fn judge(alpha: f64, metric: impl FnOnce(&mut MetricSpec)) -> Judge {
    seeded_judge(1, alpha, metric)
}

pub fn seeded_judge(seed: u64, alpha: f64, metric: impl FnOnce(&mut MetricSpec)) -> Judge {
    let mut metrics = AnalysisProfile::envoy_default().metrics;
    metric(&mut metrics[0]);
    Judge::new(Time::from_millis(0), seed, &AnalysisPolicy { alpha, ..AnalysisPolicy::default() }, &metrics)
}

pub fn observe(judge: &mut Judge, at: u64, second: &Second) {
    let counts =
        Observation::Counts { candidate: second.candidate, stable: second.stable, parts: second.parts.clone() };
    judge.observe(&Evidence {
        from: Time::from_millis(at * 1_000),
        until: Time::from_millis((at + 1) * 1_000),
        reporters: 1,
        metrics: BTreeMap::from([("error-rate".to_owned(), counts)]),
    });
}

/// The second at whose end the judge calls the candidate bad; telemetry comes a second late.
pub fn fails_after(mut judge: Judge, seconds: &[Second]) -> Option<u64> {
    seconds.iter().enumerate().find_map(|(at, second)| {
        observe(&mut judge, at as u64, second);
        judge.verdict().failure.is_some().then_some(at as u64 + 2)
    })
}

/// The second at whose end the evidence, untrimmed, reaches its bound.
pub fn raw_fails_after(mut judge: Judge, seconds: &[Second]) -> Option<u64> {
    seconds.iter().enumerate().find_map(|(at, second)| {
        observe(&mut judge, at as u64, second);
        let explained = judge.explain();
        let counted = explained.metrics[0].counted.as_ref()?;
        let differs = matches!(counted.recent_rates, [Some(c), Some(s)] if c - s >= counted.tolerance[0]);
        (differs && counted.relative.e_value >= counted.relative.bound).then_some(at as u64 + 2)
    })
}

/// The value below which this share of the others lie; `None` where that one never happened.
pub fn quantile(values: &mut [Option<u64>], share: f64) -> Option<u64> {
    values.sort_by_key(|value| value.unwrap_or(u64::MAX));
    values[((values.len() - 1) as f64 * share).round() as usize]
}
