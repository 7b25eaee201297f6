//! String matches and their regular expressions.

use regex::RegexBuilder;
use world::api::istio::StringMatch;

use super::Findings;

/// A compiled program larger than this is refused: a few hundred kilobytes are already far from any sensible match,
/// and Envoy warns from a program size of 100 on.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// A string match at `field`: one of its forms, and a regex that compiles.
pub(super) fn string_match(field: &str, value: &StringMatch, findings: &mut Findings) {
    let forms = [value.exact.is_some(), value.prefix.is_some(), value.regex.is_some()];
    if forms.iter().filter(|set| **set).count() > 1 {
        findings
            .error(field, "more than one of exact, prefix and regex is given")
            .hint("Keep one; write several entries under match for alternatives.");
    }
    if let Some(pattern) = &value.regex {
        regex(&format!("{field}.regex"), pattern, findings);
    }
}

/// A regular expression. Envoy's dialect is RE2; the one checked here agrees with it but for corners.
pub(super) fn regex(field: &str, pattern: &str, findings: &mut Findings) {
    if pattern.is_empty() {
        findings.error(field, "the regex is empty").hint("Use .* to match every value.");
        return;
    }
    let Err(error) = RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build() else { return };
    let text = error.to_string();
    // The parser draws the pattern and points at the place; the last line says what is wrong.
    let reason = text.lines().last().unwrap_or_default();
    let reason = reason.trim().trim_start_matches("error: ").trim_end_matches('.');
    findings
        .error(field, format!("the regex {pattern:?} does not compile: {reason}"))
        .hint("The syntax is RE2: no look-around, no back-references.");
}
