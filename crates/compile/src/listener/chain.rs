//! A filter chain in a form in which matches can be compared before Envoy compares them.

use std::net::IpAddr;
use std::sync::Arc;

use proto::pb::envoy::config::core::v3::{CidrRange, TransportSocket};
use proto::pb::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch};
use world::ObjectRef;

use crate::pack::{duration, uint32};
use crate::security::Guards;

use super::mark::as_bytes;

/// Application protocols that `http_inspector` reports for HTTP in the clear.
const HTTP_PROTOCOLS: &[&str] = &["http/1.0", "http/1.1", "h2c"];
/// Those that clients of the mesh offer in TLS for HTTP.
const MESH_HTTP_PROTOCOLS: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Those that they offer for everything else.
const MESH_TCP_PROTOCOLS: &[&str] = &["istio-peer-exchange", "istio"];
/// Both.
const MESH_PROTOCOLS: &[&str] = &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

/// Network and prefix length, without host bits.
pub(crate) type Range = (IpAddr, u8);

/// What an inspector found out about the first bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Transport {
    /// It does not matter, and nobody needs to look.
    #[default]
    Any,
    /// Not TLS; also what a connection is taken for when nobody looked.
    Plain,
    /// TLS.
    Tls,
}

/// What the first bytes say of the protocol inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Application {
    /// It does not matter.
    #[default]
    Any,
    /// HTTP in the clear, as far as the first bytes show it.
    Http,
    /// TLS that a client of the mesh began.
    Mesh,
    /// TLS that a client of the mesh began for HTTP.
    MeshHttp,
    /// TLS that a client of the mesh began without saying what for.
    MeshTcp,
}

impl Application {
    /// As a filter chain matches it.
    fn protocols(self) -> &'static [&'static str] {
        match self {
            Application::Any => &[],
            Application::Http => HTTP_PROTOCOLS,
            Application::Mesh => MESH_PROTOCOLS,
            Application::MeshHttp => MESH_HTTP_PROTOCOLS,
            Application::MeshTcp => MESH_TCP_PROTOCOLS,
        }
    }
}

/// Which connections a chain takes. The default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matching {
    /// The original destination port.
    pub(crate) destination_port: Option<u16>,
    /// The original destination address; empty for any.
    pub(crate) ranges: Vec<Range>,
    /// SNI, exact or `*.` and a suffix, in lower case; empty for any.
    pub(crate) server_names: Vec<String>,
    /// TLS or not.
    pub(crate) transport: Transport,
    /// The protocol inside.
    pub(crate) application: Application,
}

/// One combination that a [`Matching`] stands for. Envoy refuses a listener in which two chains share one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leaf {
    destination_port: Option<u16>,
    range: Option<Range>,
    server_name: Option<String>,
    transport: Transport,
    application: Application,
}

/// A filter chain, with what is needed to merge it with others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chain {
    /// Its name; empty names are left to Envoy.
    pub(crate) name: String,
    /// What it takes.
    pub(crate) matching: Matching,
    /// SNI that tells it from chains of other services when it has to share its listener.
    pub(crate) server_name_when_shared: Option<String>,
    /// Filters that its connections pass first, in this order: those that authorise, then those that say something of
    /// them.
    pub(crate) guards: Vec<Filter>,
    /// What it does.
    pub(crate) filter: Filter,
    /// TLS that is terminated here.
    pub(crate) transport_socket: Option<TransportSocket>,
    /// Clusters that it names.
    pub(crate) clusters: Vec<Arc<str>>,
    /// Objects that it came from.
    pub(crate) origins: Vec<ObjectRef>,
}

