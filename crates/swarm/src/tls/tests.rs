#![allow(clippy::unwrap_used)]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection};
use tempfile::TempDir;

use super::*;

/// An authority, and files with what it signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, directory: TempDir::new().unwrap() };
        std::fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a certificate for a name and its key.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let (chain, private) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&chain, certificate.pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        (chain, private)
    }

    /// A server called `xds.test` that wants certificates of this authority.
    fn server(&self) -> ServerConnection {
        let (chain, key) = self.sign("xds.test");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(certificates(&chain).unwrap(), PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        ServerConnection::new(Arc::new(config)).unwrap()
    }
}

/// Lets both sides talk until they are silent; what the client said and what it heard.
fn talk(client: &mut Session, server: &mut ServerConnection, say: &[u8]) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    let mut bytes = say.to_vec();
    client.seal(&mut bytes)?;
    for _ in 0..10 {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest)?;
            let more = server.process_new_packets().map_err(std::io::Error::other)?.plaintext_bytes_to_read();
            let begin = said.len();
            said.resize(begin + more, 0);
            server.reader().read_exact(&mut said[begin..])?;
        }
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer)?;
        }
        // In pieces, as from a socket.
        answer.chunks(100).try_for_each(|piece| client.open(piece, &mut heard))?;
        bytes.clear();
        client.seal(&mut bytes)?;
    }
    Ok((said, heard))
}

fn files(authority: &Authority) -> TlsFiles {
    let certificate = Some(authority.sign("node.test"));
    TlsFiles { authorities: authority.path("ca.pem"), certificate, server_name: Some("xds.test".to_owned()) }
}

#[test]
fn both_sides_prove_who_they_are_and_understand_each_other() {
    let authority = Authority::new();
    let mut server = authority.server();
    let mut client = Tls::load(&files(&authority), "127.0.0.1:15012").unwrap().begin().unwrap();
    let request = vec![7; 200_000];
    let (said, _) = talk(&mut client, &mut server, &request).unwrap();
    assert_eq!(said, request, "what waited for the handshake was sent after it");
    assert_eq!(server.alpn_protocol(), Some(ALPN));
    assert_eq!(server.peer_certificates().unwrap().len(), 1);
    server.writer().write_all(b"hello").unwrap();
    assert_eq!(talk(&mut client, &mut server, b"").unwrap().1, b"hello");
}

#[test]
fn a_server_that_nobody_trusts_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let trusting = TlsFiles { authorities: other.path("ca.pem"), ..files(&authority) };
    let mut client = Tls::load(&trusting, "127.0.0.1:15012").unwrap().begin().unwrap();
    let error = talk(&mut client, &mut authority.server(), b"x").unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    // The host of the address is the name that must be in the certificate.
    let unnamed = TlsFiles { server_name: None, ..files(&authority) };
    let mut client = Tls::load(&unnamed, "127.0.0.1:15012").unwrap().begin().unwrap();
    let error = talk(&mut client, &mut authority.server(), b"x").unwrap_err().to_string();
    assert!(error.contains("127.0.0.1"), "{error}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let error = |files: TlsFiles| Tls::load(&files, "127.0.0.1:1").unwrap_err().to_string();
    let missing = TlsFiles { authorities: "/nowhere.pem".into(), ..files(&authority) };
    assert!(error(missing).contains("/nowhere.pem"));
    let (_, key) = authority.sign("a");
    let wrong = TlsFiles { authorities: key, ..files(&authority) };
    assert!(error(wrong).contains("no certificate"));
    let mixed = (authority.sign("a").0, authority.sign("b").1);
    assert!(error(TlsFiles { certificate: Some(mixed), ..files(&authority) }).contains("a.pem"));
}
