//! From a derived JSON schema to the structural form that an API server asks for.
//!
//! Structural means that types, properties and items stand outside of every `anyOf` and `oneOf`, and once. A value of
//! null is not a type of its own there: an API server drops nulls before it looks, as the reader here takes them as
//! absent.

use serde_json::{Map, Value, json};

/// Rewrites `schema` and everything below it.
pub(super) fn rewrite(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for name in ["$schema", "title", "nullable"] {
        fields.shift_remove(name);
    }
    unwrap_alternatives(fields);
    words(fields);
    unsigned(fields);
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(rewrite);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(below) = fields.get_mut(name) {
            rewrite(below);
        }
    }
    requirements(fields);
}

/// `anyOf: [x, null]` and `allOf: [x]` are `x`; what stands beside them counts more than what `x` says.
fn unwrap_alternatives(fields: &mut Map<String, Value>) {
    if fields.contains_key("x-kubernetes-int-or-string") {
        return;
    }
    for name in ["anyOf", "allOf"] {
        let Some(Value::Array(mut alternatives)) = fields.shift_remove(name) else { continue };
        alternatives.retain(|one| *one != json!({"type": "null"}) && *one != json!({"enum": [null], "nullable": true}));
        if let [Value::Object(only)] = alternatives.as_mut_slice() {
            for (key, value) in std::mem::take(only) {
                fields.entry(key).or_insert(value);
            }
            fields.shift_remove("nullable");
        }
    }
}

/// Words with a description each become words, and their descriptions a list in the description of the whole.
fn words(fields: &mut Map<String, Value>) {
    if let Some(Value::Array(words)) = fields.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    let Some(Value::Array(alternatives)) = fields.shift_remove("oneOf") else { return };
    let mut known = Vec::new();
    let mut meanings = Vec::new();
    for alternative in &alternatives {
        let description = alternative.get("description").and_then(Value::as_str);
        let words = alternative.get("enum").and_then(Value::as_array);
        for word in words.into_iter().flatten().chain(alternative.get("const")) {
            let text = word.as_str().unwrap_or_default();
            meanings.extend(description.map(|meaning| format!("{text}: {meaning}")));
            known.push(word.clone());
        }
    }
    let lead = fields.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    let all = [lead].into_iter().filter(|lead| !lead.is_empty()).chain(meanings).collect::<Vec<_>>();
    fields.insert("type".to_owned(), json!("string"));
    fields.insert("description".to_owned(), json!(all.join(" ")));
    fields.insert("enum".to_owned(), Value::Array(known));
}

/// Formats that an API server does not know become bounds.
fn unsigned(fields: &mut Map<String, Value>) {
    let largest = match fields.get("format").and_then(Value::as_str) {
        Some("uint8") => u64::from(u8::MAX),
        Some("uint16") => u64::from(u16::MAX),
        Some("uint32") => u64::from(u32::MAX),
        Some("uint64") => {
            fields.insert("format".to_owned(), json!("int64"));
            return;
        }
        _ => return,
    };
    fields.shift_remove("format");
    fields.entry("maximum").or_insert(json!(largest));
}

/// A default that would be refused itself is none: its field has to be given.
fn requirements(fields: &mut Map<String, Value>) {
    let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let mut required = Vec::new();
    for (name, property) in properties {
        // Absent is not a value to be filled in.
        if property.get("default") == Some(&Value::Null)
            && let Some(property) = property.as_object_mut()
        {
            property.shift_remove("default");
        }
        let is_refused = property.get("default").is_some_and(|default| !may_be(property, default));
        // An empty text says as much as none. API servers before Kubernetes 1.21 take it for null, and refuse the schema.
        let is_empty = !is_refused && property.get("default").is_some_and(|default| default == "");
        if is_empty && let Some(property) = property.as_object_mut() {
            property.shift_remove("default");
        }
        if is_refused && let Some(property) = property.as_object_mut() {
            property.shift_remove("default");
            required.push(json!(name));
        }
    }
    if !required.is_empty() {
        fields.insert("required".to_owned(), Value::Array(required));
    }
}

/// Whether the default `value` of a type passes its schema: nothing is given where something is needed otherwise.
fn may_be(schema: &Value, value: &Value) -> bool {
    let least = |name: &str| schema.get(name).and_then(Value::as_u64).unwrap_or(0);
    match value {
        Value::String(text) => !text.is_empty() || (least("minLength") == 0 && schema.get("pattern").is_none()),
        Value::Array(items) => items.len() as u64 >= least("minItems"),
        Value::Object(given) => {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            let is_missing = |name: &Value| {
                // What is required further down had its default taken away for being refused.
                name.as_str().is_some_and(|name| {
                    match (given.get(name), schema.pointer(&format!("/properties/{name}"))) {
                        (Some(value), Some(schema)) => !may_be(schema, value),
                        _ => true,
                    }
                })
            };
            !required.into_iter().any(is_missing)
        }
        Value::Number(number) => number.as_u64().is_none_or(|number| number >= least("minimum")),
        Value::Null | Value::Bool(_) => true,
    }
}
