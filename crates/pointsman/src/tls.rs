//! Arguments of `serve` that are about TLS, identities and the authority.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use identity::{KeyType, Workload};
use server::{AuthoritySource, CertificateSource, Listen, ServiceAccountSource, TlsSettings, TokenReviewSettings};

use crate::config::Compilation;

/// TLS, identities and the authority.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "TLS and identities")]
pub(crate) struct Tls {
    /// Where xDS and the certificate service are served over TLS, to clients that prove who they are; may be repeated.
    /// Istio's agents expect port 15012.
    #[arg(long, value_name = "IP:PORT", requires = "state_dir")]
    xds_tls_listen: Vec<SocketAddr>,
    /// Serve the same on this Unix socket, to the users of --unix-identity and to clients with a bearer token; may be
    /// repeated.
    #[arg(long, value_name = "PATH", requires = "state_dir")]
    xds_unix_listen: Vec<PathBuf>,
    /// Which workload the processes of a user are that connect by --xds-unix-listen; may be repeated.
    #[arg(long, value_name = "UID=NAMESPACE/SERVICE-ACCOUNT", requires = "xds_unix_listen", value_parser = user)]
    unix_identity: Vec<(u32, Workload)>,
    /// Where what a restart must not forget is kept: rollouts, the root's key, join tokens and the audit log; made if it
    /// is not there. Without it a restart begins rollouts anew.
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
    /// A further DNS name or IP address for the certificate of the TLS listeners; may be repeated. It has
    /// istiod.NAMESPACE.svc and pointsman.NAMESPACE.svc of the root namespace, localhost, 127.0.0.1 and ::1.
    #[arg(long, value_name = "NAME")]
    tls_name: Vec<String>,
    /// Show this certificate chain (PEM) at the TLS listeners instead of one of the authority; read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key", conflicts_with = "tls_name")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Sign with this intermediate (PEM; ca-cert.pem of Istio's secret cacerts) instead of a root of our own.
    #[arg(long, value_name = "FILE", requires_all = ["ca_key", "ca_chain", "ca_root"])]
    ca_cert: Option<PathBuf>,
    /// The key of --ca-cert (ca-key.pem).
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// --ca-cert and what stands between it and the root (cert-chain.pem).
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_chain: Option<PathBuf>,
    /// The root that clients trust (root-cert.pem).
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_root: Option<PathBuf>,
    /// How many seconds a stage of a rotation of the root lasts at least: clients that were cut off come back within them.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    ca_settle: u64,
    /// What keys are made.
    #[arg(long, value_enum, default_value = "ecdsa-p256", value_name = "KIND")]
    key_type: Keys,
    /// How many seconds workloads' certificates hold; they are replaced at half of that.
    #[arg(long, default_value_t = 86_400, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=7_776_000))]
    workload_cert_ttl: u64,
    /// Take service account tokens that are signed by a key of this set (JWKS): a file or a URL.
    #[arg(long, value_name = "FILE|URL", requires = "jwt_issuer")]
    jwks: Option<String>,
    /// Authorities (PEM) by which the https servers of key sets are verified: that of --jwks, which needs them, and those
    /// of the issuers in RequestAuthentications, for which those that the system trusts are taken without.
    #[arg(long, value_name = "FILE")]
    jwks_ca: Option<PathBuf>,
    /// The issuer of service account tokens: their `iss`.
    #[arg(long, value_name = "ISSUER", requires = "jwks")]
    jwt_issuer: Option<String>,
    /// Ask the API server of the cluster about service account tokens (TokenReview), if no key of --jwks has signed them.
    /// It is the cluster of --kubeconfig, of KUBECONFIG, or the one that this runs in as a pod.
    #[arg(long)]
    token_review: bool,
    /// The file that says how the API server of --token-review is reached.
    #[arg(long, value_name = "FILE", requires = "token_review")]
    kubeconfig: Option<PathBuf>,
    /// The context of --kubeconfig, or KUBECONFIG, instead of the current one.
    #[arg(long, value_name = "NAME", requires = "token_review")]
    kube_context: Option<String>,
    /// The audience that service account tokens must be for.
    #[arg(long, value_name = "AUDIENCE", default_value = "istio-ca")]
    jwt_audience: String,
}

