//! gRPC's framing of one bidirectional stream, without a copy of what is large.
//!
//! Responses go out as the shared pieces of a [`snapshot::Body`]: no stream has a buffer that its largest response
//! would keep large. Requests are put together in a buffer that is let go after each message.

mod message;
mod requests;

pub(crate) use message::message;
pub(crate) use requests::Requests;

use http::{HeaderMap, HeaderValue, Request, header};
use tonic::{Code, Status};

/// Length of the flag and the message length before each message.
const FRAME_HEAD: usize = 5;

/// The head of every answer: what it is depends on the trailers.
pub(crate) fn headers() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))])
}

/// Whether this is a gRPC call at all.
pub(crate) fn is_grpc(request: &Request<()>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// `grpc-status` and `grpc-message`.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // The message cannot stand in a header; the code can.
        trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    trailers
}

/// What is not a message is the caller's mistake, of which tonic speaks as if it were the server's.
pub(crate) fn of_bad_message<B>(mut response: http::Response<B>) -> http::Response<B> {
    const BAD: [&str; 4] =
        ["failed to decode Protobuf message", "Missing request message", "Unexpected EOF", "protocol error"];
    let status = Status::from_header_map(response.headers()).filter(|status| status.code() == Code::Internal);
    if let Some(words) =
        status.as_ref().map(Status::message).filter(|words| BAD.iter().any(|bad| words.starts_with(bad)))
    {
        let status = Status::invalid_argument(format!("the request cannot be read: {words}"));
        response.headers_mut().extend(trailers(&status));
    }
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_status_stands_in_the_trailers() {
        let trailers = trailers(&Status::unavailable("shutting down"));
        assert_eq!(trailers["grpc-status"], "14");
        assert_eq!(trailers["grpc-message"], "shutting%20down");
    }
}
