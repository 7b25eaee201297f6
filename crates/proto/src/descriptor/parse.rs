//! Messages from JSON and YAML.

use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage};
use serde::Deserializer;
use serde_json::Value;
use serde_path_to_error::Track;

use crate::wire::Message;

/// Why JSON or YAML is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJson {
    /// The type of the message is not known.
    #[error("the message type \"{0}\" is not known")]
    UnknownType(String),
    /// A value does not fit.
    #[error("{path}: {reason}")]
    Value {
        /// Where, such as `filter_chains[0].filters[0].typed_config.stat_prefix`; `.` for the message as a whole.
        path: String,
        /// What is wrong, in the words of the deserializer; with the line where that knows it.
        reason: String,
    },
}

/// Encodes the message of `type_url` (or of a bare full name) that `value` describes. The bytes are canonical.
///
/// Fields may have their `.proto` or their camel-case names. Nested `Any`s are written with `@type`.
///
/// # Errors
/// Unknown fields, unknown types and values that do not fit, each with its path. The author of the JSON has to mend it.
pub fn from_json(type_url: &str, value: &Value) -> Result<Vec<u8>, InvalidJson> {
    from_deserializer(type_url, value)
}

/// [`from_json`] from any self-describing format, such as YAML.
///
/// # Errors
/// As [`from_json`].
pub fn from_deserializer<'de, D: Deserializer<'de>>(type_url: &str, deserializer: D) -> Result<Vec<u8>, InvalidJson> {
    let unknown = || InvalidJson::UnknownType(type_url.to_owned());
    let descriptor = super::message_of(type_url).ok_or_else(unknown)?;
    let message = Message::of(descriptor.full_name()).ok_or_else(unknown)?;
    let mut track = Track::new();
    let tracked = serde_path_to_error::Deserializer::new(deserializer, &mut track);
    match DynamicMessage::deserialize_with_options(descriptor, tracked, &DeserializeOptions::new()) {
        // Dynamic messages, too, write maps in random order.
        Ok(dynamic) => Ok(message.canonicalized(dynamic.encode_to_vec())),
        Err(e) => Err(InvalidJson::Value { path: track.path().to_string(), reason: e.to_string() }),
    }
}
