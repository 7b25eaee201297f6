//! Messages without their secrets.

use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use super::{MAX_DEPTH, REDACTED, message_of};
use crate::wire::{self, Message};

/// The same message, all texts and bytes in sensitive fields replaced by `[redacted]` and all numbers in them left out.
///
/// What cannot be decoded may hold anything, so it becomes empty: the whole message, or the value of a nested `Any`. So do unknown
/// fields. For a view as JSON, [`to_redacted_json`](super::to_redacted_json) is easier to read.
pub fn redact(type_url: &str, bytes: &[u8]) -> Vec<u8> {
    redacted(type_url, bytes, MAX_DEPTH)
}

fn redacted(type_url: &str, bytes: &[u8], depth: u32) -> Vec<u8> {
    let Some(descriptor) = message_of(type_url).filter(|_| depth > 0) else { return Vec::new() };
    let name = descriptor.full_name().to_owned();
    let Ok(mut message) = DynamicMessage::decode(descriptor, bytes) else { return Vec::new() };
    clean(&mut message, depth - 1);
    let bytes = message.encode_to_vec();
    Message::of(&name).map_or_else(Vec::new, |m| m.canonicalized(bytes))
}

/// Redacts sensitive fields.
fn clean(message: &mut DynamicMessage, depth: u32) {
    message.take_unknown_fields().for_each(drop);
    let descriptor = message.descriptor();
    if descriptor.full_name() == "google.protobuf.Any" {
        return clean_any(message, depth);
    }
    for (field, value) in message.fields_mut() {
        if wire::is_sensitive(&descriptor, field.number()) {
            blank(value);
        } else {
            each_message(value, &mut |inner| {
                if depth > 0 {
                    clean(inner, depth - 1);
                } else {
                    *inner = DynamicMessage::new(inner.descriptor());
                }
            });
        }
    }
}

fn clean_any(any: &mut DynamicMessage, depth: u32) {
    let type_url = any.get_field_by_name("type_url").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    let value = any.get_field_by_name("value").and_then(|v| v.as_bytes().cloned()).unwrap_or_default();
    let value = redacted(&type_url, &value, depth);
    any.set_field_by_name("value", Value::Bytes(value.into()));
}

/// Applies `change` to the messages that are this value or that lie directly in it.
fn each_message(value: &mut Value, change: &mut impl FnMut(&mut DynamicMessage)) {
    match value {
        Value::Message(message) => change(message),
        Value::List(items) => items.iter_mut().for_each(|item| each_message(item, change)),
        Value::Map(entries) => entries.values_mut().for_each(|held| each_message(held, change)),
        Value::Bool(_)
        | Value::I32(_)
        | Value::I64(_)
        | Value::U32(_)
        | Value::U64(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::EnumNumber(_) => {}
    }
}

/// Replaces everything in a value.
fn blank(value: &mut Value) {
    match value {
        Value::String(text) => *text = REDACTED.to_owned(),
        Value::Bytes(bytes) => *bytes = REDACTED.as_bytes().into(),
        Value::Bool(v) => *v = false,
        Value::I32(v) | Value::EnumNumber(v) => *v = 0,
        Value::I64(v) => *v = 0,
        Value::U32(v) => *v = 0,
        Value::U64(v) => *v = 0,
        Value::F32(v) => *v = 0.0,
        Value::F64(v) => *v = 0.0,
        Value::List(items) => items.iter_mut().for_each(blank),
        Value::Map(entries) => entries.values_mut().for_each(blank),
        Value::Message(message) => {
            message.take_unknown_fields().for_each(drop);
            if message.descriptor().full_name() == "google.protobuf.Any" {
                return message.clear_field_by_name("value");
            }
            message.fields_mut().for_each(|(_, inner)| blank(inner));
        }
    }
}
