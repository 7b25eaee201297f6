//! `strategy.blueGreen`: all at once, after a look.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::api::delivery::RequestMatch;
use crate::api::delivery::span::Span;
use crate::api::schema::at_least;

/// `strategy.blueGreen`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BlueGreen {
    /// Who sees the candidate before the switch.
    pub preview: Preview,
    /// Switches by itself once the candidate is ready.
    pub auto_promote: bool,
    /// Waits before it switches.
    #[serde(with = "Span")]
    pub delay: Duration,
    /// All at once, or over some time.
    pub switch: Switch,
    /// Keeps what was stable ready for so long.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = at_least("30s")))]
    pub keep_previous: Duration,
}

impl Default for BlueGreen {
    fn default() -> Self {
        Self {
            preview: Preview::default(),
            auto_promote: true,
            delay: Duration::ZERO,
            switch: Switch::Instant,
            keep_previous: Duration::from_secs(600),
        }
    }
}

/// `blueGreen.preview`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Preview {
    /// Which requests go to the candidate; none when empty.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RequestMatch>,
}

/// `blueGreen.switch`: `Instant`, or `{ramp: 5m}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// In one publication.
    #[default]
    Instant,
    /// In ten even parts over this time.
    Ramp(Duration),
}

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Ramp {
            #[serde(with = "Span")]
            ramp: Duration,
        }
        match self {
            Switch::Instant => serializer.serialize_str("Instant"),
            Switch::Ramp(ramp) => Ramp { ramp: *ramp }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InstantOrRamp;
        impl<'de> Visitor<'de> for InstantOrRamp {
            type Value = Switch;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("Instant, or a mapping such as {ramp: 5m}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Switch, E> {
                match text {
                    "Instant" => Ok(Switch::Instant),
                    _ => Err(E::unknown_variant(text, &["Instant", "{ramp: 5m}"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Switch, A::Error> {
                let mut ramp = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "ramp" {
                        map.next_value::<IgnoredAny>()?;
                        return Err(A::Error::custom(format!("unknown field {key:?}; write Instant or {{ramp: 5m}}")));
                    }
                    let text = map.next_value::<String>()?;
                    ramp = Some(crate::text::parse_duration(&text).map_err(A::Error::custom)?);
                }
                ramp.map(Switch::Ramp).ok_or_else(|| A::Error::missing_field("ramp"))
            }
        }
        deserializer.deserialize_any(InstantOrRamp)
    }
}

/// A word or a mapping: an API server's schema can check the word, and has to let any mapping pass.
impl JsonSchema for Switch {
    fn schema_name() -> Cow<'static, str> {
        "Switch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-preserve-unknown-fields": true, "pattern": "^Instant$"})
    }
}
