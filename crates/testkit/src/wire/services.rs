//! The methods of the discovery services.

use proto::ResourceType;

/// State-of-the-world and incremental, all types on one stream.
pub(super) const AGGREGATED: (&str, &str) = (
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
);

/// The methods of one type's own service: state-of-the-world, if it has that, and incremental.
pub(super) fn methods(kind: ResourceType) -> (Option<&'static str>, &'static str) {
    macro_rules! service {
        ($service:literal, $what:literal) => {
            (
                Some(concat!("/envoy.service.", $service, "/Stream", $what)),
                concat!("/envoy.service.", $service, "/Delta", $what),
            )
        };
    }
    match kind {
        ResourceType::Runtime => service!("runtime.v3.RuntimeDiscoveryService", "Runtime"),
        ResourceType::Secret => service!("secret.v3.SecretDiscoveryService", "Secrets"),
        ResourceType::Endpoints => service!("endpoint.v3.EndpointDiscoveryService", "Endpoints"),
        ResourceType::Cluster => service!("cluster.v3.ClusterDiscoveryService", "Clusters"),
        ResourceType::Route => service!("route.v3.RouteDiscoveryService", "Routes"),
        ResourceType::ScopedRoute => service!("route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes"),
        ResourceType::ExtensionConfig => {
            service!("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs")
        }
        ResourceType::Listener => service!("listener.v3.ListenerDiscoveryService", "Listeners"),
        ResourceType::VirtualHost => (None, "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts"),
    }
}
