//! Who may talk to whom, how both sides prove it, and which requests pass.
//!
//! From policies to values, and from values to parts of Envoy's messages; which policies concern a workload the
//! caller asks the world. What a policy says and cannot be done is never passed over: the requests that it is about are
//! refused.

mod authentication;
mod authorization;
mod credential;
mod guards;
mod mutual;
mod peer;
mod provided;
mod sockets;
mod strictness;

pub(crate) use authentication::{AuthenticationInput, JWT_FILTER, JWT_PAYLOAD, authentication};
pub(crate) use authorization::{
    AuthorizationInput, ResolvedProvider, authorization, authorization_of_grpc, of_the_mesh,
};
pub(crate) use credential::{PROVE, authorities_of, credential, on_the_stream, secret_of};
pub(crate) use guards::Guards;
pub use mutual::{MutualTls, Peers};
pub(crate) use mutual::{is_labelled, mark, mutual_tls_mark};
pub(crate) use peer::{Mtls, Peer, Stated};
pub(crate) use provided::{provided_downstream, provided_upstream};
pub(crate) use sockets::{ServerName, control_plane, downstream, downstream_of, socket, upstream, versions};
pub(crate) use strictness::{Strictness, strictness};
