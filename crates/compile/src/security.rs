//! Who may talk to whom, and how both sides prove it.
//!
//! From policies to values, and from values to parts of Envoy's messages; which policies concern a workload the
//! caller asks the world.

mod peer;
mod sockets;

pub(crate) use peer::{Mtls, Peer, Stated};
pub(crate) use sockets::downstream;
