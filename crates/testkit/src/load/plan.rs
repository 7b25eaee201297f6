//! What a load sends, how often and over what.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, Version};
use http_body_util::Full;

/// How often requests are begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many per second over all connections, evenly spaced. A connection that is late does not catch up, so that a
    /// stall is not followed by a burst; then fewer are sent.
    PerSecond(f64),
    /// Each connection begins the next as soon as one is finished.
    Unlimited,
}

/// One request, to be sent again and again. Made by [`Plan::get`] or [`Plan::grpc`], refined by the other methods.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) address: SocketAddr,
    method: Method,
    authority: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    version: Version,
    absolute: bool,
    pub(super) grpc: bool,
    pub(super) rate: Rate,
    pub(super) connections: usize,
    pub(super) timeout: Duration,
    pub(super) expected_status: u16,
}

impl Plan {
    /// GET requests by HTTP/1.1 to `address`, for the host `authority` and the path `path` (with query), 200 per second
    /// over 4 connections, each to be answered with status 200 in 5 seconds.
    pub fn get(address: SocketAddr, authority: &str, path: &str) -> Plan {
        Plan {
            address,
            method: Method::GET,
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            version: Version::HTTP_11,
            absolute: false,
            grpc: false,
            rate: Rate::PerSecond(200.0),
            connections: 4,
            timeout: Duration::from_secs(5),
            expected_status: 200,
        }
    }

    /// Unary gRPC calls over HTTP/2 of the method `/package.Service/Method` with the given message; a call whose status
    /// is not OK counts as failed. Otherwise as [`Plan::get`].
    pub fn grpc(address: SocketAddr, authority: &str, method: &str, message: &[u8]) -> Plan {
        // The length prefix of gRPC over HTTP/2: a byte that says "not compressed", then the length in four bytes.
        let mut body = BytesMut::with_capacity(5 + message.len());
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).expect("a sample message is shorter than 4 GiB"));
        body.put_slice(message);
        let plan = Plan::get(address, authority, method).http2().header("content-type", "application/grpc");
        Plan { method: Method::POST, body: body.freeze(), grpc: true, ..plan.header("te", "trailers") }
    }

    /// With this method instead.
    pub fn method(self, method: Method) -> Plan {
        Plan { method, ..self }
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: &str) -> Plan {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// By HTTP/2 with prior knowledge, without TLS. Each connection still carries one request at a time.
    pub fn http2(self) -> Plan {
        Plan { version: Version::HTTP_2, ..self }
    }

    /// With the whole URL in the request line, as to an HTTP proxy.
    pub fn through_proxy(self) -> Plan {
        Plan { absolute: true, ..self }
    }

    /// At this rate instead.
    pub fn rate(self, rate: Rate) -> Plan {
        Plan { rate, ..self }
    }

    /// So many requests per second over all connections: see [`Rate::PerSecond`].
    pub fn per_second(self, requests: f64) -> Plan {
        self.rate(Rate::PerSecond(requests))
    }

    /// Over so many connections instead, at least one.
    pub fn connections(self, connections: usize) -> Plan {
        Plan { connections: connections.max(1), ..self }
    }

    /// With this timeout per request, connecting included.
    pub fn timeout(self, timeout: Duration) -> Plan {
        Plan { timeout, ..self }
    }

    /// Any other status than this one is a failure.
    pub fn expect_status(self, expected_status: u16) -> Plan {
        Plan { expected_status, ..self }
    }

    pub(super) fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// The pause between two requests on one connection; `None` for none.
    pub(super) fn pause(&self) -> Option<Duration> {
        match self.rate {
            Rate::PerSecond(rate) => Some(Duration::from_secs_f64(self.connections as f64 / rate.max(1e-3))),
            Rate::Unlimited => None,
        }
    }

    /// The request.
    pub(super) fn request(&self) -> Result<Request<Full<Bytes>>, http::Error> {
        let uri = if self.absolute || self.is_http2() {
            format!("http://{}{}", self.authority, self.path)
        } else {
            self.path.clone()
        };
        let mut request = Request::builder().method(&self.method).uri(uri).version(self.version);
        if !self.is_http2() {
            request = request.header(http::header::HOST, &self.authority);
        }
        for (name, value) in &self.headers {
            request = request.header(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        request.body(Full::new(self.body.clone()))
    }
}
