//! What the TLS listeners show: replaced while connections come in.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use identity::pem_reason;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::signer::Signer;
use super::{CertificateSource, Issuer, StateError, TlsSettings};

/// The certificate in force, and where the next one comes from.
pub(crate) struct ServerCertificate {
    current: RwLock<Arc<CertifiedKey>>,
    source: CertificateSource,
    issuer: Arc<Issuer>,
    due: Mutex<Due>,
}

/// A certificate with what follows from where it came from.
type Obtained = (Arc<CertifiedKey>, Due);

/// When it is to be replaced.
#[derive(Clone, Debug)]
enum Due {
    /// At that time, or as soon as somebody else signs.
    At(SystemTime, Arc<Signer>),
    /// When the files are other ones than these.
    When([Stamp; 2]),
}

/// Tells whether a file has changed.
pub(super) type Stamp = Option<(SystemTime, u64)>;

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("source", &self.source).finish_non_exhaustive()
    }
}

impl ServerCertificate {
    pub(super) fn load(settings: &TlsSettings, issuer: &Arc<Issuer>) -> Result<Self, StateError> {
        let (source, issuer) = (settings.certificate.clone(), issuer.clone());
        let (current, due) = obtain(&source, &issuer)?;
        Ok(Self { current: RwLock::new(current), source, issuer, due: Mutex::new(due) })
    }

    /// Replaces it if that is due. When it cannot be replaced, the old one stays in force, and it is tried again when
    /// it is asked again, or when the files change again.
    pub(crate) fn refresh(&self, now: SystemTime) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = match (&*due, &self.source) {
            (Due::At(at, signer), _) => now >= *at || !self.issuer.signer().signs_like(signer),
            (Due::When(before), CertificateSource::Files { certificate, key }) => {
                *before != [stamp(certificate), stamp(key)]
            }
            (Due::When(_), CertificateSource::Signed { .. }) => true,
        };
        if !is_due {
            return;
        }
        match obtain(&self.source, &self.issuer) {
            Ok((next, next_due)) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
                *due = next_due;
                tracing::info!("the certificate of the TLS listeners was replaced");
            }
            Err(error) => {
                tracing::error!(%error, "the certificate of the TLS listeners cannot be replaced: the old one stays");
                if let CertificateSource::Files { certificate, key } = &self.source {
                    *due = Due::When([stamp(certificate), stamp(key)]);
                }
            }
        }
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn obtain(source: &CertificateSource, issuer: &Issuer) -> Result<Obtained, StateError> {
    match source {
        CertificateSource::Signed { names } => {
            let (issued, key, rotation, signer) = issuer.server(names)?;
            let chain = issued.chain.concat();
            let certified = certified(chain.as_bytes(), key.to_pem().as_bytes(), "the listeners' certificate")?;
            Ok((certified, Due::At(rotation, signer)))
        }
        CertificateSource::Files { certificate, key } => {
            // Before reading: what changes in between is seen next time.
            let stamps = [stamp(certificate), stamp(key)];
            let read = |path: &Path| {
                fs::read(path).map_err(|source| StateError::File { what: "read", path: path.to_owned(), source })
            };
            let whose = format!("the listeners' certificate \"{}\"", certificate.display());
            Ok((certified(&read(certificate)?, &read(key)?, &whose)?, Due::When(stamps)))
        }
    }
}

fn certified(chain: &[u8], key: &[u8], whose: &str) -> Result<Arc<CertifiedKey>, StateError> {
    let unusable = |reason: String| StateError::Settings(format!("{whose} cannot be used: {reason}"));
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| unusable(pem_reason(&error)))?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(format!("its key: {}", pem_reason(&error))))?;
    let key = any_supported_type(&key).map_err(|error| unusable(format!("its key: {error}")))?;
    let certified = CertifiedKey::new(chain, key);
    if certified.cert.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    certified.keys_match().map_err(|error| unusable(error.to_string()))?;
    Ok(Arc::new(certified))
}

pub(super) fn stamp(path: &Path) -> Stamp {
    let read = || -> io::Result<(SystemTime, u64)> {
        let metadata = fs::metadata(path)?;
        Ok((metadata.modified()?, metadata.len()))
    };
    read().ok()
}
