//! What came of the requests of a span of time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::{Outcome, Sample};

/// Finished requests, in the order in which they were begun.
#[derive(Clone, Debug)]
pub struct Window {
    samples: Vec<Sample>,
}

impl Window {
    pub(super) fn new(mut samples: Vec<Sample>) -> Window {
        samples.sort_by_key(|sample| sample.begun);
        Window { samples }
    }

    /// All of them, in the order in which they were begun.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Those that were begun from `from` on and before `to`.
    pub fn between(&self, from: Instant, to: Instant) -> Window {
        let inside = self.samples.iter().filter(|sample| sample.begun >= from && sample.begun < to);
        Window { samples: inside.cloned().collect() }
    }

    /// Those that were begun first, `count` of them if there are so many.
    pub fn first(mut self, count: usize) -> Window {
        self.samples.truncate(count);
        self
    }

    /// Requests per backend, of those that were answered as expected by a backend that said who it is.
    pub fn by_backend(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for backend in self.samples.iter().filter(|sample| sample.expected).filter_map(Sample::backend) {
            *counts.entry(backend.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Requests per HTTP status, of those that were answered.
    pub fn by_status(&self) -> BTreeMap<u16, u64> {
        let mut counts = BTreeMap::new();
        for status in self.samples.iter().filter_map(Sample::status) {
            *counts.entry(status).or_default() += 1;
        }
        counts
    }

    /// Those that did not go as the plan expects.
    pub fn failures(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| !sample.expected)
    }

    /// The time below which `share` (0 to 1) of the requests were answered; `None` without any.
    pub fn latency(&self, share: f64) -> Option<Duration> {
        let mut times: Vec<_> = self.samples.iter().map(|sample| sample.took).collect();
        times.sort_unstable();
        let rank = (share * times.len() as f64).ceil() as usize;
        times.get(rank.max(1) - 1).copied()
    }

    /// Asserts that no request failed.
    ///
    /// # Panics
    /// If one did; the message shows the counts and the first failures with the time since the window's first request.
    #[track_caller]
    pub fn assert_no_failures(&self) {
        const SHOWN: usize = 5;
        let failed = self.failures().count();
        let first: Vec<_> = self
            .failures()
            .take(SHOWN)
            .map(|sample| {
                format!("at {:?} after {:?}: {}", sample.begun - self.samples[0].begun, sample.took, sample.outcome)
            })
            .collect();
        assert!(failed == 0, "{failed} of {} requests failed:\n{}\n{self}", self.len(), first.join("\n"));
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut broken = BTreeMap::<&str, u64>::new();
        for sample in &self.samples {
            if let Outcome::Broken(reason) = &sample.outcome {
                *broken.entry(reason).or_default() += 1;
            }
        }
        let (statuses, backends) = (self.by_status(), self.by_backend());
        write!(f, "{} requests, by status {statuses:?}, by backend {backends:?}, broken {broken:?}", self.len())
    }
}
