//! Time on the clock that the kernel stamps arrivals with.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, of `CLOCK_REALTIME`.
pub(crate) type Nanos = u64;

/// Now.
pub(crate) fn now() -> Nanos {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
