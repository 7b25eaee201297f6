//! Who a workload is, how it proves that, and the authority that signs it.
//!
//! ```text
//!  client certificate ─┐                                ┌─▶ Issued: chain, key, when to rotate
//!  service account JWT ┼─▶ Workload ──agrees──▶ Authority
//!  join token ─────────┘      ▲                         └─▶ Issuance, for the audit log
//!                       claims of the node
//! ```
//!
//! - A [`SpiffeId`] names a [`Workload`] of a [`TrustDomain`]; [`NodeClaims`] are what a node says about itself, and must
//!   agree with it.
//! - An [`Authority`] signs: with a root of its own, or with an intermediate that was plugged in. The name in a
//!   certificate always comes from whoever proved it, never from a signing request ([`SigningRequest`]).
//! - A [`Rotation`] replaces a root in stages, so that nobody trusts too little at any moment.
//! - [`Lifetimes`] says from when to when certificates hold, also when the clock jumps backwards.
//! - A [`TlsSecret`] is a pair that somebody else made, for a gateway.
//! - [`JoinToken`]s and [`ServiceAccountTokens`] prove who a client is that has no certificate yet.
//!
//! Time, keys and serial numbers come in as parameters. What is random inside is what the library of cryptography draws
//! for itself: the keys of [`PrivateKey::generate`] and the nonces of ECDSA. There is no IO.
//!
//! Invariants: no private key and no token shows in `Debug` or in an error; a certificate never outlives its signer.

mod authority;
mod claims;
mod client;
mod error;
mod issuance;
mod join_token;
mod key;
mod lifetime;
mod pem;
mod rotation;
mod serial;
mod service_account;
mod signing_request;
mod spiffe;
mod tls_secret;

pub use authority::{Authority, Issued, PluggedIn, Subject, fingerprint, pem_of};
pub use claims::{Disagreement, NodeClaims};
pub use client::{ClientCertificate, ClientCertificateError};
pub use error::Error;
pub use issuance::{Issuance, Pod};
pub use join_token::{InvalidToken, JoinRecord, JoinToken, TokenId, Uses};
pub use key::{KeyType, PrivateKey};
pub use lifetime::{Lifetime, Lifetimes};
pub use pem::pem_reason;
pub use rotation::{Rotation, Stage, Trusting};
pub use serial::Serial;
pub use service_account::{ClaimedAccount, ServiceAccountTokens, TokenError};
pub use signing_request::SigningRequest;
pub use spiffe::{InvalidName, SpiffeId, TrustDomain, Workload};
pub use tls_secret::{TlsSecret, TlsSecretError};
