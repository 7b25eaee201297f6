//! A count, or a share of one.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

use super::Weight;

/// `3`, or `25%` of something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// This many.
    Count(u32),
    /// This share.
    Share(Weight),
}

impl Amount {
    /// How many that are of `whole`, rounded up: a quarter of one endpoint is one endpoint.
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Amount::Count(count) => count,
            Amount::Share(share) => {
                let parts = u64::from(whole) * u64::from(share.ppm());
                u32::try_from(parts.div_ceil(u64::from(Weight::TOTAL))).unwrap_or(u32::MAX)
            }
        }
    }

    /// Nothing, whatever it is of.
    pub fn is_zero(self) -> bool {
        matches!(self, Amount::Count(0) | Amount::Share(Weight::ZERO))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Count(count) => write!(f, "{count}"),
            Amount::Share(share) => write!(f, "{share}"),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Amount::Count(count) => serializer.serialize_u32(*count),
            Amount::Share(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountOrShare;
        impl Visitor<'_> for CountOrShare {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number such as 2, or a share such as \"25%\"")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Amount, E> {
                u32::try_from(value).map(Amount::Count).map_err(|_| E::custom(format!("{value} is not a count")))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Amount, E> {
                u32::try_from(value).map(Amount::Count).map_err(|_| E::custom(format!("{value} is not a count")))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
                let wrong = || E::custom(format!("{text:?} is neither a whole number nor a share such as \"25%\""));
                match text.strip_suffix('%') {
                    Some(percent) => {
                        let percent = percent.parse().map_err(|_| wrong())?;
                        Weight::from_percent(percent).map(Amount::Share).map_err(E::custom)
                    }
                    None => text.parse().map(Amount::Count).map_err(|_| wrong()),
                }
            }
        }
        deserializer.deserialize_any(CountOrShare)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "maxLength": 16,
            "pattern": "^([0-9]+|(100([.]0*)?|[0-9]{1,2}([.][0-9]{0,4})?|[.][0-9]{1,4})%)$",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn shares_round_up_and_counts_stay() {
        let share: Amount = serde_json::from_str("\"25%\"").unwrap();
        assert_eq!([share.of(0), share.of(1), share.of(4), share.of(5)], [0, 1, 1, 2]);
        assert_eq!(serde_json::from_str::<Amount>("3").unwrap().of(1), 3);
        for bad in ["-1", "\"x\"", "\"101%\"", "1.5", "{}"] {
            assert!(serde_json::from_str::<Amount>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&share).unwrap(), "\"25%\"");
    }
}
