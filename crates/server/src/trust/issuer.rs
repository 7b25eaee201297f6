//! Signing certificates, with a line in the audit log for each.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use identity::{
    Issuance, Issued, KeyType, Lifetime, Lifetimes, PrivateKey, Serial, SigningRequest, SpiffeId, Subject, TrustDomain,
};
use snapshot::Layer;
use tokio::sync::watch;

use super::audit::AuditLog;
use super::server_certificate::{Stamp, stamp};
use super::signer::{Signer, files};
use super::{AuthoritySource, Caller, StateDirectory, StateError, TlsSettings, random};
use crate::listen::Peer;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a root of our own holds.
pub(super) const ROOT_TTL: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// When somebody else signs from now on, certificates are replaced within this time, or a twentieth of their life if
/// that is less, so that a fleet does not come all at once.
const LONGEST_SPREAD: Duration = Duration::from_secs(30);
/// Of so many callers it is remembered when they last asked for a certificate.
const MOST_REQUESTS: usize = 100_000;

/// When a certificate was last signed for whom, from where.
type Requests = HashMap<(SpiffeId, Option<IpAddr>), SystemTime>;

/// Signs certificates.
pub(crate) struct Issuer {
    signer: watch::Sender<Arc<Signer>>,
    /// What the files of a plugged-in authority looked like when they were last read, and last looked at.
    stamps: Mutex<[Vec<Stamp>; 2]>,
    /// One change of the authority at a time.
    pub(super) changing: Mutex<()>,
    pub(super) source: AuthoritySource,
    pub(super) state: StateDirectory,
    pub(super) trust_domain: TrustDomain,
    lifetimes: Mutex<Lifetimes>,
    audit: AuditLog,
    /// What was done to the authority.
    pub(super) history: AuditLog,
    pub(super) key_type: KeyType,
    ttl: Duration,
    /// When the certificate service last signed for whom, from where; from before the start all that was signed.
    requests: Mutex<Requests>,
    no_secrets: Arc<Layer>,
}

