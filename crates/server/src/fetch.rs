//! Asking for a document by HTTP.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes of a document. A key set has some hundred for each key; an answer with one number has fewer.
const MAX_BYTES: usize = 1 << 20;
/// How much of the body of an answer that is an error is told.
const TOLD: usize = 200;

/// A document at a URL.
pub(crate) struct Fetch {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// Why a document cannot be had, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{url}\" cannot be asked: {reason}{answer}")]
pub(crate) struct FetchError {
    url: String,
    reason: String,
    /// The beginning of what was answered instead, after a colon; empty for nothing.
    answer: String,
}

impl FetchError {
    /// The same for those who must not see what was answered.
    pub(crate) fn without_answer(self) -> Self {
        Self { answer: String::new(), ..self }
    }
}

/// Where distributions keep the authorities that everybody trusts: Debian and its like, Fedora and its like, Alpine.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The file of authorities that the system trusts, if it has one.
pub(crate) fn authorities_of_the_system() -> Option<&'static Path> {
    AUTHORITIES.iter().map(Path::new).find(|path| path.exists())
}

/// Why nothing, or not what was asked for, was answered.
#[derive(Debug)]
enum Trouble {
    Status(StatusCode, String),
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Trouble::Other(error.into())
    }
}

impl Fetch {
    /// Of `http://` or `https://`; the latter needs the file of authorities by which the server is verified.
    pub(crate) fn new(url: &str, authorities: Option<&Path>) -> Result<Self, FetchError> {
        let unusable = |reason: String| FetchError { url: url.to_owned(), reason, answer: String::new() };
        let uri: Uri = url.parse().map_err(|error| unusable(format!("{error}")))?;
        let host = uri.host().ok_or_else(|| unusable("it names no host".to_owned()))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(unusable("it is neither http:// nor https://".to_owned())),
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = if is_tls {
            let path = authorities.ok_or_else(|| unusable("a file of trusted authorities is needed".to_owned()))?;
            let mut roots = RootCertStore::empty();
            let text = std::fs::read(path).map_err(|error| unusable(format!("\"{}\": {error}", path.display())))?;
            for root in CertificateDer::pem_slice_iter(&text) {
                let added = root
                    .map_err(|error| identity::pem_reason(&error))
                    .and_then(|root| roots.add(root).map_err(|error| error.to_string()));
                added.map_err(|reason| unusable(format!("\"{}\": {reason}", path.display())))?;
            }
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| unusable(error.to_string()))?
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from(host.clone()).map_err(|error| unusable(error.to_string()))?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        Ok(Self { uri, host, port, tls })
    }

    /// The document, if it comes within `patience`.
    ///
    /// # Errors
    /// [`FetchError`] says why it cannot be had.
    pub(crate) async fn get(&self, patience: Duration) -> Result<String, FetchError> {
        let asked = tokio::time::timeout(patience, self.ask());
        let got = asked.await.unwrap_or_else(|_| Err(format!("no answer came within {patience:?}").into()));
        got.map_err(|trouble| {
            let (reason, answer) = match trouble {
                Trouble::Status(status, answer) => (format!("it answered with status {status}"), format!(": {answer}")),
                Trouble::Other(error) => (error.to_string(), String::new()),
            };
            FetchError { url: self.uri.to_string(), reason, answer }
        })
    }

    async fn ask(&self) -> Result<String, Trouble> {
        let socket = TcpStream::connect((&*self.host, self.port)).await?;
        match &self.tls {
            None => self.ask_over(socket).await,
            Some((connector, name)) => self.ask_over(connector.connect(name.clone(), socket).await?).await,
        }
    }

    async fn ask_over<S>(&self, socket: S) -> Result<String, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(path).header(header::HOST, authority).body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await?;
            let text = String::from_utf8(body.to_bytes().to_vec())?;
            if !status.is_success() {
                let told: String = text.trim().chars().take(TOLD).collect();
                return Err(Trouble::Status(status, told));
            }
            Ok(text)
        };
        // The connection is driven here, so that it needs no task.
        let mut answer = std::pin::pin!(answer);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            answer = answer.as_mut() => answer,
            ended = connection.as_mut() => match ended {
                // What was received before the end is still to be taken.
                Ok(()) => answer.await,
                Err(error) => Err(error.into()),
            },
        }
    }
}
