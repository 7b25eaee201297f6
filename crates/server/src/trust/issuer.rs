//! Signing certificates, with a line in the audit log for each.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use identity::{
    Authority, Issuance, Issued, KeyType, Lifetime, Lifetimes, PluggedIn, PrivateKey, Serial, SigningRequest, Subject,
    TrustDomain,
};

use snapshot::Layer;

use super::audit::AuditLog;
use super::state_directory::read;
use super::{AuthoritySource, Caller, StateDirectory, StateError, TlsSettings, random};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a root of our own holds.
const ROOT_TTL: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Signs certificates.
pub(crate) struct Issuer {
    authority: Authority,
    lifetimes: Mutex<Lifetimes>,
    audit: AuditLog,
    key_type: KeyType,
    ttl: Duration,
    no_secrets: Arc<Layer>,
}

/// A certificate with its key. `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WorkloadCertificate {
    /// Certificate and intermediates, as PEM.
    pub(crate) chain: String,
    /// The key, as PEM.
    pub(crate) key: String,
    /// What the workload trusts, as PEM.
    pub(crate) roots: String,
    /// When to replace it.
    pub(crate) rotate_at: Instant,
}

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate").field("rotate_at", &self.rotate_at).finish_non_exhaustive()
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("authority", &self.authority).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Issuer {
    /// With the authority that the settings name; a root of our own is made if there is none yet.
    pub(super) fn open(settings: &TlsSettings, state: &StateDirectory) -> Result<Self, StateError> {
        let now = SystemTime::now();
        let authority = match &settings.authority {
            AuthoritySource::Own => own_root(&settings.trust_domain, settings.key_type, state, now)?,
            AuthoritySource::PluggedIn { certificate, key, chain, roots } => {
                let (own, key, chain, roots) = (read(certificate)?, read(key)?, read(chain)?, read(roots)?);
                let files = PluggedIn { certificate: &own, key: &key, chain: &chain, roots: &roots };
                Authority::plugged_in(&files).map_err(|source| StateError::Identity {
                    whose: format!("the authority of \"{}\"", certificate.display()),
                    source,
                })?
            }
        };
        Ok(Self {
            authority,
            lifetimes: Mutex::new(Lifetimes::new(now)),
            audit: AuditLog::new(state.audit_log()),
            key_type: settings.key_type,
            ttl: settings.workload_ttl,
            no_secrets: Layer::new(),
        })
    }

    /// The layer of secrets of those who have none yet: one for all of them.
    pub(crate) fn no_secrets(&self) -> Arc<Layer> {
        self.no_secrets.clone()
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A key and a certificate for the caller.
    ///
    /// # Errors
    /// When it cannot be signed, or not be booked: then there is none, and what was handed out before stays in force.
    pub(crate) async fn issue(
        self: &Arc<Self>,
        caller: Caller,
        peer: String,
    ) -> Result<WorkloadCertificate, StateError> {
        let this = self.clone();
        let made = tokio::task::spawn_blocking(move || {
            let key = PrivateKey::generate(this.key_type).map_err(unusable)?;
            let (lifetime, serial) = (this.lifetime(this.ttl), Serial::from_random(random()?));
            let issued = this.authority.issue(Subject::Workload(&caller.id), &key, &lifetime, serial);
            let issued = issued.map_err(unusable)?;
            this.book(&issued, &caller, &peer)?;
            let rotation = issued.lifetime.rotation(u64::from_le_bytes(random()?));
            Ok(WorkloadCertificate {
                chain: issued.chain.concat(),
                key: key.to_pem(),
                roots: this.authority.roots_pem(),
                rotate_at: Instant::now() + rotation.duration_since(issued.lifetime.made).unwrap_or_default(),
            })
        });
        made.await.unwrap_or_else(|error| Err(StateError::Settings(format!("signing was broken off: {error}"))))
    }

    /// A certificate for the caller's own key: certificate, intermediates, then the roots, each as PEM. It holds as long
    /// as is asked, and at most as long as the operator says.
    ///
    /// # Errors
    /// As [`Issuer::issue`], and [`identity::Error::SigningRequest`] when the request is not to be signed.
    pub(crate) async fn sign(
        self: &Arc<Self>,
        request: String,
        asked: Option<Duration>,
        caller: Caller,
        peer: String,
    ) -> Result<Vec<String>, StateError> {
        let this = self.clone();
        let signed = tokio::task::spawn_blocking(move || {
            let request = SigningRequest::from_pem(&request).map_err(unusable)?;
            let lifetime = this.lifetime(asked.map_or(this.ttl, |asked| asked.min(this.ttl)));
            let serial = Serial::from_random(random()?);
            let issued = this.authority.issue_for(Subject::Workload(&caller.id), &request, &lifetime, serial);
            let issued = issued.map_err(unusable)?;
            this.book(&issued, &caller, &peer)?;
            let mut chain = issued.chain;
            chain.push(this.authority.roots_pem());
            Ok(chain)
        });
        signed.await.unwrap_or_else(|error| Err(StateError::Settings(format!("signing was broken off: {error}"))))
    }

    /// A key and a certificate for a server with these names, and when to replace it.
    pub(super) fn server(&self, names: &[String]) -> Result<(Issued, PrivateKey, SystemTime), StateError> {
        let key = PrivateKey::generate(self.key_type).map_err(unusable)?;
        let (lifetime, serial) = (self.lifetime(DAY.max(self.ttl)), Serial::from_random(random()?));
        let issued = self.authority.issue(Subject::Server(names), &key, &lifetime, serial).map_err(unusable)?;
        let rotation = issued.lifetime.rotation(u64::from_le_bytes(random()?));
        Ok((issued, key, rotation))
    }

    fn lifetime(&self, ttl: Duration) -> Lifetime {
        self.lifetimes.lock().unwrap_or_else(PoisonError::into_inner).next(SystemTime::now(), ttl)
    }

    fn book(&self, issued: &Issued, caller: &Caller, peer: &str) -> Result<(), StateError> {
        let proof = caller.proof.as_str();
        let issuance = Issuance::new(issued.serial, &caller.id, &issued.lifetime, proof, peer);
        self.audit.append(&issuance.line())?;
        tracing::debug!(id = issuance.id, serial = issuance.serial, proof, peer, "certificate signed");
        Ok(())
    }
}

fn own_root(
    trust_domain: &TrustDomain,
    key_type: KeyType,
    state: &StateDirectory,
    now: SystemTime,
) -> Result<Authority, StateError> {
    if state.root()?.is_none() {
        let key = PrivateKey::generate(key_type).map_err(unusable)?;
        let lifetime = Lifetimes::new(now).next(now, ROOT_TTL);
        let serial = Serial::from_random(random()?);
        let made = Authority::new_root(trust_domain, key, &lifetime, serial).map_err(unusable)?;
        state.keep_root(&made.certificate_pem(), &made.key_pem())?;
        tracing::info!(%trust_domain, "made a root of our own");
    }
    // Another process may have been faster.
    let (certificate, key) = state.root()?.ok_or_else(|| StateError::Settings("the root was removed".to_owned()))?;
    Authority::own(&certificate, &key)
        .map_err(|source| StateError::Identity { whose: "the root in the state directory".to_owned(), source })
}

fn unusable(source: identity::Error) -> StateError {
    StateError::Identity { whose: "a certificate cannot be made".to_owned(), source }
}
