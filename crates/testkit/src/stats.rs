//! Whether counts fit weights: Pearson's chi-square goodness of fit, with a stated chance of a false alarm.
//!
//! A proxy picks a backend at random for each request, so that even a perfect 80/20 split seldom yields exactly 80 of
//! 100. A fixed tolerance is either so wide that it hides faults or fails now and then. The p-value says how likely
//! counts at least this far off are if the weights are right; below [`FALSE_ALARM`] the split is called wrong.
//!
//! The chi-square distribution is an approximation that needs large expected counts, far out in the tail more than near
//! its middle: [`sample_size`] sees to at least [`LEAST_EXPECTED`] requests for the smallest weight. With fewer, the
//! exact binomial tail is used if only two backends have a weight; with more backends p is too small then.

use std::collections::BTreeMap;
use std::fmt;

/// The usual bound for split tests: one false alarm in a million looks.
pub const FALSE_ALARM: f64 = 1e-6;

/// The least expected count of the smallest weight at which the tail of chi-square is good enough at [`FALSE_ALARM`].
/// With 100 the exact binomial tail is at most a few times the approximation; with 10 it is about 40 times.
pub const LEAST_EXPECTED: f64 = 100.0;

/// How well counts fit weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The sum of (observed - expected)² / expected.
    pub statistic: f64,
    /// The number of backends with a weight, less one.
    pub degrees_of_freedom: u32,
    /// The chance of counts at least this far off if the weights are right, from 0 to 1.
    pub p: f64,
    /// Per backend: name, observed count, expected count. In the order of the weights.
    pub rows: Vec<(String, u64, f64)>,
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.rows.iter().map(|row| row.1).sum();
        for (name, observed, expected) in &self.rows {
            let share = |count: f64| 100.0 * count / total.max(1) as f64;
            write!(f, "{name}: {observed} ({:.1} %, expected {:.1} %), ", share(*observed as f64), share(*expected))?;
        }
        write!(f, "n = {total}, chi-square = {:.2}, p = {:.2e}", self.statistic, self.p)
    }
}

/// How well `counts` fit `weights`, which need not add up to anything in particular.
///
/// A backend with weight zero, or one that `weights` does not name, must not have been counted at all: one single
/// request there makes `p` zero. With only one backend of positive weight `p` is 1 unless that happened, and without any
/// request at all it is 1, as nothing speaks against the weights: check the number of requests separately.
///
/// # Panics
/// If no weight is positive.
pub fn fit(counts: &BTreeMap<String, u64>, weights: &[(&str, u64)]) -> Fit {
    let total: u64 = counts.values().sum();
    let whole: u64 = weights.iter().map(|(_, weight)| weight).sum();
    assert!(whole > 0, "no backend has a positive weight: {weights:?}");
    let mut rows = Vec::new();
    let mut statistic = 0.0;
    let mut impossible = false;
    for (name, weight) in weights {
        let observed = counts.get(*name).copied().unwrap_or(0);
        let expected = total as f64 * *weight as f64 / whole as f64;
        if *weight == 0 {
            impossible |= observed > 0;
        } else if total > 0 {
            statistic += (observed as f64 - expected).powi(2) / expected;
        }
        rows.push(((*name).to_owned(), observed, expected));
    }
    for (name, observed) in counts {
        if *observed > 0 && !weights.iter().any(|(known, _)| known == name) {
            impossible = true;
            rows.push((name.clone(), *observed, 0.0));
        }
    }
    let positive = weights.iter().filter(|(_, weight)| *weight > 0).count();
    let degrees_of_freedom = u32::try_from(positive - 1).unwrap_or(u32::MAX);
    if impossible {
        statistic = f64::INFINITY;
    }
    let smallest = weights.iter().zip(&rows).filter(|((_, weight), _)| *weight > 0).map(|(_, row)| row);
    let smallest = smallest.min_by(|a, b| a.2.total_cmp(&b.2));
    let p = match smallest {
        Some((_, observed, expected)) if positive == 2 && !impossible && total > 0 && *expected < LEAST_EXPECTED => {
            binomial_tail(*observed, total, *expected / total as f64)
        }
        Some(_) | None => chi_square_tail(statistic, degrees_of_freedom),
    };
    Fit { statistic, degrees_of_freedom, p, rows }
}

