//! Rules for strings.

use regex::Regex;

use super::form::Form;
use super::{Broken, quoted};
use crate::pb::validate::string_rules::WellKnown;
use crate::pb::validate::{KnownRegex, StringRules};

/// `validate.StringRules`. Lengths count characters, `bytes` count bytes.
pub(in super::super) struct TextRule {
    ignore_empty: bool,
    min_len: u64,
    max_len: u64,
    min_bytes: u64,
    max_bytes: u64,
    /// Most rules are about lengths only.
    content: Option<Box<Content>>,
}

/// What a text has to be, apart from its length.
struct Content {
    constant: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    contains: Option<String>,
    not_contains: Option<String>,
    any_of: Box<[String]>,
    none_of: Box<[String]>,
    form: Option<Form>,
    pattern: Option<Regex>,
}

impl TextRule {
    pub(super) fn of(rules: &StringRules) -> Self {
        Self {
            ignore_empty: rules.ignore_empty(),
            min_len: rules.len.unwrap_or(rules.min_len()),
            max_len: rules.len.or(rules.max_len).unwrap_or(u64::MAX),
            min_bytes: rules.len_bytes.unwrap_or(rules.min_bytes()),
            max_bytes: rules.len_bytes.or(rules.max_bytes).unwrap_or(u64::MAX),
            content: Content::of(rules).map(Box::new),
        }
    }

    /// Checks one value.
    #[inline]
    pub(super) fn check(&self, text: &str) -> Option<Broken> {
        if self.ignore_empty && text.is_empty() {
            return None;
        }
        let broken = self.broken_length(text).or_else(|| self.content.as_ref()?.broken(text));
        broken.map(|rule| Broken { rule: format!("string.{rule}"), value: quoted(text) })
    }

    #[inline]
    fn broken_length(&self, text: &str) -> Option<String> {
        let bytes = text.len() as u64;
        let characters = || text.chars().count() as u64;
        // There are never more characters than bytes, and never less than one for four bytes.
        if bytes < self.min_len || (bytes < self.min_len.saturating_mul(4) && characters() < self.min_len) {
            return Some(format!("min_len = {}", self.min_len));
        }
        if bytes > self.max_len && characters() > self.max_len {
            return Some(format!("max_len = {}", self.max_len));
        }
        if bytes < self.min_bytes {
            return Some(format!("min_bytes = {}", self.min_bytes));
        }
        if bytes > self.max_bytes {
            return Some(format!("max_bytes = {}", self.max_bytes));
        }
        None
    }
}

