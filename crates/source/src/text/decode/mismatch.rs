//! What a value should have been and what it is, in words for the author of the manifest.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::super::node::Value;

/// Why a value does not fit, and how to mend it where that is plain.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::text) struct Mismatch {
    pub(in crate::text) message: String,
    /// Empty when there is nothing to suggest.
    pub(in crate::text) hint: String,
}

impl Mismatch {
    pub(super) fn new(expected: &str, found: &str) -> Self {
        Self { message: format!("expected {expected}, found {found}"), hint: String::new() }
    }
}

impl Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: Display>(message: T) -> Self {
        let message = message.to_string();
        // The one untagged type of the API: serde's own words name a Rust type.
        if message.contains("untagged enum IntOrString") {
            return Self { message: "expected a port number or a port name".to_owned(), hint: String::new() };
        }
        Self { message, hint: String::new() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let hint = match (found, expected.as_str()) {
            (Unexpected::Unsigned(value), "a duration such as 30s") => format!("Write the unit, too: {value}s."),
            (Unexpected::Signed(value), "a duration such as 30s") if value >= 0 => {
                format!("Write the unit, too: {value}s.")
            }
            (Unexpected::Float(value), "a duration such as 30s") => format!("Write the unit, too: {value}s."),
            (Unexpected::Bool(value), "a string") => format!("Put it in quotes: \"{value}\"."),
            (Unexpected::Unsigned(value), "a string") => format!("Put it in quotes: \"{value}\"."),
            (Unexpected::Signed(value), "a string") => format!("Put it in quotes: \"{value}\"."),
            (Unexpected::Float(value), "a string") => format!("Put it in quotes, such as \"{value}\"."),
            (Unexpected::Str(text), wanted) if is_number(wanted) && text.parse::<f64>().is_ok() => {
                format!("Remove the quotes: {text}.")
            }
            (Unexpected::Str(text @ ("true" | "false")), "a boolean") => format!("Remove the quotes: {text}."),
            (Unexpected::Str(text), "a sequence") if is_plain(text) => format!("Write a list: [{text}]."),
            (Unexpected::Str(_), "a sequence") => {
                "Write a list: each entry in a line of its own, after a dash.".to_owned()
            }
            _ => String::new(),
        };
        Self { message: format!("expected {}, found {}", in_words(&expected), describe(found)), hint }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(&in_words(&expected.to_string()), &describe(found))
    }

    fn unknown_variant(found: &str, variants: &'static [&'static str]) -> Self {
        Self { message: format!("unknown value {found:?}"), hint: format!("Known: {}.", variants.join(", ")) }
    }
}

/// A short word that needs no quotes in a list, whatever stands around it.
fn is_plain(text: &str) -> bool {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    text.len() <= 60 && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(is_of_word)
}

fn is_number(expected: &str) -> bool {
    matches!(expected, "i32" | "i64" | "u16" | "u32" | "u64" | "f64")
}

/// serde names primitive types as Rust does.
fn in_words(expected: &str) -> String {
    match expected {
        "u16" => "a number from 0 to 65535",
        "u32" => "a number from 0 to 4294967295",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "i64" => "a whole number",
        "u64" => "a whole number from 0 on",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a mapping",
        other if other.starts_with("struct ") => "a mapping",
        other => other,
    }
    .to_owned()
}

fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("the boolean {value}"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        Unexpected::Str(text) => format!("the string {:?}", shortened(text)),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// The first 60 characters: a value is quoted to be recognised, not to be reproduced.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub(super) fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Int(value) => Unexpected::Signed(*value),
        Value::Unsigned(value) => Unexpected::Unsigned(*value),
        Value::Float(value) => Unexpected::Float(*value),
        Value::String(text) => Unexpected::Str(text),
        Value::List(_) => Unexpected::Seq,
        Value::Map(_) => Unexpected::Map,
    }
}
