//! Listeners of sidecars and of gRPC clients and servers; those of gateways are put together in [`crate::gateway`] from the same parts.
//!
//! ```text
//!   service port ──▶ contributions(…) ──▶ Contribution (key, HTTP?, chains) ─┐
//!   …                                                                        ├─ per Key ─▶ outbound(…) ──▶ Listener
//!   service port ──▶ contributions(…) ──▶ Contribution ──────────────────────┘
//! ```
//!
//! Several services may want the same listener, because they have the same port and no address of their own: each
//! says what it wants in a [`Contribution`], and [`outbound()`] joins all contributions with one [`Key`] or says which
//! of them lose. All other listeners are built by one function each.
//!
//! A listener refers to route configurations by name (over ADS) or carries its routes; whether those names exist is
//! the caller's to see to. Filters that exist only in Istio's own build of Envoy are never used here.

mod api;
mod assemble;
mod chain;
mod connection_manager;
mod contribution;
mod grpc_server;
mod inbound;
mod l4;
mod mark;
mod merge;
mod outbound;
mod served;
mod shares;
mod tcp_proxy;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use api::api_listener;
pub(crate) use assemble::{Assembly, Inspection, Place, assemble, listener_name, wildcards};
pub(crate) use chain::{Application, Chain, Leaf, Matching, Transport};
pub(crate) use connection_manager::{
    CONNECTION_MANAGER, ConnectionManagerInput, Reading, Routes, Side, connection_manager, connection_manager_filter,
    server_access_log,
};
pub(crate) use contribution::{Contribution, ContributionInput, Key, contributions};
pub(crate) use grpc_server::{GrpcServerInput, grpc_server};
pub(crate) use inbound::{InboundInput, bound_inbound, virtual_inbound};
pub(crate) use l4::{L4Input, is_whole, names_matching, narrower, tcp_chains, tls_chains};
pub(crate) use outbound::{OutboundInput, http_proxy, outbound, virtual_outbound};
pub use served::Served;
pub(crate) use served::{served, with_held};
pub(crate) use shares::Policies;
pub(crate) use tcp_proxy::{TcpProxyInput, tcp_proxy};
