//! Who may call the admin API: everything but health needs a token where tokens are set, and what changes something
//! needs one that may write. What may change something is recorded.
//!
//! Without tokens the API is for this machine alone, and browsers on it are kept from being used by pages of others: a
//! name with a dot in it is not an address of this machine, and a page of another origin changes nothing.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tonic::Status;

use super::audit::{AuditTrail, AuditedCall, Deed};
use super::http::failure;
use super::tokens::TokenFile;
use crate::Error;
use crate::listen::Peer;

/// Who may call the admin API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminAccess {
    /// A file with the tokens that may read and write, one a line, each after its name if it has one. With neither
    /// file everybody who reaches the port may do everything.
    pub tokens: Option<PathBuf>,
    /// A file with the tokens that may only read.
    pub read_tokens: Option<PathBuf>,
    /// Whether others than this machine may be served without tokens.
    pub is_open: bool,
}

/// Paths of gRPC services that show or change the server; the others are for its clients.
const SERVICES: [&str; 3] =
    ["/pointsman.", "/envoy.service.status.v3.ClientStatusDiscoveryService/", "/grpc.reflection."];
/// Methods that change something.
const CHANGES: [&str; 3] = [
    "/pointsman.delivery.v1alpha1.Intents/Apply",
    "/pointsman.delivery.v1alpha1.Intents/Delete",
    "/pointsman.delivery.v1alpha1.Intents/Act",
];

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Read,
    Write,
}

/// Lets calls through, or not.
#[derive(Debug)]
pub(crate) struct Access {
    write: Option<TokenFile>,
    read: Option<TokenFile>,
    /// Only this machine is served: nobody is called by a name of the outside.
    is_local: bool,
    trail: AuditTrail,
    /// The second in which a refusal was logged last.
    logged: AtomicU64,
}

/// Why a call is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denial {
    /// No token, or none that is known.
    Unknown,
    /// The token may not do this.
    ReadOnly,
    /// The call comes from a page of another origin.
    Foreign,
}

impl Access {
    /// Reads the tokens. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Admin`] when they cannot be used, or when others than this machine would be served without any.
    pub(crate) fn open(access: &AdminAccess, listen: Option<SocketAddr>, state: Option<&Path>) -> Result<Self, Error> {
        let read = |path: &Option<PathBuf>, role| match path {
            Some(path) => TokenFile::open(path, role).map(Some).map_err(Error::Admin),
            None => Ok(None),
        };
        let (write, read) = (read(&access.tokens, "write")?, read(&access.read_tokens, "read")?);
        let is_local = listen.is_none_or(|address| address.ip().to_canonical().is_loopback());
        if let (Some(address), false, false) = (listen, is_local, access.is_open || write.is_some() || read.is_some()) {
            return Err(Error::Admin(format!(
                "the admin API at {address} would let everybody in who reaches it: set a token with \
                 --admin-token-file, listen at 127.0.0.1, or say --admin-without-token"
            )));
        }
        let trail = AuditTrail::open(state);
        let trail =
            trail.map_err(|error| Error::Admin(format!("cannot make the directory of the audit trail: {error}")))?;
        Ok(Self { write, read, is_local, trail, logged: AtomicU64::new(0) })
    }

    fn has_tokens(&self) -> bool {
        self.write.is_some() || self.read.is_some()
    }

    /// The name of the caller, empty where no token is needed; or why it is not let through.
    fn admit(&self, need: Need, headers: &HeaderMap, host: &str) -> Result<String, Denial> {
        if need == Need::Nothing {
            return Ok(String::new());
        }
        if !self.has_tokens() {
            let is_foreign = self.is_local && !is_of_this_machine(host);
            return if is_foreign || is_from_elsewhere(need, headers, host) {
                Err(Denial::Foreign)
            } else {
                Ok(String::new())
            };
        }
        let token = bearer(headers).unwrap_or_default();
        let known = |file: &Option<TokenFile>| file.as_ref().and_then(|file| file.name_of(token));
        // Both are always asked, so that the time does not say in which a token is.
        match (known(&self.write), known(&self.read), need) {
            (Some(name), _, _) | (None, Some(name), Need::Read | Need::Nothing) => Ok(name),
            (None, Some(_), Need::Write) => Err(Denial::ReadOnly),
            (None, None, _) => Err(Denial::Unknown),
        }
    }

