//! `exact`, `prefix` and `regex` of Istio as Envoy's matchers.

use world::api::istio::StringMatch;

use super::regex;
use crate::flat;

/// What a value must be like. Regular expressions are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern<'a> {
    /// Anything, as long as it is there.
    Present,
    /// This.
    Exact(&'a str),
    /// It begins with this, which is not empty.
    Prefix(&'a str),
    /// The whole of it matches this.
    Regex(&'a str),
}

impl<'a> Pattern<'a> {
    /// Reads a match; none, an empty one, and an expression that everything matches (`*` is Istio's way to say it in
    /// headers) ask for presence.
    ///
    /// An expression may compile to at most `most_instructions`.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub(super) fn read(text: Option<&'a StringMatch>, most_instructions: u32) -> Result<Self, String> {
        let Some(text) = text else { return Ok(Pattern::Present) };
        match (&text.exact, &text.prefix, &text.regex) {
            (None, None, None) => Ok(Pattern::Present),
            (Some(exact), None, None) => Ok(Pattern::Exact(exact)),
            (None, Some(prefix), None) if prefix.is_empty() => Ok(Pattern::Present),
            (None, Some(prefix), None) => Ok(Pattern::Prefix(prefix)),
            (None, None, Some(all)) if matches!(all.as_str(), "*" | ".*") => Ok(Pattern::Present),
            (None, None, Some(pattern)) => match regex::check(pattern, most_instructions) {
                Ok(_) => Ok(Pattern::Regex(pattern)),
                Err(why) => Err(format!("invalid regular expression \"{pattern}\": {why}")),
            },
            _ => Err("only one of exact, prefix and regex can be given".to_owned()),
        }
    }

    /// Writes the same as a `StringMatcher` (exact 1, prefix 2, safe_regex 5); nothing for presence, which has no
    /// matcher of its own.
    pub(super) fn write(&self, out: &mut Vec<u8>, field: u32) {
        match self {
            Pattern::Present => {}
            Pattern::Exact(text) => flat::message(out, field, |out| flat::bytes(out, 1, text.as_bytes())),
            Pattern::Prefix(text) => flat::message(out, field, |out| flat::bytes(out, 2, text.as_bytes())),
            Pattern::Regex(text) => flat::message(out, field, |out| write_regex(out, 5, &[text])),
        }
    }

    /// Whether `text` is like that, for what is decided here and not in the client.
    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Present => true,
            Pattern::Exact(exact) => text == *exact,
            Pattern::Prefix(prefix) => text.starts_with(prefix),
            Pattern::Regex(pattern) => regex::check(pattern, u32::MAX).is_ok_and(|checked| checked.is_match(text)),
        }
    }
}

/// Writes a checked expression, given in pieces, as a `RegexMatcher`, whose `regex` is 2.
pub(super) fn write_regex(out: &mut Vec<u8>, field: u32, pattern: &[&str]) {
    flat::message(out, field, |out| flat::pieces(out, 2, pattern));
}
