//! Where a service's traffic ends.

use std::net::IpAddr;
use std::sync::Arc;

use crate::Labels;

/// The address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name, to be resolved by the proxy.
    Name(Arc<str>),
    /// A Unix socket's path.
    Unix(Arc<str>),
}

/// Region, zone and sub-zone; empty strings where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub sub_zone: Arc<str>,
}

impl Locality {
    /// Reads `region/zone/sub-zone`, each part optional from the right.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(Arc::from);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), sub_zone: next() }
    }
}

/// Whether an endpoint takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Health {
    Healthy,
    Unhealthy,
    Draining,
}

/// One endpoint of one service port.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// The workload's port; 0 for Unix sockets.
    pub port: u16,
    /// The workload's labels, which subsets select on.
    pub labels: Arc<Labels>,
    /// Where it runs.
    pub locality: Locality,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// Whether it takes traffic. Queries leave out what does not.
    pub health: Health,
    /// Namespace and name of the workload, when known.
    pub workload: Option<(Arc<str>, Arc<str>)>,
    /// The workload's service account, when known.
    pub service_account: Option<Arc<str>>,
    /// Whether a client is to speak mutual TLS of the mesh to it. That depends on the client and on policies: a world says
    /// `false` everywhere.
    pub mutual_tls: bool,
}

impl Endpoint {
    /// Whether every label of `selector` is among the endpoint's.
    pub fn matches(&self, selector: &Labels) -> bool {
        selector.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}
