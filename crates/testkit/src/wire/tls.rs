//! TLS for the raw client.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// By what a client knows its server, and the server its client.
#[derive(Clone)]
pub struct Credentials {
    /// What the client trusts, as PEM.
    pub roots: String,
    /// The name that must be in the server's certificate.
    pub name: String,
    /// The client's certificate chain and key, as PEM.
    pub certificate: Option<(String, String)>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `source` is the address to connect from; any when absent.
pub(super) async fn connect(address: SocketAddr, source: Option<IpAddr>, credentials: &Credentials) -> Result<Channel> {
    let (config, name) = config(credentials)?;
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_: Uri| {
        let (connector, name) = (connector.clone(), name.clone());
        async move {
            let socket = open(address, source).await?;
            connector.connect(name, socket).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).context("this is no address")?;
    endpoint.connect_with_connector(connect).await.with_context(|| format!("could not connect to {address} by TLS"))
}

async fn open(address: SocketAddr, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address).await };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

fn config(credentials: &Credentials) -> Result<(ClientConfig, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(credentials.roots.as_bytes()) {
        roots.add(root.map_err(|_| unreadable("a root"))?).context("a root cannot be used")?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let trusting = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS cannot be used")?
        .with_root_certificates(roots);
    let mut config = match &credentials.certificate {
        None => trusting.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| unreadable("the key"))?;
            let chain = chain.map_err(|_| unreadable("the chain"))?;
            trusting.with_client_auth_cert(chain, key).context("the certificate cannot be used")?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(credentials.name.clone()).context("this is no name of a server")?;
    Ok((config, name))
}

/// Without the library's words, which show the line that it cannot read.
fn unreadable(what: &str) -> anyhow::Error {
    anyhow::anyhow!("{what} is not in PEM form")
}
