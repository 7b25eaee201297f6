//! One HTTP route of a `VirtualService`.

use std::collections::BTreeMap;

use world::api::istio::{
    CorsPolicy, Fault, GRPC_STATUSES, Headers, HttpMatch, HttpRoute, Redirect, StringMatch, claim_path, is_about_tokens,
};

use super::virtual_service::{destination, gateway_name, weights};
use super::{Findings, names, pattern};

pub(super) fn http_route(field: &str, route: &HttpRoute, findings: &mut Findings) {
    actions(field, route, findings);
    for (at, condition) in route.matches.iter().enumerate() {
        http_match(&format!("{field}.match[{at}]"), condition, findings);
    }
    for (at, to) in route.route.iter().enumerate() {
        let field = format!("{field}.route[{at}]");
        destination(&format!("{field}.destination"), &to.destination, findings);
        headers(&format!("{field}.headers"), to.headers.as_deref(), findings);
    }
    weights(field, route.route.iter().map(|d| d.weight), findings);
    headers(&format!("{field}.headers"), route.headers.as_deref(), findings);
    if let Some(rewrite) = &route.rewrite
        && let Some(by_regex) = &rewrite.uri_regex_rewrite
    {
        if rewrite.uri.is_some() {
            findings.error(format_args!("{field}.rewrite"), "uri and uriRegexRewrite exclude each other");
        }
        pattern::regex(&format!("{field}.rewrite.uriRegexRewrite.match"), &by_regex.pattern, findings);
    }
    if let Some(retries) = &route.retries
        && retries.attempts < 0
    {
        findings
            .error(format_args!("{field}.retries.attempts"), format!("{} attempts are negative", retries.attempts))
            .hint("Use 0 to turn retries off.");
    }
    if let Some(faults) = &route.fault {
        fault(&format!("{field}.fault"), faults, findings);
    }
    mirrors(field, route, findings);
    if let Some(policy) = &route.cors_policy {
        cors(&format!("{field}.corsPolicy"), policy, findings);
    }
}

/// A route does exactly one thing.
fn actions(field: &str, route: &HttpRoute, findings: &mut Findings) {
    let mut given = Vec::new();
    for (name, is_given) in [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
        ("delegate", route.delegate.is_some()),
    ] {
        if is_given {
            given.push(name);
        }
    }
    match given.as_slice() {
        [] => {
            findings
                .error(field, "the route does nothing")
                .hint("Add one of route, redirect, directResponse or delegate.");
        }
        [_] => {}
        [first, others @ ..] => {
            findings
                .error(field, format!("{first} and {} exclude each other", others.join(" and ")))
                .hint("Keep one, or write two routes with different matches.");
        }
    }
    if let Some(to) = &route.redirect {
        redirect(&format!("{field}.redirect"), to, findings);
    }
    if let Some(response) = &route.direct_response {
        status(format!("{field}.directResponse.status"), response.status, findings);
        if response.body.as_ref().is_some_and(|b| b.string.is_some() && b.bytes.is_some()) {
            findings.error(format_args!("{field}.directResponse.body"), "string and bytes exclude each other");
        }
    }
    if let Some(delegate) = &route.delegate
        && delegate.name.is_empty()
    {
        findings.error(format_args!("{field}.delegate.name"), "the delegate is not named");
    }
}

/// Envoy sends statuses from 200 to 599 by itself (DirectResponseAction.status, FaultAbort.http_status).
fn status(field: String, status: u32, findings: &mut Findings) {
    if !(200..=599).contains(&status) {
        findings.error(field, format!("{status} is not a status that can be sent")).hint("Use one from 200 to 599.");
    }
}

fn redirect(field: &str, to: &Redirect, findings: &mut Findings) {
    const CODES: [u32; 5] = [301, 302, 303, 307, 308];
    if let Some(code) = to.redirect_code.filter(|code| !CODES.contains(code)) {
        findings
            .error(format_args!("{field}.redirectCode"), format!("{code} is not a redirect"))
            .hint("Known: 301, 302, 303, 307, 308.");
    }
    if to.port.is_some() && to.derive_port.is_some() {
        findings.error(field, "port and derivePort exclude each other");
    }
    if let Some(port) = to.port {
        findings.port(format_args!("{field}.port"), port);
    }
    let known = ["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"];
    findings.one_of(format_args!("{field}.derivePort"), to.derive_port.as_deref(), &known);
}