fn user(text: &str) -> Result<(u32, Workload), String> {
    let (user, workload) = text.split_once('=').ok_or("it has the form UID=NAMESPACE/SERVICE-ACCOUNT")?;
    let user = user.parse().map_err(|_| format!("\"{user}\" is no number of a user"))?;
    Ok((user, workload.parse().map_err(|error: identity::InvalidName| error.to_string())?))
}

/// What keys are made.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Keys {
    /// ECDSA on P-256.
    #[value(name = "ecdsa-p256")]
    EcdsaP256,
    /// RSA of 2048 bits.
    #[value(name = "rsa-2048")]
    Rsa2048,
}

impl Tls {
    /// Where what a restart must not forget is kept.
    pub(crate) fn state_directory(&self) -> Option<&Path> {
        self.state_dir.as_deref()
    }

    /// What the server is to do; `None` when nothing is to be served over TLS.
    pub(crate) fn settings(&self, compilation: &Compilation) -> Result<Option<TlsSettings>> {
        if self.xds_tls_listen.is_empty() && self.xds_unix_listen.is_empty() {
            let token = self.jwks.is_some() || self.token_review;
            if self.tls_cert.is_some() || self.ca_cert.is_some() || token || !self.tls_name.is_empty() {
                bail!(
                    "these arguments need --xds-tls-listen or --xds-unix-listen: --tls-cert, --tls-name, --ca-cert, --jwks, \
                     --token-review"
                );
            }
            return Ok(None);
        }
        let Some(state_directory) = self.state_dir.clone() else {
            bail!("--xds-tls-listen and --xds-unix-listen need --state-dir")
        };
        let trust_domain = match &compilation.trust_domain {
            Some(trust_domain) => trust_domain.clone(),
            None => compilation.domain.parse().context("the domain cannot be the trust domain; say --trust-domain")?,
        };
        let aliases = compilation.aliases(trust_domain.as_str()).cloned().collect();
        let mut users = BTreeMap::new();
        for (user, workload) in &self.unix_identity {
            if let Some(other) = users.insert(*user, workload.clone()).filter(|other| other != workload) {
                bail!("--unix-identity: user {user} cannot be both {other} and {workload}");
            }
        }
        let tls = self.xds_tls_listen.iter().copied().map(Listen::Tcp);
        let unix = self.xds_unix_listen.iter().cloned().map(Listen::Unix);
        Ok(Some(TlsSettings {
            listen: tls.chain(unix).collect(),
            users,
            state_directory,
            trust_domain,
            trust_domain_aliases: aliases,
            authority: self.authority(),
            certificate: self.certificate(&compilation.root_namespace),
            key_type: match self.key_type {
                Keys::EcdsaP256 => KeyType::EcdsaP256,
                Keys::Rsa2048 => KeyType::Rsa2048,
            },
            workload_ttl: Duration::from_secs(self.workload_cert_ttl),
            rotation_settle: Duration::from_secs(self.ca_settle),
            service_accounts: self.service_accounts(),
            token_review: self.token_review.then(|| TokenReviewSettings {
                kubeconfig: self.kubeconfig.clone(),
                context: self.kube_context.clone(),
                ..TokenReviewSettings::new(&self.jwt_audience)
            }),
        }))
    }

    fn authority(&self) -> AuthoritySource {
        match (&self.ca_cert, &self.ca_key, &self.ca_chain, &self.ca_root) {
            (Some(certificate), Some(key), Some(chain), Some(roots)) => AuthoritySource::PluggedIn {
                certificate: certificate.clone(),
                key: key.clone(),
                chain: chain.clone(),
                roots: roots.clone(),
            },
            _ => AuthoritySource::Own,
        }
    }

    fn certificate(&self, root_namespace: &str) -> CertificateSource {
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            return CertificateSource::Files { certificate: certificate.clone(), key: key.clone() };
        }
        let usual = ["istiod", "pointsman"].map(|service| format!("{service}.{root_namespace}.svc"));
        let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        CertificateSource::Signed { names: usual.into_iter().chain(local).chain(self.tls_name.clone()).collect() }
    }

    /// The authorities by which servers of key sets are verified.
    pub(crate) fn key_set_authorities(&self) -> Option<PathBuf> {
        self.jwks_ca.clone()
    }

    fn service_accounts(&self) -> Option<ServiceAccountSource> {
        Some(ServiceAccountSource {
            keys: self.jwks.clone()?,
            authorities: self.jwks_ca.clone(),
            issuer: self.jwt_issuer.clone()?,
            audience: self.jwt_audience.clone(),
        })
    }
}
