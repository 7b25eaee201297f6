//! Proofs of identity.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use identity::{
    Authority, ClaimedAccount, ClientCertificate, InvalidToken, JoinToken, NodeClaims, Pod, SpiffeId, TokenError,
    TokenId, TrustDomain, Uses, Workload,
};
use proto::pb::google::protobuf::Struct;
use proto::pb::google::protobuf::value::Kind;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::key_set::KeySet;
use super::{StateDirectory, StateError, TlsSettings};
use crate::token_review::{Asked, Origin, Outcome, TokenReviews};

/// What a client is told that shows nothing. What is wrong with a proof stands in the log, not in the answer: it would
/// help whoever tries others.
const NO_PROOF: &str = "prove who you are: with a client certificate, or with a bearer token in \"authorization\"";
const BAD_TOKEN: &str = "the bearer token proves nothing here";
const BAD_CERTIFICATE: &str = "the client certificate names no workload of this trust domain";
const NOT_NOW: &str = "the bearer token cannot be verified at the moment; try again";
const OTHER_NODE: &str = "the node is not the one that this identity may be";

/// Says who callers are.
#[derive(Debug)]
pub(crate) struct Gate {
    trust_domain: TrustDomain,
    aliases: Vec<TrustDomain>,
    users: BTreeMap<u32, Workload>,
    state: StateDirectory,
    accounts: Option<KeySet>,
    reviews: Option<TokenReviews>,
    /// Join tokens that somebody is here by, each to be cancelled when it is revoked.
    leases: Mutex<HashMap<TokenId, Weak<CancellationToken>>>,
}

/// Who a caller has proved to be.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The workload.
    pub(crate) id: SpiffeId,
    /// By what.
    pub(crate) proof: Proof,
    /// Until when a token holds. A certificate's end is the connection's.
    pub(super) until: Option<SystemTime>,
    /// Cancelled when the token is revoked, if that is possible.
    pub(super) lease: Option<Arc<CancellationToken>>,
    /// What names the key that has signed the certificate.
    signer_key_id: Arc<[u8]>,
    /// The pod that a token is bound to, where a cluster has said so.
    pub(super) pod: Option<Pod>,
}

/// Who calls, or what will say so.
pub(crate) enum Verdict {
    /// Who it is, or UNAUTHENTICATED or UNAVAILABLE.
    Known(Result<Caller, Status>),
    /// A cluster is being asked.
    Awaited(Proving),
}

/// The same, once it is known.
pub(crate) type Proving = Pin<Box<dyn Future<Output = Result<Caller, Status>> + Send>>;

/// What somebody proved an identity by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Certificate,
    ServiceAccountToken,
    JoinToken,
    User,
}

impl Proof {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Proof::Certificate => "certificate",
            Proof::ServiceAccountToken => "service-account-token",
            Proof::JoinToken => "join-token",
            Proof::User => "unix-user",
        }
    }
}