fn http_match(field: &str, condition: &HttpMatch, findings: &mut Findings) {
    for (name, value) in [
        ("uri", &condition.uri),
        ("scheme", &condition.scheme),
        ("method", &condition.method),
        ("authority", &condition.authority),
    ] {
        if let Some(value) = value {
            pattern::string_match(&format!("{field}.{name}"), value, findings);
        }
    }
    by_name(&format!("{field}.headers"), &condition.headers, findings);
    by_name(&format!("{field}.withoutHeaders"), &condition.without_headers, findings);
    for (name, value) in &condition.query_params {
        let field = format!("{field}.queryParams.{name}");
        if name.is_empty() {
            findings.error(&field, "the parameter has no name");
        }
        if let Some(value) = value {
            pattern::string_match(&field, value, findings);
        }
    }
    if let Some(port) = condition.port {
        findings.port(format_args!("{field}.port"), port);
    }
    for (at, gateway) in condition.gateways.iter().enumerate() {
        gateway_name(&format!("{field}.gateways[{at}]"), gateway, findings);
    }
}

fn by_name(field: &str, values: &BTreeMap<String, Option<StringMatch>>, findings: &mut Findings) {
    for (name, value) in values {
        let field = format!("{field}.{name}");
        if !is_about_tokens(name) {
            names::header(&field, name, findings);
        } else if claim_path(name).is_none() {
            findings
                .error(&field, format!("\"{name}\" names no claim of a token"))
                .hint("Write @request.auth.claims.NAME, or @request.auth.claims[NAME][INNER].");
        }
        if let Some(value) = value {
            pattern::string_match(&field, value, findings);
        }
    }
}

fn headers(field: &str, operations: Option<&Headers>, findings: &mut Findings) {
    let Some(operations) = operations else { return };
    for (side, operations) in [("request", &operations.request), ("response", &operations.response)] {
        let Some(operations) = operations else { continue };
        for (verb, values) in [("set", &operations.set), ("add", &operations.add)] {
            for name in values.keys() {
                names::header(&format!("{field}.{side}.{verb}.{name}"), name, findings);
            }
        }
        for (at, name) in operations.remove.iter().enumerate() {
            names::header(&format!("{field}.{side}.remove[{at}]"), name, findings);
        }
    }
}

fn fault(field: &str, faults: &Fault, findings: &mut Findings) {
    if let Some(delay) = &faults.delay {
        if delay.fixed_delay.is_none() {
            findings.error(format_args!("{field}.delay"), "fixedDelay is missing");
        }
        if let Some(percentage) = delay.percentage {
            findings.percent(format_args!("{field}.delay.percentage.value"), percentage.value);
        }
        if let Some(percent) = delay.percent {
            findings.percent(format_args!("{field}.delay.percent"), f64::from(percent));
        }
    }
    if let Some(abort) = &faults.abort {
        if abort.http_status.is_some() == abort.grpc_status.is_some() {
            findings.error(format_args!("{field}.abort"), "exactly one of httpStatus and grpcStatus is needed");
        }
        if let Some(code) = abort.http_status {
            status(format!("{field}.abort.httpStatus"), code, findings);
        }
        findings.one_of(format_args!("{field}.abort.grpcStatus"), abort.grpc_status.as_deref(), &GRPC_STATUSES);
        if let Some(percentage) = abort.percentage {
            findings.percent(format_args!("{field}.abort.percentage.value"), percentage.value);
        }
    }
}

fn mirrors(field: &str, route: &HttpRoute, findings: &mut Findings) {
    if let Some(to) = &route.mirror {
        destination(&format!("{field}.mirror"), to, findings);
        if !route.mirrors.is_empty() {
            findings.error(field, "mirror and mirrors exclude each other").hint("Move mirror into mirrors.");
        }
    }
    for (at, mirror) in route.mirrors.iter().enumerate() {
        let field = format!("{field}.mirrors[{at}]");
        destination(&format!("{field}.destination"), &mirror.destination, findings);
        if let Some(percentage) = mirror.percentage {
            findings.percent(format_args!("{field}.percentage.value"), percentage.value);
        }
    }
    if let Some(percentage) = route.mirror_percentage {
        findings.percent(format_args!("{field}.mirrorPercentage.value"), percentage.value);
    }
    if let Some(percent) = route.mirror_percent {
        findings.percent(format_args!("{field}.mirrorPercent"), f64::from(percent));
    }
    if (route.mirror_percentage.is_some() || route.mirror_percent.is_some()) && route.mirror.is_none() {
        let name = if route.mirror_percentage.is_some() { "mirrorPercentage" } else { "mirrorPercent" };
        findings.warning(
            format_args!("{field}.{name}"),
            "there is no mirror that it could be a part of",
            "nothing is mirrored because of it",
        );
    }
}

fn cors(field: &str, policy: &CorsPolicy, findings: &mut Findings) {
    for (at, origin) in policy.allow_origins.iter().enumerate() {
        pattern::string_match(&format!("{field}.allowOrigins[{at}]"), origin, findings);
    }
    let known = ["UNSPECIFIED", "FORWARD", "IGNORE"];
    findings.one_of(format_args!("{field}.unmatchedPreflights"), policy.unmatched_preflights.as_deref(), &known);
}
