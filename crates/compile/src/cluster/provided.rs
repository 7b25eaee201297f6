//! Mutual TLS of gRPC clients, which use the same socket for all endpoints of a cluster, with certificates from their own
//! bootstrap (rule G-06).

use proto::pb::envoy::config::core::v3::TransportSocket;
use world::Problem;

use super::ClusterInput;
use super::tls::Mode;
use crate::policy::Policy;
use crate::security::{Peers, provided_upstream};

/// The socket: mutual TLS where a rule asks for it, and, where no rule says anything, if all endpoints take nothing else.
/// `None` for plaintext, and for all other clients.
pub(super) fn socket(input: &ClusterInput<'_>) -> Option<TransportSocket> {
    let mutual = input.mutual_tls.filter(|_| input.audience.is_grpc())?;
    let policy = input.policy();
    match &policy.tls {
        None => (mutual.is_automatic && mutual.is_taken_by_all).then(|| provided_upstream(&mutual.peers)),
        Some(part) => match Mode::of(part, &mut Vec::new()) {
            Mode::Plaintext | Mode::Simple | Mode::Mutual => None,
            Mode::Mesh if part.value.subject_alt_names.is_empty() => Some(provided_upstream(&mutual.peers)),
            Mode::Mesh => Some(provided_upstream(&Peers::named(&part.value.subject_alt_names))),
        },
    }
}

/// Whether a client that could speak mutual TLS does not, because not all endpoints take it and no rule asks for it.
pub(crate) fn is_left_in_the_clear(input: &ClusterInput<'_>) -> bool {
    let is_undecided = |mutual: &crate::MutualTls| mutual.is_automatic && !mutual.is_taken_by_all;
    input.audience.is_grpc() && input.mutual_tls.is_some_and(is_undecided) && input.policy().tls.is_none()
}

/// Tells what a rule asks for and the client cannot do.
pub(super) fn refuse(input: &ClusterInput<'_>, policy: &Policy<'_>, problems: &mut Vec<Problem>) {
    let Some(part) = &policy.tls else { return };
    let message = match Mode::of(part, problems) {
        Mode::Plaintext => return,
        Mode::Mesh if input.mutual_tls.is_some() => return,
        Mode::Mesh => {
            "ISTIO_MUTUAL needs a certificate, and the bootstrap of a gRPC client names no certificate provider"
        }
        Mode::Simple | Mode::Mutual => "gRPC clients do not take certificates from a rule",
    };
    problems.push(part.error("mode", message, "gRPC clients use plaintext"));
}
