//! Policies about requests, on ports where there may be none.

use std::sync::Arc;

use world::{Object, PolicyKind, Problem, Protocol, Spec};

use crate::layers::resolver::Resolver;
use crate::listener::Served;

/// What is said of tokens and limits for a workload that serves this.
///
/// On a port whose protocol nobody declares that is HTTP which is found to be HTTP by its first bytes, or said to be by
/// proxies of the mesh; the rest is passed on. So whoever wants to get around a policy can, unless the port is declared.
pub(super) fn reach(resolver: &Resolver<'_, '_>, served: &[Served]) -> Vec<Problem> {
    let mut problems = Vec::new();
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
    problems
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
