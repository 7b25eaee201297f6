//! Scalars as they are written in manifests: durations, integers that may be names.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// Reads a Go or protobuf duration: a sequence of decimal numbers with units `h m s ms us ns` (`1h30m`, `0.5s`), or `0`.
///
/// # Errors
/// Says what is wrong with the text; negative durations are refused.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| Err(format!("invalid duration \"{text}\": {why} (examples: 250ms, 5s, 1h30m)"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return wrong("negative");
    }
    let mut rest = text;
    let mut seconds = 0f64;
    if rest.is_empty() {
        return wrong("empty");
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let Ok(number) = rest[..digits].parse::<f64>() else { return wrong("a number is expected") };
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..unit_len] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            "" => return wrong("a unit is missing"),
            _ => return wrong("unknown unit"),
        };
        seconds += number * unit;
        rest = &rest[unit_len..];
    }
    // 315,576,000,000 s is the largest protobuf Duration.
    if !(0.0..=315_576_000_000.0).contains(&seconds) {
        return wrong("out of range");
    }
    Ok(Duration::from_nanos((seconds * 1e9).round() as u64))
}

/// For `#[serde(deserialize_with)]` on an optional duration.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<Written>::deserialize(deserializer)?.map(|Written(span)| span))
}

/// A duration as it is written. What is no text is told as the lack of a unit that it mostly is.
pub(crate) struct Written(pub(crate) Duration);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 30s")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
                parse_duration(text).map(Written).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_and_protobuf_are_read() {
        for (text, millis) in [("5s", 5000), ("0.5s", 500), ("250ms", 250), ("1h30m", 5_400_000), ("0", 0), ("0s", 0)] {
            assert_eq!(parse_duration(text).map(|d| d.as_millis()), Ok(millis), "{text}");
        }
        for text in ["", "5", "-1s", "1x", "s", "1e400s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
