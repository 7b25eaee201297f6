//! Services of every origin in one shape: Kubernetes Services and hosts of ServiceEntries.

use std::net::IpAddr;
use std::sync::Arc;

use crate::{Hostname, Labels, ObjectRef};

/// What a port carries. How it is chosen: [`Protocol::select`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    GrpcWeb,
    /// HTTP inside TLS that is not terminated here: routed by SNI, like [`Protocol::Tls`].
    Https,
    Tls,
    Tcp,
    /// Nothing was declared: the proxy looks at the first bytes.
    Auto,
    /// Not proxied.
    Udp,
}

impl Protocol {
    /// Istio's order: `appProtocol`, then the port name's prefix up to the first `-`, then well-known server-first
    /// ports (25, 53, 3306, 27017) as TCP, then [`Protocol::Auto`]. Unknown words count as not declared.
    pub fn select(transport: Option<&str>, app_protocol: Option<&str>, port_name: &str, number: u16) -> Self {
        if transport.is_some_and(|t| t.eq_ignore_ascii_case("UDP") || t.eq_ignore_ascii_case("SCTP")) {
            return Protocol::Udp;
        }
        if let Some(protocol) = app_protocol.and_then(Self::parse) {
            return protocol;
        }
        let prefix = port_name.split('-').next().unwrap_or(port_name);
        // `grpc-web` is the one protocol name with a dash in it.
        let named = if port_name.to_ascii_lowercase().starts_with("grpc-web") {
            Some(Protocol::GrpcWeb)
        } else {
            Self::parse(prefix)
        };
        named.unwrap_or(if [25, 53, 3306, 27017].contains(&number) { Protocol::Tcp } else { Protocol::Auto })
    }

    /// Reads a protocol name of Istio or Kubernetes, in any case; `None` for an unknown one.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "http" | "http1" | "http_proxy" | "kubernetes.io/ws" => Protocol::Http,
            "http2" | "h2c" | "kubernetes.io/h2c" => Protocol::Http2,
            "grpc" => Protocol::Grpc,
            "grpc-web" => Protocol::GrpcWeb,
            "https" | "kubernetes.io/wss" => Protocol::Https,
            "tls" => Protocol::Tls,
            "tcp" | "mongo" | "redis" | "mysql" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        })
    }

    /// HTTP of any version that the proxy can read.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// HTTP/2 towards the destination.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// TLS that passes through, routed by SNI.
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Https | Protocol::Tls)
    }
}

/// How a service's endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// From EndpointSlices, selected workloads or a static list: EDS.
    Static,
    /// The proxy resolves each endpoint's name and uses all addresses.
    Dns,
    /// The proxy resolves one name and uses one address at a time.
    DnsRoundRobin,
    /// The original destination address of the connection.
    Passthrough,
}

/// Who may use a service, a rule or a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Export {
    /// Everyone.
    #[default]
    All,
    /// Only these namespaces; none at all when empty.
    Namespaces(Vec<Arc<str>>),
}

impl Export {
    /// Reads `exportTo` of an object in `namespace`: empty and `*` mean all, `.` the object's own namespace, `~` nobody.
    pub fn parse(entries: &[String], namespace: &str) -> Self {
        if entries.is_empty() || entries.iter().any(|e| e == "*") {
            return Export::All;
        }
        let own = |e: &String| if e == "." { namespace.into() } else { e.as_str().into() };
        Export::Namespaces(entries.iter().filter(|e| *e != "~").map(own).collect())
    }

    /// Whether a client of `namespace` may use it.
    pub fn is_visible_to(&self, namespace: &str) -> bool {
        match self {
            Export::All => true,
            Export::Namespaces(names) => names.iter().any(|n| &**n == namespace),
        }
    }
}

/// Which port of the workload a service port leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container port.
    Name(Arc<str>),
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, which EndpointSlices refer to; may be empty for a single port.
    pub name: Arc<str>,
    /// The number that clients use.
    pub number: u16,
    /// What it carries.
    pub protocol: Protocol,
    /// Where it leads on the workload.
    pub target: TargetPort,
}

/// A service under one host name.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Fully qualified; may be a wildcard for a ServiceEntry.
    pub host: Hostname,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
    /// The object.
    pub origin: ObjectRef,
    /// Its age, see [`crate::Meta::created`].
    pub created: Arc<str>,
    /// Whether the host is a Kubernetes Service's, which also has short names.
    pub kubernetes: bool,
    /// Ports in the order written.
    pub ports: Vec<ServicePort>,
    /// Virtual IP addresses; empty for headless services and entries without addresses.
    pub addresses: Vec<IpAddr>,
    /// Address ranges of a ServiceEntry, as `(network, prefix length)`; only for [`Resolution::Passthrough`] in practice.
    pub ranges: Vec<(IpAddr, u8)>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// A Kubernetes Service with `clusterIP: None`.
    pub headless: bool,
    /// `location: MESH_EXTERNAL`.
    pub external: bool,
    /// Set for `type: ExternalName`: the service is only another name for this one.
    pub alias_of: Option<Hostname>,
    /// Labels of the workloads behind it, empty when it selects none.
    pub selector: Arc<Labels>,
    /// Names of which its endpoints' certificates must have one (`subjectAltNames` of a ServiceEntry); any if empty.
    pub subject_alt_names: Arc<[String]>,
    /// Unready endpoints count too.
    pub publish_not_ready: bool,
    /// Who may use it.
    pub export: Export,
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.number == number)
    }
}
