//! Who may talk to whom, and how both sides prove it.
//!
//! From policies to values, and from values to parts of Envoy's messages; which policies concern a workload the
//! caller asks the world.

mod authorization;
mod guards;
mod peer;
mod sockets;

pub(crate) use authorization::{AuthorizationInput, ResolvedProvider, authorization};
pub(crate) use guards::Guards;
pub(crate) use peer::{Mtls, Peer, Stated};
pub(crate) use sockets::downstream;

/// The filter that checks tokens, and the name under which it leaves what they say.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
/// The key of a token's payload there.
const JWT_PAYLOAD: &str = "payload";
