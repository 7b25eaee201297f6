//! A share of something, written as `10%`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A share between nothing and all.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// 0%.
    pub const NONE: Self = Self(0.0);
    /// 100%.
    pub const ALL: Self = Self(1.0);

    /// Between 0 and 1.
    pub fn fraction(self) -> f64 {
        self.0
    }

    /// So many of `total`, rounded to the nearest; at least one unless the share is nothing.
    pub fn of(self, total: usize) -> usize {
        let exact = (self.0 * total as f64).round() as usize;
        if self.0 > 0.0 { exact.clamp(1.min(total), total) } else { 0 }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("\"{text}\" is no share such as 10%, from 0% to 100%");
        let number = text.strip_suffix('%').ok_or_else(error)?;
        let percent: f64 = number.trim().parse().map_err(|_| error())?;
        if (0.0..=100.0).contains(&percent) { Ok(Self(percent / 100.0)) } else { Err(error()) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0 * 100.0)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn shares_are_percentages() {
        let share: Share = "2.5%".parse().unwrap();
        assert_eq!((share.of(1000), share.of(10), share.of(0)), (25, 1, 0));
        assert_eq!(share.to_string(), "2.5%");
        assert_eq!((Share::NONE.of(9), Share::ALL.of(9)), (0, 9));
        for wrong in ["10", "101%", "-1%", "many%", "%"] {
            assert!(wrong.parse::<Share>().unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
