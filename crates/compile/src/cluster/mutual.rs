//! Mutual TLS of the mesh towards the endpoints.

use std::sync::LazyLock;

use proto::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use proto::pb::envoy::config::core::v3::TransportSocket;
use proto::pb::envoy::config::core::v3::transport_socket::ConfigType;
use proto::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use proto::pb::google::protobuf::Struct;

use super::http::{self, Upstream};
use super::tls::Mode;
use super::{ClusterInput, Discovery};
use crate::policy::Policy;
use crate::security::{self, Peers, ServerName};
use crate::{Audience, pack};

/// The sockets among which each endpoint's mark chooses, where nobody says whether to use TLS: none for other clusters.
pub(super) fn by_mark(input: &ClusterInput<'_>) -> Vec<TransportSocketMatch> {
    static PLAIN: LazyLock<TransportSocketMatch> = LazyLock::new(|| TransportSocketMatch {
        name: "tlsMode-disabled".to_owned(),
        r#match: Some(Struct::default()),
        transport_socket: Some(TransportSocket {
            name: "envoy.transport_sockets.raw_buffer".to_owned(),
            config_type: Some(ConfigType::TypedConfig(pack::any(&RawBuffer {}))),
        }),
    });
    if input.mutual_tls.is_none() || input.audience.is_grpc() {
        return Vec::new();
    }
    let policy = input.policy();
    if input.discovery() == Discovery::OriginalDestination {
        return Vec::new();
    }
    let Some(socket) = automatic(input, &policy) else { return Vec::new() };
    let mutual = TransportSocketMatch {
        name: "tlsMode-istio".to_owned(),
        r#match: Some(security::mutual_tls_mark()),
        transport_socket: Some(socket),
    };
    vec![mutual, PLAIN.clone()]
}

/// The socket of a cluster that knows no endpoints, and so has to use the same for all: if all take mutual TLS, and
/// nobody says whether to use it.
pub(super) fn for_all(input: &ClusterInput<'_>, policy: &Policy<'_>, discovery: Discovery) -> Option<TransportSocket> {
    let is_taken = input.mutual_tls.is_some_and(|mutual| mutual.is_taken_by_all);
    (discovery == Discovery::OriginalDestination && is_taken).then(|| automatic(input, policy)).flatten()
}

/// Whom the cluster admits as peers, where that follows from the accounts of its endpoints.
pub(crate) fn admitted<'a>(input: &ClusterInput<'a>) -> Option<&'a Peers> {
    let mutual = input.mutual_tls?;
    let is_used = match &input.policy().tls {
        None => mutual.is_automatic && (mutual.is_taken_by_all || !input.audience.is_grpc()),
        Some(part) => part.value.subject_alt_names.is_empty() && matches!(Mode::of(part, &mut Vec::new()), Mode::Mesh),
    };
    is_used.then_some(&mutual.peers)
}

fn automatic(input: &ClusterInput<'_>, policy: &Policy<'_>) -> Option<TransportSocket> {
    let mutual = input.mutual_tls.filter(|mutual| mutual.is_automatic && policy.tls.is_none())?;
    socket(input, http::upstream(input, policy), "", &mutual.peers)
}

/// Mutual TLS with one of `peers`. SNI says which cluster it is for, unless it is given.
pub(super) fn socket(
    input: &ClusterInput<'_>,
    upstream: Upstream,
    sni: &str,
    peers: &Peers,
) -> Option<TransportSocket> {
    let subset = input.subset.map_or("", |subset| &subset.name);
    let own = format!("outbound_.{}_.{subset}_.{}", input.port.number, input.service.host);
    let sni = if sni.is_empty() { &own } else { sni };
    let protocols = protocols(upstream, input.audience);
    security::upstream(input.audience.secrets, ServerName { sni, protocols }, peers)
}

/// What is offered: first what inspectors of the mesh know the contents by, last what Envoy itself may agree to. Which HTTP
/// the client of the proxy speaks is not known on a port that is not declared, so nothing is agreed to there, and the other
/// side sees it by the first bytes. Connections of bytes say so themselves, if the client can; else all are taken for such.
fn protocols(upstream: Upstream, audience: &Audience) -> &'static [&'static str] {
    match upstream {
        Upstream::Http1 => &["istio-http/1.1", "istio", "http/1.1"],
        Upstream::Http2 => &["istio-h2", "istio", "h2"],
        Upstream::Same if audience.marks_bytes() => &["istio-http/1.1", "istio-h2", "istio"],
        Upstream::Same | Upstream::Opaque => &["istio"],
    }
}
