//! Grids of alternatives and sums of logarithms.

/// How many alternatives are mixed.
pub(super) const SIZE: usize = 33;

/// One number for each alternative.
pub(super) type Row = Vec<f64>;

/// `ln r` for odds ratios from 1.5 to 200, evenly spaced: below, a candidate counts as equal; above, nothing is lost.
pub(super) fn log_odds_ratios() -> impl Iterator<Item = f64> {
    spaced(1.5f64.ln(), 200f64.ln())
}

/// Shares above `bound` and up to a half: alternatives to "at most `bound` of the requests are bad".
pub(super) fn worse_than(bound: f64) -> impl Iterator<Item = f64> {
    spaced((bound * 1.2).min(0.499).ln(), 0.5f64.ln()).map(f64::exp)
}

/// Shares below `bound`, down to a two hundredth of it: alternatives to "at least `bound` of the requests are bad".
pub(super) fn better_than(bound: f64) -> impl Iterator<Item = f64> {
    let bound = bound.max(1e-12);
    spaced((bound / 200.0).ln(), (bound / 1.2).ln()).map(f64::exp)
}

fn spaced(from: f64, to: f64) -> impl Iterator<Item = f64> {
    (0..SIZE).map(move |at| from + (to - from) * at as f64 / (SIZE - 1) as f64)
}

/// `ln(exp(a) + exp(b))` without leaving the range.
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    // Beyond this the smaller one is below the last bit of the larger.
    if low - high < -40.0 || high == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The logarithm of the mean of the exponentials.
pub(super) fn log_mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), v| (sum + (v - most).exp(), count + 1));
    most + (sum / f64::from(count.max(1))).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_lie_on_their_side_of_the_bound() {
        let ratios: Row = log_odds_ratios().map(f64::exp).collect();
        assert!((ratios[0] - 1.5).abs() < 1e-9 && (ratios[SIZE - 1] - 200.0).abs() < 1e-6);
        assert!(worse_than(0.01).all(|p| p > 0.01 && p <= 0.5 + 1e-12));
        assert!(better_than(0.01).all(|p| p < 0.01 && p > 0.0));
    }

    #[test]
    fn sums_of_logarithms_do_not_overflow() {
        assert!((log_add(1000.0, 1000.0) - (1000.0 + 2f64.ln())).abs() < 1e-9);
        assert_eq!(log_add(f64::NEG_INFINITY, -3.0), -3.0);
        assert!((log_mean([0.0, 0.0].into_iter())).abs() < 1e-12);
    }
}
