//! `match[]` of deployment intents.

use world::api::delivery::{FieldMatch, RequestMatch};

use super::Findings;
use super::{names, pattern};

/// Alternatives at `field`; an empty list is the caller's to judge.
pub(super) fn request_matches(field: &str, matches: &[RequestMatch], findings: &mut Findings) {
    for (at, condition) in matches.iter().enumerate() {
        let field = format!("{field}[{at}]");
        if *condition == RequestMatch::default() {
            findings
                .error(&field, "the match is empty, and would take every request")
                .hint("Give header, cookie, query, method, path or sourceLabels.");
        }
        if let Some(header) = &condition.header {
            let field = format!("{field}.header");
            names::header(&format!("{field}.name"), &header.name, findings);
            lower_case(&field, header, findings);
            one_matcher(&field, header, findings);
        }
        if let Some(cookie) = &condition.cookie {
            let field = format!("{field}.cookie");
            cookie_name(&format!("{field}.name"), &cookie.name, findings);
            if cookie.prefix.is_some() || cookie.suffix.is_some() || cookie.present.is_some() {
                findings.error(&field, "a cookie is compared by exact or regex").hint("Write the rest as a regex.");
            } else {
                one_matcher(&field, cookie, findings);
            }
        }
        if let Some(query) = &condition.query {
            let field = format!("{field}.query");
            if query.name.is_empty() {
                findings.error(format_args!("{field}.name"), "the query parameter has no name");
            }
            one_matcher(&field, query, findings);
        }
        if let Some(path) = &condition.path {
            let field = format!("{field}.path");
            if !path.name.is_empty() {
                findings.error(format_args!("{field}.name"), "a path has no name").hint("Remove the name.");
            }
            one_matcher(&field, path, findings);
        }
        if let Some(method) = &condition.method
            && (method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()))
        {
            findings.error(format_args!("{field}.method"), format!("{method:?} is not a method")).hint("Write GET.");
        }
    }
}

/// Envoy compares names of headers in lower case.
fn lower_case(field: &str, header: &FieldMatch, findings: &mut Findings) {
    if header.name.bytes().any(|b| b.is_ascii_uppercase()) {
        let hint = format!("Write {}.", header.name.to_ascii_lowercase());
        findings.error(format_args!("{field}.name"), format!("{:?} is not in lower case", header.name)).hint(hint);
    }
}

fn one_matcher(field: &str, value: &FieldMatch, findings: &mut Findings) {
    if value.matchers() != 1 {
        let message = match value.matchers() {
            0 => "nothing says how it is compared",
            _ => "more than one of exact, prefix, suffix, regex and present is given",
        };
        findings.error(field, message).hint("Keep exactly one; write several entries under match for alternatives.");
    }
    if let Some(regex) = &value.regex {
        pattern::regex(&format!("{field}.regex"), regex, findings);
    }
}

/// A token, as RFC 6265 wants of a cookie's name.
pub(super) fn cookie_name(field: &str, name: &str, findings: &mut Findings) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        findings.error(field, format!("{name:?} is not a cookie's name")).hint("Use letters, digits, '-' and '_'.");
    }
}