/// What a connection shows of its client.
#[derive(Clone)]
pub(crate) struct Channel {
    gate: Arc<Gate>,
    /// From where it comes.
    origin: Origin,
    /// What the certificate says, if there is one, or why it counts for nothing.
    certificate: Option<Result<Arc<ClientCertificate>, Arc<str>>>,
    /// Who the user of the process is at the other end of a Unix socket, if that is anybody.
    user: Option<Workload>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("certificate", &self.certificate)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Gate {
    pub(super) fn new(
        settings: &TlsSettings,
        state: StateDirectory,
        reviews: Option<TokenReviews>,
    ) -> Result<Self, StateError> {
        let accounts = settings.service_accounts.clone().map(KeySet::open).transpose()?;
        let (trust_domain, aliases) = (settings.trust_domain.clone(), settings.trust_domain_aliases.clone());
        let users = settings.users.clone();
        Ok(Self { trust_domain, aliases, users, state, accounts, reviews, leases: Mutex::default() })
    }

    pub(super) fn accounts(&self) -> Option<&KeySet> {
        self.accounts.as_ref()
    }

    /// The connection of a client from there with this certificate, which TLS has verified.
    pub(super) fn channel(self: &Arc<Self>, origin: Origin, certificate: Option<&[u8]>) -> Channel {
        let certificate = certificate.map(|der| match ClientCertificate::read(der) {
            Ok(read) if read.id.trust_domain == self.trust_domain => Ok(Arc::new(read)),
            Ok(read) if self.aliases.contains(&read.id.trust_domain) => {
                // The same workload by another name: what it is given is in the trust domain's own.
                let id = read.id.workload.within(&self.trust_domain);
                Ok(Arc::new(ClientCertificate { id, ..read }))
            }
            Ok(read) => Err(format!("{} is not of the trust domain \"{}\"", read.id, self.trust_domain).into()),
            Err(error) => Err(error.to_string().into()),
        });
        Channel { gate: self.clone(), origin, certificate, user: None }
    }

    /// The connection of a process of this user, as the kernel says.
    pub(super) fn local_channel(self: &Arc<Self>, user: u32) -> Channel {
        let origin = Origin::User(Some(user));
        Channel { gate: self.clone(), origin, certificate: None, user: self.users.get(&user).cloned() }
    }

    /// Ends the streams of those who are here by a join token that was revoked. Blocks on the disk.
    pub(super) fn end_revoked(&self) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|id, lease| {
            let Some(lease) = lease.upgrade() else { return false };
            let holds = self.state.has_token(id);
            if !holds {
                tracing::info!(token = %id, "a join token was revoked: streams by it end");
                lease.cancel();
            }
            holds
        });
    }

    fn lease(&self, id: &TokenId) -> Arc<CancellationToken> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = leases.get(id).and_then(Weak::upgrade) {
            return lease;
        }
        let lease = Arc::new(CancellationToken::new());
        leases.insert(id.clone(), Arc::downgrade(&lease));
        lease
    }

    /// Whom a token stands for: a join token for whom it was made, one that a key of the set has signed for whom it
    /// names, and any other for whom the cluster says.
    fn redeem(&self, token: &str, origin: Origin) -> Verdict {
        let now = SystemTime::now();
        if JoinToken::is_one(token) {
            let redeemed = token.parse().and_then(|token| self.state.redeem(&token, now));
            return Verdict::Known(match redeemed {
                Ok((who, record)) => {
                    let until = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(record.expires)).unwrap_or(now);
                    // One for one use is used up; there is nothing left to revoke.
                    let lease = (record.uses == Uses::Many).then(|| self.lease(&record.id));
                    Ok(Caller { lease, ..Caller::by_token(who.within(&self.trust_domain), Proof::JoinToken, until) })
                }
                Err(error) => Err(refused::<InvalidToken>(&error)),
            });
        }
        if let Some(accounts) = &self.accounts {
            let by_keys = match accounts.current() {
                Some(keys) => keys.verify(token, now),
                None => Err(TokenError::Keys("it could not be read yet".to_owned())),
            };
            match by_keys {
                Ok((who, until)) => {
                    let id = who.within(&self.trust_domain);
                    return Verdict::Known(Ok(Caller::by_token(id, Proof::ServiceAccountToken, until)));
                }
                // What its own issuer's keys say is final; of other tokens the cluster may know more.
                Err(error) if self.reviews.is_none() || !error.is_of_others() => {
                    return Verdict::Known(Err(refused(&error)));
                }
                Err(_) => {}
            }
        }
        match &self.reviews {
            Some(reviews) => self.review(reviews, token, origin),
            None => Verdict::Known(Err(refused(
                &"service account tokens are not taken: neither a key set nor a cluster is configured",
            ))),
        }
    }

    fn review(&self, reviews: &TokenReviews, token: &str, origin: Origin) -> Verdict {
        let (claimed, asked) = match reviews.ask(token, origin) {
            Ok(asked) => asked,
            Err(error) => return Verdict::Known(Err(refused(&error))),
        };
        let trust_domain = self.trust_domain.clone();
        match asked {
            Asked::Known(outcome) => Verdict::Known(caller_of(outcome, &claimed, &trust_domain)),
            Asked::Underway(underway) => Verdict::Awaited(Box::pin(async move {
                let outcome = underway.outcome().await;
                caller_of(outcome, &claimed, &trust_domain)
            })),
        }
    }
}