/// Asserts that `counts` fit `weights`: see [`fit`].
///
/// # Panics
/// If the p-value is below `p` ([`FALSE_ALARM`] is the usual bound); the message shows all the numbers.
#[track_caller]
pub fn assert_split(counts: &BTreeMap<String, u64>, weights: &[(&str, u64)], p: f64) {
    let fit = fit(counts, weights);
    assert!(fit.p >= p, "the split does not fit its weights (p below {p:e}): {fit}");
}

/// The chance that of `total` requests that each have the chance `share` (above 0 and below 1) at least as many, or at
/// most as many, as `observed` hit, whichever is less likely; doubled, as either side is wrong. It is the exact binomial
/// tail: for shares so small that chi-square is no good approximation (see [`LEAST_EXPECTED`]).
pub fn binomial_tail(observed: u64, total: u64, share: f64) -> f64 {
    let ln_choose = |k: f64, n: f64| ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
    let chance = |k: u64| {
        let (k, n) = (k as f64, total as f64);
        (ln_choose(k, n) + k * share.ln() + (n - k) * (1.0 - share).ln()).exp()
    };
    let below: f64 = (0..=observed.min(total)).map(chance).sum();
    let above: f64 = (observed..=total).map(chance).sum();
    (2.0 * below.min(above)).min(1.0)
}

/// How many requests tell `weights` from `others` (weights of the same backends in the same order): so many that a test
/// of `weights` at the false alarm rate `p` rejects traffic that is really split by `others` with a chance of at least
/// `power` (0.5 or more, below 1); and that the smallest positive weight can expect [`LEAST_EXPECTED`] requests.
///
/// # Panics
/// If the two have different lengths, are the same split, or one has no positive weight.
pub fn sample_size(weights: &[u64], others: &[u64], p: f64, power: f64) -> u64 {
    assert_eq!(weights.len(), others.len(), "both splits must name the same backends");
    let shares = |weights: &[u64]| -> Vec<f64> {
        let whole: u64 = weights.iter().sum();
        assert!(whole > 0, "no backend has a positive weight: {weights:?}");
        weights.iter().map(|weight| *weight as f64 / whole as f64).collect()
    };
    let (wanted, actual) = (shares(weights), shares(others));
    let least = wanted.iter().copied().filter(|share| *share > 0.0).fold(1.0, f64::min);
    let for_approximation = (LEAST_EXPECTED / least).ceil();
    // A request to a backend that should get none decides at once; it only has to happen.
    let forbidden: f64 = wanted.iter().zip(&actual).filter(|(w, _)| **w == 0.0).map(|(_, a)| *a).sum();
    let for_power = if forbidden > 0.0 {
        ((1.0 - power).ln() / (1.0 - forbidden).ln().min(-1e-12)).ceil()
    } else {
        // Cohen's w², the statistic that one request adds on average.
        let effect: f64 = wanted.iter().zip(&actual).filter(|(w, _)| **w > 0.0).map(|(w, a)| (w - a).powi(2) / w).sum();
        assert!(effect > 1e-12, "the two splits are the same: {weights:?} and {others:?}");
        let freedom = wanted.iter().filter(|share| **share > 0.0).count() as u32 - 1;
        let critical = smallest(|x| chi_square_tail(x, freedom) <= p);
        let deviations = smallest(|z| 0.5 * chi_square_tail(z * z, 1) <= 1.0 - power);
        // Under `others` the statistic is non-central chi-square, a sum of squares of which one is (z + √noncentrality)²;
        // that one alone is above the critical value often enough if √noncentrality is `deviations` above its root. A
        // backend whose share is nearer to one half than it should be also varies more than it should.
        let variance = |share: f64| share * (1.0 - share);
        let ratios = wanted.iter().zip(&actual).filter(|(w, _)| variance(**w) > 0.0);
        let spread = ratios.map(|(w, a)| variance(*a) / variance(*w)).fold(1.0, f64::max).sqrt();
        let noncentrality = (critical.sqrt() + spread * deviations).powi(2);
        (noncentrality / effect).ceil()
    };
    for_approximation.max(for_power) as u64
}

