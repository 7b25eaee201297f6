//! What the operator decides about TLS and identities.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use identity::{KeyType, TrustDomain, Workload};

use crate::{Listen, TokenReviewSettings};

/// The TLS listeners, and who may connect to them.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Where xDS and the certificate service are served to those who prove who they are: at TCP addresses over TLS, at
    /// Unix sockets to users and tokens. The file of such a socket gets mode 0666: who may be served is decided here.
    pub listen: Vec<Listen>,
    /// Who the users of this machine are that connect by Unix sockets; the kernel says which user a peer is.
    pub users: BTreeMap<u32, Workload>,
    /// Where the authority's key, join tokens and the audit log are kept. Made if it is not there.
    pub state_directory: PathBuf,
    /// Within which workloads have their names.
    pub trust_domain: TrustDomain,
    /// Trust domains whose names mean the same workloads: clients may prove who they are by certificates in them.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// Who signs.
    pub authority: AuthoritySource,
    /// What the listeners show.
    pub certificate: CertificateSource,
    /// What keys are made: of the root, of the listeners, and of workloads that do not bring their own.
    pub key_type: KeyType,
    /// How long workloads' certificates hold. They are replaced at half of that.
    pub workload_ttl: Duration,
    /// How old a stage of a rotation of the root must be before the next one begins: clients that were cut off come back
    /// within this time.
    pub rotation_settle: Duration,
    /// Whose service account tokens count; none when absent.
    pub service_accounts: Option<ServiceAccountSource>,
    /// Which cluster is asked about the service account tokens that no key of `service_accounts` has signed.
    pub token_review: Option<TokenReviewSettings>,
}

/// Who signs certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthoritySource {
    /// A root of our own, made at the first start and kept in the state directory.
    Own,
    /// An intermediate that somebody else signed, in PEM files as in Istio's secret `cacerts`. Read at the start.
    PluggedIn {
        /// `ca-cert.pem`.
        certificate: PathBuf,
        /// `ca-key.pem`.
        key: PathBuf,
        /// `cert-chain.pem`.
        chain: PathBuf,
        /// `root-cert.pem`.
        roots: PathBuf,
    },
}

/// What the listeners show to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// A certificate of the authority for these DNS names and IP addresses, replaced at half its life.
    Signed {
        /// The names.
        names: Vec<String>,
    },
    /// PEM files, read again when they change.
    Files {
        /// The certificate chain.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
}

/// Whose service account tokens count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountSource {
    /// Public keys (JWKS): a file, read again when it changes, or a URL (`http:`, `https:`), asked every five minutes.
    pub keys: String,
    /// PEM file of the authorities by which the URL's server is verified; needed for `https:`.
    pub authorities: Option<PathBuf>,
    /// `iss` of the tokens.
    pub issuer: String,
    /// `aud` of the tokens.
    pub audience: String,
}
