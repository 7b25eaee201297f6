//! `RequestAuthentication`.

use std::time::Duration;

use world::api::istio::{JwtRule, RequestAuthentication};
use world::{KeySet, Kind, ObjectRef};

use super::peer_authentication::workload_selector;
use super::{Findings, names};

/// Fetching keys may take so long at most: somebody may wait for it.
const LONGEST: Duration = Duration::from_secs(60);

pub(super) fn request_authentication(spec: &RequestAuthentication, findings: &mut Findings) {
    if let Some(selector) = &spec.selector {
        workload_selector(selector, findings);
    }
    if !spec.target_refs.is_empty() {
        findings
            .error("spec.targetRefs", "policies cannot be attached to objects of the Gateway API yet")
            .hint("Select the workloads by their labels in selector.matchLabels.");
    }
    for (at, rule) in spec.jwt_rules.iter().enumerate() {
        jwt_rule(&format!("spec.jwtRules[{at}]"), rule, findings);
    }
}

/// Whether nothing is wrong with a rule.
pub(crate) fn is_sound(rule: &JwtRule) -> bool {
    // Whose rule it is does not matter.
    let mut findings = Findings::new(&ObjectRef::new(Kind::RequestAuthentication, "", ""));
    jwt_rule("", rule, &mut findings);
    !findings.into_verdict().is_refused
}

fn jwt_rule(field: &str, rule: &JwtRule, findings: &mut Findings) {
    if rule.issuer.is_empty() {
        findings.error(format_args!("{field}.issuer"), "no issuer is named").hint("Name the `iss` of the tokens.");
    }
    keys(field, rule, findings);
    for (at, audience) in rule.audiences.iter().enumerate() {
        filled(&format!("{field}.audiences[{at}]"), audience, findings);
    }
    for (at, from) in rule.from_headers.iter().enumerate() {
        header(&format!("{field}.fromHeaders[{at}].name"), &from.name, findings);
        if from.prefix.contains(['\0', '\r', '\n']) {
            findings.error(format_args!("{field}.fromHeaders[{at}].prefix"), "no header has such a value");
        }
    }
    for (at, parameter) in rule.from_params.iter().enumerate() {
        filled(&format!("{field}.fromParams[{at}]"), parameter, findings);
    }
    for (at, cookie) in rule.from_cookies.iter().enumerate() {
        if !names::is_token(cookie) {
            findings
                .error(format_args!("{field}.fromCookies[{at}]"), format!("{cookie:?} is not the name of a cookie"));
        }
    }
    if !rule.output_payload_to_header.is_empty() {
        header(&format!("{field}.outputPayloadToHeader"), &rule.output_payload_to_header, findings);
    }
    for (at, to) in rule.output_claim_to_headers.iter().enumerate() {
        header(&format!("{field}.outputClaimToHeaders[{at}].header"), &to.header, findings);
        filled(&format!("{field}.outputClaimToHeaders[{at}].claim"), &to.claim, findings);
    }
    for (at, claim) in rule.space_delimited_claims.iter().enumerate() {
        filled(&format!("{field}.spaceDelimitedClaims[{at}]"), claim, findings);
    }
    if rule.timeout.is_some_and(|timeout| timeout.is_zero() || timeout > LONGEST) {
        findings.error(format_args!("{field}.timeout"), "the time is not between 0 and 60s").hint("Write 5s.");
    }
    if rule.forward_original_token {
        return;
    }
    if !rule.from_cookies.is_empty() {
        findings.warning(
            format_args!("{field}.fromCookies"),
            "Envoy does not take tokens out of cookies",
            "the cookie goes on to the workload, although forwardOriginalToken is not set",
        );
    }
}

/// `jwks` and `jwksUri`: where the issuer's keys are.
fn keys(field: &str, rule: &JwtRule, findings: &mut Findings) {
    let JwtRule { issuer, jwks, jwks_uri, .. } = rule;
    match (jwks.is_empty(), jwks_uri.is_empty()) {
        (false, false) => {
            findings
                .error(format_args!("{field}.jwksUri"), "jwks and jwksUri exclude each other")
                .hint("Remove one of them.");
        }
        (false, true) => {
            if let Err(why) = KeySet::parse(jwks) {
                findings
                    .error(format_args!("{field}.jwks"), format!("the key set cannot be used: {why}"))
                    .hint("Write {\"keys\": [...]} with the issuer's public keys.");
            }
        }
        (true, false) => url(&format!("{field}.jwksUri"), jwks_uri, "Write https://HOST/PATH.", findings),
        (true, true) if !issuer.is_empty() => {
            let hint = "Write the keys in jwks, or name their place in jwksUri.";
            url(&format!("{field}.issuer"), issuer, hint, findings);
        }
        (true, true) => {}
    }
}

/// An address by which a document can be fetched.
fn url(field: &str, text: &str, hint: &str, findings: &mut Findings) {
    let rest = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let why = match authority {
        None => format!("no keys can be fetched at \"{text}\": it is neither https:// nor http://"),
        Some(authority) if authority.contains('@') => {
            "a URL with a user or a password would be shown to others".to_owned()
        }
        Some(authority) if authority.is_empty() || authority.starts_with(':') => format!("\"{text}\" names no host"),
        Some(_) if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) => "a URL has no blanks".to_owned(),
        Some(_) => return,
    };
    findings.error(field, why).hint(hint);
}

fn filled(field: &str, text: &str, findings: &mut Findings) {
    if text.is_empty() {
        findings.error(field, "it is empty");
    }
}

/// Whether this is the name of a header that is not a pseudo header.
pub(crate) fn is_header(name: &str) -> bool {
    names::is_token(name)
}

/// The name of a header that is not a pseudo header.
fn header(field: &str, name: &str, findings: &mut Findings) {
    if name.starts_with(':') {
        findings.error(field, format!("{name:?} is not a header name"));
    } else {
        names::header(field, name, findings);
    }
}
