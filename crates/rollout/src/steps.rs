//! What each strategy comes down to: a list of steps, one after the other.

use std::time::Duration;

use world::api::delivery::{
    Amount, DeploymentIntent, GateStep, HeaderRoute, MirrorStep, Promotion, RequireEndpoints, StepAnalysis,
    StrategyType, Switch, Weight, Winner, parse_time,
};

use crate::Time;

/// A ramp is cut into so many parts.
pub(crate) const RAMP_PARTS: u32 = 10;

/// One thing to do, or to wait for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The candidate's weight from here on.
    Weight(Weight),
    /// Members of the one cluster from here on.
    Members { candidate: u32, stable: u32 },
    /// The variants of an A/B test.
    Variants,
    /// A route above the split, or its end.
    Route(HeaderRoute),
    /// Copies, or their end.
    Mirror(MirrorStep),
    /// Time; without, somebody.
    Pause(Option<Duration>),
    /// A verdict.
    Analysis(StepAnalysis),
    /// Endpoints.
    Require(RequireEndpoints),
    /// A yes.
    Gate(GateStep),
    /// The end of an A/B test.
    End { at: Option<Time>, winner: Winner },
}

impl Step {
    /// Whether it changes what the candidate gets.
    pub(crate) fn assigns(&self) -> bool {
        match self {
            Step::Weight(_) | Step::Members { .. } | Step::Variants | Step::Route(_) | Step::Mirror(_) => true,
            Step::Pause(_) | Step::Analysis(_) | Step::Require(_) | Step::Gate(_) | Step::End { .. } => false,
        }
    }
}

/// The steps of `spec`; `basis` is how many endpoints stable had at the beginning.
pub(crate) fn steps(spec: &DeploymentIntent, is_fast: bool, basis: u32) -> Vec<Step> {
    if is_fast {
        return vec![Step::Weight(Weight::FULL)];
    }
    match spec.strategy.kind {
        StrategyType::Canary => canary(spec),
        StrategyType::BlueGreen => blue_green(spec),
        StrategyType::Rolling => rolling(spec, basis),
        StrategyType::Ab => {
            let test = spec.strategy.ab.clone().unwrap_or_default();
            let at = test.end_at.as_deref().and_then(|text| parse_time(text).ok()).map(Time::from_millis);
            vec![Step::Variants, Step::End { at, winner: test.winner }, Step::Weight(Weight::FULL)]
        }
        StrategyType::Mirror => {
            let test = spec.strategy.mirror.clone().unwrap_or_default();
            let mirror = MirrorStep {
                percent: test.percent,
                matches: test.matches,
                allow_unsafe_methods: test.allow_unsafe_methods,
                enabled: true,
            };
            let analysis = StepAnalysis { min_duration: Some(test.duration), ..StepAnalysis::default() };
            vec![Step::Mirror(mirror), Step::Analysis(analysis)]
        }
    }
}

/// One for one, so that a step has the index that it has in the manifest.
fn canary(spec: &DeploymentIntent) -> Vec<Step> {
    let canary = spec.strategy.canary.clone().unwrap_or_default();
    let mut steps: Vec<Step> = canary.steps.into_iter().map(of_canary).collect();
    if canary.promote == Promotion::Manual {
        steps.push(Step::Gate(GateStep { webhook: None, manual: true }));
        // A run that has not reached the end gets there when somebody promotes it.
        if !matches!(steps.iter().rev().find(|s| matches!(s, Step::Weight(_))), Some(Step::Weight(Weight::FULL))) {
            steps.push(Step::Weight(Weight::FULL));
        }
    }
    steps
}

fn of_canary(step: world::api::delivery::Step) -> Step {
    if let Some(weight) = step.set_weight {
        Step::Weight(weight)
    } else if let Some(pause) = step.pause {
        Step::Pause(pause.duration)
    } else if let Some(route) = step.header_route {
        Step::Route(route)
    } else if let Some(mirror) = step.mirror {
        Step::Mirror(mirror)
    } else if let Some(endpoints) = step.require_endpoints {
        Step::Require(endpoints)
    } else if let Some(gate) = step.gate {
        Step::Gate(gate)
    } else {
        // Validation lets no empty step pass; were there one, a verdict is the safest thing to wait for.
        Step::Analysis(step.analysis.unwrap_or_default())
    }
}

fn blue_green(spec: &DeploymentIntent) -> Vec<Step> {
    let blue_green = spec.strategy.blue_green.clone().unwrap_or_default();
    let mut steps = Vec::new();
    if !blue_green.preview.matches.is_empty() {
        let matches = blue_green.preview.matches;
        steps.push(Step::Route(HeaderRoute { name: "preview".to_owned(), matches, enabled: true }));
    }
    if !blue_green.delay.is_zero() {
        steps.push(Step::Pause(Some(blue_green.delay)));
    }
    if !blue_green.auto_promote {
        steps.push(Step::Gate(GateStep { webhook: None, manual: true }));
    }
    match blue_green.switch {
        Switch::Instant => steps.push(Step::Weight(Weight::FULL)),
        Switch::Ramp(ramp) => {
            for part in 1..=RAMP_PARTS {
                steps.push(Step::Weight(Weight::from_ppm(Weight::TOTAL / RAMP_PARTS * part)));
                if part < RAMP_PARTS {
                    steps.push(Step::Pause(Some(ramp / RAMP_PARTS)));
                }
            }
        }
    }
    steps
}

/// As many endpoints of stable leave as of the candidate join, so that there are never fewer than before.
fn rolling(spec: &DeploymentIntent, basis: u32) -> Vec<Step> {
    let rolling = spec.strategy.rolling.clone().unwrap_or_default();
    let (whole, batch) = (basis.max(1), rolling.batch.of(basis.max(1)).max(1));
    let mut steps = Vec::new();
    let mut candidate = 0;
    while candidate < whole {
        candidate = whole.min(candidate.saturating_add(batch));
        steps.push(Step::Members { candidate, stable: whole - candidate });
        steps.push(Step::Pause(Some(rolling.settle)));
    }
    steps
}

/// How many endpoints may be missing in a batch, of `whole`: a share is rounded down.
pub(crate) fn may_be_missing(spec: &DeploymentIntent, whole: u32) -> u32 {
    match spec.strategy.rolling.as_ref().map(|rolling| rolling.max_unavailable) {
        None => 0,
        Some(Amount::Count(count)) => count,
        Some(Amount::Share(share)) => {
            (u64::from(whole) * u64::from(share.ppm()) / u64::from(Weight::TOTAL)).try_into().unwrap_or(u32::MAX)
        }
    }
}
