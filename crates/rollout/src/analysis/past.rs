//! What stable was like while it had requests: all that the candidate can be compared with once it has everything.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use world::api::delivery::Tolerance;

use super::Tally;

/// Requests are forgotten with this time constant, in seconds: rates drift over a day, and a run may take longer.
const MEMORY_SECONDS: f64 = 1_800.0;
/// Fewer requests than this say nothing.
const KNOWN_REQUESTS: f64 = 50.0;
/// Nobody saw both arms at the same time, so more is tolerated than between arms that stand side by side: half as much
/// again, which is where the alternatives of the concurrent test begin, too.
const DRIFT: f64 = 1.5;
/// The part of a test's alpha that the bound of stable's rate may be wrong with.
const CHANCE: f64 = 0.1;

/// Requests of stable, the older the less they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Past {
    total: f64,
    bad: f64,
}

impl Past {
    /// Takes in what stable had in the last `span`.
    pub(super) fn add(&mut self, span: Duration, stable: Tally) {
        let fade = (-span.as_secs_f64() / MEMORY_SECONDS).exp();
        self.total = self.total * fade + stable.total as f64;
        self.bad = self.bad * fade + stable.bad as f64;
    }

    /// How many requests are remembered.
    pub(super) fn requests(&self) -> f64 {
        self.total
    }

    /// The share of bad ones; `None` while too little is known.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.total >= KNOWN_REQUESTS).then(|| self.bad / self.total)
    }

    /// The largest share of bad requests with which a candidate still counts as no worse than stable was: an upper
    /// bound of stable's rate that is wrong with a chance of a tenth of `alpha`, and the tolerance for drift and for
    /// what the metric tolerates anyway. May be more than 1. `None` while too little is known.
    pub(super) fn limit(&self, tolerance: &Tolerance, alpha: f64) -> Option<f64> {
        self.rate()?;
        let bound = upper(self.bad, (1.0 / (alpha * CHANCE)).ln()) / self.total;
        Some(bound * DRIFT.max(tolerance.ratio) + tolerance.delta)
    }
}

/// The largest mean of a sum of weighted events, weights from 0 to 1, that makes `sum` or less as likely as
/// `exp(-evidence)`: Chernoff's bound for Poisson's law, which such sums keep because the exponential is convex.
fn upper(sum: f64, evidence: f64) -> f64 {
    let against = |mean: f64| if sum > 0.0 { mean - sum + sum * (sum / mean).ln() } else { mean };
    // Beyond this the bound is surely exceeded: the left side grows at least like (mean - sum)^2 / (2 mean).
    let (mut low, mut high) = (sum, sum + 2.0 * evidence + (2.0 * evidence * (sum + 1.0)).sqrt() * 2.0);
    for _ in 0..60 {
        let mean = (low + high) / 2.0;
        match against(mean) > evidence {
            true => high = mean,
            false => low = mean,
        }
    }
    high
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn past(total: u64, bad: u64) -> Past {
        let mut past = Past::default();
        past.add(Duration::from_secs(1), Tally::new(total, bad));
        past
    }

    #[test]
    fn bounds_are_those_of_the_law_of_rare_events() {
        // Of no event at all the bound is the evidence itself.
        assert!((upper(0.0, 6.9) - 6.9).abs() < 1e-6);
        for (sum, evidence) in [(1.0, 3.0), (80.0, 6.9), (10_000.0, 6.9), (0.25, 12.0)] {
            let mean = upper(sum, evidence);
            assert!(mean > sum && (mean - sum + sum * (sum / mean).ln() - evidence).abs() < 1e-6, "{sum} {mean}");
        }
    }

    #[test]
    fn few_requests_say_nothing_and_many_say_what_they_had() {
        let tolerance = Tolerance { ratio: 1.0, delta: 0.005 };
        assert_eq!(past(49, 0).limit(&tolerance, 0.01), None);
        let (few, many) = (past(100, 0).limit(&tolerance, 0.01).unwrap(), past(100_000, 100).limit(&tolerance, 0.01));
        assert!((0.10..0.12).contains(&few), "{few}");
        assert!((0.006..0.008).contains(&many.unwrap()), "{many:?}");
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut past = past(1_000, 500);
        past.add(Duration::from_secs(10 * 3_600), Tally::new(1_000, 0));
        assert!(past.rate().unwrap() < 1e-6);
    }
}
