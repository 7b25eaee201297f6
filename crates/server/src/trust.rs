//! Who may connect over TLS, and what they are given: the listener's certificate, proofs of identity, and certificates
//! for workloads.
//!
//! ```text
//!  TLS handshake ──▶ certificate ─┐
//!  `authorization` ──▶ token ─────┼─▶ Gate ──▶ Caller ──agrees with the Node──▶ stream
//!  state directory, key set ──────┘               └─▶ Issuer ──▶ audit log, certificate
//! ```
//!
//! Decisions about names, signatures and lifetimes are made by [`identity`]; this reads files, the clock and random
//! bytes for it. Everything that is secret is kept in the [`StateDirectory`], readable by its owner only.

mod audit;
mod gate;
mod issuer;
mod keeper;
mod key_set;
mod rotation;
mod server_certificate;
mod settings;
mod signer;
mod state_directory;
mod tenure;
mod tls;

use std::sync::Arc;

pub(crate) use audit::AuditLog;
pub(crate) use gate::{Caller, Channel, Gate, Proving, Verdict, expired, no_proof};
pub(crate) use issuer::{Issuer, WorkloadCertificate};
pub(crate) use keeper::keep;
pub(crate) use rotation::{Actor, StepError};
pub(crate) use server_certificate::ServerCertificate;
pub use settings::{AuthoritySource, CertificateSource, ServiceAccountSource, TlsSettings};
pub(crate) use signer::Signer;
pub use state_directory::{StateDirectory, StateError};
pub(crate) use tenure::{Tenure, look_at};
pub(crate) use tls::{Front, handshake};

use crate::token_review::TokenReviews;

/// Everything that the TLS listener needs.
#[derive(Clone)]
pub(crate) struct Trust {
    pub(crate) front: Arc<Front>,
    pub(crate) certificate: Arc<ServerCertificate>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) rotation_settle: std::time::Duration,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("gate", &self.gate).field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Trust {
    /// Reads, or makes, what the settings say. `reviews` asks a cluster about tokens.
    ///
    /// # Errors
    /// [`StateError`] says what cannot be used, and why.
    pub(crate) fn open(settings: &TlsSettings, reviews: Option<TokenReviews>) -> Result<Self, StateError> {
        let state = StateDirectory::open(&settings.state_directory)?;
        let issuer = Arc::new(Issuer::open(settings, &state)?);
        let certificate = Arc::new(ServerCertificate::load(settings, &issuer)?);
        let front = Arc::new(Front::new(certificate.clone(), issuer.clone())?);
        let gate = Arc::new(Gate::new(settings, state, reviews)?);
        Ok(Self { front, certificate, gate, issuer, rotation_settle: settings.rotation_settle })
    }
}

/// So many random bytes.
fn random<const N: usize>() -> Result<[u8; N], StateError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StateError::Randomness)?;
    Ok(bytes)
}
