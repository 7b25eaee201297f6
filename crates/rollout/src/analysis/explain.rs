//! Every number that a verdict rests on.

use serde::Serialize;

use super::trim::Raise;
use crate::Time;

/// What a [`super::Judge`] knows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The chance of a false rollback that the whole run may have.
    pub alpha: f64,
    /// The chance of passing a candidate that is exactly as bad as its SLO allows.
    pub beta: f64,
    /// Requests to the candidate since weights changed last.
    pub step_requests: u64,
    /// Each metric, in the order of the profiles.
    pub metrics: Vec<MetricExplanation>,
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricExplanation {
    /// Its name.
    pub name: String,
    /// In a sentence: why it fails, passes or waits.
    pub verdict: String,
    /// For metrics that count requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted: Option<CountedExplanation>,
    /// For metrics that compare one number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<ThresholdExplanation>,
}

/// The numbers of a metric that counts requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CountedExplanation {
    /// Requests to the candidate over the run, and bad ones.
    pub candidate: [u64; 2],
    /// Requests to stable over the run, and bad ones.
    pub stable: [u64; 2],
    /// Shares of bad requests over about the last minute, candidate and stable.
    pub recent_rates: [Option<f64>; 2],
    /// The tolerance: a difference smaller than `delta`, or a ratio below `ratio`, never fails.
    pub tolerance: [f64; 2],
    /// Candidate against stable.
    pub relative: ProcessExplanation,
    /// Candidate against the SLO: evidence that it is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo: Option<ProcessExplanation>,
    /// Evidence that the SLO is kept, which a step waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<ProcessExplanation>,
    /// Pearson's dispersion among stable's endpoints, at least 1: evidence is divided by it.
    pub dispersion: f64,
    /// The length of the best stretch that is deleted, in seconds.
    pub trim_seconds: f64,
    /// The most evidence that a single endpoint of stable has shown against itself lately, scaled to the candidate's
    /// traffic: the candidate's has to be larger by the bound.
    pub endpoint_e_value: f64,
    /// What comparisons between random halves of stable's endpoints say about the test, in a sentence; or why there are
    /// none.
    pub calibration: String,
    /// Alarms of such comparisons per trial, where all are false; `None` before one has come to an end.
    pub false_alarm_rate: Option<f64>,
    /// How many trials raised one, since the stretch became as long as it is.
    pub false_alarms: u64,
    /// How many trials there were, those that go on included.
    pub trials: u64,
    /// When the stretch became longer because there were more false alarms than the test's alpha allows, and how much.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trim_raises: Vec<RaiseExplanation>,
}

/// One time that the stretch became longer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RaiseExplanation {
    /// When.
    pub at: Time,
    /// Its length before, in seconds.
    pub from_seconds: f64,
    /// And after.
    pub to_seconds: f64,
    /// So many halves of stable had raised a false alarm,
    pub false_alarms: u64,
    /// of so many.
    pub trials: u64,
}

impl From<&Raise> for RaiseExplanation {
    fn from(raise: &Raise) -> Self {
        Self {
            at: raise.at,
            from_seconds: raise.from.as_secs_f64(),
            to_seconds: raise.to.as_secs_f64(),
            false_alarms: raise.alarms,
            trials: raise.trials,
        }
    }
}

/// One e-process.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessExplanation {
    /// The evidence; may be very large, and is cut at 1e300.
    pub e_value: f64,
    /// What is left of it after trimming and dispersion.
    pub robust_e_value: f64,
    /// What both have to reach; the robust one as many times as endpoints of stable have shown themselves.
    pub bound: f64,
    /// The always-valid p-value of the untrimmed evidence.
    pub p_value: f64,
    /// Blocks so far.
    pub blocks: u64,
}

/// The numbers of a metric that compares one number.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ThresholdExplanation {
    /// The last value.
    pub last: Option<f64>,
    /// How many were good, and how many bad.
    pub good: u64,
    /// Bad ones.
    pub bad: u64,
    /// Those that count, and how many are forgiven.
    pub counted: u64,
    /// More than this fail.
    pub failure_limit: u32,
    /// What the provider said, while it does not answer.
    pub error: Option<String>,
}
