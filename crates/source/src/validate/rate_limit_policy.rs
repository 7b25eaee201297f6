//! `RateLimitPolicy`: limits that Envoy can keep, each told from the others.

use std::collections::BTreeMap;
use std::time::Duration;

use world::api::policy::{LimitKey, LimitScope, OnLimitError, RateLimit, RateLimitPolicy, RequestFilter};
use world::{Kind, ObjectRef};

use super::peer_authentication::workload_selector;
use super::{Findings, names};

/// How many things may be counted apart at once.
const MOST_KEYS: usize = 4;
/// How many values may be given for one thing.
const MOST_VALUES: usize = 16;

pub(super) fn rate_limit_policy(spec: &RateLimitPolicy, findings: &mut Findings) {
    if let Some(selector) = &spec.selector {
        workload_selector(selector, findings);
    }
    if spec.limits.is_empty() {
        findings.error("spec.limits", "there is no limit").hint("Delete the object to lift its limits.");
    }
    let mut seen = BTreeMap::new();
    for (at, limit) in spec.limits.iter().enumerate() {
        let field = format!("spec.limits[{at}]");
        if !names::is_label(&limit.name) {
            findings
                .error(format_args!("{field}.name"), format!("\"{}\" is not the name of a limit", limit.name))
                .hint("Use up to 63 lower-case letters, digits and '-', with a letter or digit at both ends.");
        } else if let Some(first) = seen.insert(&limit.name, at) {
            let message = format!("spec.limits[{first}] is called \"{}\" already", limit.name);
            findings.error(format_args!("{field}.name"), message);
        }
        self::limit(&field, limit, findings);
    }
}

/// Whether a limit is as it should be, whatever others there are.
pub(crate) fn is_good_limit(limit: &RateLimit) -> bool {
    let nobody = ObjectRef::new(Kind::RateLimitPolicy, "", "");
    let mut findings = Findings::new(&nobody);
    self::limit("", limit, &mut findings);
    names::is_label(&limit.name) && !findings.into_verdict().is_refused
}

fn limit(field: &str, limit: &RateLimit, findings: &mut Findings) {
    rate(field, limit, findings);
    filter(&format!("{field}.match"), &limit.matching, findings);
    if limit.by.len() > MOST_KEYS {
        findings.error(format_args!("{field}.by"), format!("at most {MOST_KEYS} things can be counted apart"));
    }
    for (at, key) in limit.by.iter().enumerate() {
        self::key(&format!("{field}.by[{at}]"), key, findings);
    }
}

fn rate(field: &str, limit: &RateLimit, findings: &mut Findings) {
    if limit.requests == 0 {
        findings
            .error(format_args!("{field}.requests"), "a limit lets at least 1 request through")
            .hint("To refuse all, use an AuthorizationPolicy with action DENY.");
    }
    let shortest = match limit.scope {
        LimitScope::Local => RateLimit::SHORTEST_LOCAL,
        LimitScope::Global => RateLimit::SHORTEST_GLOBAL,
    };
    let per = format!("{field}.per");
    match limit.per {
        None => _ = findings.error(per, "it is not said in which time").hint("For example: per: 1s"),
        Some(time) if time < shortest => {
            let message = format!("{time:?} is too short for a {:?} limit: it takes {shortest:?} or more", limit.scope);
            findings.error(per, message).hint("Allow as many more in a longer time.");
        }
        Some(time) if time > RateLimit::LONGEST => {
            let days = RateLimit::LONGEST.as_secs() / Duration::from_secs(24 * 3600).as_secs();
            findings.error(per, format!("counts are kept for {days} days at most"));
        }
        Some(_) => {}
    }
    match (limit.scope, limit.burst) {
        (LimitScope::Local, Some(0)) => {
            findings.error(format_args!("{field}.burst"), "nothing could ever pass").hint("Use 1 or more.");
        }
        (LimitScope::Global, Some(_)) => {
            let message = "a Global limit counts over a sliding window and knows no burst";
            findings.warning(format_args!("{field}.burst"), message, "it has no effect");
        }
        (LimitScope::Local, _) | (LimitScope::Global, None) => {}
    }
    if limit.scope == LimitScope::Local && limit.on_error == OnLimitError::Deny {
        let message = "a Local limit is counted by the proxy itself, which does not fail";
        findings.warning(format_args!("{field}.onError"), message, "it has no effect");
    }
}