/// A certificate with its key. `Debug` does not show the key.
#[derive(Clone)]
pub(crate) struct WorkloadCertificate {
    /// Certificate and intermediates, as PEM.
    pub(crate) chain: String,
    /// The key, as PEM.
    pub(crate) key: String,
    /// Who has signed it.
    pub(crate) signer: Arc<Signer>,
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
        f.debug_struct("Issuer").field("signer", &*self.signer.borrow()).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Issuer {
    /// With the authority that the settings name.
    pub(super) fn open(settings: &TlsSettings, state: &StateDirectory) -> Result<Self, StateError> {
        let TlsSettings { authority: source, trust_domain, key_type, .. } = settings;
        let stamps: Vec<_> = files(source).iter().map(|path| stamp(path)).collect();
        let signer = Signer::open(source, state, trust_domain, *key_type)?;
        let audit = AuditLog::new(state.audit_log());
        let requests = recall(&audit, settings.workload_ttl);
        Ok(Self {
            signer: watch::Sender::new(Arc::new(signer)),
            stamps: Mutex::new([stamps.clone(), stamps]),
            changing: Mutex::default(),
            source: source.clone(),
            state: state.clone(),
            trust_domain: trust_domain.clone(),
            lifetimes: Mutex::new(Lifetimes::new(SystemTime::now())),
            audit,
            history: AuditLog::new(state.authority_log()),
            key_type: *key_type,
            ttl: settings.workload_ttl,
            requests: Mutex::new(requests),
            no_secrets: Layer::new(),
        })
    }

    /// The layer of secrets of those who have none yet: one for all of them.
    pub(crate) fn no_secrets(&self) -> Arc<Layer> {
        self.no_secrets.clone()
    }

    /// Who signs now.
    pub(crate) fn signer(&self) -> Arc<Signer> {
        self.signer.borrow().clone()
    }

    /// Who signs now, and who follows.
    pub(crate) fn signers(&self) -> watch::Receiver<Arc<Signer>> {
        self.signer.subscribe()
    }

    /// Takes the authority anew from where it is kept, and tells everybody.
    ///
    /// # Errors
    /// When it cannot be used: then the one before stays in force.
    pub(super) fn reopen(&self) -> Result<Arc<Signer>, StateError> {
        let signer = Arc::new(Signer::open(&self.source, &self.state, &self.trust_domain, self.key_type)?);
        self.signer.send_replace(signer.clone());
        Ok(signer)
    }

    /// Reads the files of a plugged-in authority again if they have changed, once they have not changed for a moment:
    /// there are four of them.
    pub(super) fn refresh(&self) {
        let now: Vec<_> = files(&self.source).iter().map(|path| stamp(path)).collect();
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let [read, seen] = &mut *stamps;
        let is_due = now != *read && now == *seen;
        seen.clone_from(&now);
        if !is_due {
            return;
        }
        *read = now;
        drop(stamps);
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.reopen() {
            Ok(signer) => {
                self.note("replaced", &[("to", signer.authority().fingerprint())]);
                tracing::info!(authority = signer.authority().fingerprint(), "the authority was read again");
            }
            Err(error) => tracing::error!(%error, "the authority cannot be read again: the old one stays in force"),
        }
    }

    /// Notes what was done, where a failure to do so is no reason not to have done it.
    fn note(&self, event: &str, more: &[(&str, String)]) {
        if let Err(error) = self.record(event, more) {
            tracing::error!(%error, event, "what was done to the authority cannot be noted");
        }
    }

    /// Adds a line about the authority to its log.
    pub(super) fn record(&self, event: &str, more: &[(&str, String)]) -> Result<(), StateError> {
        let mut line = serde_json::Map::new();
        line.insert("at".to_owned(), crate::view::Timestamp::from(SystemTime::now()).to_string().into());
        line.insert("event".to_owned(), event.into());
        line.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())));
        self.history.append(&format!("{}\n", serde_json::Value::Object(line)))
    }

    /// A key and a certificate for the caller.
    ///
    /// # Errors
    /// When it cannot be signed, or not be booked: then there is none, and what was handed out before stays in force.
    pub(crate) async fn issue(
        self: &Arc<Self>,
        caller: Arc<Caller>,
        peer: Peer,
    ) -> Result<WorkloadCertificate, StateError> {
        let this = self.clone();
        let made = tokio::task::spawn_blocking(move || {
            let key = PrivateKey::generate(this.key_type).map_err(unusable)?;
            let (lifetime, serial) = (this.lifetime(this.ttl), Serial::from_random(random()?));
            let signer = this.signer();
            let issued = signer.authority().issue(Subject::Workload(&caller.id), &key, &lifetime, serial);
            let issued = issued.map_err(unusable)?;
            this.book(&issued, &caller, &peer)?;
            let rotation = issued.lifetime.rotation(u64::from_le_bytes(random()?));
            Ok(WorkloadCertificate {
                chain: issued.chain.concat(),
                key: key.to_pem(),
                signer,
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
        peer: Peer,
    ) -> Result<Vec<String>, StateError> {
        let this = self.clone();
        let signed = tokio::task::spawn_blocking(move || {
            let request = SigningRequest::from_pem(&request).map_err(unusable)?;
            let lifetime = this.lifetime(asked.map_or(this.ttl, |asked| asked.min(this.ttl)));
            let serial = Serial::from_random(random()?);
            let signer = this.signer();
            let issued = signer.authority().issue_for(Subject::Workload(&caller.id), &request, &lifetime, serial);
            let issued = issued.map_err(unusable)?;
            this.book(&issued, &caller, &peer)?;
            this.note_request(caller.id, peer, lifetime.made);
            let mut chain = issued.chain;
            chain.push(signer.roots().to_owned());
            Ok(chain)
        });
        signed.await.unwrap_or_else(|error| Err(StateError::Settings(format!("signing was broken off: {error}"))))
    }

    /// A key and a certificate for a server with these names, when to replace it, and who has signed it.
    pub(super) fn server(&self, names: &[String]) -> Result<(Issued, PrivateKey, SystemTime, Arc<Signer>), StateError> {
        let key = PrivateKey::generate(self.key_type).map_err(unusable)?;
        let (lifetime, serial) = (self.lifetime(DAY.max(self.ttl)), Serial::from_random(random()?));
        let signer = self.signer();
        let issued = signer.issue_server(names, &key, &lifetime, serial).map_err(unusable)?;
        let rotation = issued.lifetime.rotation(u64::from_le_bytes(random()?));
        Ok((issued, key, rotation, signer))
    }

    /// How long certificates of workloads hold.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How long to wait before a certificate of another signer is replaced.
    pub(crate) fn spread(&self) -> Duration {
        let most = (self.ttl / 20).min(LONGEST_SPREAD);
        let fraction = random().map_or(0.5, |bytes| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX));
        most.mul_f64(fraction)
    }

    /// When the certificate service last signed for a client, if that is known.
    pub(crate) fn requested(&self, id: &SpiffeId, peer: Peer) -> Option<SystemTime> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).get(&(id.clone(), ip(peer))).copied()
    }

    fn note_request(&self, id: SpiffeId, peer: Peer, at: SystemTime) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() >= MOST_REQUESTS {
            let oldest = at.checked_sub(self.ttl).unwrap_or(SystemTime::UNIX_EPOCH);
            requests.retain(|_, at| *at > oldest);
        }
        if requests.len() < MOST_REQUESTS {
            requests.insert((id, ip(peer)), at);
        }
    }

    fn lifetime(&self, ttl: Duration) -> Lifetime {
        self.lifetimes.lock().unwrap_or_else(PoisonError::into_inner).next(SystemTime::now(), ttl)
    }

    fn book(&self, issued: &Issued, caller: &Caller, peer: &Peer) -> Result<(), StateError> {
        let proof = caller.proof.as_str();
        let issuance = Issuance::new(issued.serial, &caller.id, &issued.lifetime, proof, &peer.to_string());
        let issuance = issuance.of_pod(caller.pod.clone());
        self.audit.append(&issuance.line())?;
        tracing::debug!(id = issuance.id, serial = issuance.serial, proof, %peer, "certificate signed");
        Ok(())
    }
}

/// For whom certificates were signed that may still be in use, by the audit log. It does not tell how they were asked for:
/// whoever asks by a stream is known by that.
fn recall(audit: &AuditLog, ttl: Duration) -> Requests {
    let mut requests = Requests::new();
    let oldest = SystemTime::now().checked_sub(ttl).unwrap_or(SystemTime::UNIX_EPOCH);
    let read = audit.each_since(oldest, |line| {
        let Ok(issuance) = serde_json::from_str::<Issuance>(line) else { return };
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(issuance.at));
        let (Some(at), Ok(id)) = (at.filter(|at| *at > oldest), issuance.id.parse()) else { return };
        let peer = issuance.peer.parse().ok().map(|peer: SocketAddr| peer.ip());
        if requests.len() < MOST_REQUESTS {
            requests.insert((id, peer), at);
        }
    });
    if let Err(error) = read {
        tracing::warn!(%error, "the audit log cannot be read: a rotation of the root may not wait for agents");
    }
    requests
}

fn ip(peer: Peer) -> Option<IpAddr> {
    match peer {
        Peer::Tcp(address) => Some(address.ip()),
        Peer::Unix { .. } => None,
    }
}

pub(super) fn unusable(source: identity::Error) -> StateError {
    StateError::Identity { whose: "a certificate cannot be made".to_owned(), source }
}
