//! Service account tokens of Kubernetes: JWTs that are verified by the cluster's public keys.

mod claimed;

use std::fmt;
use std::time::SystemTime;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

pub use claimed::ClaimedAccount;
use claimed::Claims;

use crate::{InvalidName, Workload};

/// Bytes of a token; those of Kubernetes have about a thousand.
const MAX_BYTES: usize = 16 * 1024;
/// What signs with a private key. The kinds in which verifier and signer share one secret are left out: with them a
/// public key would be a secret that everybody knows.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Whose tokens count, and for whom they must be made.
pub struct ServiceAccountTokens {
    keys: Vec<(Option<String>, DecodingKey)>,
    issuer: String,
    audience: String,
}

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The set of keys cannot be read, or has none that can be used.
    #[error("the key set cannot be used: {0}")]
    Keys(String),
    /// It is no JWT, or its signature is by none of the keys, or of a kind that is not taken.
    #[error("the token is not signed by a key of its issuer")]
    Signature,
    /// It was made by somebody else.
    #[error("the token is of another issuer")]
    Issuer,
    /// It was made for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// It is over.
    #[error("the token has expired")]
    Expired,
    /// It does not hold yet.
    #[error("the token does not hold yet")]
    NotYet,
    /// It is not of a service account.
    #[error("the token's subject is no service account")]
    Subject,
    /// It is no JWT of a service account: a claim that each has is not there, or is something else.
    #[error("the token is none of a service account: iss, sub, aud and exp must be there, as RFC 7519 has them")]
    Form,
    /// Its header demands what is not understood here.
    #[error("the token demands extensions (\"crit\") that are not understood")]
    Critical,
    /// Its names are none.
    #[error("the token's subject: {0}")]
    Name(#[from] InvalidName),
}

impl TokenError {
    /// Whether somebody else may know the token: nothing that is known here has signed it for its issuer.
    pub fn is_of_others(&self) -> bool {
        match self {
            TokenError::Keys(_) | TokenError::Signature | TokenError::Issuer => true,
            TokenError::Audience
            | TokenError::Expired
            | TokenError::NotYet
            | TokenError::Subject
            | TokenError::Form
            | TokenError::Critical
            | TokenError::Name(_) => false,
        }
    }
}

impl ServiceAccountTokens {
    /// Tokens of `issuer` for `audience`, signed by a key of this set (RFC 7517).
    ///
    /// # Errors
    /// [`TokenError::Keys`] when there is no key in it by which a signature can be verified.
    pub fn new(key_set: &str, issuer: &str, audience: &str) -> Result<Self, TokenError> {
        let set: JwkSet = serde_json::from_str(key_set).map_err(|error| TokenError::Keys(error.to_string()))?;
        let keys: Vec<_> = set.keys.iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err(TokenError::Keys("it has no public key that is known here".to_owned()));
        }
        Ok(Self { keys, issuer: issuer.to_owned(), audience: audience.to_owned() })
    }

    /// Whose token it is, and until when it counts.
    ///
    /// # Errors
    /// [`TokenError`] when it proves nothing now.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<(Workload, SystemTime), TokenError> {
        if token.len() > MAX_BYTES {
            return Err(TokenError::Signature);
        }
        let header = decode_header(token).map_err(|_| TokenError::Signature)?;
        // RFC 7515, 4.1.11: whoever does not understand all of it must not take the token.
        if claimed::demands_extensions(token) {
            return Err(TokenError::Critical);
        }
        if !ALGORITHMS.contains(&header.alg) {
            return Err(TokenError::Signature);
        }
        let mut validation = Validation::new(header.alg);
        // The rest is looked at below: the library would read the clock by itself.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let is_candidate = |id: &Option<String>| header.kid.is_none() || id.is_none() || *id == header.kid;
        let candidates = self.keys.iter().filter(|(id, key)| is_candidate(id) && key.family() == header.alg.family());
        let claims = candidates
            .filter_map(|(_, key)| decode::<Value>(token, key, &validation).ok())
            .next()
            .ok_or(TokenError::Signature)?
            .claims;
        let claims = Claims::deserialize(claims).map_err(|_| TokenError::Form)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer);
        }
        let claimed = claims.read(&self.audience, now)?;
        Ok((claimed.workload, claimed.until))
    }
}

/// A key that signatures can be verified by, with its id.
fn key(key: &Jwk) -> Option<(Option<String>, DecodingKey)> {
    if matches!(key.algorithm, AlgorithmParameters::OctetKey(_)) {
        return None;
    }
    Some((key.common.key_id.clone(), DecodingKey::from_jwk(key).ok()?))
}

impl fmt::Debug for ServiceAccountTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, issuer, audience } = self;
        let keys = keys.len();
        f.debug_struct("ServiceAccountTokens")
            .field("keys", &keys)
            .field("issuer", issuer)
            .field("audience", audience)
            .finish()
    }
}

#[cfg(test)]
mod tests;
