//! Asking the certificate service, with whatever proves who the workload is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use identity::{KeyType, PrivateKey, SigningRequest, TlsSecret};
use proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use testkit::wire::{Credentials, Wire};

use super::Arguments;
use super::files::{Files, Kept};
use crate::bootstrap::host_and_port;
use crate::output::causes;

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server, and what it is asked with.
pub(super) struct Authority {
    place: Place,
    ca: Option<PathBuf>,
    token: Option<PathBuf>,
    given: Option<(PathBuf, PathBuf)>,
    ttl: Option<u32>,
}

enum Place {
    Tls { host: String, port: u16, name: String },
    Unix(String),
}

/// What proves who the workload is.
enum Proof {
    /// A certificate chain and its key.
    Certificate(String, String),
    /// A bearer token.
    Token(String),
    /// That this process has connected.
    User,
}

impl Authority {
    pub(super) fn new(arguments: &Arguments) -> Result<Self> {
        let place = if arguments.xds.starts_with("unix:") {
            Place::Unix(arguments.xds.clone())
        } else {
            let (host, port) = host_and_port(&arguments.xds)?;
            ensure!(arguments.xds_ca.is_some(), "say which authorities have signed for the server: --xds-ca FILE");
            let given = arguments.token_file.is_some() || arguments.client_cert.is_some();
            ensure!(given, "say what proves who the workload is: --token-file, or --client-cert and --client-key");
            let name = arguments.xds_name.clone().unwrap_or_else(|| host.to_owned());
            Place::Tls { host: host.to_owned(), port, name }
        };
        Ok(Self {
            place,
            ca: arguments.xds_ca.clone(),
            token: arguments.token_file.clone(),
            given: arguments.client_cert.clone().zip(arguments.client_key.clone()),
            ttl: arguments.ttl,
        })
    }

    /// For how many seconds certificates are asked for, if that is said.
    pub(super) fn ttl(&self) -> Option<u32> {
        self.ttl
    }

    /// A certificate for a new key, with the key and what is trusted. Proved by the certificate in force, which needs no
    /// token that may be over; when that is not taken, by what was given.
    ///
    /// # Errors
    /// Why no proof was taken, for each of them.
    pub(super) async fn ask(&self, kept: Option<&Kept>, files: &Files) -> Result<TlsSecret> {
        let key = PrivateKey::generate(KeyType::EcdsaP256)?;
        let csr = SigningRequest::pem_for(&key)?;
        let mut refused = Vec::new();
        for (what, proof) in self.proofs(kept) {
            let asked = async {
                let wire = self.connect(proof?, files).await?;
                let request = IstioCertificateRequest {
                    csr: csr.clone(),
                    validity_duration: self.ttl.map_or(0, i64::from),
                    ..IstioCertificateRequest::default()
                };
                let answer: Result<IstioCertificateResponse, _> = wire.call(METHOD, request).await;
                answer.map_err(|status| anyhow::anyhow!("{:?}: {}", status.code(), status.message()))
            };
            let answer = tokio::time::timeout(PATIENCE, asked).await.context("there is no answer");
            match answer.and_then(|answer| answer) {
                Ok(answer) => return secret(&key, &answer.cert_chain),
                Err(error) => refused.push(format!("by {what}: {}{}", causes(&error), hint(&error))),
            }
        }
        bail!("{} gives no certificate {}", self.place, refused.join("; "))
    }

    fn proofs(&self, kept: Option<&Kept>) -> Vec<(&'static str, Result<Proof>)> {
        let mut proofs = Vec::new();
        if let (Some((chain, key)), Place::Tls { .. }) = (kept.and_then(|kept| kept.secret.pair()), &self.place) {
            proofs.push(("the certificate in force", Ok(Proof::Certificate(chain.to_owned(), key.to_owned()))));
        }
        if let Some(path) = &self.token {
            proofs.push(("the token", read(path).map(|text| Proof::Token(text.trim().to_owned()))));
        }
        if let Some((chain, key)) = &self.given {
            let pair = || Ok(Proof::Certificate(read(chain)?, read(key)?));
            proofs.push(("the certificate that was given", pair()));
        }
        if proofs.is_empty() {
            proofs.push(("the user of this process", Ok(Proof::User)));
        }
        proofs
    }

    async fn connect(&self, proof: Proof, files: &Files) -> Result<Wire> {
        let (certificate, token) = match proof {
            Proof::Certificate(chain, key) => (Some((chain, key)), None),
            Proof::Token(token) => (None, Some(token)),
            Proof::User => (None, None),
        };
        let wire = match &self.place {
            Place::Unix(path) => Wire::connect(path.clone()).await?,
            Place::Tls { host, port, name } => {
                let given = self.ca.as_deref().map(read).transpose()?.unwrap_or_default();
                // Later authorities are known by earlier certificates only.
                let roots = format!("{given}\n{}", files.roots().unwrap_or_default());
                let credentials = Credentials { roots, name: name.clone(), certificate };
                Wire::connect_tls(resolve(host, *port).await?, &credentials).await?
            }
        };
        token.map_or_else(|| Ok(wire.clone()), |token| wire.with_token(&token))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tls { host, port, .. } => write!(f, "{host}:{port}"),
            Place::Unix(path) => f.write_str(path),
        }
    }
}

/// What to do about it, where that is known.
fn hint(error: &anyhow::Error) -> &'static str {
    let is_plaintext = |cause: &(dyn std::error::Error + 'static)| cause.to_string().contains("InvalidContentType");
    match error.chain().any(is_plaintext) {
        true => "; that server does not speak TLS there: name an address of its --xds-tls-listen, such as port 15012",
        false => "",
    }
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let mut found =
        tokio::net::lookup_host((host, port)).await.with_context(|| format!("cannot resolve \"{host}\""))?;
    found.next().with_context(|| format!("\"{host}\" has no address"))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read \"{}\"", path.display()))
}

/// What the answer holds: the certificate, intermediates, then what is trusted.
fn secret(key: &PrivateKey, answer: &[String]) -> Result<TlsSecret> {
    let Some((roots, chain)) = answer.split_last().filter(|(_, chain)| !chain.is_empty()) else {
        bail!("the server's answer has no certificate and root");
    };
    TlsSecret::new(Some(&chain.concat()), Some(&key.to_pem()), Some(roots)).context("the server's answer is of no use")
}