    /// Logs a refusal, at most one a second: whoever tries tokens fills no disk.
    fn log(&self, denial: Denial, peer: &str, path: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.logged.swap(now, Ordering::Relaxed) != now {
            let path: String = path.chars().take(200).collect();
            tracing::warn!(
                peer,
                path,
                ?denial,
                "a call of the admin API is refused; others in this second are not said"
            );
        }
    }
}

/// The layer: decides, records, and gives the call its [`Deed`].
pub(crate) async fn guard(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let is_grpc = is_grpc(request.headers());
    let need = need(request.method(), request.uri().path(), is_grpc);
    let peer = request.extensions().get::<Peer>().map(Peer::to_string).unwrap_or_default();
    let caller = match access.admit(need, request.headers(), &host(&request)) {
        Ok(caller) => caller,
        Err(denial) => {
            access.log(denial, &peer, request.uri().path());
            return denied(denial, is_grpc);
        }
    };
    let deed = Deed::default();
    request.extensions_mut().insert(deed.clone());
    if need != Need::Write {
        return next.run(request).await;
    }
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let begun = {
        let access = access.clone();
        // The disk is waited for where that holds up nobody else.
        tokio::task::spawn_blocking(move || access.trail.begin(peer, caller, &method, &path, deed)).await
    };
    let call = match begun {
        Ok(Ok(call)) => call,
        Ok(Err(error)) => return unrecorded(&error.to_string(), is_grpc),
        Err(error) => return unrecorded(&error.to_string(), is_grpc),
    };
    let mut recording = Recording { access, call, outcome: HUNG_UP.to_owned() };
    let response = next.run(request).await;
    recording.outcome = outcome(&response);
    // Before it is answered, and where the disk holds up nobody else. A panic was reported when it happened.
    let _ = tokio::task::spawn_blocking(move || drop(recording)).await;
    response
}

/// What came of a call whose caller did not wait for the answer; it may have been done.
const HUNG_UP: &str = "the caller hung up";

/// A call that is under way. Its outcome is recorded when this is dropped, whoever drops it: a caller that hangs up takes
/// the call with it, not its trace.
struct Recording {
    access: Arc<Access>,
    call: AuditedCall,
    outcome: String,
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Err(error) = self.access.trail.end(&self.call, &self.outcome) {
            tracing::error!(%error, "what came of a call of the admin API is not recorded");
        }
    }
}

/// The layer of the gRPC services on the xDS ports, none of which changes anything: what shows the server needs a token
/// where there are any.
pub(crate) async fn guard_views(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_view = need(request.method(), path, true) != Need::Nothing;
    if is_view
        && access.has_tokens()
        && let Err(denial) = access.admit(Need::Read, request.headers(), "")
    {
        access.log(denial, "xds", path);
        return denied(denial, true);
    }
    next.run(request).await
}

/// Whether a request is a call of gRPC; what is none is served as HTTP.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

fn need(method: &Method, path: &str, is_grpc: bool) -> Need {
    match (is_grpc, path) {
        (true, path) if CHANGES.contains(&path) => Need::Write,
        (true, path) if SERVICES.iter().any(|service| path.starts_with(service)) => Need::Read,
        (true, _) | (false, "/healthz" | "/readyz") => Need::Nothing,
        // It changes nothing.
        (false, "/api/v1/intents/check") => Need::Read,
        (false, _) if *method == Method::GET || *method == Method::HEAD => Need::Read,
        (false, _) => Need::Write,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    // Of two tokens nobody can say which is meant.
    (values.next().is_none() && scheme.eq_ignore_ascii_case(b"bearer ")).then_some(token)
}

/// Whom the caller believes to call: the authority of HTTP/2, else the header.
fn host(request: &Request) -> String {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(|authority| authority.as_str());
    authority.or(named).unwrap_or_default().to_owned()
}

/// An address, or a name without a dot: names with one can be made by anybody to lead here.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok() || !name.contains('.')
}

