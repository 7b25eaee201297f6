//! What can go wrong with keys and certificates.

/// Why a key or certificate cannot be used, or none be made. No text holds any of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no private key that can sign.
    #[error("the private key cannot be used: {0}")]
    Key(String),
    /// A certificate of the authority cannot be used.
    #[error("{what} cannot be used: {reason}")]
    Certificate {
        /// Which one, in words.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The key does not belong to the certificate.
    #[error("the private key does not belong to the certificate of the authority")]
    KeyMismatch,
    /// The authority's own certificate does not hold at this time.
    #[error("the authority's certificate {0}")]
    AuthorityNotValid(&'static str),
    /// A signing request is not to be signed.
    #[error("the signing request cannot be used: {0}")]
    SigningRequest(String),
    /// Signing failed.
    #[error("signing failed: {0}")]
    Signing(String),
}