/// Who a caller is by what a cluster says of the token.
fn caller_of(outcome: Outcome, claimed: &ClaimedAccount, trust_domain: &TrustDomain) -> Result<Caller, Status> {
    match outcome {
        Outcome::Proved(proved) => {
            let id = proved.workload.clone().within(trust_domain);
            let pod = proved.pod.clone();
            Ok(Caller { pod, ..Caller::by_token(id, Proof::ServiceAccountToken, claimed.until) })
        }
        Outcome::Refused(reason) => Err(refused(&reason)),
        Outcome::Failed(reason) => {
            tracing::debug!(reason = &*reason, "a bearer token could not be verified");
            Err(Status::unavailable(NOT_NOW))
        }
    }
}

/// What the bearer of a token is told that proves nothing; why is for the log.
fn refused<R: fmt::Display + ?Sized>(reason: &R) -> Status {
    tracing::warn!(%reason, "a bearer token was refused");
    Status::unauthenticated(BAD_TOKEN)
}

impl Channel {
    /// Whether a call with this head brings any proof at all.
    pub(crate) fn has_proof(&self, headers: &HeaderMap) -> bool {
        self.certificate.is_some() || self.user.is_some() || headers.contains_key(header::AUTHORIZATION)
    }

    /// Until when the connection's certificate holds, if it counts for anything.
    pub(crate) fn until(&self) -> Option<SystemTime> {
        Some(self.certificate.as_ref()?.as_ref().ok()?.not_after)
    }

    /// Who calls: whom the certificate is for, else for whom the bearer token stands, else who the user is. A join
    /// token for one use is used up by this.
    ///
    /// Otherwise UNAUTHENTICATED, with a reason in the log, or UNAVAILABLE when that cannot be said now.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Verdict {
        let token = bearer(headers);
        Verdict::Known(match (&self.certificate, token) {
            (Some(Ok(certificate)), _) if SystemTime::now() >= certificate.not_after => {
                tracing::warn!(identity = %certificate.id, "a client certificate has expired");
                Err(expired())
            }
            (Some(Ok(certificate)), _) => Ok(Caller {
                id: certificate.id.clone(),
                proof: Proof::Certificate,
                until: None,
                lease: None,
                signer_key_id: certificate.signer_key_id.as_slice().into(),
                pod: None,
            }),
            (_, Some(token)) => return self.gate.redeem(token, self.origin),
            (Some(Err(reason)), None) => {
                tracing::warn!(reason = &**reason, "a client certificate was refused");
                Err(Status::unauthenticated(BAD_CERTIFICATE))
            }
            (None, None) => self.user.clone().ok_or_else(no_proof).map(|who| Caller {
                id: who.within(&self.gate.trust_domain),
                proof: Proof::User,
                until: None,
                lease: None,
                signer_key_id: Arc::default(),
                pod: None,
            }),
        })
    }
}

/// What is answered to a call without any proof.
pub(crate) fn no_proof() -> Status {
    Status::unauthenticated(NO_PROOF)
}

/// What a connection ends with whose certificate is over.
pub(crate) fn expired() -> Status {
    Status::unauthenticated("the client certificate has expired; connect again with another one")
}

impl Caller {
    fn by_token(id: SpiffeId, proof: Proof, until: SystemTime) -> Self {
        Self { id, proof, until: Some(until), lease: None, signer_key_id: Arc::default(), pod: None }
    }

    /// Whether the certificate that this was proved by was signed by `authority`; `None` when it was proved otherwise.
    pub(crate) fn is_signed_by(&self, authority: &Authority) -> Option<bool> {
        (self.proof == Proof::Certificate).then(|| authority.has_key_id(&self.signer_key_id))
    }

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
