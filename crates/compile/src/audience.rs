//! All that compiling may know of a node. Nodes with equal audiences share their layers.

use std::net::IpAddr;
use std::sync::Arc;

use proto::{Extension, Extensions};
use world::{Labels, Scope};

use crate::ControlPlane;

/// How traffic gets into a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interception {
    /// iptables REDIRECT to 15001 and 15006.
    Redirect,
    /// iptables TPROXY.
    Tproxy,
    /// None: listeners really bind their ports.
    None,
}

/// What kind of client a node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proxy {
    /// Envoy beside a workload.
    Sidecar {
        /// How traffic gets in.
        interception: Interception,
        /// Port of the explicit `http_proxy` listener on 127.0.0.1, if there is one.
        http_proxy_port: Option<u16>,
    },
    /// Envoy at the edge, taking the servers of `Gateway` objects.
    Gateway,
    /// A gRPC client without a proxy.
    Grpc,
}

/// How the virtual hosts of route configurations that many hosts share reach a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostDelivery {
    /// Inside the route configuration, which every client understands. A change of one host sends all of them again.
    #[default]
    Inline,
    /// Each as a resource of its own (VHDS), which Envoy takes on aggregated delta streams. A change costs one host.
    Separate,
}

/// Where a client has its certificate of the mesh and its key from, and what it trusts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Secrets {
    /// It has none, because it has not proved who it is: it can neither end nor begin TLS of the mesh.
    #[default]
    None,
    /// By SDS, on the stream of everything else.
    Stream,
    /// By SDS from Istio's agent beside it, the cluster `sds-grpc` of its bootstrap.
    Agent,
    /// From files that somebody keeps beside it, by the certificate provider of this name in its bootstrap:
    /// [`crate::names::CERTIFICATE_PROVIDER`]. Only gRPC without a proxy has such.
    Provider,
}

/// What compiling may know of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Audience {
    /// What kind of client it is.
    pub proxy: Proxy,
    /// Its namespace: visibility, short names and rules depend on it.
    pub namespace: Arc<str>,
    /// The workload's labels: `sourceLabels`, workload selectors and Gateway selectors look at them.
    pub labels: Arc<Labels>,
    /// The workload's addresses, which say what it serves.
    pub addresses: Vec<IpAddr>,
    /// How it gets virtual hosts.
    pub hosts: HostDelivery,
    /// Extensions that it was built without.
    pub lacks: Extensions,
    /// Where it has its certificate from.
    pub secrets: Secrets,
    /// Where it reaches the control plane by that certificate; `None` where the connection of its bootstrap proves who it
    /// is.
    pub control_plane: Option<ControlPlane>,
}

impl Audience {
    /// The scope of its questions.
    pub fn scope(&self) -> Scope {
        Scope { namespace: self.namespace.clone() }
    }

    /// Whether its clients have all of these labels.
    pub(crate) fn has_labels<'l>(&self, wanted: impl IntoIterator<Item = (&'l String, &'l String)>) -> bool {
        wanted.into_iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }

    /// The audience as far as the way into its workload depends on it, and the same for all audiences that share that.
    pub fn workload(&self) -> Self {
        // Route configurations on that way have one virtual host each, which is always inside.
        Self { hosts: HostDelivery::Inline, ..self.clone() }
    }

    /// How traffic gets into it; [`Interception::None`] for everything but sidecars.
    pub fn interception(&self) -> Interception {
        match self.proxy {
            Proxy::Sidecar { interception, .. } => interception,
            Proxy::Gateway | Proxy::Grpc => Interception::None,
        }
    }

    /// Whether it says of each connection of bytes that it is one, when it speaks mutual TLS of the mesh. Then whatever does
    /// not say so can be taken for HTTP on ports whose protocol nobody declares.
    pub(crate) fn marks_bytes(&self) -> bool {
        self.secrets != Secrets::None && !self.lacks.contains(Extension::SetFilterState)
    }

    /// Whether the client is gRPC without a proxy, which takes fewer features than Envoy.
    pub fn is_grpc(&self) -> bool {
        self.proxy == Proxy::Grpc
    }
}
