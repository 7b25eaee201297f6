//! The names that the ecosystem relies on: Istio's.

use std::sync::Arc;

use world::{Hostname, ObjectRef};

/// Cluster without endpoints: traffic that must not go anywhere.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// Cluster that leads to the original destination.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// Cluster that leads to the original destination on the workload itself.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// Listener that takes intercepted outbound traffic, on port 15001.
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// Listener that takes intercepted inbound traffic, on port 15006.
pub const VIRTUAL_INBOUND: &str = "virtualInbound";
/// Cluster of the control plane itself, in the bootstrap of our clients and of Istio's agents.
pub const CONTROL_PLANE: &str = "xds-grpc";
/// Cluster of the control plane by the proxy's own certificate, for questions about limits.
pub const LIMITS: &str = "pointsman-limits";
/// Listener and route configuration of the explicit HTTP proxy.
pub const HTTP_PROXY: &str = "http_proxy";

/// Instance of a certificate provider in the bootstraps of gRPC, ours and those of Istio's agents.
pub const CERTIFICATE_PROVIDER: &str = "default";

/// `outbound|80|v2|reviews.default.svc.cluster.local`; an empty subset for the service as a whole.
pub fn outbound_cluster(port: u16, subset: &str, host: &Hostname) -> Arc<str> {
    format!("outbound|{port}|{subset}|{host}").into()
}

/// `inbound|8080||`.
pub fn inbound_cluster(target_port: u16) -> Arc<str> {
    format!("inbound|{target_port}||").into()
}

/// Virtual host of a service on a port: `reviews.default.svc.cluster.local:80`.
pub fn virtual_host(host: &Hostname, port: u16) -> Arc<str> {
    format!("{host}:{port}").into()
}

/// Route configuration of the HTTP servers on a gateway's port: `http.80`.
pub fn gateway_route(port: u16) -> Arc<str> {
    format!("http.{port}").into()
}

/// Route configuration of one HTTPS server of a gateway: `https.443.<port name>.<gateway>.<namespace>`.
pub fn gateway_tls_route(port: u16, port_name: &str, gateway: &ObjectRef) -> Arc<str> {
    format!("https.{port}.{port_name}.{}.{}", gateway.name, gateway.namespace).into()
}
