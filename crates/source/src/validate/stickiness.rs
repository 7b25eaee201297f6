//! `spec.stickiness` of a `DeploymentIntent`.

use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use world::api::delivery::{
    COOKIE_DOMAIN, COOKIE_PATH, DeploymentIntent, IntentProtocol, SameSite, StickinessMode, StickyCookie, StrategyType,
};

use super::Findings;
use super::names;
use super::request_match::cookie_name;

static PATH: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(COOKIE_PATH).expect("the pattern of paths is a constant that the tests compile"));
static DOMAIN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(COOKIE_DOMAIN).expect("the pattern of domains is a constant that the tests compile"));

pub(super) fn stickiness(spec: &DeploymentIntent, findings: &mut Findings) {
    const FIELD: &str = "spec.stickiness";
    let stickiness = &spec.stickiness;
    if stickiness.mode != StickinessMode::None {
        if spec.protocol == IntentProtocol::Tcp {
            findings.error(format_args!("{FIELD}.mode"), "TCP has neither headers nor cookies").hint("Use mode: None.");
        }
        if spec.strategy.kind == StrategyType::Rolling {
            findings
                .error(format_args!("{FIELD}.mode"), "a rolling strategy exchanges endpoints, not weights")
                .hint("Use Canary for clients that stay with a revision.");
        }
    }
    if stickiness.mode == StickinessMode::Hash && stickiness.key.is_empty() {
        findings
            .error(format_args!("{FIELD}.key"), "Hash needs to know a client by something")
            .hint("Give header, cookie, query or sourceIp.");
    }
    if stickiness.mode != StickinessMode::Hash && !stickiness.key.is_empty() {
        findings
            .warning(
                format_args!("{FIELD}.key"),
                format!("clients are known by a key in mode Hash only, and this is mode {:?}", stickiness.mode),
                "the key has no effect",
            )
            .hint("Set mode: Hash.");
    }
    for (at, key) in stickiness.key.iter().enumerate() {
        let field = format!("{FIELD}.key[{at}]");
        let names = [&key.header, &key.cookie, &key.query];
        if names.iter().filter(|name| name.is_some()).count() + usize::from(key.source_ip) != 1 {
            findings.error(&field, "exactly one of header, cookie, query and sourceIp is needed");
        }
        if let Some(name) = &key.header {
            names::header(&format!("{field}.header"), name, findings);
        }
        if let Some(name) = &key.cookie {
            cookie_name(&format!("{field}.cookie"), name, findings);
        }
    }
    cookie(&stickiness.cookie, findings);
}

/// What `Set-Cookie` says, so that a browser keeps it.
fn cookie(cookie: &StickyCookie, findings: &mut Findings) {
    const FIELD: &str = "spec.stickiness.cookie";
    cookie_name(&format!("{FIELD}.name"), &cookie.name, findings);
    if cookie.ttl < Duration::from_secs(1) {
        findings
            .error(
                format_args!("{FIELD}.ttl"),
                format!("{:?} is shorter than 1s: the cookie is dropped at once", cookie.ttl),
            )
            .hint("The usual one is 24h.");
    }
    if !PATH.is_match(&cookie.path) {
        findings
            .error(format_args!("{FIELD}.path"), format!("{:?} is not a cookie's path", cookie.path))
            .hint("It begins with /, and has no blank, comma or semicolon.");
    }
    if let Some(domain) = cookie.domain.as_ref().filter(|domain| domain.len() > 253 || !DOMAIN.is_match(domain)) {
        findings
            .error(format_args!("{FIELD}.domain"), format!("{domain:?} is not a cookie's domain"))
            .hint("Write example.com.");
    }
    if cookie.same_site == SameSite::None && !cookie.secure {
        findings
            .error(format_args!("{FIELD}.secure"), "browsers refuse a cookie with sameSite: None that is not secure")
            .hint("Set secure: true, or sameSite: Lax.");
    }
}
