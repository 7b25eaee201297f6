//! Numbers and durations of a policy, brought into the range that Envoy takes.

use std::time::Duration;

use world::Problem;

use crate::policy::Part;

/// Longest duration that Envoy counts: its nanoseconds are a signed 64-bit number (292 years).
const LONGEST: Duration = Duration::from_secs(9_223_372_036);

/// Shortest duration that makes sense: Envoy counts milliseconds and takes less than one for none, which would make an
/// interval a busy loop and a timeout an immediate failure. Istio refuses them as well.
const SHORTEST: Duration = Duration::from_millis(1);

/// A count: `None` and 0 mean "not set" as in Istio, a negative one is a problem.
pub(super) fn count<T>(
    part: &Part<'_, T>,
    field: &str,
    value: Option<i32>,
    otherwise: &str,
    problems: &mut Vec<Problem>,
) -> Option<u32> {
    let value = value?;
    match u32::try_from(value) {
        Ok(0) => None,
        Ok(value) => Some(value),
        Err(_) => {
            problems.push(part.error(field, format!("{value} is negative"), otherwise));
            None
        }
    }
}

/// A share in percent; not set when `None`, a problem when negative or above 100.
pub(super) fn percent<T>(
    part: &Part<'_, T>,
    field: &str,
    value: Option<i32>,
    otherwise: &str,
    problems: &mut Vec<Problem>,
) -> Option<u32> {
    let value = value?;
    match u32::try_from(value) {
        Ok(value @ 0..=100) => Some(value),
        Ok(_) | Err(_) => {
            problems.push(part.error(field, format!("{value} is not a percentage from 0 to 100"), otherwise));
            None
        }
    }
}

/// A duration that must be there for something to happen after it: below 1 ms and above 292 years are problems.
pub(super) fn duration<T>(
    part: &Part<'_, T>,
    field: &str,
    value: Option<Duration>,
    otherwise: &str,
    problems: &mut Vec<Problem>,
) -> Option<Duration> {
    let value = value?;
    if value < SHORTEST {
        let message = format!("{value:?} is too short, the least is {SHORTEST:?}");
        problems.push(part.error(field, message, otherwise));
        return None;
    }
    longest(part, field, value, otherwise, problems)
}

/// A duration where 0 means "never", as in Envoy.
pub(super) fn duration_or_never<T>(
    part: &Part<'_, T>,
    field: &str,
    value: Option<Duration>,
    otherwise: &str,
    problems: &mut Vec<Problem>,
) -> Option<Duration> {
    match value? {
        Duration::ZERO => Some(Duration::ZERO),
        value => duration(part, field, Some(value), otherwise, problems),
    }
}

fn longest<T>(
    part: &Part<'_, T>,
    field: &str,
    value: Duration,
    otherwise: &str,
    problems: &mut Vec<Problem>,
) -> Option<Duration> {
    if value <= LONGEST {
        return Some(value);
    }
    problems.push(part.error(field, format!("{value:?} is longer than a proxy can count"), otherwise));
    None
}