impl Content {
    /// `None` when the rules are about lengths only.
    fn of(rules: &StringRules) -> Option<Self> {
        let form = rules.well_known.as_ref().and_then(|w| form(w, rules.strict()));
        let parts =
            [&rules.r#const, &rules.prefix, &rules.suffix, &rules.contains, &rules.not_contains, &rules.pattern];
        let lists = [&rules.r#in, &rules.not_in];
        if form.is_none() && parts.iter().all(|p| p.is_none()) && lists.iter().all(|l| l.is_empty()) {
            return None;
        }
        let compile =
            |p: &String| Regex::new(p).expect("the patterns are those of the pinned API; a test compiles them all");
        Some(Self {
            constant: rules.r#const.clone(),
            prefix: rules.prefix.clone(),
            suffix: rules.suffix.clone(),
            contains: rules.contains.clone(),
            not_contains: rules.not_contains.clone(),
            any_of: rules.r#in.clone().into(),
            none_of: rules.not_in.clone().into(),
            form,
            pattern: rules.pattern.as_ref().map(compile),
        })
    }

    fn broken(&self, text: &str) -> Option<String> {
        if let Some(form) = self.form.filter(|form| !form.fits(text)) {
            return Some(form.name().to_owned());
        }
        if let Some(wanted) = self.constant.as_deref().filter(|c| *c != text) {
            return Some(format!("const = {wanted:?}"));
        }
        if let Some(prefix) = self.prefix.as_deref().filter(|p| !text.starts_with(p)) {
            return Some(format!("prefix = {prefix:?}"));
        }
        if let Some(suffix) = self.suffix.as_deref().filter(|s| !text.ends_with(s)) {
            return Some(format!("suffix = {suffix:?}"));
        }
        if let Some(part) = self.contains.as_deref().filter(|p| !text.contains(p)) {
            return Some(format!("contains = {part:?}"));
        }
        if let Some(part) = self.not_contains.as_deref().filter(|p| text.contains(p)) {
            return Some(format!("not_contains = {part:?}"));
        }
        if !self.any_of.is_empty() && !self.any_of.iter().any(|v| v == text) {
            return Some(format!("in = {:?}", self.any_of));
        }
        if self.none_of.iter().any(|v| v == text) {
            return Some(format!("not_in = {:?}", self.none_of));
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|p| !p.is_match(text)) {
            return Some(format!("pattern = {:?}", pattern.as_str()));
        }
        None
    }
}

/// The well-known form that a rule asks for. `strict` concerns headers only.
fn form(rule: &WellKnown, strict: bool) -> Option<Form> {
    let (form, asked) = match *rule {
        WellKnown::Email(asked) => (Form::Email, asked),
        WellKnown::Hostname(asked) => (Form::Hostname, asked),
        WellKnown::Ip(asked) => (Form::Ip, asked),
        WellKnown::Ipv4(asked) => (Form::Ipv4, asked),
        WellKnown::Ipv6(asked) => (Form::Ipv6, asked),
        WellKnown::Uri(asked) => (Form::Uri, asked),
        WellKnown::UriRef(asked) => (Form::UriRef, asked),
        WellKnown::Address(asked) => (Form::Address, asked),
        WellKnown::Uuid(asked) => (Form::Uuid, asked),
        WellKnown::WellKnownRegex(regex) => match KnownRegex::try_from(regex) {
            Ok(KnownRegex::HttpHeaderName) if strict => (Form::HeaderName, true),
            Ok(KnownRegex::HttpHeaderValue) if strict => (Form::HeaderValue, true),
            Ok(KnownRegex::HttpHeaderName | KnownRegex::HttpHeaderValue) => (Form::OneLine, true),
            Ok(KnownRegex::Unknown) | Err(_) => return None,
        },
    };
    asked.then_some(form)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn broken(rules: &StringRules, text: &str) -> Option<String> {
        TextRule::of(rules).check(text).map(|b| b.rule)
    }

    #[test]
    fn lengths_count_characters_and_bytes_count_bytes() {
        let rules = StringRules { min_len: Some(2), max_len: Some(3), ..Default::default() };
        assert_eq!(broken(&rules, "é").unwrap(), "string.min_len = 2");
        assert_eq!(broken(&rules, "ééé"), None);
        assert_eq!(broken(&rules, "éééé").unwrap(), "string.max_len = 3");
        let rules = StringRules { min_bytes: Some(2), max_bytes: Some(3), ..Default::default() };
        assert_eq!(broken(&rules, "é"), None);
        assert_eq!(broken(&rules, "e").unwrap(), "string.min_bytes = 2");
        assert_eq!(broken(&rules, "éé").unwrap(), "string.max_bytes = 3");
        assert_eq!(broken(&StringRules { len: Some(1), ..Default::default() }, "é"), None);
        assert!(broken(&StringRules { len_bytes: Some(1), ..Default::default() }, "é").is_some());
    }

    #[test]
    fn parts_and_lists_are_compared() {
        let part = |set: fn(&mut StringRules)| {
            let mut rules = StringRules::default();
            set(&mut rules);
            rules
        };
        let prefix = part(|r| r.prefix = Some("ab".into()));
        assert_eq!((broken(&prefix, "abc"), broken(&prefix, "b").is_some()), (None, true));
        let suffix = part(|r| r.suffix = Some("ab".into()));
        assert_eq!((broken(&suffix, "cab"), broken(&suffix, "abc").is_some()), (None, true));
        let contains = part(|r| r.contains = Some("ab".into()));
        assert_eq!((broken(&contains, "cabd"), broken(&contains, "acb").is_some()), (None, true));
        let without = part(|r| r.not_contains = Some("ab".into()));
        assert_eq!((broken(&without, "acb"), broken(&without, "cab").is_some()), (None, true));
        let any_of = part(|r| r.r#in = vec!["a".into(), "b".into()]);
        assert_eq!((broken(&any_of, "b"), broken(&any_of, "c").is_some()), (None, true));
        let none_of = part(|r| r.not_in = vec!["a".into()]);
        assert_eq!((broken(&none_of, "b"), broken(&none_of, "a").is_some()), (None, true));
        let constant = part(|r| r.r#const = Some("a".into()));
        assert_eq!((broken(&constant, "a"), broken(&constant, "").is_some()), (None, true));
        let pattern = part(|r| r.pattern = Some("^[a-z]*$".into()));
        assert_eq!((broken(&pattern, "abc"), broken(&pattern, "aBc").is_some()), (None, true));
    }

    #[test]
    fn an_ignored_empty_text_passes() {
        let rules = StringRules { min_len: Some(2), ignore_empty: Some(true), ..Default::default() };
        assert_eq!((broken(&rules, ""), broken(&rules, "a").is_some()), (None, true));
    }
}
