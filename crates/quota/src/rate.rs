//! How often.

use std::time::Duration;

/// So many in each window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    requests: u32,
    window: Duration,
}

impl Rate {
    /// `None` for no requests at all, or a window that takes no time.
    pub fn new(requests: u32, window: Duration) -> Option<Self> {
        (requests > 0 && !window.is_zero()).then_some(Self { requests, window })
    }

    /// At least 1.
    pub fn requests(self) -> u32 {
        self.requests
    }

    /// Longer than nothing.
    pub fn window(self) -> Duration {
        self.window
    }

    /// The number of the window that `now` is in, and which part of it has passed, from 0 to 1.
    pub(crate) fn place(self, now: Duration) -> (u128, f64) {
        let (now, window) = (now.as_nanos(), self.window.as_nanos());
        (now / window, (now % window) as f64 / window as f64)
    }
}
