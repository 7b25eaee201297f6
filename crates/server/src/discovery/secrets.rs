//! Secrets of a client that has proved who it is: its certificate with key, and what it trusts.
//!
//! They are a layer of the client's own above what everybody gets, made when the client first asks for one of them and
//! replaced before they expire. Their names are Istio's: `default` and `ROOTCA`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::core::v3::DataSource;
use proto::pb::envoy::config::core::v3::data_source::Specifier;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use snapshot::{Cell, Layer, Snapshot};
use xds::Wants;

use crate::StateError;
use crate::metrics::Metrics;
use crate::trust::{Caller, Issuer, WorkloadCertificate};

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
    peer: String,
    layer: Arc<Layer>,
    signing: Option<Signing>,
    /// When to sign next; `None` before anything was asked for.
    due: Option<Instant>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("caller", &self.caller).field("due", &self.due).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Of a client that has asked for none yet.
    pub(super) fn new(issuer: Arc<Issuer>, metrics: Arc<Metrics>, caller: Arc<Caller>, peer: String) -> Self {
        let layer = issuer.no_secrets();
        Self { issuer, metrics, caller, peer, layer, signing: None, due: None }
    }

    /// What the client gets, with what everybody gets.
    pub(super) fn over(&self, snapshot: &Snapshot) -> Snapshot {
        Snapshot::new(snapshot.layers().iter().cloned().chain([self.layer.clone()]))
    }

    /// Signs what is due, if the client asks for it. True if there are other secrets than before.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wants: Wants<'_>, now: Instant) -> bool {
        if self.signing.is_none() && self.due.is_none_or(|due| now >= due) {
            if !wants_any(wants) {
                // What it had will be over when it asks again.
                (self.layer, self.due) = (self.issuer.no_secrets(), None);
                return false;
            }
            let (issuer, caller, peer) = (self.issuer.clone(), self.caller.clone(), self.peer.clone());
            self.signing = Some(Box::pin(async move { issuer.issue((*caller).clone(), peer).await }));
        }
        let Some(signing) = &mut self.signing else { return false };
        let Poll::Ready(signed) = signing.as_mut().poll(cx) else { return false };
        self.signing = None;
        match signed {
            Ok(certificate) => {
                self.metrics.certificate_signed("secret");
                self.due = Some(certificate.rotate_at);
                let mut edit = self.layer.edit();
                cells(&certificate).into_iter().for_each(|cell| edit.set(cell));
                self.layer = edit.finish();
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
        self.signing.is_some() && self.layer.is_empty()
    }

    /// When it must be polled even if nothing comes in.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| self.signing.is_none())
    }
}

/// Whether the client asks for any of the secrets.
fn wants_any(wants: Wants<'_>) -> bool {
    wants.names().is_none_or(|mut names| names.any(|name| matches!(&**name, CERTIFICATE | TRUSTED)))
}

fn cells(certificate: &WorkloadCertificate) -> [Cell; 2] {
    let WorkloadCertificate { chain, key, roots, .. } = certificate;
    let inline = |text: &str| {
        Some(DataSource { specifier: Some(Specifier::InlineBytes(text.as_bytes().to_vec())), ..DataSource::default() })
    };
    let own =
        TlsCertificate { certificate_chain: inline(chain), private_key: inline(key), ..TlsCertificate::default() };
    let trusted = CertificateValidationContext { trusted_ca: inline(roots), ..CertificateValidationContext::default() };
    let cell = |name: &str, content: secret::Type, public: &str| {
        let message = Secret { name: name.to_owned(), r#type: Some(content) }.encode_to_vec();
        let message = proto::wire::Message::of_resource(ResourceType::Secret).canonicalized(message);
        Cell::confidential(ResourceType::Secret, name.into(), &message, public.as_bytes())
    };
    [
        cell(CERTIFICATE, secret::Type::TlsCertificate(own), chain),
        cell(TRUSTED, secret::Type::ValidationContext(trusted), roots),
    ]
}