/// Whether a browser says that a page of another origin wants to change something.
fn is_from_elsewhere(need: Need, headers: &HeaderMap, host: &str) -> bool {
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let is_same = |origin: &str| origin.split_once("://").is_some_and(|(_, of)| of.eq_ignore_ascii_case(host));
    need == Need::Write && origin.is_some_and(|origin| !is_same(origin))
}

fn denied(denial: Denial, is_grpc: bool) -> Response {
    let (status, code, error, hint) = match denial {
        Denial::Unknown => (
            StatusCode::UNAUTHORIZED,
            tonic::Code::Unauthenticated,
            "the admin API needs a token, and this call brings none that is known",
            "send it as \"authorization: Bearer TOKEN\"; commands take --token-file or POINTSMAN_ADMIN_TOKEN",
        ),
        Denial::ReadOnly => (
            StatusCode::FORBIDDEN,
            tonic::Code::PermissionDenied,
            "this token may only read",
            "use a token of --admin-token-file",
        ),
        Denial::Foreign => (
            StatusCode::FORBIDDEN,
            tonic::Code::PermissionDenied,
            "the call comes from a page of another origin, or goes to a name that is not of this machine",
            "call 127.0.0.1 or localhost",
        ),
    };
    if is_grpc {
        return Status::new(code, format!("{error}: {hint}")).into_http::<Body>();
    }
    let mut response = failure(status, error.to_owned(), hint);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

fn unrecorded(why: &str, is_grpc: bool) -> Response {
    tracing::error!(error = why, "a call of the admin API is refused, because it cannot be recorded");
    let error = format!("the call cannot be recorded, so nothing was done: {why}");
    match is_grpc {
        true => Status::unavailable(error).into_http::<Body>().into_response(),
        false => failure(StatusCode::SERVICE_UNAVAILABLE, error, "make room on the disk of the state directory"),
    }
}

/// The HTTP status, or the one of gRPC where the answer has one at its head.
fn outcome(response: &Response) -> String {
    match response.headers().get("grpc-status").and_then(|status| status.to_str().ok()) {
        Some(status) => format!("grpc {status}"),
        None => response.status().as_u16().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_can_make_are_not_of_this_machine() {
        for host in ["127.0.0.1:15014", "localhost:15014", "[::1]:15014", "::1", "admin", "10.0.0.1", ""] {
            assert!(is_of_this_machine(host), "{host}");
        }
        for host in ["evil.example:15014", "127.0.0.1.evil.example", "localhost.evil.example:15014", "localhost."] {
            assert!(!is_of_this_machine(host), "{host}");
        }
    }

    #[test]
    fn what_changes_something_needs_more_than_what_does_not() {
        let of = |method: Method, path: &str| need(&method, path, false);
        assert_eq!(of(Method::GET, "/healthz"), Need::Nothing);
        assert_eq!(of(Method::GET, "/healthz/"), Need::Read);
        assert_eq!(of(Method::GET, "/metrics"), Need::Read);
        assert_eq!(of(Method::PUT, "/api/v1/load/settings"), Need::Write);
        assert_eq!(of(Method::POST, "/api/v1/rollouts/a/b/actions"), Need::Write);
        assert_eq!(of(Method::PATCH, "/anything"), Need::Write);
        let grpc = |path: &str| need(&Method::POST, path, true);
        assert_eq!(grpc("/grpc.health.v1.Health/Check"), Need::Nothing);
        assert_eq!(grpc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"), Need::Read);
        assert_eq!(grpc("/pointsman.delivery.v1alpha1.Intents/Watch"), Need::Read);
        assert_eq!(grpc("/pointsman.delivery.v1alpha1.Intents/Act"), Need::Write);
        assert_eq!(grpc("/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"), Need::Nothing);
    }
}
