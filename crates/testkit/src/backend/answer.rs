//! What the sample service answers to one request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use serde_json::json;
use tokio_stream::StreamExt;

use super::Service;
use crate::worker::StopSignal;

/// The header that names the backend.
const BACKEND: HeaderName = HeaderName::from_static("x-backend");

const LONGEST_DELAY: Duration = Duration::from_secs(60);

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl Service {
    /// Answers one request. It never fails: what is wrong with a request is said with status 400. While the service drains,
    /// an HTTP/1 client is told to use the connection no more.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        draining: StopSignal,
    ) -> Result<Response<Body>, Infallible> {
        let is_http1 = request.version() <= Version::HTTP_11;
        let mut response = self.choose(request, peer).await;
        response.headers_mut().insert(BACKEND, self.header.clone());
        if is_http1 && draining.is_set() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn choose(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if content_type.starts_with(b"application/grpc") {
            // What fails is the call: its HTTP status is 200 all the same.
            return grpc_echo(request, self.faults.strike()).await;
        }
        if self.faults.strike() {
            return text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.name));
        }
        let path = request.uri().path();
        if path.ends_with("/echo") || request.headers().contains_key("x-echo") {
            return self.echo(request, peer).await;
        }
        if let Some(status) = path.strip_prefix("/status/") {
            return match status.parse().map(StatusCode::from_u16) {
                // Informational statuses cannot end a request.
                Ok(Ok(status)) if !status.is_informational() => text(status, format!("{}\n", self.name)),
                _ => text(StatusCode::BAD_REQUEST, format!("\"{status}\" is not a status from 200 to 999\n")),
            };
        }
        if let Some(delay) = path.strip_prefix("/delay/") {
            return match delay.parse().map(Duration::from_millis) {
                Ok(delay) if delay <= LONGEST_DELAY => {
                    tokio::time::sleep(delay).await;
                    text(StatusCode::OK, format!("{}\n", self.name))
                }
                _ => text(StatusCode::BAD_REQUEST, format!("\"{delay}\" is not a number of milliseconds to 60000\n")),
            };
        }
        text(StatusCode::OK, format!("{}\n", self.name))
    }

    async fn echo(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return text(StatusCode::BAD_REQUEST, "the request's body did not arrive\n".to_owned());
        };
        let lossy = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut headers = BTreeMap::new();
        for name in head.headers.keys() {
            let values: Vec<_> = head.headers.get_all(name).iter().map(lossy).collect();
            headers.insert(name.as_str(), values.join(", "));
        }
        let authority = head.uri.authority().map(|authority| authority.to_string());
        let described = json!({
            "backend": self.name,
            "method": head.method.as_str(),
            "authority": authority.or_else(|| head.headers.get(HOST).map(lossy)),
            "path": head.uri.path_and_query().map(|path| path.as_str()),
            "version": format!("{:?}", head.version),
            "peer": peer.to_string(),
            "headers": headers,
            "body": String::from_utf8_lossy(&body.to_bytes()),
        });
        let mut response = text(StatusCode::OK, format!("{described}\n"));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Sends the request's message back. A unary call is one length-prefixed message each way, and the status in the
/// trailers (gRPC over HTTP/2, "Requests" and "Responses"), so that the bytes can be returned as they came.
async fn grpc_echo(request: Request<Incoming>, fails: bool) -> Response<Body> {
    let (message, status) = match request.into_body().collect().await {
        Ok(body) if !fails => (body.to_bytes(), HeaderValue::from_static("0")),
        // 13 is INTERNAL.
        Ok(_) | Err(_) => (Bytes::new(), HeaderValue::from_static("13")),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status);
    let frames = [Frame::data(message), Frame::trailers(trailers)].map(Ok);
    let body = http_body_util::StreamBody::new(tokio_stream::iter(frames).fuse());
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
