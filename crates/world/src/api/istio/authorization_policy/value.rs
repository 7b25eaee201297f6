//! Values of policies.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// How most values are compared: `*` asks for presence, `abc*` for a prefix, `*abc` for a suffix, all others for equality.
/// A star elsewhere is a star.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueMatch<'a> {
    /// Anything but nothing.
    Present,
    /// It ends with this, which is not empty.
    Suffix(&'a str),
    /// It begins with this, which is not empty.
    Prefix(&'a str),
    /// It is this.
    Exact(&'a str),
}

impl<'a> ValueMatch<'a> {
    /// Reads a value; every text is one.
    pub fn new(text: &'a str) -> Self {
        if text == "*" {
            ValueMatch::Present
        } else if let Some(suffix) = text.strip_prefix('*') {
            ValueMatch::Suffix(suffix)
        } else if let Some(prefix) = text.strip_suffix('*') {
            ValueMatch::Prefix(prefix)
        } else {
            ValueMatch::Exact(text)
        }
    }
}

/// For `#[serde(deserialize_with)]` on a list of texts, of which some look like numbers or truth values and are written
/// without quotes.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = Option::<Vec<Text>>::deserialize(deserializer)?;
    Ok(texts.unwrap_or_default().into_iter().map(|text| text.0).collect())
}

struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyScalar;

        impl Visitor<'_> for AnyScalar {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_bool<E: Error>(self, truth: bool) -> Result<Text, E> {
                Ok(Text(truth.to_string()))
            }
        }

        deserializer.deserialize_any(AnyScalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_at_the_ends_leave_the_rest_open() {
        assert_eq!(ValueMatch::new("*"), ValueMatch::Present);
        assert_eq!(ValueMatch::new("/a*"), ValueMatch::Prefix("/a"));
        assert_eq!(ValueMatch::new("*/a"), ValueMatch::Suffix("/a"));
        assert_eq!(ValueMatch::new("/a*b"), ValueMatch::Exact("/a*b"));
        assert_eq!(ValueMatch::new("*a*"), ValueMatch::Suffix("a*"));
        assert_eq!(ValueMatch::new("**"), ValueMatch::Suffix("*"));
    }
}
