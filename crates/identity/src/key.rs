//! Private keys.

use std::fmt;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use serde::{Deserialize, Serialize};

use crate::Error;

/// What keys are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyType {
    /// ECDSA on P-256: small, and made in microseconds.
    #[default]
    EcdsaP256,
    /// RSA of 2048 bits, for peers that know nothing else. Making one takes about 80 ms.
    Rsa2048,
}

/// A private key. `Debug` shows nothing of it.
pub struct PrivateKey {
    pair: KeyPair,
}

impl PrivateKey {
    /// A new key. What is random in it is drawn by the library of cryptography.
    ///
    /// # Errors
    /// [`Error::Key`] when the library has none to give.
    pub fn generate(kind: KeyType) -> Result<Self, Error> {
        let made = match kind {
            KeyType::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        };
        made.map(|pair| Self { pair }).map_err(|error| Error::Key(error.to_string()))
    }

    /// Reads a key in PEM form: PKCS#8, or the older forms of RSA and EC keys.
    ///
    /// # Errors
    /// [`Error::Key`] when it is none that can sign.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        KeyPair::from_pem(text).map(|pair| Self { pair }).map_err(|error| Error::Key(error.to_string()))
    }

    /// The key in PEM form (PKCS#8). Whoever asks for it keeps it secret.
    pub fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// The key in DER form (PKCS#8). Whoever asks for it keeps it secret.
    pub fn to_der(&self) -> Vec<u8> {
        self.pair.serialize_der()
    }

    /// The public part, as certificates have it.
    pub(crate) fn public_bytes(&self) -> &[u8] {
        rcgen::PublicKeyData::der_bytes(&self.pair)
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey([redacted])")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_and_shows_nowhere() {
        for kind in [KeyType::EcdsaP256, KeyType::Rsa2048] {
            let key = PrivateKey::generate(kind).unwrap();
            let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
            assert_eq!(again.to_der(), key.to_der());
            assert_eq!(format!("{key:?}"), "PrivateKey([redacted])");
        }
    }

    #[test]
    fn an_error_holds_nothing_of_the_key() {
        let pem = PrivateKey::generate(KeyType::EcdsaP256).unwrap().to_pem();
        let secret = pem.lines().nth(1).unwrap();
        let broken = pem.replace("END PRIVATE", "END PUBLIC");
        let error = PrivateKey::from_pem(&broken).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret[..16]));
    }
}
