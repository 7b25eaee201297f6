//! Sockets that are listened at, and connections from them, whatever their kind.

mod accept;
mod listener;
mod lobby;
mod socket;

pub(crate) use accept::accept_until;
pub(crate) use listener::Listener;
pub(crate) use lobby::{Lobby, Seat};
pub(crate) use socket::{Peer, Socket};
