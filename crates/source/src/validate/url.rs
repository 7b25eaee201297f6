//! Addresses of HTTP.

use std::sync::LazyLock;

use regex::Regex;
use world::api::delivery::URL;

use super::Findings;

static FORM: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(URL).expect("the pattern of URLs is a constant that the tests compile"));

/// An address with either scheme.
pub(super) fn http(field: &str, text: &str, findings: &mut Findings) {
    if !FORM.is_match(text) {
        findings
            .error(field, format!("{text:?} is not an http or https URL"))
            .hint("Write https://host/path; a blank is %20 in it.");
    }
}

/// Who decides must not be imitated on the way.
pub(super) fn https(field: &str, text: &str, findings: &mut Findings) {
    if !text.starts_with("https://") || !FORM.is_match(text) {
        findings
            .error(field, format!("{text:?} is not an https URL"))
            .hint("Use https://, or set insecure: true on a gate of spec.gates; a blank is %20 in it.");
    }
}