/// The smallest non-negative number, to a relative 1e-9, for which a condition that stays true once true is true.
fn smallest(holds: impl Fn(f64) -> bool) -> f64 {
    let mut high = 1.0;
    while !holds(high) {
        high *= 2.0;
    }
    let mut low = 0.0;
    while high - low > 1e-9 * high {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// The chance that a chi-square variable with so many degrees of freedom is at least `statistic`.
/// With no freedom at all it is 1, except 0 for an infinite statistic.
pub fn chi_square_tail(statistic: f64, degrees_of_freedom: u32) -> f64 {
    if statistic.is_infinite() {
        return 0.0;
    }
    if degrees_of_freedom == 0 || statistic <= 0.0 {
        return 1.0;
    }
    upper_gamma(f64::from(degrees_of_freedom) / 2.0, statistic / 2.0)
}

/// The regularised upper incomplete gamma function Q(a, x), for a > 0 and x > 0.
///
/// Below x = a + 1 by the series of the lower function (DLMF 8.11.4), above by its continued fraction (DLMF 8.9.2),
/// evaluated by Lentz's method: each converges fast where it is used. Relative error about 1e-12.
fn upper_gamma(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    const PRECISION: f64 = 1e-15;
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let mut term = 1.0 / a;
        let mut sum = term;
        let mut n = a;
        while term > sum * PRECISION {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        return (1.0 - scale * sum).clamp(0.0, 1.0);
    }
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for i in 1..10_000 {
        let i = f64::from(i);
        let numerator = -i * (i - a);
        b += 2.0;
        let nonzero = |value: f64| if value.abs() < TINY { TINY } else { value };
        d = 1.0 / nonzero(numerator * d + b);
        c = nonzero(b + numerator / c);
        let factor = d * c;
        fraction *= factor;
        if (factor - 1.0).abs() < PRECISION {
            break;
        }
    }
    (scale * fraction).clamp(0.0, 1.0)
}

/// The natural logarithm of the gamma function for x > 0: Stirling's series (DLMF 5.11.1) after shifting x up to where
/// seven terms give full precision.
fn ln_gamma(x: f64) -> f64 {
    /// B(2k) / (2k (2k - 1)) for k from 1: the coefficients of 1/x, 1/x³, ...
    const SERIES: [f64; 7] =
        [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1_260.0, -1.0 / 1_680.0, 1.0 / 1_188.0, -691.0 / 360_360.0, 1.0 / 156.0];
    let mut x = x;
    let mut shift = 0.0;
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse_square = 1.0 / (x * x);
    let tail = SERIES.iter().rev().fold(0.0, |sum, coefficient| sum * inverse_square + coefficient) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + tail - shift
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn assert_close(actual: f64, expected: f64) {
        assert!((actual / expected - 1.0).abs() < 1e-9, "{actual:e} is not {expected:e}");
    }

    #[test]
    fn the_log_of_gamma_matches_factorials_and_the_half() {
        assert_close(ln_gamma(0.5), std::f64::consts::PI.sqrt().ln());
        assert_close(ln_gamma(5.0), 24_f64.ln());
        assert_close(ln_gamma(11.0), 3_628_800_f64.ln());
        assert!(ln_gamma(1.0).abs() < 1e-13 && ln_gamma(2.0).abs() < 1e-13);
    }

    #[test]
    fn the_tail_matches_closed_forms() {
        // Two degrees of freedom: exp(-x/2). Four: exp(-x/2) (1 + x/2). Both branches of the computation are met.
        for x in [0.01, 0.5, 1.9, 2.1, 7.0, 30.0, 200.0] {
            assert_close(chi_square_tail(x, 2), (-x / 2.0_f64).exp());
            assert_close(chi_square_tail(x, 4), (-x / 2.0_f64).exp() * (1.0 + x / 2.0));
        }
    }

    #[test]
    fn the_tail_matches_published_critical_values() {
        // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4, given to three decimals.
        for (freedom, critical, p) in
            [(1, 3.841, 0.05), (1, 10.828, 0.001), (3, 7.815, 0.05), (10, 23.209, 0.01), (100, 149.449, 0.001)]
        {
            assert!((chi_square_tail(critical, freedom) / p - 1.0).abs() < 2e-3, "{freedom} {critical}");
        }
        // One in a million for one degree of freedom is 4.8916 standard deviations.
        assert!((chi_square_tail(4.891_638_475_7_f64.powi(2), 1) / 1e-6 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_good_split_fits_and_another_does_not() {
        let seen = counts(&[("v1", 1_623), ("v2", 377)]);
        assert_split(&seen, &[("v1", 80), ("v2", 20)], FALSE_ALARM);
        let fit = fit(&seen, &[("v1", 50), ("v2", 50)]);
        assert!(fit.p < 1e-100 && fit.degrees_of_freedom == 1);
    }

    #[test]
    fn the_exact_tail_matches_what_can_be_added_up_by_hand() {
        // Ten throws of a coin: (1 + 10 + 45) / 1024 for at most two heads, or at most two tails.
        assert_close(binomial_tail(2, 10, 0.5), 2.0 * 56.0 / 1024.0);
        assert_close(binomial_tail(8, 10, 0.5), 2.0 * 56.0 / 1024.0);
        assert_close(binomial_tail(0, 15_000, 0.001), 2.0 * 0.999_f64.powi(15_000));
        assert!((0.9..=1.0).contains(&binomial_tail(15, 15_000, 0.001)));
    }

    #[test]
    fn few_requests_for_a_small_weight_are_judged_exactly() {
        // Four of 400 happen once in a thousand runs; chi-square would call that one in a hundred million.
        let fit = fit(&counts(&[("v1", 4), ("v2", 396)]), &[("v1", 1), ("v2", 999)]);
        assert!(chi_square_tail(fit.statistic, 1) < 1e-7 && (1e-3..2e-3).contains(&fit.p), "{fit}");
        // And none of 15,000 is too few.
        let none = super::fit(&counts(&[("v2", 15_000)]), &[("v1", 1), ("v2", 999)]);
        assert!(none.p < FALSE_ALARM, "{none}");
    }

    #[test]
    fn one_request_to_a_backend_without_weight_is_wrong() {
        let seen = counts(&[("v1", 2_000), ("v2", 1)]);
        assert_eq!(fit(&seen, &[("v1", 100), ("v2", 0)]).p, 0.0);
        assert_eq!(fit(&seen, &[("v1", 100)]).p, 0.0);
        assert_eq!(fit(&counts(&[("v1", 2_000)]), &[("v1", 100), ("v2", 0)]).p, 1.0);
    }

    #[test]
    #[should_panic(expected = "v1: 900 (90.0 %, expected 80.0 %), v2: 100 (10.0 %, expected 20.0 %), n = 1000")]
    fn a_wrong_split_is_reported_with_its_numbers() {
        assert_split(&counts(&[("v1", 900), ("v2", 100)]), &[("v1", 80), ("v2", 20)], FALSE_ALARM);
    }

    #[test]
    fn the_sample_size_grows_as_splits_come_closer() {
        let far = sample_size(&[80, 20], &[50, 50], FALSE_ALARM, 0.999);
        let near = sample_size(&[80, 20], &[78, 22], FALSE_ALARM, 0.999);
        assert_eq!(far, 500, "the expected count of 100 decides");
        // By hand: (4.8916 · √(0.8 · 0.2) + 3.0902 · √(0.78 · 0.22))² / 0.02² = 26,191.
        assert!((26_185..26_200).contains(&near), "{near}");
        // A hundredth must not have come by chance: ln(0.001) / ln(0.99) = 688 requests.
        assert_eq!(sample_size(&[1, 0], &[99, 1], FALSE_ALARM, 0.999), 688);
    }

    #[test]
    fn false_alarms_are_as_rare_as_stated_and_the_power_is_reached() {
        // Exact binomial probabilities instead of random draws, so that the test is the same every time.
        let n = sample_size(&[80, 20], &[70, 30], FALSE_ALARM, 0.999);
        let chance_of_rejection = |share: f64| -> f64 {
            let ln_n = ln_gamma(n as f64 + 1.0);
            (0..=n)
                .filter(|k| fit(&counts(&[("v1", *k), ("v2", n - k)]), &[("v1", 80), ("v2", 20)]).p < FALSE_ALARM)
                .map(|k| {
                    let (k, rest) = (k as f64, (n - k) as f64);
                    let ln = ln_n - ln_gamma(k + 1.0) - ln_gamma(rest + 1.0);
                    (ln + k * share.ln() + rest * (1.0 - share).ln()).exp()
                })
                .sum()
        };
        assert!(chance_of_rejection(0.8) < 5.0 * FALSE_ALARM, "{:e}", chance_of_rejection(0.8));
        assert!(chance_of_rejection(0.7) > 0.998, "{}", chance_of_rejection(0.7));
    }
}
