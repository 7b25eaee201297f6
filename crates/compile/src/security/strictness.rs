//! Which endpoints of a service take nothing but mutual TLS, for clients that treat all endpoints alike.

use std::sync::Arc;

use world::{Endpoint, PolicyKind, Reader, Service};

use super::mutual::is_labelled;
use super::{Mtls, Peer, Stated};

/// What endpoints of a service take.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Strictness {
    /// Whether all of them take mutual TLS only; there is at least one.
    pub(crate) is_of_all: bool,
    /// Who says so of those that do, each once.
    pub(crate) stated: Vec<Stated>,
}

/// Looks at endpoints whose workloads say that they take mutual TLS; others take plaintext, whatever a policy says.
pub(crate) fn strictness<'e>(
    endpoints: impl IntoIterator<Item = &'e Endpoint>,
    service: &Service,
    reader: &Reader<'_>,
) -> Strictness {
    let mut endpoints = endpoints.into_iter().peekable();
    let mut found = Strictness { is_of_all: endpoints.peek().is_some(), stated: Vec::new() };
    for endpoint in endpoints {
        if !is_labelled(&endpoint.labels) {
            found.is_of_all = false;
            continue;
        }
        let namespace: Arc<str> = match &endpoint.workload {
            Some((namespace, _)) => namespace.clone(),
            None => service.namespace.clone(),
        };
        let policies = reader.policies_nearby(PolicyKind::PeerAuthentication, &namespace, &endpoint.labels);
        let peer = Peer::of(&policies);
        let stated = peer.at(endpoint.port);
        if stated.mode != Mtls::Strict {
            found.is_of_all = false;
        } else if !found.stated.contains(stated) {
            found.stated.push(stated.clone());
        }
    }
    found
}
