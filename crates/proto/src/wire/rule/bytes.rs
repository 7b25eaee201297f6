//! Rules for bytes.

use regex::bytes::Regex;

use super::Broken;
use crate::pb::validate::BytesRules;
use crate::pb::validate::bytes_rules::WellKnown;

/// `validate.BytesRules`.
pub(in super::super) struct BytesRule {
    rules: BytesRules,
    pattern: Option<Regex>,
}

impl BytesRule {
    pub(super) fn of(rules: &BytesRules) -> Self {
        let pattern = rules
            .pattern
            .as_ref()
            .map(|p| Regex::new(p).expect("the patterns are those of the pinned API; a test compiles them all"));
        Self { rules: rules.clone(), pattern }
    }

    /// Checks one value. Violations show its length only: bytes are often keys.
    pub(super) fn check(&self, bytes: &[u8]) -> Option<Broken> {
        if self.rules.ignore_empty() && bytes.is_empty() {
            return None;
        }
        let rule = self.first_broken(bytes)?;
        Some(Broken { rule: format!("bytes.{rule}"), value: format!("{} bytes", bytes.len()) })
    }

    fn first_broken(&self, bytes: &[u8]) -> Option<String> {
        let rules = &self.rules;
        let length = bytes.len() as u64;
        if let Some(len) = rules.len.filter(|&len| length != len) {
            return Some(format!("len = {len}"));
        }
        if length < rules.min_len() {
            return Some(format!("min_len = {}", rules.min_len()));
        }
        if let Some(max) = rules.max_len.filter(|&max| length > max) {
            return Some(format!("max_len = {max}"));
        }
        let broken = [
            ("const", rules.r#const.as_ref().is_none_or(|c| c == bytes)),
            ("prefix", rules.prefix.as_ref().is_none_or(|p| bytes.starts_with(p))),
            ("suffix", rules.suffix.as_ref().is_none_or(|s| bytes.ends_with(s))),
            ("contains", rules.contains.as_ref().is_none_or(|part| contains(bytes, part))),
            ("in", rules.r#in.is_empty() || rules.r#in.iter().any(|v| v == bytes)),
            ("not_in", !rules.not_in.iter().any(|v| v == bytes)),
            ("pattern", self.pattern.as_ref().is_none_or(|p| p.is_match(bytes))),
            (
                "ip",
                match rules.well_known {
                    Some(WellKnown::Ip(true)) => matches!(length, 4 | 16),
                    Some(WellKnown::Ipv4(true)) => length == 4,
                    Some(WellKnown::Ipv6(true)) => length == 16,
                    Some(WellKnown::Ip(false) | WellKnown::Ipv4(false) | WellKnown::Ipv6(false)) | None => true,
                },
            ),
        ];
        broken.into_iter().find(|(_, fits)| !fits).map(|(rule, _)| rule.to_owned())
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|w| w == part)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_rule_is_checked() {
        type Case<'a> = (fn(&mut BytesRules), &'a [u8], &'a [u8]);
        let cases: [Case<'_>; 9] = [
            (|r| r.len = Some(2), b"ab", b"a"),
            (|r| r.min_len = Some(2), b"ab", b"a"),
            (|r| r.max_len = Some(2), b"ab", b"abc"),
            (|r| r.prefix = Some(b"a".to_vec()), b"ab", b"ba"),
            (|r| r.suffix = Some(b"a".to_vec()), b"ba", b"ab"),
            (|r| r.contains = Some(b"ab".to_vec()), b"cabd", b"acb"),
            (|r| r.not_in = vec![b"a".to_vec()], b"b", b"a"),
            (|r| r.pattern = Some("^a+$".to_owned()), b"aa", b"ab"),
            (|r| r.well_known = Some(WellKnown::Ip(true)), &[1; 16], &[1; 5]),
        ];
        for (index, (set, good, bad)) in cases.into_iter().enumerate() {
            let mut rules = BytesRules::default();
            set(&mut rules);
            let rule = BytesRule::of(&rules);
            assert_eq!(rule.check(good), None, "case {index}");
            assert!(rule.check(bad).is_some(), "case {index}");
        }
    }
}
