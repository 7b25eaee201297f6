//! Policies that are not what they seem, for what a workload serves: about requests, on ports where there may be none; about
//! tokens that nobody verifies; and about ports of services, which are not those of workloads.

use std::sync::Arc;

use world::api::istio::{Action, Rule, is_dry_run};
use world::{Object, PolicyKind, Problem, Protocol, Spec};

use crate::layers::resolver::Resolver;
use crate::listener::Served;
use crate::security::Peer;

/// What is said of tokens and limits for a workload that serves this.
///
/// On a port whose protocol nobody declares that is HTTP which is found to be HTTP by its first bytes, or said to be by
/// proxies of the mesh; the rest is passed on. So whoever wants to get around a policy can, unless the port is declared.
pub(super) fn reach(resolver: &Resolver<'_, '_>, served: &[Served], peer: &Peer) -> Vec<Problem> {
    let mut problems: Vec<Problem> = peer.ports().filter_map(|port| of_service(port, served, peer)).collect();
    let (namespace, labels) = (&resolver.audience.namespace, &resolver.audience.labels);
    for (kind, what) in [
        (PolicyKind::RequestAuthentication, "tokens are not checked"),
        (PolicyKind::RateLimitPolicy, "nothing is limited"),
    ] {
        for policy in resolver.reader.policies(kind, namespace, labels).all() {
            problems.extend(served.iter().filter_map(|port| undeclared(policy, port, what)));
            problems.extend(without_requests(policy, served));
        }
    }
    for policy in resolver.reader.policies(PolicyKind::AuthorizationPolicy, namespace, labels).all() {
        problems.extend(closed_ports(policy, served));
    }
    problems
}

/// AuthorizationPolicies about tokens, where nobody says whose tokens hold.
pub(super) fn without_tokens(resolver: &Resolver<'_, '_>) -> Vec<Problem> {
    let (namespace, labels) = (&resolver.audience.namespace, &resolver.audience.labels);
    let of_kind = |kind| resolver.reader.policies(kind, namespace, labels);
    if of_kind(PolicyKind::RequestAuthentication).all().next().is_some() {
        return Vec::new();
    }
    let without = |policy: &Arc<Object>| {
        let Spec::AuthorizationPolicy(spec) = &policy.spec else { return None };
        // Providers are asked before tokens are looked at, which the policy itself is told.
        let at = spec.rules.iter().position(Rule::asks_for_tokens).filter(|_| spec.action != Action::Custom)?;
        let message = "it asks for a token, and no RequestAuthentication is for a workload that this is for";
        Some(
            Problem::warning(&policy.reference, format!("spec.rules[{at}]"), message)
                .consequence("no token is verified there, so nobody has one")
                .hint("Add a RequestAuthentication for the same workloads, with the issuer of the tokens.")
                .at(policy.meta.location.clone()),
        )
    };
    of_kind(PolicyKind::AuthorizationPolicy).all().filter_map(without).collect()
}

/// A rule that keeps out what only a request can be is in doubt where there are none, and keeps out everything.
fn closed_ports(policy: &Arc<Object>, served: &[Served]) -> Option<Problem> {
    let Spec::AuthorizationPolicy(spec) = &policy.spec else { return None };
    let is_tried = is_dry_run(&policy.meta.annotations) == Ok(true);
    let at = spec.rules.iter().position(Rule::asks_only_of_requests);
    let at = at.filter(|_| spec.action == Action::Deny && !is_tried)?;
    let port = served.iter().find(|port| port.protocol != Protocol::Auto && !port.protocol.is_http())?;
    let message = format!("it asks only about requests, and port {} of {} has none", port.port, port.service.origin);
    Some(
        Problem::warning(&policy.reference, format!("spec.rules[{at}]"), message)
            .consequence("every connection to that port is refused")
            .hint("Give the rule's operations the `ports` of the workload that it is meant for.")
            .at(policy.meta.location.clone()),
    )
}

/// A mode for a port that the service has, and the workload has not.
fn of_service(port: u16, served: &[Served], peer: &Peer) -> Option<Problem> {
    if served.iter().any(|served| served.target == port) {
        return None;
    }
    let meant = served.iter().find(|served| served.port == port)?;
    let message =
        format!("port {port} is that of {}; behind it the workload has {}", meant.service.origin, meant.target);
    let problem = peer.at(port).warning(&message, "it says nothing of the workload's port")?;
    Some(problem.hint(format!("Write {}.", meant.target)))
}

fn undeclared(policy: &Arc<Object>, port: &Served, what: &str) -> Option<Problem> {
    if port.protocol != Protocol::Auto {
        return None;
    }
    let message = format!("nobody declares the protocol of port {} of {}", port.port, port.service.origin);
    Some(
        Problem::warning(&policy.reference, "", message)
            .consequence(format!("{what} on connections there that do not begin as HTTP"))
            .hint("Call the service's port `http-...`, or set its appProtocol.")
            .at(policy.meta.location.clone()),
    )
}

/// A policy that names its workloads was meant for them.
fn without_requests(policy: &Arc<Object>, served: &[Served]) -> Option<Problem> {
    let selector = match &policy.spec {
        Spec::RequestAuthentication(spec) => &spec.selector,
        Spec::RateLimitPolicy(spec) => &spec.selector,
        _ => return None,
    };
    let is_for_some = selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    let has_requests = |port: &Served| port.protocol == Protocol::Auto || port.protocol.is_http();
    let first = served.first().filter(|_| is_for_some && !served.iter().any(has_requests))?;
    let message = format!("a workload of {} that this is for serves no HTTP", first.service.origin);
    Some(
        Problem::warning(&policy.reference, "spec.selector", message)
            .consequence("it has no effect there")
            .hint("If the port carries HTTP, call it `http-...`, or set its appProtocol.")
            .at(policy.meta.location.clone()),
    )
}
