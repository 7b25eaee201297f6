//! Messages as JSON.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::Value as Held;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, SerializeOptions,
};
use serde_json::{Map, Value};

use super::REDACTED;
use crate::wire;

/// Whether sensitive values are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    Shown,
    Redacted,
}

/// What an `Any` of this type URL holds, as JSON with `@type`.
pub(super) fn any(type_url: &str, bytes: &[u8], secrets: Secrets, depth: u32) -> Value {
    let message = super::message_of(type_url).and_then(|m| DynamicMessage::decode(m, bytes).ok());
    let mut object = Map::new();
    object.insert("@type".to_owned(), type_url.into());
    match message {
        Some(message) if depth > 0 => match message_value(&message, secrets, depth - 1) {
            Value::Object(fields) if !has_own_form(&message.descriptor()) => object.extend(fields),
            value => {
                object.insert("value".to_owned(), value);
            }
        },
        _ => {
            let value = match secrets {
                Secrets::Shown => BASE64_STANDARD.encode(bytes),
                Secrets::Redacted => REDACTED.to_owned(),
            };
            object.insert("value".to_owned(), value.into());
        }
    }
    Value::Object(object)
}

/// Messages that the JSON form of protobuf does not write as objects of their fields.
fn has_own_form(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
        && matches!(
            message.name(),
            "Any"
                | "Timestamp"
                | "Duration"
                | "Struct"
                | "Value"
                | "ListValue"
                | "FieldMask"
                | "Empty"
                | "BoolValue"
                | "Int32Value"
                | "Int64Value"
                | "UInt32Value"
                | "UInt64Value"
                | "FloatValue"
                | "DoubleValue"
                | "StringValue"
                | "BytesValue"
        )
}

fn message_value(message: &DynamicMessage, secrets: Secrets, depth: u32) -> Value {
    let descriptor = message.descriptor();
    if descriptor.full_name() == "google.protobuf.Any" {
        let text = message.get_field_by_name("type_url");
        let bytes = message.get_field_by_name("value");
        let type_url = text.as_deref().and_then(Held::as_str).unwrap_or_default();
        let value = bytes.as_deref().and_then(Held::as_bytes).map(|b| b.as_ref()).unwrap_or_default();
        return any(type_url, value, secrets, depth);
    }
    if has_own_form(&descriptor) {
        // Fails for values out of range, such as a duration of more than ten thousand years: those are shown by their fields.
        let options = SerializeOptions::new().stringify_64_bit_integers(true);
        if let Ok(value) = message.serialize_with_options(serde_json::value::Serializer, &options) {
            return value;
        }
    }
    let fields = message.fields().map(|(field, held)| {
        let value = match secrets {
            Secrets::Redacted if wire::is_sensitive(&descriptor, field.number()) => REDACTED.into(),
            Secrets::Redacted | Secrets::Shown => field_value(&field, held, secrets, depth),
        };
        (field.name().to_owned(), value)
    });
    Value::Object(fields.collect())
}

fn field_value(field: &FieldDescriptor, held: &Held, secrets: Secrets, depth: u32) -> Value {
    match held {
        Held::List(items) => items.iter().map(|item| value(&field.kind(), item, secrets, depth)).collect(),
        Held::Map(entries) => {
            let kind = match field.kind() {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                kind => kind,
            };
            let mut entries: Vec<_> = entries.iter().map(|(key, held)| (key_text(key), held)).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().map(|(key, held)| (key, value(&kind, held, secrets, depth))).collect())
        }
        single => value(&field.kind(), single, secrets, depth),
    }
}

fn value(kind: &Kind, held: &Held, secrets: Secrets, depth: u32) -> Value {
    match held {
        Held::Bool(v) => (*v).into(),
        Held::I32(v) => (*v).into(),
        Held::U32(v) => (*v).into(),
        // 64-bit numbers are strings in the JSON form of protobuf: JavaScript would round them.
        Held::I64(v) => v.to_string().into(),
        Held::U64(v) => v.to_string().into(),
        // Through the shortest decimal text, so that 0.1 is shown as 0.1 and not as the nearest double of the nearest float.
        Held::F32(v) => float(v.to_string().parse().unwrap_or_else(|_| f64::from(*v))),
        Held::F64(v) => float(*v),
        Held::String(v) => v.as_str().into(),
        Held::Bytes(v) => BASE64_STANDARD.encode(v).into(),
        Held::EnumNumber(number) => match kind {
            Kind::Enum(described) => match described.get_value(*number) {
                Some(value) => value.name().into(),
                None => (*number).into(),
            },
            _ => (*number).into(),
        },
        Held::Message(message) if depth > 0 => message_value(message, secrets, depth - 1),
        Held::Message(_) => "[nested too deeply]".into(),
        // Lists and maps are fields, never values within fields.
        Held::List(_) | Held::Map(_) => Value::Null,
    }
}

fn float(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(v) => v.to_string(),
        MapKey::I32(v) => v.to_string(),
        MapKey::I64(v) => v.to_string(),
        MapKey::U32(v) => v.to_string(),
        MapKey::U64(v) => v.to_string(),
        MapKey::String(v) => v.clone(),
    }
}
