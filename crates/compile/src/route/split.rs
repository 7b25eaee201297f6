//! Weights as numbers: what the user wrote, made to fit, with the share of missing destinations cut out exactly.
//!
//! Envoy picks a weighted cluster by `r mod T`, with `T` the sum of the weights, and decides a `runtime_fraction` by
//! `r mod D < k`, with `D` one of 100, 10,000 and 1,000,000; and `r` is *the same* 64-bit random number in both
//! (`source/common/router/config_impl.cc` and `weighted_cluster_specifier.cc` of 1.40: one `random_value` per
//! request). So a route with a `runtime_fraction` before a weighted one sees only some values of `r mod T`, and naive
//! numbers are biased: with half of 4,000,000 missing … `k` = 500,000 of `D` = 1,000,000 and weights 500,000 and
//! 1,500,000, the first cluster would never be picked.
//!
//! The pair (`r mod D`, `r mod T`) is uniform over the pairs that agree modulo `g = gcd(D, T)`. Therefore
//! - when `k` is a multiple of `g`, the requests that pass the fraction are uniform modulo `g`, hence modulo `T`: the
//!   user's own weights give exactly the user's shares. This is so for nearly all real numbers, such as 100 in all;
//! - else the weights are multiplied by a power of ten and one is added to the largest, so that `T` ends in 1: then
//!   `g` is 1, both draws are independent, and no share is off by more than one in ten million.
//!
//! The same numbers are right for a client that draws twice, independently.

use proto::pb::envoy::r#type::v3::FractionalPercent;
use proto::pb::envoy::r#type::v3::fractional_percent::DenominatorType;

/// Weights for the destinations that there are, and the part of all requests that has none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Split {
    /// One positive weight per destination given, in order; their sum fits into a `u32`.
    pub(super) weights: Vec<u32>,
    /// The share of the missing ones.
    pub(super) refused: Option<FractionalPercent>,
}

/// Divides traffic between destinations of positive `weights`, with `missing` the sum of weights whose destination
/// does not exist. At least one weight is given. The missing share is exact to one in a million.
pub(super) fn split(weights: &[u64], missing: u64) -> Split {
    if missing == 0 {
        return Split { weights: fit(weights, u64::from(u32::MAX)), refused: None };
    }
    let total = sum(weights) + u128::from(missing);
    let own = fit(weights, u64::from(u32::MAX));
    // Reduced to what weights can express together, so that the products below stay small.
    let reduced_total: u64 = own.iter().copied().map(u64::from).sum();
    for (denominator, kind) in DENOMINATORS {
        let scaled = u128::from(missing) * u128::from(denominator);
        let numerator = u64::try_from(scaled / total).unwrap_or(denominator);
        if scaled % total == 0 && numerator % gcd(denominator, reduced_total) == 0 {
            return Split { weights: own, refused: Some(fraction(numerator, kind)) };
        }
    }
    let (denominator, kind) = DENOMINATORS[2];
    let rounded = (u128::from(missing) * u128::from(denominator) + total / 2) / total;
    // Something that exists is never rounded away.
    let numerator = u64::try_from(rounded).unwrap_or(denominator).clamp(1, denominator - 1);
    let weights = if numerator % gcd(denominator, reduced_total) == 0 { own } else { independent(weights) };
    Split { weights, refused: Some(fraction(numerator, kind)) }
}

const DENOMINATORS: [(u64, DenominatorType); 3] =
    [(100, DenominatorType::Hundred), (10_000, DenominatorType::TenThousand), (1_000_000, DenominatorType::Million)];

/// The share of `percent`, exact to one in a million but never rounded to nothing; `None` unless it is within 0 to 100.
pub(super) fn percentage(percent: f64) -> Option<FractionalPercent> {
    if !(0.0..=100.0).contains(&percent) {
        return None;
    }
    // Within 0 to 1,000,000 by the check above.
    let numerator = (percent * 10_000.0).round().max(if percent > 0.0 { 1.0 } else { 0.0 }) as u64;
    Some(fraction(numerator, DenominatorType::Million))
}

/// So many of so many.
pub(super) fn fraction(numerator: u64, kind: DenominatorType) -> FractionalPercent {
    FractionalPercent { numerator: u32::try_from(numerator).unwrap_or(u32::MAX), denominator: kind.into() }
}

/// The weights as they are if their sum is at most `limit`, else in proportion, none below 1.
fn fit(weights: &[u64], limit: u64) -> Vec<u32> {
    let total = sum(weights);
    // Raising small weights to 1 adds at most one per weight.
    let room = u128::from(limit).saturating_sub(weights.len() as u128).max(1);
    let scale = |weight: u64| match total <= u128::from(limit) {
        true => u128::from(weight),
        false => (u128::from(weight) * room / total).max(1),
    };
    weights.iter().map(|weight| u32::try_from(scale(*weight)).unwrap_or(u32::MAX)).collect()
}

/// Weights in proportion whose sum has no factor in common with a power of ten.
fn independent(weights: &[u64]) -> Vec<u32> {
    let mut scaled = fit(weights, 400_000_000);
    let total: u64 = scaled.iter().copied().map(u64::from).sum();
    let mut factor = 10;
    while total * factor < 10_000_000 {
        factor *= 10;
    }
    // At most 4,000,000,001 in all.
    for weight in &mut scaled {
        *weight = u32::try_from(u64::from(*weight) * factor).unwrap_or(u32::MAX);
    }
    if let Some(largest) = scaled.iter_mut().max() {
        *largest += 1;
    }
    scaled
}