fn filter(field: &str, filter: &RequestFilter, findings: &mut Findings) {
    for (at, method) in filter.methods.iter().enumerate() {
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
            let message = format!("\"{method}\" is not a method");
            findings.error(format_args!("{field}.methods[{at}]"), message).hint("Use upper-case letters, such as GET.");
        }
    }
    for (at, path) in filter.paths.iter().enumerate() {
        let field = format!("{field}.paths[{at}]");
        if !path.starts_with(['/', '*']) {
            let message = format!("\"{path}\" begins neither with / nor with *");
            findings.error(&field, message);
        }
        if path.contains(['?', '#']) {
            findings.error(&field, format!("\"{path}\" has a query; paths are compared without theirs"));
        }
        value(&field, path, findings);
    }
    for (at, host) in filter.hosts.iter().enumerate() {
        value(&format!("{field}.hosts[{at}]"), host, findings);
    }
    for (name, values) in &filter.headers {
        let field = format!("{field}.headers.{name}");
        header(&field, name, findings);
        if values.is_empty() {
            findings.error(&field, "there is no value").hint("Use \"*\" for any.");
        }
        several(&field, values, findings);
        for (at, text) in values.iter().enumerate() {
            value(&format!("{field}[{at}]"), text, findings);
        }
    }
    for (name, values) in [("methods", &filter.methods), ("paths", &filter.paths), ("hosts", &filter.hosts)] {
        several(&format!("{field}.{name}"), values, findings);
    }
}

fn several(field: &str, values: &[String], findings: &mut Findings) {
    if values.len() > MOST_VALUES {
        findings
            .error(field, format!("at most {MOST_VALUES} values are taken"))
            .hint("Use another limit for the rest.");
    }
}

/// Exact, `prefix*`, `*suffix` or `*`.
fn value(field: &str, text: &str, findings: &mut Findings) {
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    if text.is_empty() {
        findings.error(field, "the value is empty").hint("Use \"*\" for any.");
    } else if inner.contains('*') {
        let message = format!("\"{text}\" has a * that is neither its beginning nor its end, or both");
        findings.error(field, message).hint("Use an exact value, \"prefix*\", \"*suffix\" or \"*\".");
    } else if text.chars().any(char::is_control) {
        findings.error(field, format!("{text:?} holds a control character"));
    }
}

fn key(field: &str, key: &LimitKey, findings: &mut Findings) {
    let given =
        usize::from(key.client.is_some()) + usize::from(key.header.is_some()) + usize::from(key.claim.is_some());
    if given != 1 {
        findings.error(field, "exactly one of client, header and claim is given");
    }
    if let Some(name) = &key.header {
        header(&format!("{field}.header"), name, findings);
    }
    if let Some(name) = &key.claim
        && (name.is_empty() || name.chars().any(char::is_control))
    {
        findings.error(format_args!("{field}.claim"), format!("{name:?} is not the name of a claim"));
    }
}

/// A header whose name can stand in quotes, in lower case, as requests have it in the end.
fn header(field: &str, name: &str, findings: &mut Findings) {
    names::header(field, name, findings);
    if name.contains(['\'', '`']) {
        findings.error(field, format!("\"{name}\" has a quote"));
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let lower = name.to_ascii_lowercase();
        findings.error(field, format!("\"{name}\" has upper-case letters")).hint(format!("Write \"{lower}\"."));
    }
}
