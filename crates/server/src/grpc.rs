//! gRPC's framing of one bidirectional stream, without a copy of what is sent.
//!
//! Responses go out as an [`http_body::Body`] whose chunks are the shared pieces of a [`snapshot::Body`]: no stream
//! has a buffer that its largest response would keep large. Requests are put together in a buffer that is let go
//! after each message.

mod requests;
mod responses;

pub(crate) use requests::Requests;
pub(crate) use responses::{Outgoing, ResponseBody, Responses};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use tonic::Status;
use tonic::body::Body;

/// Length of the flag and the message length before each message.
const FRAME_HEAD: usize = 5;

/// The answer that begins a stream of responses.
pub(crate) fn streaming(body: ResponseBody) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The answer that refuses a call before it has begun.
pub(crate) fn refusal(status: Status) -> Response<Body> {
    status.into_http()
}

/// Whether this is a gRPC call at all.
///
/// # Errors
/// The plain HTTP answer for what is not one, as gRPC's HTTP/2 mapping asks for.
pub(crate) fn require_grpc<B>(request: &Request<B>) -> Result<(), Box<Response<Body>>> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        return Ok(());
    }
    let text = "this port speaks gRPC: the content type must be application/grpc\n";
    let mut response = Response::new(Body::new(http_body_util::Full::new(bytes::Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(Box::new(response))
}

/// `grpc-status` and `grpc-message`.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // The message cannot stand in a header; the code can.
        trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    trailers
}
