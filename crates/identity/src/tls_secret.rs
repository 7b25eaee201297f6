//! Certificates and keys that somebody else made, for gateways.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use crate::{PrivateKey, pem};

/// A certificate chain with its key, what clients are verified by, or both. Whatever is in it was found to fit together.
/// `Debug` shows nothing of the key.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsSecret {
    pair: Option<Pair>,
    authorities: Option<String>,
    revoked: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Pair {
    chain: String,
    key: String,
    /// Seconds since the epoch.
    not_after: i64,
}

/// What of a secret cannot be used. No text holds any of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsSecretError {
    /// There is neither a pair nor authorities.
    #[error("there is neither a certificate with its key nor a certificate of authorities in it")]
    Empty,
    /// A certificate lacks its key.
    #[error("there is a certificate without its key")]
    NoKey,
    /// A key lacks its certificate.
    #[error("there is a key without its certificate")]
    NoCertificate,
    /// The certificate chain cannot be read.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The key cannot be read.
    #[error(
        "the key cannot be used: it is no private key in PEM form that can sign (RSA, ECDSA on P-256 or P-384, Ed25519)"
    )]
    Key,
    /// The key is another one's.
    #[error("the key does not belong to the certificate")]
    Mismatch,
    /// The authorities cannot be read.
    #[error("the certificates of authorities cannot be used: {0}")]
    Authorities(String),
    /// The list of what the authorities have revoked cannot be read.
    #[error("the list of revoked certificates cannot be used: {0}")]
    Revoked(String),
}

impl TlsSecret {
    /// Of texts in PEM form.
    ///
    /// # Errors
    /// [`TlsSecretError`] when something is missing, cannot be read, or does not fit together.
    pub fn new(chain: Option<&str>, key: Option<&str>, authorities: Option<&str>) -> Result<Self, TlsSecretError> {
        let pair = match (chain, key) {
            (None, None) => None,
            (Some(_), None) => return Err(TlsSecretError::NoKey),
            (None, Some(_)) => return Err(TlsSecretError::NoCertificate),
            (Some(chain), Some(key)) => Some(pair(chain, key)?),
        };
        let authorities = authorities.map(readable).transpose().map_err(TlsSecretError::Authorities)?;
        if pair.is_none() && authorities.is_none() {
            return Err(TlsSecretError::Empty);
        }
        Ok(Self { pair, authorities, revoked: None })
    }

    /// With lists of what its authorities have revoked, PEM.
    ///
    /// # Errors
    /// [`TlsSecretError::Revoked`] when there is none in the text, one cannot be read, or there are no authorities.
    pub fn with_revoked(self, lists: &str) -> Result<Self, TlsSecretError> {
        let refused = |why: &str| Err(TlsSecretError::Revoked(why.to_owned()));
        if self.authorities.is_none() {
            return refused("there are no authorities beside it");
        }
        let mut count = 0;
        for list in CertificateRevocationListDer::pem_slice_iter(lists.as_bytes()) {
            match list {
                Ok(list) if CertificateRevocationList::from_der(&list).is_ok() => count += 1,
                Ok(_) | Err(_) => return refused("it is not in PEM form"),
            }
        }
        match count {
            0 => refused("there is none in it"),
            _ => Ok(Self { revoked: Some(lists.to_owned()), ..self }),
        }
    }

    /// Certificate chain and key, as PEM. Whoever asks for the key keeps it secret.
    pub fn pair(&self) -> Option<(&str, &str)> {
        self.pair.as_ref().map(|pair| (&*pair.chain, &*pair.key))
    }

    /// When the certificate is over.
    pub fn expires(&self) -> Option<SystemTime> {
        let seconds = self.pair.as_ref()?.not_after;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().unwrap_or_default()))
    }

    /// What clients are verified by, as PEM.
    pub fn authorities(&self) -> Option<&str> {
        self.authorities.as_deref()
    }

    /// What of that is revoked, as PEM.
    pub fn revoked(&self) -> Option<&str> {
        self.revoked.as_deref()
    }
}

impl fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSecret")
            .field("has_pair", &self.pair.is_some())
            .field("has_authorities", &self.authorities.is_some())
            .finish()
    }
}

