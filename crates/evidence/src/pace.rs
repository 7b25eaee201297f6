//! How much one stream may send.

use std::time::Instant;

/// Room that fills at a steady rate and is used up by what arrives. One honest burst fits; a flood does not.
#[derive(Clone, Debug)]
pub struct Pace {
    per_second: f64,
    most: f64,
    room: f64,
    at: Instant,
}

impl Pace {
    /// This much each second, and so much at once.
    pub fn new(now: Instant, per_second: u32, at_once: u32) -> Self {
        let most = f64::from(at_once);
        Self { per_second: per_second.into(), most, room: most, at: now }
    }

    /// Uses up `amount`. Returns whether there was room for it; when not, nothing is used up.
    pub fn take(&mut self, now: Instant, amount: usize) -> bool {
        let filled = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.room = (self.room + filled).min(self.most);
        self.at = now;
        let fits = amount as f64 <= self.room;
        if fits {
            self.room -= amount as f64;
        }
        fits
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_fits_and_a_flood_does_not() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin, 10, 30);
        assert!(pace.take(begin, 30));
        assert!(!pace.take(begin, 1));
        assert!(pace.take(begin + Duration::from_secs(1), 10));
        assert!(!pace.take(begin + Duration::from_secs(1), 1));
        assert!(pace.take(begin + Duration::from_secs(3600), 30), "it is full again, and no fuller");
        assert!(!pace.take(begin + Duration::from_secs(3600), 1));
    }
}
