//! What becomes of a metric whose profile is edited in mid-run.

use world::api::delivery::{Bounds, MetricSpec};

/// Whether both ask for the same thing, so that what is known under one counts under the other.
pub(super) fn asks_the_same(old: &MetricSpec, new: &MetricSpec) -> bool {
    old.kind == new.kind
        && old.classify == new.classify
        && old.latency_ms == new.latency_ms
        && old.query == new.query
        && old.url == new.url
        && old.json_path == new.json_path
        && old.is_counted() == new.is_counted()
}

/// `old`, made stricter wherever `new` is: what holds at once. What `new` makes looser, and another question, wait for
/// the next step.
pub(crate) fn stricter(old: &MetricSpec, new: &MetricSpec) -> MetricSpec {
    let mut both = old.clone();
    if !asks_the_same(old, new) {
        return both;
    }
    both.tolerance.delta = old.tolerance.delta.min(new.tolerance.delta);
    both.tolerance.ratio = old.tolerance.ratio.min(new.tolerance.ratio);
    if let Some(limit) = new.acceptable()
        && old.acceptable().is_none_or(|known| limit < known)
    {
        both.slo = Some(limit);
    }
    both.range = match (old.range, new.range) {
        (Some(old), Some(new)) => Some(inner(old, new)),
        (range, None) | (None, range) => range,
    };
    both.failure_limit = old.failure_limit.min(new.failure_limit);
    both.consecutive &= new.consecutive;
    both.critical |= new.critical;
    both.dry_run &= new.dry_run;
    both
}

/// The values that are good for both.
fn inner(one: Bounds, other: Bounds) -> Bounds {
    let of = |a: Option<f64>, b: Option<f64>, pick: fn(f64, f64) -> f64| match (a, b) {
        (Some(a), Some(b)) => Some(pick(a, b)),
        (end, None) | (None, end) => end,
    };
    Bounds { min: of(one.min, other.min, f64::max), max: of(one.max, other.max, f64::min) }
}