fn pair(chain: &str, key: &str) -> Result<Pair, TlsSecretError> {
    let certificates = pem::certificates(chain, "it").map_err(reason).map_err(TlsSecretError::Certificate)?;
    let own = parse(&certificates[0]).map_err(TlsSecretError::Certificate)?;
    certificates.iter().skip(1).try_for_each(|next| parse(next).map(drop)).map_err(TlsSecretError::Certificate)?;
    let private = PrivateKey::from_pem(key).map_err(|_| TlsSecretError::Key)?;
    if own.public_key().subject_public_key.data != private.public_bytes() {
        return Err(TlsSecretError::Mismatch);
    }
    let not_after = own.validity().not_after.timestamp();
    Ok(Pair { chain: chain.to_owned(), key: key.to_owned(), not_after })
}

fn readable(text: &str) -> Result<String, String> {
    let certificates = pem::certificates(text, "they").map_err(reason)?;
    certificates.iter().try_for_each(|certificate| parse(certificate).map(drop))?;
    Ok(text.to_owned())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(certificate)
        .map(|(_, parsed)| parsed)
        .map_err(|_| "it is no X.509 certificate".to_owned())
}

fn reason(error: crate::Error) -> String {
    match error {
        crate::Error::Certificate { reason, .. } => reason,
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;
    use crate::KeyType;

    fn certificate(key: &KeyPair) -> String {
        CertificateParams::new(["shop.test".to_owned()]).unwrap().self_signed(key).unwrap().pem()
    }

    #[test]
    fn what_fits_together_is_taken() {
        let rsa = PrivateKey::generate(KeyType::Rsa2048).unwrap();
        let keys = [
            KeyPair::generate().unwrap(),
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
            KeyPair::generate_for(&PKCS_ED25519).unwrap(),
            KeyPair::from_pem(&rsa.to_pem()).unwrap(),
        ];
        for key in keys {
            let (chain, private) = (certificate(&key), key.serialize_pem());
            let secret = TlsSecret::new(Some(&chain), Some(&private), Some(&chain)).unwrap();
            assert_eq!(secret.pair(), Some((&*chain, &*private)));
            assert_eq!(secret.authorities(), Some(&*chain));
            assert!(!format!("{secret:?}").contains(private.lines().nth(1).unwrap()));
        }
    }

    #[test]
    fn a_list_of_revoked_certificates_stands_beside_its_authorities_or_is_refused() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.key_usages.push(rcgen::KeyUsagePurpose::CrlSign);
        let authority = params.self_signed(&key).unwrap().pem();
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2090, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&rcgen::Issuer::new(params, &key)).unwrap().pem().unwrap();
        let authorities = || TlsSecret::new(None, None, Some(&authority)).unwrap();
        assert_eq!(authorities().with_revoked(&list).unwrap().revoked(), Some(&*list));
        for text in ["", "junk", &*authority] {
            let error = authorities().with_revoked(text).unwrap_err();
            assert!(error.to_string().contains("there is none in it"), "{text}: {error}");
        }
        let pair = TlsSecret::new(Some(&certificate(&key)), Some(&key.serialize_pem()), None).unwrap();
        assert!(pair.with_revoked(&list).unwrap_err().to_string().contains("no authorities"));
    }

    #[test]
    fn what_does_not_fit_is_told_apart_without_the_key() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (chain, private, strange) = (certificate(&key), key.serialize_pem(), other.serialize_pem());
        let broken = private.replace("END PRIVATE", "END SOMETHING");
        let cut = format!("{}AAAA\n-----END CERTIFICATE-----\n", &chain[..200]);
        for (chain, key, authorities, expected) in [
            (None, None, None, "neither"),
            (Some(&*chain), None, None, "without its key"),
            (None, Some(&*private), None, "without its certificate"),
            (Some("junk"), Some(&*private), None, "no certificate"),
            (Some(&*cut), Some(&*private), None, "certificate cannot be used"),
            (Some(&*chain), Some("junk"), None, "no private key"),
            (Some(&*chain), Some(&*broken), None, "no private key"),
            (Some(&*chain), Some(&*strange), None, "does not belong"),
            (None, None, Some("junk"), "authorities cannot be used"),
        ] {
            let error = TlsSecret::new(chain, key, authorities).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!format!("{error:?}").contains(private.lines().nth(1).unwrap()));
        }
    }
}
