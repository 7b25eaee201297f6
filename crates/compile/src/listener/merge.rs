//! Joins what several services want of one listener.
//!
//! Istio's rules: HTTP and TCP on one port go together, told apart by the first bytes; TCP and TCP go together only if
//! address or SNI tells them apart, else the older one has the port; nothing waits for first bytes on a port where the
//! server speaks first.

use std::collections::BTreeMap;
use std::sync::Arc;

use world::{Hostname, ObjectRef, Problem};

use super::{Chain, Contribution, Leaf, Reading};
use crate::Built;

/// What a listener is made of, before it is put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Merged {
    /// The route configuration of its connection manager.
    pub(super) http_route: Option<Arc<str>>,
    /// Whether some service wants gRPC-Web translated.
    pub(super) grpc_web: bool,
    /// Whether some service wants requests logged to the server.
    pub(super) logged: bool,
    /// How requests are read: of all in the same way.
    pub(super) reading: Reading,
    /// Chains that match something.
    pub(super) chains: Vec<Chain>,
    /// The chain that takes the rest.
    pub(super) default: Option<Chain>,
}

/// Who had what first.
struct Holders<'a> {
    http: Option<&'a Contribution>,
    server_first: Option<&'a Contribution>,
    default: Option<&'a Contribution>,
    leaves: BTreeMap<Leaf, &'a Contribution>,
}

/// Joins the contributions to one listener, in whatever order they come.
pub(super) fn merge(contributions: &[&Contribution]) -> Built<Merged> {
    let mut sorted = contributions.to_vec();
    sorted.sort_by(|a, b| precedence(a).cmp(&precedence(b)));
    let mut built = Built::new(Merged::default());
    let mut holders = Holders { http: None, server_first: None, default: None, leaves: BTreeMap::new() };
    // Services that are only reached by SNI need it as soon as there is another service that could be meant.
    let shared = sorted.iter().filter(|c| !c.chains.is_empty()).count() > 1;
    for contribution in sorted {
        built.origins.insert(contribution.origin.clone());
        if !take_http(contribution, &mut holders, &mut built) {
            continue;
        }
        for chain in &contribution.chains {
            take_chain(contribution, chain, shared, &mut holders, &mut built);
        }
    }
    built
}

/// Oldest first, ties by object and host.
fn precedence(contribution: &Contribution) -> (&Arc<str>, &ObjectRef, &Hostname, usize) {
    (&contribution.created, &contribution.origin, &contribution.host, contribution.port_index)
}

/// Takes in what it wants of HTTP. `false` when the contribution as a whole cannot be had.
fn take_http<'a>(new: &'a Contribution, holders: &mut Holders<'a>, built: &mut Built<Merged>) -> bool {
    let rival = if new.server_first {
        holders.http
    } else if new.http_route.is_some() {
        holders.server_first
    } else {
        None
    };
    if let Some(rival) = rival {
        let message = "HTTP and a protocol in which the server speaks first cannot share a listener";
        built.problems.push(conflict(new, rival, message));
        return false;
    }
    if new.server_first {
        holders.server_first = Some(new);
    }
    let Some(route) = &new.http_route else { return true };
    match (&built.value.http_route, holders.http) {
        (Some(first), Some(rival)) if first != route => {
            built.problems.push(conflict(new, rival, "two services with one address and port cannot both have HTTP"));
        }
        _ => {
            built.value.http_route = Some(route.clone());
            built.value.grpc_web |= new.grpc_web;
            built.value.logged |= new.logged;
            built.value.reading = new.reading;
            holders.http = holders.http.or(Some(new));
        }
    }
    true
}

fn take_chain<'a>(
    new: &'a Contribution,
    chain: &Chain,
    shared: bool,
    holders: &mut Holders<'a>,
    built: &mut Built<Merged>,
) {
    let mut chain = chain.clone();
    if let Some(name) = chain.server_name_when_shared.take().filter(|_| shared) {
        chain.matching.server_names = vec![name];
    }
    if chain.matching.is_everything() {
        match holders.default {
            None => {
                holders.default = Some(new);
                built.value.default = Some(chain);
            }
            Some(rival) => {
                built.problems.push(conflict(new, rival, "nothing tells the connections of two services apart"));
            }
        }
        return;
    }
    let rival = chain.matching.leaves().find_map(|leaf| holders.leaves.get(&leaf).copied());
    if let Some(rival) = rival {
        built.problems.push(conflict(new, rival, "two services match the same addresses or SNI"));
        if !chain.matching.remove(|leaf| holders.leaves.contains_key(leaf)) {
            return;
        }
    }
    holders.leaves.extend(chain.matching.leaves().map(|leaf| (leaf, new)));
    built.value.chains.push(chain);
}

fn conflict(loser: &Contribution, winner: &Contribution, message: &str) -> Problem {
    let port = loser.key.port;
    Problem::error(
        &loser.origin,
        format!("spec.ports[{}]", loser.port_index),
        format!("port {port} of \"{}\" clashes with \"{}\" of {}: {message}", loser.host, winner.host, winner.origin),
    )
    .consequence(format!("connections that could be either's go to \"{}\"", winner.host))
    .hint("Use another port number, give the service an address of its own, or declare both ports as HTTP or TLS.")
}
