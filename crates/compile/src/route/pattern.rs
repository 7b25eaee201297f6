//! `exact`, `prefix` and `regex` of Istio as Envoy's matchers.

use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use world::api::istio::StringMatch;

use super::regex;

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

    /// The same as a matcher; `None` for presence, which has no matcher of its own.
    pub(super) fn matcher(&self) -> Option<StringMatcher> {
        let pattern = match self {
            Pattern::Present => return None,
            Pattern::Exact(text) => MatchPattern::Exact((*text).to_owned()),
            Pattern::Prefix(text) => MatchPattern::Prefix((*text).to_owned()),
            Pattern::Regex(text) => MatchPattern::SafeRegex(regex_matcher(text)),
        };
        Some(StringMatcher { match_pattern: Some(pattern), ignore_case: false })
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

/// A checked expression in Envoy's words.
pub(super) fn regex_matcher(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), engine_type: None }
}
