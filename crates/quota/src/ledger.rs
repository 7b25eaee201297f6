//! Counts for many keys.

use std::collections::HashMap;
use std::time::Duration;

use crate::Rate;

/// Keys of so few uses are gone over for ones that are over, when the ledger has grown to twice what was left then.
const LEAST_SWEPT: usize = 1024;

/// Counts what was let through, for each key.
///
/// Time is divided into windows. What the last one let through is taken to have come evenly, so what counts at a moment
/// is what this window has let through and the share of the last one that a window ending now still covers. What is
/// refused is not counted: who goes on asking gets as much as the rate says.
///
/// Over a long time no key gets more than its rate; in one window it may get up to twice as much, if it was silent
/// before and asks at the end of one window and again at the end of the next.
#[derive(Clone, Debug)]
pub struct Ledger {
    counts: HashMap<Box<str>, Count>,
    most_keys: usize,
    /// How many keys there may be before those that are over are looked for.
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    rate: Rate,
    /// The number of the window that `now` counts.
    window: u128,
    now: u64,
    before: u64,
}

/// How a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether what was asked for was let through.
    pub is_allowed: bool,
    /// How many more would be let through now.
    pub remaining: u32,
    /// When the current window ends.
    pub until_reset: Duration,
    /// Nothing was counted, because the ledger is full of other keys.
    pub is_uncounted: bool,
}

impl Ledger {
    /// An empty one that counts for at most so many keys at a time.
    pub fn new(most_keys: usize) -> Self {
        Self { counts: HashMap::new(), most_keys, sweep_at: LEAST_SWEPT.min(most_keys) }
    }

    /// Asks for `hits` at once, all or nothing; none of them only looks.
    ///
    /// A key whose rate has changed begins anew. A new key for which there is no room is allowed, and says so. A clock
    /// that has gone back counts as one that stands still.
    pub fn take(&mut self, key: &str, rate: Rate, hits: u64, now: Duration) -> Standing {
        let (window, passed) = rate.place(now);
        let fresh = Count { rate, window, now: 0, before: 0 };
        if !self.counts.contains_key(key) {
            if !self.has_room(now) {
                return Standing { is_uncounted: true, ..fresh.standing(true, passed) };
            }
            self.counts.insert(key.into(), fresh);
        }
        let count = self.counts.get_mut(key).expect("it is there, or was just inserted");
        if count.rate != rate {
            *count = fresh;
        }
        let passed = count.advance(window, passed);
        let used = count.used(passed);
        let is_allowed = used.saturating_add(hits) <= u64::from(rate.requests());
        if is_allowed {
            count.now += hits;
        }
        count.standing(is_allowed, passed)
    }

    /// How many keys are counted for.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn has_room(&mut self, now: Duration) -> bool {
        if self.counts.len() >= self.sweep_at {
            self.counts.retain(|_, count| !count.is_over(now));
            self.sweep_at = (2 * self.counts.len()).max(LEAST_SWEPT).min(self.most_keys);
        }
        self.counts.len() < self.most_keys
    }
}

impl Count {
    /// Comes to a window, and says which part of it has passed.
    fn advance(&mut self, window: u128, passed: f64) -> f64 {
        match window.checked_sub(self.window) {
            Some(0) => return passed,
            Some(1) => self.before = self.now,
            Some(_) => self.before = 0,
            None => return 0.0,
        }
        (self.window, self.now) = (window, 0);
        passed
    }

    /// What counts when this part of the window has passed.
    fn used(&self, passed: f64) -> u64 {
        self.now + (self.before as f64 * (1.0 - passed)).ceil() as u64
    }

    /// Whether nothing of it can count any more.
    fn is_over(&self, now: Duration) -> bool {
        self.rate.place(now).0 > self.window + 1
    }

