//! Secrets of a client that has proved who it is: its certificate with key, and what it trusts.
//!
//! They are a layer of the client's own above what everybody gets, made when the client first asks for one of them and
//! replaced before they expire. Their names are Istio's: `default` and `ROOTCA`. Gateways
//! have [`Documents`] beside them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use identity::Trusting;
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::core::v3::DataSource;
use proto::pb::envoy::config::core::v3::data_source::Specifier;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use snapshot::{Cell, Layer, Snapshot};
use xds::{Holding, HoldingState, Wants};

use super::documents::Documents;
use super::follow::Follow;
use crate::StateError;
use crate::listen::Peer;
use crate::metrics::Metrics;
use crate::rotation::ClientTrust;
use crate::trust::{Caller, Issuer, Signer, WorkloadCertificate};

/// The workload's certificate and key.
const CERTIFICATE: &str = "default";
/// What it trusts.
const TRUSTED: &str = "ROOTCA";
/// How soon it is tried again to sign when that has failed.
const TRY_AGAIN: Duration = Duration::from_secs(5);

type Signing = Pin<Box<dyn Future<Output = Result<WorkloadCertificate, StateError>> + Send>>;

/// The secrets of one stream.
pub(super) struct Secrets {
    issuer: Arc<Issuer>,
    metrics: Arc<Metrics>,
    caller: Arc<Caller>,
    peer: Peer,
    layer: Arc<Layer>,
    /// What a gateway has beside them.
    documents: Option<Documents>,
    signers: Follow<Arc<Signer>>,
    given: Option<Given>,
    signing: Option<Signing>,
    /// When to sign next; `None` before anything was asked for.
    due: Option<Instant>,
}

/// Whose the secrets are that the client has been given.
struct Given {
    /// Who has signed its certificate.
    signer: Arc<Signer>,
    /// Whose roots it was given.
    roots: Arc<Signer>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("caller", &self.caller).field("due", &self.due).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Of a client that has asked for none yet.
    pub(super) fn new(issuer: Arc<Issuer>, metrics: Arc<Metrics>, caller: Arc<Caller>, peer: Peer) -> Self {
        let (layer, signers) = (issuer.no_secrets(), Follow::new(issuer.signers()));
        Self { issuer, metrics, caller, peer, layer, documents: None, signers, given: None, signing: None, due: None }
    }

    /// The client may have these beside them.
    pub(super) fn add_documents(&mut self, documents: Documents) {
        self.documents = Some(documents);
    }

    /// What the client gets, with what everybody gets.
    pub(super) fn over(&self, snapshot: &Snapshot) -> Snapshot {
        Snapshot::new(snapshot.layers().iter().cloned().chain([self.layer.clone()]))
    }

