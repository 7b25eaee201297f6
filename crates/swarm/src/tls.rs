//! TLS towards the server, optionally with a certificate of the nodes' own.

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::error::Error;

/// What HTTP/2 is called when protocols are negotiated.
const ALPN: &[u8] = b"h2";

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that the server is trusted by, as PEM.
    pub authorities: PathBuf,
    /// The nodes' certificate chain and key, as PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name in the server's certificate; the host of its address when absent.
    pub server_name: Option<String>,
}

/// What all connections share.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files; `authority` is the `HOST:PORT` of the server.
    pub(crate) fn load(files: &TlsFiles, authority: &str) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.authorities)? {
            roots.add(certificate).map_err(|error| unusable(&files.authorities, error))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&files.authorities, error))?;
        let trusting = versions.with_root_certificates(roots);
        let mut config = match &files.certificate {
            None => trusting.with_no_client_auth(),
            Some((chain, key)) => {
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
                trusting.with_client_auth_cert(certificates(chain)?, private).map_err(|error| unusable(chain, error))?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
        let name = files.server_name.clone().unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name.clone()).map_err(|error| Error::System {
            what: "TLS",
            reason: format!("\"{name}\" is no name of a server: {error}"),
        })?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// One connection's side.
    pub(crate) fn begin(&self) -> Result<Session, rustls::Error> {
        let mut connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        // What waits for the handshake to end is bounded by what the peer's HTTP/2 windows let through.
        connection.set_buffer_limit(None);
        Ok(Session { connection: Box::new(connection) })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| unreadable(path, error))?;
    if found.is_empty() { Err(unusable(path, "there is no certificate in it")) } else { Ok(found) }
}

/// Without the library's words, which show the line that it cannot read.
fn unreadable(path: &Path, error: pem::Error) -> Error {
    match error {
        pem::Error::Io(error) => unusable(path, error),
        _ => unusable(path, "it is not in PEM form"),
    }
}

fn unusable(path: &Path, error: impl fmt::Display) -> Error {
    Error::System { what: "TLS", reason: format!("\"{}\" cannot be used: {error}", path.display()) }
}

/// One connection's side of TLS, without IO.
pub(crate) struct Session {
    connection: Box<ClientConnection>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Whether it has something to send.
    pub(crate) fn wants_send(&self) -> bool {
        self.connection.wants_write()
    }

    /// Replaces `bytes` by what is sent for them; nothing while the handshake lasts, and more after it.
    pub(crate) fn seal(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        self.connection.writer().write_all(bytes)?;
        bytes.clear();
        while self.connection.wants_write() {
            self.connection.write_tls(bytes)?;
        }
        Ok(())
    }

    /// Takes received bytes; appends what they say to `plain`.
    pub(crate) fn open(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> std::io::Result<()> {
        while !bytes.is_empty() {
            if self.connection.read_tls(&mut bytes)? == 0 {
                break;
            }
            let state = self.connection.process_new_packets().map_err(std::io::Error::other)?;
            let (begin, more) = (plain.len(), state.plaintext_bytes_to_read());
            plain.resize(begin + more, 0);
            self.connection.reader().read_exact(&mut plain[begin..])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
