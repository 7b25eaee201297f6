//! A share of traffic.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

use crate::api::schema::rule;

/// A share of traffic in parts per million, from none to all. Manifests say it as a percentage with at most four
/// decimals (`5`, `0.25`, `"12.5"`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u32);

/// A number that is no share.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum WeightError {
    /// Below 0.
    #[error("{0} is negative; a weight is a percentage from 0 to 100")]
    Negative(f64),
    /// Above 100.
    #[error("{0} is more than 100; a weight is a percentage from 0 to 100")]
    Over(f64),
    /// Finer than one part per million.
    #[error("{0} has more than 4 decimals; the finest weight is 0.0001 (one request in a million)")]
    Decimals(f64),
    /// No number at all.
    #[error("a weight is a percentage from 0 to 100")]
    NotANumber,
}

impl Weight {
    /// The parts that make up everything.
    pub const TOTAL: u32 = 1_000_000;
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Everything.
    pub const FULL: Self = Self(Self::TOTAL);

    /// This many parts per million; everything when there are more.
    pub fn from_ppm(ppm: u32) -> Self {
        Self(ppm.min(Self::TOTAL))
    }

    /// Reads a percentage.
    ///
    /// # Errors
    /// Negative, above 100, finer than four decimals, or not a number.
    pub fn from_percent(percent: f64) -> Result<Self, WeightError> {
        if percent.is_nan() {
            return Err(WeightError::NotANumber);
        }
        if percent < 0.0 {
            return Err(WeightError::Negative(percent));
        }
        if percent > 100.0 {
            return Err(WeightError::Over(percent));
        }
        let ppm = percent * 1e4;
        // A decimal of four places times 10,000 is off a whole number by rounding alone, which is far below this.
        if (ppm - ppm.round()).abs() > 1e-6 {
            return Err(WeightError::Decimals(percent));
        }
        Ok(Self(ppm.round() as u32))
    }

    /// Parts per million.
    pub fn ppm(self) -> u32 {
        self.0
    }

    /// Of 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::TOTAL)
    }

    /// What is left of everything.
    #[must_use]
    pub fn rest(self) -> Self {
        Self(Self::TOTAL - self.0)
    }

    /// Nothing at all.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// `12.5%`.
impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 1e4)
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.is_multiple_of(10_000) {
            true => serializer.serialize_u32(self.0 / 10_000),
            false => serializer.serialize_f64(f64::from(self.0) / 1e4),
        }
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Percent;
        impl Visitor<'_> for Percent {
            type Value = Weight;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a percentage from 0 to 100")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Weight, E> {
                self.visit_f64(value as f64)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Weight, E> {
                self.visit_f64(value as f64)
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Weight, E> {
                Weight::from_percent(value).map_err(E::custom)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Weight, E> {
                let number = text.strip_suffix('%').unwrap_or(text).parse().map_err(|_| WeightError::NotANumber);
                number.and_then(Weight::from_percent).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Percent)
    }
}

/// A number alone: an API server's schema cannot offer a number or a text.
impl JsonSchema for Weight {
    fn schema_name() -> Cow<'static, str> {
        "Weight".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Decimals are binary fractions, so a weight of four decimals is near a whole number of parts per million.
        const PARTS: &str = "self * 10000.0 - double(int(self * 10000.0 + 0.5))";
        json_schema!({
            "type": "number",
            "minimum": 0,
            "maximum": 100,
            "x-kubernetes-validations": [rule(
                &format!("{PARTS} < 0.000001 && {PARTS} > -0.000001"),
                "has four decimals at most: the finest weight is 0.0001 (one request in a million)",
            )],
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_part_per_million_survives_being_written_and_read() {
        for ppm in (0..=Weight::TOTAL).step_by(7).chain([1, 999_999, 333_333]) {
            let weight = Weight::from_ppm(ppm);
            let text = serde_json::to_string(&weight).unwrap();
            assert_eq!(serde_json::from_str::<Weight>(&text).unwrap(), weight, "{text}");
        }
    }

    #[test]
    fn what_is_no_share_is_refused_with_the_reason() {
        assert_eq!(Weight::from_percent(0.0001), Ok(Weight(1)));
        assert_eq!(Weight::from_percent(33.3333), Ok(Weight(333_333)));
        assert_eq!(Weight::from_percent(-1.0), Err(WeightError::Negative(-1.0)));
        assert_eq!(Weight::from_percent(100.0001), Err(WeightError::Over(100.0001)));
        assert_eq!(Weight::from_percent(f64::INFINITY), Err(WeightError::Over(f64::INFINITY)));
        assert_eq!(Weight::from_percent(0.00001), Err(WeightError::Decimals(0.00001)));
        assert_eq!(Weight::from_percent(f64::NAN), Err(WeightError::NotANumber));
        assert!(serde_json::from_str::<Weight>("\"x\"").is_err());
        assert_eq!(serde_json::from_str::<Weight>("\"12.5%\"").unwrap().to_string(), "12.5%");
    }
}
