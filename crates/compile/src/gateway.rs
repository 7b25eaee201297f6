//! Gateways: what the `Gateway` objects that select a proxy make it listen to, and which hosts its route
//! configurations have.
//!
//! ```text
//!   Gateways ──▶ ports(…) ──┬─▶ listeners(…)   one per address and port; HTTP by RDS `http.<port>`
//!                           └─▶ hosts(…)       per route configuration: virtual hosts and the VirtualServices behind them
//! ```
//!
//! Servers of several Gateways on one port share it. Where they cannot, the older Gateway has the port. Certificates
//! come from files on the proxy's machine, from secrets by SDS, or are the mesh's own.

mod hosts;
mod listeners;
mod ports;
mod secrets;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;

use world::{Object, ObjectRef, SecretState, Service, Settings};

use crate::listener::{Policies, Reading};
use crate::security::Guards;
use crate::{Audience, Options, Resolve};

pub(crate) use hosts::{ExposedHost, RouteTable, hosts};
pub(crate) use listeners::listeners;

/// All that a gateway's listeners and hosts depend on.
pub(crate) struct GatewayInput<'a> {
    /// The proxy.
    pub(crate) audience: &'a Audience,
    /// The Gateways whose selector matches it, oldest first.
    pub(crate) gateways: &'a [&'a Arc<Object>],
    /// The services that lead to it: `(service, service port, target port)`. A server's port is that of the service;
    /// the proxy listens on the target port.
    pub(crate) served: &'a [(Arc<Service>, u16, u16)],
    /// The VirtualServices bound to a Gateway, oldest first. For listeners it is asked only about Gateways with TCP
    /// servers or TLS that passes through.
    pub(crate) routes: &'a dyn Fn(&ObjectRef) -> Vec<Arc<Object>>,
    /// Follows destinations.
    pub(crate) resolve: &'a Resolve<'a>,
    /// Policies of destinations.
    pub(crate) policies: &'a Policies<'a>,
    /// What to do with destinations that do not exist.
    pub(crate) options: &'a Options,
    /// The cluster's DNS domain and the mesh's trust domains.
    pub(crate) settings: &'a Settings,
    /// What is known of a Secret in the proxy's namespace, by name.
    pub(crate) secrets: &'a dyn Fn(&str) -> SecretState,
    /// How requests are read.
    pub(crate) reading: Reading,
    /// What everything passes first.
    pub(crate) guards: &'a Guards,
    /// File that requests are logged to.
    pub(crate) access_log: Option<&'a str>,
}
