//! TLS 1.2 and 1.3 on the listeners.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::Authority;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::gate::Channel;
use super::signer::Signer;
use super::{Gate, Issuer, ServerCertificate, StateError};
use crate::listen::{Peer, Socket};

/// What HTTP/2 is called when protocols are negotiated.
const ALPN: &[u8] = b"h2";

/// Lets clients in, by the roots that are trusted at the time.
pub(crate) struct Front {
    certificate: Arc<ServerCertificate>,
    issuer: Arc<Issuer>,
    /// With whose roots it was made.
    current: Mutex<(Arc<Signer>, TlsAcceptor)>,
}

impl Front {
    pub(super) fn new(certificate: Arc<ServerCertificate>, issuer: Arc<Issuer>) -> Result<Self, StateError> {
        let signer = issuer.signer();
        let acceptor = acceptor(certificate.clone(), signer.authority())?;
        Ok(Self { certificate, issuer, current: Mutex::new((signer, acceptor)) })
    }

    /// What a connection that comes now begins with. When it cannot be made of what is trusted now, what was trusted
    /// before counts on.
    fn acceptor(&self) -> TlsAcceptor {
        let signer = self.issuer.signer();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current.0, &signer) {
            match acceptor(self.certificate.clone(), signer.authority()) {
                Ok(acceptor) => current.1 = acceptor,
                Err(error) => tracing::error!(%error, "clients are verified by the roots from before"),
            }
            current.0 = signer;
        }
        current.1.clone()
    }
}

/// Client certificates are asked for, and verified against the authority's roots when there is one.
///
/// Sessions are not resumed: a resumed one would let a client in by a certificate that has expired since.
fn acceptor(certificate: Arc<ServerCertificate>, authority: &Authority) -> Result<TlsAcceptor, StateError> {
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

/// Lets a client begin. `None` when it does not within `deadline`, or offers what is not taken; that is its own loss. A
/// client on a Unix socket has nothing to begin: the kernel says whose process it is.
pub(crate) async fn handshake(
    front: &Front,
    gate: &Arc<Gate>,
    socket: Socket,
    peer: Peer,
    deadline: Duration,
) -> Option<(Socket, Peer, Channel)> {
    let socket = match socket {
        Socket::Tcp(socket) => socket,
        Socket::Unix(socket) => {
            let user = socket.peer_cred().ok()?.uid();
            let channel = gate.local_channel(user);
            return Some((Socket::Unix(socket), Peer::Unix { user: Some(user) }, channel));
        }
        Socket::Tls(_) => return None,
    };
    match tokio::time::timeout(deadline, front.acceptor().accept(socket)).await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let channel = gate.channel(peer.into(), certificate.map(|der| &**der));
            Some((Socket::Tls(Box::new(stream)), peer, channel))
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