    fn standing(&self, is_allowed: bool, passed: f64) -> Standing {
        let left = u64::from(self.rate.requests()).saturating_sub(self.used(passed));
        Standing {
            is_allowed,
            remaining: u32::try_from(left).unwrap_or(u32::MAX),
            until_reset: self.rate.window().mul_f64(1.0 - passed),
            is_uncounted: false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn rate(requests: u32, window: Duration) -> Rate {
        Rate::new(requests, window).unwrap()
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_asks_too_often_gets_the_rate() {
        let mut ledger = Ledger::new(10);
        let rate = rate(50, Duration::from_secs(1));
        // 1,000 a second for 20 seconds, from the middle of a window on.
        let allowed = (0..20_000).filter(|at| ledger.take("a", rate, 1, millis(500 + at)).is_allowed).count();
        assert!((1000..=1050).contains(&allowed), "{allowed}");
    }

    #[test]
    fn keys_do_not_concern_each_other() {
        let mut ledger = Ledger::new(10);
        let rate = rate(1, Duration::from_secs(60));
        assert!(ledger.take("a", rate, 1, millis(0)).is_allowed);
        assert!(!ledger.take("a", rate, 1, millis(1)).is_allowed);
        assert!(ledger.take("b", rate, 1, millis(2)).is_allowed);
    }

    #[test]
    fn several_are_taken_all_or_none_and_none_only_looks() {
        let mut ledger = Ledger::new(10);
        let rate = rate(10, Duration::from_secs(60));
        assert_eq!(ledger.take("a", rate, 7, millis(0)).remaining, 3);
        assert!(!ledger.take("a", rate, 4, millis(0)).is_allowed);
        assert_eq!(ledger.take("a", rate, 0, millis(0)).remaining, 3);
    }

    #[test]
    fn a_rate_that_changes_begins_anew() {
        let mut ledger = Ledger::new(10);
        assert!(ledger.take("a", rate(1, Duration::from_secs(60)), 1, millis(0)).is_allowed);
        let standing = ledger.take("a", rate(3, Duration::from_secs(60)), 1, millis(1));
        assert_eq!((standing.is_allowed, standing.remaining), (true, 2));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_away() {
        let mut ledger = Ledger::new(10);
        let rate = rate(2, Duration::from_secs(1));
        assert!(ledger.take("a", rate, 2, millis(10_900)).is_allowed);
        assert!(!ledger.take("a", rate, 1, millis(3_000)).is_allowed);
        assert!(!ledger.take("a", rate, 1, millis(10_950)).is_allowed);
    }

    #[test]
    fn a_full_ledger_lets_new_keys_pass_and_keeps_the_others() {
        let mut ledger = Ledger::new(2);
        let rate = rate(1, Duration::from_secs(1));
        for key in ["a", "b"] {
            assert!(ledger.take(key, rate, 1, millis(0)).is_allowed);
        }
        let standing = ledger.take("c", rate, 1, millis(1));
        assert!(standing.is_allowed && standing.is_uncounted);
        assert!(!ledger.take("a", rate, 1, millis(2)).is_allowed);
        // Two windows later what they took counts no more, so there is room.
        assert!(!ledger.take("c", rate, 1, millis(2_001)).is_uncounted);
        assert_eq!(ledger.len(), 1);
    }

    #[test]
    fn windows_end_when_they_say() {
        let mut ledger = Ledger::new(2);
        let standing = ledger.take("a", rate(5, Duration::from_secs(10)), 1, millis(12_500));
        assert_eq!(standing.until_reset, millis(7_500));
    }

    proptest! {
        /// Whatever comes when: no stretch of whole windows lets more through than the rate and one window's worth.
        #[test]
        fn no_one_gets_more_than_the_rate_and_one_window(
            steps in prop::collection::vec((0u64..400, 1u64..4), 1..300),
            requests in 1u32..20,
        ) {
            let rate = rate(requests, Duration::from_secs(1));
            let mut ledger = Ledger::new(4);
            let (mut now, mut let_through) = (0, Vec::new());
            for (wait, hits) in steps {
                now += wait;
                if ledger.take("a", rate, hits, millis(now)).is_allowed {
                    let_through.push((now, hits));
                }
            }
            for (first, _) in &let_through {
                for windows in 1..5 {
                    let until = first + windows * 1000;
                    let within = let_through.iter().filter(|(at, _)| (*first..until).contains(at));
                    let sum: u64 = within.map(|(_, hits)| hits).sum();
                    prop_assert!(sum <= (windows + 1) * u64::from(requests), "{sum} in {windows} from {first}");
                }
            }
        }
    }
}
