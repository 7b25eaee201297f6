//! How often a client may give streams up at once.

/// So many streams may be given up before they were served, and as many more as have been served. A proxy in front of
/// thousands of clients may lose them all in a moment, but those have been served.
const MOST: u32 = 1_000;

/// What is left of the patience with one connection. A client that opens streams and resets them pays nothing for
/// them, and each costs work here (CVE-2023-44487).
#[derive(Debug)]
pub(super) struct Tolerance {
    left: u32,
}

impl Tolerance {
    pub(super) fn new() -> Self {
        Self { left: MOST }
    }

    /// A stream was given up by its client. False when that was once too often.
    pub(super) fn bears(&mut self, was_served: bool) -> bool {
        if was_served {
            self.left = MOST.min(self.left + 1);
            return true;
        }
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_what_it_asked_for_may_leave_as_often_as_it_likes() {
        let mut tolerance = Tolerance::new();
        assert!((0..100_000).all(|n| tolerance.bears(n % 2 == 0)));
    }

    #[test]
    fn a_client_that_never_waits_for_an_answer_is_borne_for_a_while() {
        let mut tolerance = Tolerance::new();
        let count = (0..10_000).take_while(|_| tolerance.bears(false)).count();
        assert_eq!(count, 999);
    }
}
