//! Signing requests (PKCS#10): a public key, and the proof that its sender has the private one.

use rcgen::{CertificateParams, DistinguishedName, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::{Error, PrivateKey};

/// Bytes of a request. One with an RSA key of 4096 bits has less than 2 KB.
const MAX_BYTES: usize = 32 * 1024;
/// Bits of an RSA key: fewer are weak, and more cost whoever verifies them too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Smaller exponents are used by nobody, and make mistakes elsewhere into forgeries.
const LEAST_EXPONENT: u64 = 65_537;
/// P-256 and P-384.
const CURVES: [&str; 2] = ["1.2.840.10045.3.1.7", "1.3.132.0.34"];
/// Signatures of RSA with MD5 and SHA-1, and of ECDSA with SHA-1.
const BROKEN: [&str; 3] = ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1"];

/// A signing request whose signature is right. All that is taken from it is the public key: what name it asks for
/// counts for nothing.
#[derive(Debug)]
pub struct SigningRequest {
    key: SubjectPublicKeyInfo,
}

impl SigningRequest {
    /// Reads and checks a request in PEM form.
    ///
    /// # Errors
    /// [`Error::SigningRequest`] when it is none, when its signature is wrong, or when its key is weak or of a kind that
    /// cannot be served: RSA of 2048 bits and more, ECDSA on P-256 and P-384, and Ed25519 can.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let refused = |reason: &str| Error::SigningRequest(reason.to_owned());
        if text.len() > MAX_BYTES {
            return Err(refused("it is longer than 32 KiB"));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes())
            .map_err(|_| refused("it is no signing request in PEM form"))?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|_| refused("it cannot be read as PKCS#10"))?;
        if !rest.is_empty() {
            return Err(refused("something follows it"));
        }
        let public = &request.certification_request_info.subject_pki;
        match public.parsed() {
            // The size is reckoned with the leading zero that keeps the number positive.
            Ok(PublicKey::RSA(key)) if !RSA_BITS.contains(&key.key_size()) => {
                return Err(refused("its RSA key has not from 2048 to 8192 bits"));
            }
            Ok(PublicKey::RSA(key)) if key.try_exponent().is_ok_and(|exponent| exponent < LEAST_EXPONENT) => {
                return Err(refused("the public exponent of its RSA key is below 65537"));
            }
            Ok(PublicKey::EC(_)) if !is_known_curve(public) => {
                return Err(refused("its key is on a curve that is not served: P-256 and P-384 are"));
            }
            Ok(PublicKey::DSA(_) | PublicKey::GostR3410(_) | PublicKey::GostR3410_2012(_)) | Err(_) => {
                return Err(refused("its key is of a kind that is not served"));
            }
            Ok(PublicKey::RSA(_) | PublicKey::EC(_) | PublicKey::Unknown(_)) => {}
        }
        if BROKEN.contains(&request.signature_algorithm.algorithm.to_id_string().as_str()) {
            return Err(refused("its signature is by SHA-1 or MD5, which prove nothing: sign it with SHA-256"));
        }
        request.verify_signature().map_err(|_| refused("its signature is not by its key"))?;
        let key = SubjectPublicKeyInfo::from_der(public.raw)
            .map_err(|_| refused("its key is of a kind that is not served"))?;
        Ok(Self { key })
    }

    /// A request in PEM form for a certificate of this key. It asks for no name, as none would count.
    ///
    /// # Errors
    /// [`Error::Signing`] when the key cannot sign it.
    pub fn pem_for(key: &PrivateKey) -> Result<String, Error> {
        let mut asked = CertificateParams::default();
        asked.distinguished_name = DistinguishedName::new();
        let request = asked.serialize_request(key.pair()).and_then(|request| request.pem());
        request.map_err(|error| Error::Signing(error.to_string()))
    }

    pub(crate) fn key(&self) -> &impl PublicKeyData {
        &self.key
    }
}

fn is_known_curve(public: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> bool {
    let curve = public.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    curve.is_some_and(|curve| CURVES.contains(&curve.to_id_string().as_str()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;
    use crate::KeyType;

    fn request(pair: &KeyPair) -> String {
        CertificateParams::new(["anything".to_owned()]).unwrap().serialize_request(pair).unwrap().pem().unwrap()
    }

    #[test]
    fn requests_with_the_usual_keys_are_read() {
        for key in [KeyType::EcdsaP256, KeyType::Rsa2048] {
            let key = PrivateKey::generate(key).unwrap();
            let read = SigningRequest::from_pem(&request(key.pair())).unwrap();
            assert_eq!(read.key().der_bytes(), key.pair().public_key_raw());
        }
        for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            SigningRequest::from_pem(&request(&KeyPair::generate_for(kind).unwrap())).unwrap();
        }
    }

    #[test]
    fn a_request_that_is_made_here_can_be_signed() {
        for kind in [KeyType::EcdsaP256, KeyType::Rsa2048] {
            let key = PrivateKey::generate(kind).unwrap();
            let text = SigningRequest::pem_for(&key).unwrap();
            assert_eq!(SigningRequest::from_pem(&text).unwrap().key().der_bytes(), key.pair().public_key_raw());
        }
    }

    #[test]
    fn a_request_that_was_changed_is_refused() {
        let key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        let text = request(key.pair());
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(body).unwrap();
        let at = der.windows(8).position(|w| w == b"anything").unwrap();
        let mut other = der.clone();
        other[at] ^= 1;
        let pem = |der: &[u8]| {
            let text = BASE64_STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
        };
        SigningRequest::from_pem(&pem(&der)).unwrap();
        let error = SigningRequest::from_pem(&pem(&other)).unwrap_err().to_string();
        assert!(error.contains("signature"), "{error}");
        for cut in 0..der.len() {
            assert!(SigningRequest::from_pem(&pem(&der[..cut])).is_err());
        }
        assert!(SigningRequest::from_pem(&pem(&[&der[..], b"x"].concat())).is_err());
    }

    #[test]
    fn junk_and_weak_keys_are_refused() {
        // Made once with `openssl req -new -newkey rsa:1024 -nodes -subj /CN=weak`.
        const WEAK: &str = include_str!("signing_request/rsa-1024.pem");
        let error = SigningRequest::from_pem(WEAK).unwrap_err().to_string();
        assert!(error.contains("2048"), "{error}");
        // Made once with `openssl req -new -nodes -subj /CN=odd` and `-newkey ec -pkeyopt ec_paramgen_curve:secp256k1`,
        // `-newkey rsa:2048 -sha1`, and `-newkey rsa:2048 -pkeyopt rsa_keygen_pubexp:3`.
        for (text, reason) in [
            (include_str!("signing_request/secp256k1.pem"), "curve"),
            (include_str!("signing_request/sha1.pem"), "SHA-1"),
            (include_str!("signing_request/exponent-3.pem"), "exponent"),
        ] {
            let error = SigningRequest::from_pem(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let long = "x".repeat(MAX_BYTES + 1);
        for text in ["", "junk", "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n", &long] {
            assert!(SigningRequest::from_pem(text).is_err());
        }
    }
}
