//! Somebody who signs tokens, and a server with documents such as their keys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// The time in seconds of Unix.
pub fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

/// An issuer with a key of P-256.
pub struct Issuer {
    pub name: String,
    key: KeyPair,
}

impl Issuer {
    pub fn new(name: &str) -> Issuer {
        Issuer { name: name.to_owned(), key: KeyPair::generate().unwrap() }
    }

    /// The same by another name.
    pub fn called(self, name: &str) -> Issuer {
        Issuer { name: name.to_owned(), ..self }
    }

    /// The public key as a JWKS.
    pub fn key_set(&self) -> String {
        let point = self.key.public_key_raw();
        let part = |range| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
        let (x, y) = (part(1..33), part(33..65));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "x": x, "y": y}]}).to_string()
    }

    /// A token for alice at the shop that holds for an hour, with these claims instead; `null` leaves one out.
    pub fn token(&self, claims: Value) -> String {
        let key = EncodingKey::from_ec_der(&self.key.serialize_der());
        encode(&Header::new(Algorithm::ES256), &self.claims(claims), &key).unwrap()
    }

    /// One that is signed symmetrically, with the public key as the secret that both know.
    pub fn token_by_public_key(&self) -> String {
        let key = EncodingKey::from_secret(self.key.public_key_raw());
        encode(&Header::new(Algorithm::HS256), &self.claims(json!({})), &key).unwrap()
    }

    fn claims(&self, other: Value) -> Value {
        let mut claims = json!({"iss": self.name, "aud": "shop", "sub": "alice", "exp": now() + 3600});
        let all = claims.as_object_mut().unwrap();
        for (name, value) in other.as_object().unwrap() {
            match value {
                Value::Null => _ = all.remove(name),
                value => _ = all.insert(name.clone(), value.clone()),
            }
        }
        claims
    }
}

/// A token that says that it needs no signature.
pub fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none", "typ": "JWT"})), part(claims))
}

/// A server with documents that change, over TLS or in the clear.
pub struct Documents {
    pub address: SocketAddr,
    scheme: &'static str,
    answers: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
    asked: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Documents {
    pub async fn start() -> Documents {
        Documents::listen(None).await
    }

    /// With this certificate and key, both PEM, for `127.0.0.1` or any other name; for clients who show a certificate of
    /// `clients`, if there are any.
    pub async fn start_tls(pair: &(String, String), clients: Option<&str>) -> Documents {
        let chain = CertificateDer::pem_slice_iter(pair.0.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.1.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                let authorities = CertificateDer::pem_slice_iter(authorities.as_bytes());
                roots.add_parsable_certificates(authorities.map(Result::unwrap));
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        Documents::listen(Some(Arc::new(builder.with_single_cert(chain, key).unwrap()))).await
    }

    async fn listen(tls: Option<Arc<ServerConfig>>) -> Documents {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Arc<Mutex<BTreeMap<String, (u16, String)>>> = Arc::default();
        let asked = Arc::new(AtomicU64::new(0));
        let (known, count) = (answers.clone(), asked.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = |path: &str| {
                    count.fetch_add(1, Ordering::SeqCst);
                    known.lock().unwrap().get(path).cloned().unwrap_or((404, String::new()))
                };
                match &tls {
                    None => serve(stream, answer).await,
                    // Whoever does not trust the certificate, or has none to show, is not served.
                    Some(tls) => match TlsAcceptor::from(tls.clone()).accept(stream).await {
                        Ok(stream) => serve(stream, answer).await,
                        Err(_) => continue,
                    },
                }
            }
        });
        Documents { address, scheme, answers, asked, task }
    }

    /// From now on this is answered.
    pub fn set(&self, path: &str, status: u16, body: &str) {
        self.answers.lock().unwrap().insert(path.to_owned(), (status, body.to_owned()));
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// How many requests have come.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Answers one request.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: impl Fn(&str) -> (u16, String)) {
    let mut request = vec![0; 4096];
    let Ok(length) = stream.read(&mut request).await else { return };
    let text = String::from_utf8_lossy(&request[..length]).into_owned();
    let (status, body) = answer(text.split(' ').nth(1).unwrap_or_default());
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

impl Drop for Documents {
    fn drop(&mut self) {
        self.task.abort();
    }
}
