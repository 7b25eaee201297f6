//! TLS 1.2 and 1.3 on the listeners.

use std::sync::Arc;
use std::time::Duration;

use identity::Authority;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::gate::Channel;
use super::{Gate, ServerCertificate, StateError};
use crate::listen::{Peer, Socket};

/// What HTTP/2 is called when protocols are negotiated.
const ALPN: &[u8] = b"h2";

/// Client certificates are asked for, and verified against the authority's roots when there is one.
///
/// Sessions are not resumed: a resumed one would let a client in by a certificate that has expired since.
pub(super) fn acceptor(certificate: Arc<ServerCertificate>, authority: &Authority) -> Result<TlsAcceptor, StateError> {
    let unusable = |reason: String| StateError::Settings(format!("TLS cannot be served: {reason}"));
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root.clone()).map_err(|error| unusable(format!("a root certificate: {error}")))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Lets a client begin. `None` when it does not within `deadline`, or offers what is not taken; that is its own loss.
pub(crate) async fn handshake(
    acceptor: TlsAcceptor,
    gate: &Arc<Gate>,
    socket: Socket,
    peer: Peer,
    deadline: Duration,
) -> Option<(Socket, Channel)> {
    let Socket::Tcp(socket) = socket else { return None };
    match tokio::time::timeout(deadline, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let channel = gate.channel(certificate.map(|der| &**der));
            Some((Socket::Tls(Box::new(stream)), channel))
        }
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS failed");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "the client did not begin TLS in time");
            None
        }
    }
}
