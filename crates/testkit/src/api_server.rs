//! The part of a cluster's API server that says whose tokens are, over HTTPS with an authority of its own.
//!
//! It answers TokenReviews in the form in which kube-apiserver does, the token repeated and all, and what it says of a
//! token is what it was told to say.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::backend::bind;
use crate::worker::{StopSignal, Worker};

/// Where TokenReviews are posted.
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// What the client of [`ApiServer::kubeconfig`] shows.
const CLIENT: &str = "client-of-the-test";

/// What is said of a token.
#[derive(Clone, Debug)]
pub enum Says {
    /// It is this user's, for these audiences, and bound to this pod with its UID, if to any.
    Proves {
        /// `system:serviceaccount:<namespace>:<name>` for an account.
        user: String,
        /// Those of the ones that were asked for that it is for.
        audiences: Vec<String>,
        /// Name and UID.
        pod: Option<(String, String)>,
    },
    /// It is nobody's, with these words.
    Refuses(String),
    /// The request as a whole is answered with this status, and a `Status` that repeats the token.
    Status(u16),
    /// This text, with the status of success.
    Text(String),
    /// Nothing at all.
    Nothing,
}

/// A running API server. Dropping it cuts every connection.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    root: String,
    tls: Keyed,
    desk: Arc<Desk>,
    worker: Option<Worker>,
}

/// Has a key, which `Debug` does not show.
struct Keyed(TlsAcceptor);

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyed").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Desk {
    asked: AtomicU64,
    said: Mutex<HashMap<String, Says>>,
    /// Whether answers wait.
    held: watch::Sender<bool>,
}

impl ApiServer {
    /// Starts one that knows no token.
    ///
    /// # Errors
    /// If no address or no certificate can be had.
    pub fn start() -> io::Result<ApiServer> {
        let (tls, root) = certificate().map_err(io::Error::other)?;
        let desk = Arc::new(Desk { asked: AtomicU64::new(0), said: Mutex::default(), held: watch::Sender::new(false) });
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let mut server = ApiServer { address, root, tls: Keyed(tls), desk, worker: None };
        server.restart()?;
        Ok(server)
    }

    /// Starts it again at the same address after [`ApiServer::stop`]. It knows what it was told before.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn restart(&mut self) -> io::Result<()> {
        let (desk, tls, address) = (self.desk.clone(), self.tls.0.clone(), self.address);
        let (worker, address) = Worker::start("api server", None, move |stop| {
            let listener = bind(address)?;
            Ok((listener.local_addr()?, serve(desk, tls, listener, stop)))
        })?;
        (self.worker, self.address) = (Some(worker), address);
        Ok(())
    }

    /// Nothing is listening any more.
    pub fn stop(&mut self) {
        self.worker = None;
    }

    /// What it is to say of a token from now on.
    pub fn say_of(&self, token: &str, says: Says) {
        self.desk.said.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), says);
    }

    /// Keeps all answers back from now on.
    pub fn hold(&self) {
        self.desk.held.send_replace(true);
    }

    /// Gives the answers that were kept back, and all others at once again.
    pub fn release(&self) {
        self.desk.held.send_replace(false);
    }

    /// How many TokenReviews were posted so far.
    pub fn asked(&self) -> u64 {
        self.desk.asked.load(Ordering::Relaxed)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The files by which a pod reaches it, by name: what the kubelet mounts into each.
    pub fn service_account(&self) -> [(&'static str, String); 3] {
        [("token", CLIENT.to_owned()), ("ca.crt", self.root.clone()), ("namespace", "default".to_owned())]
    }

    /// A kubeconfig by which it is reached: its current context has the right credentials, `stranger` wrong ones.
    pub fn kubeconfig(&self) -> String {
        let context = |user: &str| json!({ "name": user, "context": { "cluster": "test", "user": user } });
        let user = |name: &str, token: &str| json!({ "name": name, "user": { "token": token } });
        let root = BASE64_STANDARD.encode(&self.root);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "client",
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://{}", self.address), "certificate-authority-data": root,
            } }],
            "contexts": [context("client"), context("stranger")],
            "users": [user("client", CLIENT), user("stranger", "nobody")],
        })
        .to_string()
    }
}

/// A certificate for `127.0.0.1` by an authority that is made for it, and that authority (PEM).
fn certificate() -> Result<(TlsAcceptor, String), Box<dyn std::error::Error + Send + Sync>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let root = authority.self_signed(&authority_key)?.pem();
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new([Ipv4Addr::LOCALHOST.to_string()])?
        .signed_by(&key, &Issuer::new(authority, authority_key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(leaf.pem().as_bytes())?],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?,
        )?;
    Ok((TlsAcceptor::from(Arc::new(config)), root))
}

async fn serve(desk: Arc<Desk>, tls: TlsAcceptor, listener: TcpListener, mut stop: StopSignal) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.wait() => return,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let (desk, tls) = (desk.clone(), tls.clone());
                connections.spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let answer = service_fn(move |request| answer(desk.clone(), request));
                    // How a connection ends is the client's business.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(desk: Arc<Desk>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let credentials = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let is_known = credentials == Some(&format!("Bearer {CLIENT}"));
    if request.method() != Method::POST || request.uri().path() != REVIEWS {
        return Ok(status(StatusCode::NOT_FOUND, "the server could not find the requested resource"));
    }
    desk.asked.fetch_add(1, Ordering::Relaxed);
    if !is_known {
        return Ok(status(StatusCode::UNAUTHORIZED, "Unauthorized"));
    }
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(token) = review["spec"]["token"].as_str().filter(|_| review["kind"] == "TokenReview") else {
        return Ok(status(StatusCode::BAD_REQUEST, "the object provided is no TokenReview with a token"));
    };
    // The sender is there for as long as this is.
    let _ = desk.held.subscribe().wait_for(|held| !held).await;
    let says = desk.said.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned();
    let verdict = match says.unwrap_or_else(|| Says::Refuses("[invalid bearer token, unknown]".to_owned())) {
        Says::Proves { user, audiences, pod } => {
            let extra = pod.map(|(name, uid)| {
                json!({ "authentication.kubernetes.io/pod-name": [name],
                        "authentication.kubernetes.io/pod-uid": [uid] })
            });
            json!({ "authenticated": true, "audiences": audiences,
                    "user": { "username": user, "uid": "1", "groups": ["system:authenticated"], "extra": extra } })
        }
        Says::Refuses(error) => json!({ "user": {}, "error": error }),
        Says::Status(code) => {
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(status(code, &format!("no answer about {token}")));
        }
        Says::Text(text) => return Ok(json_of(StatusCode::CREATED, text)),
        Says::Nothing => std::future::pending().await,
    };
    let mut answer = review;
    answer["status"] = verdict;
    Ok(json_of(StatusCode::CREATED, answer.to_string()))
}

/// How an API server says that it does not do something.
fn status(code: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                         "message": message, "reason": "Test", "code": code.as_u16() });
    json_of(code, status.to_string())
}

fn json_of(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
