//! From when to when certificates hold.

use std::time::{Duration, SystemTime};

/// Certificates hold from a little before they were made, because clocks differ.
const EARLIER: Duration = Duration::from_secs(120);

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// It holds from here.
    pub not_before: SystemTime,
    /// When it was made, by the clock then.
    pub made: SystemTime,
    /// It holds until here.
    pub not_after: SystemTime,
}

/// Gives out lifetimes. A clock that jumps back must not make certificates that are over when it jumps forward again,
/// so the end is reckoned from the latest time that was ever seen, and the beginning from the time that is said now.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    latest: SystemTime,
}

impl Lifetimes {
    /// With the time of the beginning.
    pub fn new(now: SystemTime) -> Self {
        Self { latest: now }
    }

    /// What is made now and is to hold for `ttl`.
    pub fn next(&mut self, now: SystemTime, ttl: Duration) -> Lifetime {
        self.latest = self.latest.max(now);
        let not_before = now.checked_sub(EARLIER).unwrap_or(SystemTime::UNIX_EPOCH);
        Lifetime { not_before, made: now, not_after: self.latest.checked_add(ttl).unwrap_or(self.latest) }
    }
}

impl Lifetime {
    /// When to replace what was made: at half its life, up to a tenth of that earlier or later, so that those who came
    /// together do not come again together. `random` is any number.
    pub fn rotation(&self, random: u64) -> SystemTime {
        let life = self.not_after.duration_since(self.made).unwrap_or_default();
        let fraction = random as f64 / u64::MAX as f64;
        self.made + life.mul_f64(0.45 + 0.1 * fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000 + DAY * days
    }

    #[test]
    fn a_clock_that_jumps_back_makes_nothing_that_is_over_when_it_returns() {
        let mut lifetimes = Lifetimes::new(at(0));
        assert_eq!(lifetimes.next(at(10), DAY).not_after, at(11));
        let back = lifetimes.next(at(2), DAY);
        assert!(back.not_before < at(2) && back.not_after == at(11), "it holds by both clocks: {back:?}");
        assert_eq!(lifetimes.next(at(12), DAY).not_after, at(13));
    }

    #[test]
    fn rotation_is_at_half_life_give_or_take_a_tenth() {
        let life = Lifetimes::new(at(0)).next(at(0), Duration::from_secs(1000));
        let seconds = |random| life.rotation(random).duration_since(at(0)).unwrap_or_default().as_secs_f64().round();
        assert_eq!((seconds(0), seconds(u64::MAX / 2), seconds(u64::MAX)), (450.0, 500.0, 550.0));
    }
}
