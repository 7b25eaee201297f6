//! The server's side of HTTP/2 (RFC 9113) for one connection, without IO: as much of it as gRPC needs.
//!
//! A control plane holds thousands of connections that say a few hundred bytes now and then. What a connection costs
//! while it rests, and what one short message costs, is what the whole server costs; so this keeps nothing that a
//! resting connection does not need, and copies nothing that is large.
//!
//! ```text
//!  bytes ──▶ receive ──▶ Event: request, data, its end, reset, pong
//!  respond, send, finish, reset, ping, go_away ──▶ pump ──▶ pending ──▶ the socket ──▶ written
//! ```
//!
//! - [`Connection::receive`] takes what was read and hands on what it means. Data is lent from the buffer that it was
//!   read into, also when a frame has come in part: nothing is collected here but heads and header blocks.
//! - [`Connection::send`] takes pieces that are shared, not copied. [`Connection::pump`] makes frames of them as the
//!   client's windows allow; [`Connection::pending`] lists what the socket should be given.
//! - What a client does wrong is answered as the RFC says: with a reset of the stream, or with GOAWAY and the end of
//!   the connection ([`Connection::is_over`]).
//!
//! What is kept for a client is bounded: header blocks by [`Settings::max_header_bytes`], streams by
//! [`Settings::max_streams`], answers to its pings and settings by [`Connection::wants_more`], which says when to stop
//! reading. What it sends is bounded by the windows, which open as [`Connection::release`] is called.
//!
//! What it does not do: the client's side, server push, priorities, compression of header fields that it sends, TLS.

mod connection;
mod event;
mod frame;
mod hpack;
mod output;
mod reason;
mod settings;

pub use connection::Connection;
pub use event::{Event, StreamId};
pub use reason::Reason;
pub use settings::Settings;