fn sum(weights: &[u64]) -> u128 {
    weights.iter().copied().map(u128::from).sum()
}

/// The greatest number that divides both; of 0 and another, the other.
pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The shares that Envoy's two remainders of one random number give: the refused one, then each weight's.
    /// Exact but for the 2^-64 that the last, incomplete period of the pair weighs.
    fn shares(split: &Split) -> Vec<f64> {
        let refused = split.refused.unwrap_or_default();
        let denominator = match refused.denominator() {
            DenominatorType::Hundred => 100,
            DenominatorType::TenThousand => 10_000,
            DenominatorType::Million => 1_000_000,
        };
        let first = u64::from(refused.numerator);
        let total: u64 = split.weights.iter().copied().map(u64::from).sum();
        let common = gcd(denominator, total);
        // How many numbers below `end` leave the remainder `class` modulo `common`.
        let below = |end: u64, class: u64| end / common + u64::from(end % common > class);
        let pairs = (denominator / common) as f64 * (total / common) as f64 * common as f64;
        let mut shares = vec![first as f64 / denominator as f64];
        let mut start = 0;
        for weight in &split.weights {
            let end = start + u64::from(*weight);
            let mut count = 0.0;
            for class in 0..common {
                let passing = below(denominator, class) - below(first, class);
                let picking = below(end, class) - below(start, class);
                count += passing as f64 * picking as f64;
            }
            shares.push(count / pairs);
            start = end;
        }
        shares
    }

    fn assert_shares(weights: &[u64], missing: u64, tolerance: f64) {
        let split = split(weights, missing);
        let total = (sum(weights) + u128::from(missing)) as f64;
        let wanted = std::iter::once(missing).chain(weights.iter().copied()).map(|w| w as f64 / total);
        for (got, wanted) in shares(&split).into_iter().zip(wanted) {
            assert!((got - wanted).abs() <= tolerance, "{weights:?} missing {missing}: {got} for {wanted}: {split:?}");
        }
    }

    #[test]
    fn ordinary_weights_stay_as_they_were_written_and_their_shares_are_exact() {
        assert_eq!(split(&[80], 20), Split { weights: vec![80], refused: percent(20, 100) });
        assert_eq!(split(&[50, 30], 20), Split { weights: vec![50, 30], refused: percent(20, 100) });
        assert_eq!(split(&[500, 300], 200).weights, [500, 300]);
        assert_eq!(split(&[500_000, 300_000], 200_000).weights, [500_000, 300_000]);
        for (weights, missing) in [(vec![50, 30], 20), (vec![1, 2, 4], 1), (vec![999_999], 1), (vec![333, 333], 334)] {
            assert_shares(&weights, missing, 1e-15);
        }
    }

    #[test]
    fn the_random_number_that_both_decisions_share_does_not_bias_large_weights() {
        assert_shares(&[500_000, 1_500_000], 2_000_000, 2e-7);
        let naive = Split { weights: vec![500_000, 1_500_000], refused: percent(500_000, 1_000_000) };
        assert_eq!(shares(&naive), [0.5, 0.0, 0.5], "which is why");
    }

    #[test]
    fn weights_that_no_fraction_expresses_are_exact_to_a_millionth() {
        assert_shares(&[1, 1], 1, 1e-6);
        assert_shares(&[1, 1, 1, 1, 1], 2, 1e-6);
        assert_eq!(split(&[1_000_000_000], 1).refused, percent(1, 1_000_000), "not rounded to nothing");
    }

    #[test]
    fn sums_beyond_32_bits_are_scaled_down_and_nothing_becomes_zero() {
        let split = split(&[i64::MAX as u64, i64::MAX as u64, 1], 0);
        assert!(split.weights.iter().map(|w| u64::from(*w)).sum::<u64>() <= u64::from(u32::MAX));
        assert_eq!(split.weights[0], split.weights[1]);
        assert_eq!(split.weights[2], 1);
    }

    #[test]
    fn percentages_outside_0_to_100_are_none() {
        assert_eq!(percentage(0.1), percent(1_000, 1_000_000));
        assert_eq!(percentage(0.000_001), percent(1, 1_000_000));
        assert_eq!(percentage(100.0), percent(1_000_000, 1_000_000));
        for odd in [-0.1, 100.1, f64::NAN, f64::INFINITY] {
            assert_eq!(percentage(odd), None, "{odd}");
        }
    }

    fn percent(numerator: u64, denominator: u64) -> Option<FractionalPercent> {
        DENOMINATORS.iter().find(|(d, _)| *d == denominator).map(|(_, kind)| fraction(numerator, *kind))
    }

    proptest! {
        #[test]
        fn shares_are_those_of_the_weights(
            weights in prop::collection::vec(prop_oneof![1u64..200, 1u64..5_000_000, 1u64..u64::MAX / 16], 1..5),
            missing in prop_oneof![1u64..200, 1u64..5_000_000, 1u64..u64::MAX / 16],
        ) {
            let split = split(&weights, missing);
            prop_assert!(split.weights.iter().all(|w| *w > 0));
            prop_assert!(split.weights.iter().map(|w| u64::from(*w)).sum::<u64>() <= u64::from(u32::MAX));
            assert_shares(&weights, missing, 1.1e-6);
        }
    }
}
