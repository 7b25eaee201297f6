//! A sample service that decides about requests for Envoy's external authorization, over HTTP and over gRPC on one port.
//!
//! It lets in whom the header `x-user` calls `welcome`, requests whose body begins with that word, as far as it is shown the
//! body, and connections to ports that it was told; it says so in `x-decided-by` to the service behind, and in `x-reason` to
//! those whom it refuses.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use prost::Message;
use proto::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use proto::pb::envoy::config::core::v3::{HeaderValue as EnvoyHeader, HeaderValueOption, address};
use proto::pb::envoy::service::auth::v3::check_response::HttpResponse;
use proto::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use proto::pb::envoy::r#type::v3::HttpStatus;
use proto::pb::google::rpc::Status;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::backend::bind;
use crate::worker::{StopSignal, Worker};

/// The method of Envoy's authorization service.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Who is let in, and what such requests begin with.
const WELCOME: &[u8] = b"welcome";
/// `google.rpc.Code.PERMISSION_DENIED`.
const PERMISSION_DENIED: i32 = 7;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A running service that decides. Dropping it cuts every connection.
#[derive(Debug)]
pub struct Authorizer {
    address: SocketAddr,
    asked: Arc<AtomicU64>,
    // Held for its drop.
    _worker: Worker,
}

impl Authorizer {
    /// Starts a service on `address` that lets connections to these ports in. It accepts connections on return.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn start(address: SocketAddr, open_ports: impl IntoIterator<Item = u16>) -> io::Result<Authorizer> {
        let asked = Arc::new(AtomicU64::new(0));
        let judge = Arc::new(Judge { asked: asked.clone(), open_ports: open_ports.into_iter().collect() });
        let (worker, address) = Worker::start("authorizer", None, move |stop| {
            let listener = bind(address)?;
            Ok((listener.local_addr()?, serve(judge, listener, stop)))
        })?;
        Ok(Authorizer { address, asked, _worker: worker })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often it was asked so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Who decides.
struct Judge {
    asked: Arc<AtomicU64>,
    open_ports: BTreeSet<u16>,
}

async fn serve(judge: Arc<Judge>, listener: TcpListener, mut stop: StopSignal) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.wait() => return,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let judge = judge.clone();
                connections.spawn(async move {
                    let answer = service_fn(move |request| answer(judge.clone(), request));
                    // How a connection ends is the client's business.
                    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(judge: Arc<Judge>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    judge.asked.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    if head.uri.path() != CHECK {
        let user = head.headers.get("x-user").map(HeaderValue::as_bytes);
        return Ok(by_http(user == Some(WELCOME) || body.starts_with(WELCOME)));
    }
    // One message without compression: a byte for that, and four for its length.
    let check = body.get(5..).and_then(|message| CheckRequest::decode(message).ok()).unwrap_or_default();
    Ok(by_grpc(&judge.judge(&check)))
}

fn by_http(is_welcome: bool) -> Response<Body> {
    let (status, name, text) = match is_welcome {
        true => (StatusCode::OK, "x-decided-by", ""),
        false => (StatusCode::UNAUTHORIZED, "x-reason", "not welcome"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(name, HeaderValue::from_static("authorizer"));
    response
}

fn by_grpc(verdict: &CheckResponse) -> Response<Body> {
    let message = verdict.encode_to_vec();
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(&message);
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let frames = [Frame::data(bytes.freeze()), Frame::trailers(trailers)];
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Infallible>)));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

impl Judge {
    fn judge(&self, check: &CheckRequest) -> CheckResponse {
        let attributes = check.attributes.clone().unwrap_or_default();
        let is_welcome = match attributes.request.and_then(|request| request.http) {
            Some(http) => {
                let user = http.headers.get("x-user").map(String::as_bytes);
                user == Some(WELCOME) || [http.body.as_bytes(), &http.raw_body].iter().any(|b| b.starts_with(WELCOME))
            }
            None => {
                let address = attributes.destination.and_then(|peer| peer.address?.address);
                let port = match address {
                    Some(address::Address::SocketAddress(socket)) => socket.port_specifier,
                    _ => None,
                };
                matches!(port, Some(PortSpecifier::PortValue(port))
                    if u16::try_from(port).is_ok_and(|port| self.open_ports.contains(&port)))
            }
        };
        let header = |key: &str| HeaderValueOption {
            header: Some(EnvoyHeader { key: key.to_owned(), value: "authorizer".to_owned(), ..EnvoyHeader::default() }),
            ..HeaderValueOption::default()
        };
        let (code, response) = match is_welcome {
            true => (
                0,
                HttpResponse::OkResponse(OkHttpResponse {
                    headers: vec![header("x-decided-by")],
                    ..OkHttpResponse::default()
                }),
            ),
            false => (
                PERMISSION_DENIED,
                HttpResponse::DeniedResponse(DeniedHttpResponse {
                    status: Some(HttpStatus { code: 401 }),
                    headers: vec![header("x-reason")],
                    body: "not welcome".to_owned(),
                }),
            ),
        };
        let status = Some(Status { code, ..Status::default() });
        CheckResponse { status, http_response: Some(response), ..CheckResponse::default() }
    }
}