    /// Signs what is due, if the client asks for it. True if there are other secrets than before.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wants: Wants<'_>, now: Instant) -> bool {
        let mut are_new = false;
        while let Poll::Ready(signer) = self.signers.poll(cx) {
            are_new |= self.follow(&signer, now);
        }
        if let Some(documents) = &mut self.documents {
            are_new |= documents.poll(cx, wants, &mut self.layer);
        }
        are_new | self.poll_signing(cx, wants, now)
    }

    /// Somebody else signs, or other roots are trusted. True if there are other secrets than before.
    fn follow(&mut self, signer: &Arc<Signer>, now: Instant) -> bool {
        let Some(given) = &mut self.given else { return false };
        if !signer.signs_like(&given.signer) {
            let soon = now + self.issuer.spread();
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
        let are_others = signer.roots() != given.roots.roots();
        given.roots = signer.clone();
        if are_others {
            let mut edit = self.layer.edit();
            edit.set(trusted(signer.roots()));
            self.layer = edit.finish();
        }
        are_others
    }

    fn poll_signing(&mut self, cx: &mut Context<'_>, wants: Wants<'_>, now: Instant) -> bool {
        if self.signing.is_none() && self.due.is_none_or(|due| now >= due) {
            if !asks(wants, CERTIFICATE) && !asks(wants, TRUSTED) {
                // What it had will be over when it asks again.
                if self.given.take().is_some() {
                    let mut edit = self.layer.edit();
                    [CERTIFICATE, TRUSTED].into_iter().for_each(|name| edit.remove(ResourceType::Secret, name));
                    self.layer = edit.finish();
                }
                self.due = None;
                return false;
            }
            let (issuer, caller, peer) = (self.issuer.clone(), self.caller.clone(), self.peer);
            self.signing = Some(Box::pin(async move { issuer.issue(caller, peer).await }));
        }
        let Some(signing) = &mut self.signing else { return false };
        let Poll::Ready(signed) = signing.as_mut().poll(cx) else { return false };
        self.signing = None;
        match signed {
            Ok(certificate) => {
                self.metrics.certificate_signed("secret");
                let newest = self.issuer.signer();
                // It may have been signed just before somebody else came.
                let is_old = !newest.signs_like(&certificate.signer);
                self.due = Some(if is_old { now + self.issuer.spread() } else { certificate.rotate_at });
                let mut edit = self.layer.edit();
                edit.set(own(&certificate));
                edit.set(trusted(newest.roots()));
                self.layer = edit.finish();
                self.given = Some(Given { signer: certificate.signer, roots: newest });
                true
            }
            Err(error) => {
                tracing::error!(
                    identity = %self.caller.id,
                    %error,
                    "a certificate could not be signed: the client keeps what it has"
                );
                self.metrics.certificate_refused("failure");
                self.due = Some(now + TRY_AGAIN);
                false
            }
        }
    }

    /// Whether the client asks for what is being signed for the first time: what is not there yet must not look as if it
    /// did not exist.
    pub(super) fn is_first_awaited(&self) -> bool {
        self.signing.is_some() && self.given.is_none()
    }

    /// When it must be polled even if nothing comes in.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| self.signing.is_none())
    }

    /// What the client has of what everybody is to have now; `held` is what it was sent.
    pub(super) fn trust(&self, wants: Wants<'_>, held: &[Holding]) -> ClientTrust {
        let newest = self.issuer.signer();
        let has_accepted = |name: &str| {
            let wanted = self.layer.get(ResourceType::Secret, name);
            let held = held.iter().find(|held| &**held.cell.name() == name);
            matches!((wanted, held), (Some(wanted), Some(held))
                if held.cell.version() == wanted.version() && held.state == HoldingState::Accepted)
        };
        let given = self.given.as_ref();
        let roots = given.is_some_and(|given| given.roots.roots() == newest.roots());
        let certificate = given.is_some_and(|given| given.signer.signs_like(&newest));
        let trusting = Trusting {
            roots: asks(wants, TRUSTED).then(|| roots && has_accepted(TRUSTED)),
            certificate: asks(wants, CERTIFICATE).then(|| certificate && has_accepted(CERTIFICATE)),
            proof: self.caller.is_signed_by(newest.authority()),
            requested: None,
        };
        ClientTrust { caller: self.caller.clone(), peer: self.peer, trusting }
    }
}

/// Whether the client asks for this secret.
fn asks(wants: Wants<'_>, name: &str) -> bool {
    wants.names().is_none_or(|mut names| names.any(|asked| &**asked == name))
}

/// The client's certificate with its key.
fn own(certificate: &WorkloadCertificate) -> Cell {
    let WorkloadCertificate { chain, key, .. } = certificate;
    let own =
        TlsCertificate { certificate_chain: inline(chain), private_key: inline(key), ..TlsCertificate::default() };
    cell(CERTIFICATE, secret::Type::TlsCertificate(own), chain)
}

/// What the client trusts.
fn trusted(roots: &str) -> Cell {
    let trusted = CertificateValidationContext { trusted_ca: inline(roots), ..CertificateValidationContext::default() };
    cell(TRUSTED, secret::Type::ValidationContext(trusted), roots)
}

pub(super) fn inline(text: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(text.as_bytes().to_vec())), ..DataSource::default() })
}

/// A secret whose version is that of its public part.
pub(super) fn cell(name: &str, content: secret::Type, public: &str) -> Cell {
    let message = Secret { name: name.to_owned(), r#type: Some(content) }.encode_to_vec();
    let message = proto::wire::Message::of_resource(ResourceType::Secret).canonicalized(message);
    Cell::confidential(ResourceType::Secret, name.into(), &message, public.as_bytes())
}
