//! Proofs of identity.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, header};
use identity::{InvalidToken, JoinToken, NodeClaims, SpiffeId, TrustDomain, Workload};
use proto::pb::google::protobuf::Struct;
use proto::pb::google::protobuf::value::Kind;
use tonic::Status;

use super::key_set::KeySet;
use super::{StateDirectory, StateError, TlsSettings};

/// What a client is told that shows nothing. What is wrong with a proof stands in the log, not in the answer: it would
/// help whoever tries others.
const NO_PROOF: &str = "prove who you are: with a client certificate, or with a bearer token in \"authorization\"";
const BAD_TOKEN: &str = "the bearer token proves nothing here";
const BAD_CERTIFICATE: &str = "the client certificate names no workload of this trust domain";
const OTHER_NODE: &str = "the node is not the one that this identity may be";

/// Says who callers are.
#[derive(Debug)]
pub(crate) struct Gate {
    trust_domain: TrustDomain,
    aliases: Vec<TrustDomain>,
    state: StateDirectory,
    accounts: Option<KeySet>,
}

/// Who a caller has proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The workload.
    pub(crate) id: SpiffeId,
    /// By what.
    pub(crate) proof: Proof,
}

/// What somebody proved an identity by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Certificate,
    ServiceAccountToken,
    JoinToken,
}

impl Proof {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Proof::Certificate => "certificate",
            Proof::ServiceAccountToken => "service-account-token",
            Proof::JoinToken => "join-token",
        }
    }
}

/// What a TLS connection shows of its client.
#[derive(Clone)]
pub(crate) struct Channel {
    gate: Arc<Gate>,
    /// Who the certificate is for, if there is one, or why that cannot be said.
    certificate: Option<Result<SpiffeId, Arc<str>>>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Gate {
    pub(super) fn new(settings: &TlsSettings, state: StateDirectory) -> Result<Self, StateError> {
        let accounts = settings.service_accounts.clone().map(KeySet::open).transpose()?;
        let (trust_domain, aliases) = (settings.trust_domain.clone(), settings.trust_domain_aliases.clone());
        Ok(Self { trust_domain, aliases, state, accounts })
    }

    pub(super) fn accounts(&self) -> Option<&KeySet> {
        self.accounts.as_ref()
    }

    /// The connection of a client with this certificate, which TLS has verified.
    pub(super) fn channel(self: &Arc<Self>, certificate: Option<&[u8]>) -> Channel {
        let certificate = certificate.map(|der| match identity::client_id(der) {
            Ok(id) if id.trust_domain == self.trust_domain => Ok(id),
            // The same workload by another name: what it is given is in the trust domain's own.
            Ok(id) if self.aliases.contains(&id.trust_domain) => Ok(id.workload.within(&self.trust_domain)),
            Ok(id) => Err(format!("{id} is not of the trust domain \"{}\"", self.trust_domain).into()),
            Err(error) => Err(error.to_string().into()),
        });
        Channel { gate: self.clone(), certificate }
    }

    fn redeem(&self, token: &str) -> Result<(Workload, Proof), String> {
        if JoinToken::is_one(token) {
            let redeemed = token.parse().and_then(|token| self.state.redeem(&token, SystemTime::now()));
            return redeemed.map(|who| (who, Proof::JoinToken)).map_err(|error: InvalidToken| error.to_string());
        }
        let accounts =
            self.accounts.as_ref().ok_or("service account tokens are not taken: no key set is configured")?;
        let keys = accounts.current().ok_or("the key set of service accounts could not be read yet")?;
        let verified = keys.verify(token, SystemTime::now());
        verified.map(|who| (who, Proof::ServiceAccountToken)).map_err(|error| error.to_string())
    }
}

impl Channel {
    /// Whether a call with this head brings any proof at all.
    pub(crate) fn has_proof(&self, headers: &HeaderMap) -> bool {
        self.certificate.is_some() || headers.contains_key(header::AUTHORIZATION)
    }

    /// Who calls: whom the certificate is for, else for whom the bearer token stands. A join token for one use is used
    /// by this.
    ///
    /// # Errors
    /// UNAUTHENTICATED, with a reason in the log.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Status> {
        let token = bearer(headers);
        match (&self.certificate, token) {
            (Some(Ok(id)), _) => Ok(Caller { id: id.clone(), proof: Proof::Certificate }),
            (_, Some(token)) => match self.gate.redeem(token) {
                Ok((who, proof)) => Ok(Caller { id: who.within(&self.gate.trust_domain), proof }),
                Err(reason) => {
                    tracing::warn!(reason, "a bearer token was refused");
                    Err(Status::unauthenticated(BAD_TOKEN))
                }
            },
            (Some(Err(reason)), None) => {
                tracing::warn!(reason = &**reason, "a client certificate was refused");
                Err(Status::unauthenticated(BAD_CERTIFICATE))
            }
            (None, None) => Err(no_proof()),
        }
    }
}

/// What is answered to a call without any proof.
pub(crate) fn no_proof() -> Status {
    Status::unauthenticated(NO_PROOF)
}

impl Caller {
    /// Whether this may be the node that it says it is.
    ///
    /// # Errors
    /// PERMISSION_DENIED, with a reason in the log.
    pub(crate) fn may_be(&self, id: &str, metadata: &Struct) -> Result<(), Status> {
        let text = |key: &str| match &metadata.fields.get(key)?.kind {
            Some(Kind::StringValue(text)) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        };
        let claims = NodeClaims { id, namespace: text("NAMESPACE"), service_account: text("SERVICE_ACCOUNT") };
        claims.agree_with(&self.id.workload).map_err(|reason| {
            tracing::warn!(node = id, identity = %self.id, %reason, "a node was refused");
            Status::permission_denied(OTHER_NODE)
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
