//! A minimal HTTP/2 client for one gRPC stream a connection, without IO.
//!
//! [`Incoming`] takes bytes apart wherever they were cut; [`Outgoing`] frames what is to be sent and honours the peer's
//! windows. Neither keeps a buffer while nothing is in flight: what one of ten thousand connections costs is their
//! fields.

pub(crate) mod frame;
mod hpack;
mod huffman;
mod incoming;
mod outgoing;

pub(crate) use hpack::put;
pub(crate) use incoming::{Event, Incoming, ProtocolError};
pub(crate) use outgoing::{Outgoing, Piece};
