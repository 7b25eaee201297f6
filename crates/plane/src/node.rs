//! From what a client says about itself to the audience that it belongs to.

use std::net::IpAddr;
use std::sync::Arc;

use compile::{Audience, ControlPlane, Extensions, HostDelivery, Interception, Proxy, Secrets};
use serde_json::{Map, Value};
use world::{Labels, Reader};

/// What a client says about itself in its first request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// `node.id`: `<type>~<ip>~<pod>.<namespace>~<namespace>.svc.<domain>` for clients that follow Istio; any other
    /// text is taken as a name.
    pub id: String,
    /// `node.cluster`.
    pub cluster: String,
    /// `node.metadata` as JSON.
    pub metadata: Map<String, Value>,
    /// `node.user_agent_name`: `envoy`, or `gRPC ...` for gRPC clients.
    pub user_agent: String,
    /// How it is to get virtual hosts, which depends on the stream that it opened, too.
    pub hosts: HostDelivery,
    /// Extensions that it was built without.
    pub lacks: Extensions,
    /// Where it has its certificate from, which depends on how it proved who it is.
    pub secrets: Secrets,
    /// The namespace and the service account that it has proved to be of.
    pub account: Option<(Arc<str>, Arc<str>)>,
}

/// Why a node cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The id is empty.
    #[error("the node has no id")]
    NoId,
    /// The id's type is one that is not served.
    #[error("node \"{id}\" is of type \"{kind}\", which is not served (served: sidecar, router)")]
    UnknownType {
        /// The node's id.
        id: String,
        /// Its first part.
        kind: String,
    },
}

impl Node {
    /// The audience of this node. Labels come from the world's pod of this name or address where there is one, else
    /// from `metadata.LABELS` (or `labels`). Without Istio's id form the node is a sidecar without interception
    /// (a gRPC client if its user agent or `GENERATOR: grpc` says so) in `metadata.NAMESPACE`, else `default`.
    ///
    /// # Errors
    /// [`NodeError`] when the id is empty or of a type that is not served; the stream should be refused.
    pub fn audience(&self, world: &Reader<'_>) -> Result<Audience, NodeError> {
        if self.id.is_empty() {
            return Err(NodeError::NoId);
        }
        let parts: Vec<&str> = self.id.split('~').collect();
        let [kind, address, name, _domain] = parts[..] else { return Ok(self.plain_audience(world)) };
        let (name, namespace_of_id) = name.rsplit_once('.').unwrap_or((name, "default"));
        let namespace: Arc<str> = self.text("NAMESPACE").unwrap_or(namespace_of_id).into();
        let mut addresses: Vec<IpAddr> = self
            .text("INSTANCE_IPS")
            .into_iter()
            .flat_map(|all| all.split(','))
            .filter_map(|a| a.trim().parse().ok())
            .collect();
        addresses.extend(address.parse::<IpAddr>().ok());
        addresses.sort();
        addresses.dedup();
        let proxy = match kind {
            _ if self.is_grpc() => Proxy::Grpc,
            "sidecar" => self.sidecar(Interception::Redirect),
            "router" => Proxy::Gateway,
            other => return Err(NodeError::UnknownType { id: self.id.clone(), kind: other.to_owned() }),
        };
        let labels = self.labels(world, &namespace, name, &addresses);
        Ok(self.in_place(proxy, namespace, labels, addresses))
    }

    fn plain_audience(&self, world: &Reader<'_>) -> Audience {
        let namespace: Arc<str> = self.text("NAMESPACE").unwrap_or("default").into();
        let proxy = if self.is_grpc() { Proxy::Grpc } else { self.sidecar(Interception::None) };
        let labels = self.labels(world, &namespace, &self.id, &[]);
        self.in_place(proxy, namespace, labels, Vec::new())
    }

    fn in_place(&self, proxy: Proxy, namespace: Arc<str>, labels: Arc<Labels>, addresses: Vec<IpAddr>) -> Audience {
        let Self { hosts, lacks, secrets, .. } = *self;
        // gRPC knows no SDS, and nobody else has certificate providers.
        let is_usable = (secrets == Secrets::Provider) == (proxy == Proxy::Grpc);
        let secrets = if is_usable { secrets } else { Secrets::None };
        // Nor does gRPC ask the control plane about requests.
        let control_plane = if proxy == Proxy::Grpc { None } else { self.control_plane() };
        Audience { proxy, namespace, labels, addresses, hosts, lacks, secrets, control_plane }
    }

    /// Where it reaches the control plane by its own certificate: `PROXY_CONFIG.discoveryAddress`, as Istio's agents say it,
    /// with the name of `DISCOVERY_NAME` where that is another than the host. Bootstraps whose connection proves who the
    /// client is do not say it.
    fn control_plane(&self) -> Option<ControlPlane> {
        if self.secrets == Secrets::None {
            return None;
        }
        let address = self.metadata.get("PROXY_CONFIG")?.get("discoveryAddress")?.as_str()?;
        ControlPlane::parse(address, self.text("DISCOVERY_NAME"))
    }

    fn is_grpc(&self) -> bool {
        self.text("GENERATOR") == Some("grpc") || self.user_agent.starts_with("gRPC ")
    }

    fn sidecar(&self, default: Interception) -> Proxy {
        let interception = match self.text("INTERCEPTION_MODE") {
            Some("REDIRECT") => Interception::Redirect,
            Some("TPROXY") => Interception::Tproxy,
            Some("NONE") => Interception::None,
            _ => default,
        };
        let http_proxy_port = match self.metadata.get("HTTP_PROXY_PORT") {
            Some(Value::String(text)) => text.parse().ok(),
            Some(Value::Number(number)) => number.as_f64().filter(|n| (1.0..65536.0).contains(n)).map(|n| n as u16),
            _ => None,
        };
        Proxy::Sidecar { interception, http_proxy_port }
    }

    fn labels(&self, world: &Reader<'_>, namespace: &Arc<str>, name: &str, addresses: &[IpAddr]) -> Arc<Labels> {
        if let Some(labels) = world.workload_labels(namespace, name, addresses) {
            return Arc::new(labels);
        }
        let given = self.metadata.get("LABELS").or_else(|| self.metadata.get("labels")).and_then(Value::as_object);
        let pairs = given.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
        Arc::new(pairs.collect())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }
}
