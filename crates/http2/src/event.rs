//! What a client's bytes mean.

use std::fmt;

use http::Request;

use crate::Reason;

/// A stream of a connection: odd, and larger than those of all streams before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(crate) u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the client did.
#[derive(Debug)]
pub enum Event<'a> {
    /// It opened a stream. Method, path and header fields are there; the path has neither scheme nor authority.
    Request {
        /// The stream; it lives until it was finished from this side, or reset by either.
        stream: StreamId,
        /// Method, path and header fields.
        head: Box<Request<()>>,
    },
    /// It sent data, never none. Its length must be given to [`Connection::release`](crate::Connection::release) once
    /// it needs no room any more.
    Data {
        /// On this stream.
        stream: StreamId,
        /// Lent from what was received.
        data: &'a [u8],
    },
    /// It will send no more on this stream.
    Ended {
        /// This one.
        stream: StreamId,
    },
    /// It gave the stream up, or did something on it for which the stream was reset. The stream is gone.
    Reset {
        /// This one.
        stream: StreamId,
        /// Why.
        reason: Reason,
    },
    /// It answered a ping.
    Pong([u8; 8]),
}
