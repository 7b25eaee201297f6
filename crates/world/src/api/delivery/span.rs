//! Durations as Go writes them, both ways: for `#[serde(with)]`.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer};
use serde::{Serialize, Serializer};

use crate::api::schema;
use crate::text::Written;

/// The largest unit that divides it: `90s`, `10m`, `1500ms`.
fn text(span: Duration) -> String {
    let nanos = span.as_nanos();
    const UNITS: [(u128, &str); 6] = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let unit = UNITS.iter().find(|(size, _)| nanos != 0 && nanos.is_multiple_of(*size));
    unit.map_or_else(|| "0s".to_owned(), |(size, unit)| format!("{}{unit}", nanos / size))
}

/// A duration as it is written. A type, so that the schema follows from the same attribute as the reading.
pub(crate) struct Span;

impl Span {
    pub(crate) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*span))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Written::deserialize(deserializer).map(|Written(span)| span)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::duration()
    }
}

/// The same for a duration that may be absent.
pub(crate) struct OptionalSpan;

impl OptionalSpan {
    pub(crate) fn serialize<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        span.map(text).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        crate::text::duration(deserializer)
    }
}

impl JsonSchema for OptionalSpan {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::duration()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse_duration;

    #[test]
    fn what_is_written_is_read_back() {
        for millis in [0, 1, 999, 1_000, 90_000, 600_000, 3_600_000, 5_400_000] {
            let span = Duration::from_millis(millis);
            assert_eq!(parse_duration(&text(span)), Ok(span), "{}", text(span));
        }
        assert_eq!(text(Duration::from_secs(5_400)), "90m");
        assert_eq!(text(Duration::from_nanos(1_500)), "1500ns");
    }
}
