//! Numbers compared with a range, as imported configurations want it.

use serde::{Deserialize, Serialize};
use world::api::delivery::{MetricSpec, OnMetricError};

/// How the numbers were so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Threshold {
    pub(super) last: Option<f64>,
    pub(super) good: u64,
    pub(super) bad: u64,
    /// Bad ones one after the other, up to now.
    pub(super) in_a_row: u64,
    /// What the provider said last, while it does not answer.
    pub(super) error: Option<String>,
}

impl Threshold {
    pub(super) fn value(&mut self, spec: &MetricSpec, value: f64) {
        self.error = None;
        self.last = Some(value);
        match spec.range.unwrap_or_default().contain(value) {
            true => (self.good, self.in_a_row) = (self.good + 1, 0),
            false => (self.bad, self.in_a_row) = (self.bad + 1, self.in_a_row + 1),
        }
    }

    pub(super) fn provider_error(&mut self, spec: &MetricSpec, words: &str) {
        if spec.on_error == OnMetricError::Fail {
            self.bad += 1;
            self.in_a_row += 1;
        }
        self.error = Some(words.to_owned());
    }

    /// The bad values that count: more than the limit fail.
    pub(super) fn counted(&self, spec: &MetricSpec) -> u64 {
        if spec.consecutive { self.in_a_row } else { self.bad }
    }

    pub(super) fn has_failed(&self, spec: &MetricSpec) -> bool {
        self.counted(spec) > u64::from(spec.failure_limit)
    }
}
