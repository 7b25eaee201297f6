//! The certificate service, as Istio's agents ask for it: only on TLS listeners, and only for callers who have proved who
//! they are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use proto::auth::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Request, Response, Status};

use crate::StateError;
use crate::listen::Peer;
use crate::metrics::Metrics;
use crate::trust::{Caller, Issuer, no_proof};

/// Asks for a certificate in somebody else's name, which only proxies of whole machines may do elsewhere.
const IMPERSONATED: &str = "ImpersonatedIdentity";

/// Serves `istio.v1.auth.IstioCertificateService`.
#[derive(Clone, Debug)]
pub(crate) struct CertificateService {
    issuer: Arc<Issuer>,
    metrics: Arc<Metrics>,
}

impl CertificateService {
    /// The service, ready to be routed to.
    pub(crate) fn new(issuer: Arc<Issuer>, metrics: Arc<Metrics>) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(Self { issuer, metrics })
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned().ok_or_else(no_proof)?;
        let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::Unix { user: None });
        let IstioCertificateRequest { csr, validity_duration, metadata } = request.into_inner();
        if metadata.is_some_and(|metadata| metadata.fields.contains_key(IMPERSONATED)) {
            tracing::warn!(identity = %caller.id, "a certificate in another name was asked for and refused");
            return Err(Status::permission_denied("certificates are signed in the caller's own name only"));
        }
        let asked = u64::try_from(validity_duration).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let id = caller.id.clone();
        match self.issuer.sign(csr, asked, caller, peer).await {
            Ok(cert_chain) => {
                self.metrics.certificate_signed("request");
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err(StateError::Identity { source: error @ identity::Error::SigningRequest(_), .. }) => {
                tracing::warn!(identity = %id, %error, "a signing request was refused");
                self.metrics.certificate_refused("request");
                Err(Status::invalid_argument(error.to_string()))
            }
            Err(error) => Err(cannot_sign(&self.metrics, &id, &error)),
        }
    }
}

/// What is told of a failure that is not the caller's.
fn cannot_sign(metrics: &Metrics, id: &dyn fmt::Display, error: &StateError) -> Status {
    tracing::error!(identity = %id, %error, "a certificate could not be signed");
    metrics.certificate_refused("failure");
    Status::unavailable("certificates cannot be signed at the moment")
}