impl Matching {
    /// Whether every connection matches.
    pub(crate) fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Every combination of address and SNI.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = Leaf> + '_ {
        let ranges = if self.ranges.is_empty() { vec![None] } else { self.ranges.iter().map(Some).collect() };
        ranges.into_iter().flat_map(move |range| {
            let names: Vec<Option<&String>> =
                if self.server_names.is_empty() { vec![None] } else { self.server_names.iter().map(Some).collect() };
            names.into_iter().map(move |name| Leaf {
                destination_port: self.destination_port,
                range: range.copied(),
                server_name: name.cloned(),
                transport: self.transport,
                application: self.application,
            })
        })
    }

    /// Takes out what `taken` has already: names first, else addresses. `false` when nothing is left to match.
    ///
    /// With several addresses and several names, a name that is taken at one address is given up at all of them.
    pub(crate) fn remove(&mut self, taken: impl Fn(&Leaf) -> bool) -> bool {
        let clashes: Vec<Leaf> = self.leaves().filter(|leaf| taken(leaf)).collect();
        if clashes.is_empty() {
            return true;
        }
        if !self.server_names.is_empty() {
            self.server_names.retain(|name| clashes.iter().all(|c| c.server_name.as_ref() != Some(name)));
            return !self.server_names.is_empty();
        }
        self.ranges.retain(|range| clashes.iter().all(|c| c.range.as_ref() != Some(range)));
        !self.ranges.is_empty()
    }

    fn into_proto(self) -> Option<FilterChainMatch> {
        if self.is_everything() {
            return None;
        }
        Some(FilterChainMatch {
            destination_port: self.destination_port.map(|port| uint32(port.into())),
            prefix_ranges: self.ranges.into_iter().map(cidr).collect(),
            server_names: self.server_names,
            transport_protocol: match self.transport {
                Transport::Any => "",
                Transport::Plain => "raw_buffer",
                Transport::Tls => "tls",
            }
            .to_owned(),
            application_protocols: self.application.protocols().iter().map(|p| (*p).to_owned()).collect(),
            ..FilterChainMatch::default()
        })
    }
}

impl Chain {
    /// A chain that takes everything.
    pub(crate) fn new(name: impl Into<String>, filter: Filter) -> Self {
        Self {
            name: name.into(),
            matching: Matching::default(),
            server_name_when_shared: None,
            guards: Vec::new(),
            filter,
            transport_socket: None,
            clusters: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// The same for fewer connections.
    pub(crate) fn matching(mut self, matching: Matching) -> Self {
        self.matching = matching;
        self
    }

    /// The same behind guards of its connections. (Those of requests are the connection manager's.)
    pub(crate) fn guarded(mut self, guards: &Guards) -> Self {
        self.guards.splice(..0, guards.network.iter().cloned());
        self.guarded_within(guards)
    }

    /// Notes what guards inside of the filter name and come from.
    pub(crate) fn guarded_within(mut self, guards: &Guards) -> Self {
        self.clusters.extend(guards.clusters.iter().cloned());
        self.origins.extend(guards.origins.iter().cloned());
        self
    }

    /// The same, saying of its connections that they carry bytes: see [`as_bytes`].
    pub(crate) fn marked_as_bytes(mut self) -> Self {
        self.guards.push(as_bytes());
        self
    }

    /// Notes the clusters that the filter names.
    pub(crate) fn naming(mut self, clusters: impl IntoIterator<Item = Arc<str>>) -> Self {
        self.clusters.extend(clusters);
        self
    }

    /// Envoy's message.
    pub(crate) fn into_proto(self) -> FilterChain {
        FilterChain {
            filter_chain_match: self.matching.into_proto(),
            filters: self.guards.into_iter().chain([self.filter]).collect(),
            transport_socket_connect_timeout: self.transport_socket.is_some().then(|| duration(HANDSHAKE_TIMEOUT)),
            transport_socket: self.transport_socket,
            name: self.name,
            ..FilterChain::default()
        }
    }
}

/// Reads `10.0.0.0/8` or a single address; host bits are cleared.
pub(crate) fn parse_range(text: &str) -> Option<Range> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address.parse().ok()?, bits.parse().ok()?),
        None => {
            let address: IpAddr = text.parse().ok()?;
            (address, if address.is_ipv4() { 32 } else { 128 })
        }
    };
    network(address, bits)
}

/// Clears the host bits, so that two ways to write one network are equal. `None` for too long a prefix.
pub(crate) fn network(address: IpAddr, bits: u8) -> Option<Range> {
    let masked = match address {
        IpAddr::V4(v4) => {
            let shift = 32u32.checked_sub(bits.into())?;
            IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(shift).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            let shift = 128u32.checked_sub(bits.into())?;
            IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(shift).unwrap_or(0)).into())
        }
    };
    Some((masked, bits))
}

fn cidr((address, bits): Range) -> CidrRange {
    CidrRange { address_prefix: address.to_string(), prefix_len: Some(uint32(bits.into())) }
}
