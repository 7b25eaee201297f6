//! Which discovery stream a path asks for (rule P-01).

use proto::ResourceType;
use xds::{Service, Variant};

/// `Stream*` and `Delta*` of a service. Virtual hosts have only the latter (rule P-66).
struct Methods {
    service: Service,
    /// Full name of the gRPC service.
    name: &'static str,
    state_of_the_world: Option<&'static str>,
    delta: &'static str,
}

const fn of(
    service: Service,
    name: &'static str,
    state_of_the_world: Option<&'static str>,
    delta: &'static str,
) -> Methods {
    Methods { service, name, state_of_the_world, delta }
}

/// Names as in `envoy/service/*/v3/*.proto`.
const SERVICES: [Methods; 10] = [
    of(
        Service::Aggregated,
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        Some("StreamAggregatedResources"),
        "DeltaAggregatedResources",
    ),
    of(
        Service::Only(ResourceType::Listener),
        "envoy.service.listener.v3.ListenerDiscoveryService",
        Some("StreamListeners"),
        "DeltaListeners",
    ),
    of(
        Service::Only(ResourceType::Route),
        "envoy.service.route.v3.RouteDiscoveryService",
        Some("StreamRoutes"),
        "DeltaRoutes",
    ),
    of(
        Service::Only(ResourceType::ScopedRoute),
        "envoy.service.route.v3.ScopedRoutesDiscoveryService",
        Some("StreamScopedRoutes"),
        "DeltaScopedRoutes",
    ),
    of(
        Service::Only(ResourceType::VirtualHost),
        "envoy.service.route.v3.VirtualHostDiscoveryService",
        None,
        "DeltaVirtualHosts",
    ),
    of(
        Service::Only(ResourceType::Cluster),
        "envoy.service.cluster.v3.ClusterDiscoveryService",
        Some("StreamClusters"),
        "DeltaClusters",
    ),
    of(
        Service::Only(ResourceType::Endpoints),
        "envoy.service.endpoint.v3.EndpointDiscoveryService",
        Some("StreamEndpoints"),
        "DeltaEndpoints",
    ),
    of(
        Service::Only(ResourceType::Secret),
        "envoy.service.secret.v3.SecretDiscoveryService",
        Some("StreamSecrets"),
        "DeltaSecrets",
    ),
    of(
        Service::Only(ResourceType::Runtime),
        "envoy.service.runtime.v3.RuntimeDiscoveryService",
        Some("StreamRuntime"),
        "DeltaRuntime",
    ),
    of(
        Service::Only(ResourceType::ExtensionConfig),
        "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        Some("StreamExtensionConfigs"),
        "DeltaExtensionConfigs",
    ),
];

/// The stream behind a path such as `/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters`; `None` for
/// every other path, the `Fetch*` methods among them.
pub(super) fn find(path: &str) -> Option<(Service, Variant)> {
    let (name, method) = path.strip_prefix('/')?.split_once('/')?;
    let methods = SERVICES.iter().find(|methods| methods.name == name)?;
    if methods.state_of_the_world == Some(method) {
        Some((methods.service, Variant::StateOfTheWorld))
    } else if methods.delta == method {
        Some((methods.service, Variant::Delta))
    } else {
        None
    }
}

/// Full names of the gRPC services that are served here.
pub(crate) fn service_names() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(|methods| methods.name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_in_the_descriptors_of_envoys_api() {
        let pool = proto::descriptor::pool();
        for methods in &SERVICES {
            let service = pool.get_service_by_name(methods.name).unwrap_or_else(|| panic!("{}", methods.name));
            let known: BTreeSet<String> = service.methods().map(|method| method.name().to_owned()).collect();
            for name in methods.state_of_the_world.into_iter().chain([methods.delta]) {
                assert!(known.contains(name), "{}/{name}", methods.name);
            }
        }
    }

    #[test]
    fn a_path_leads_to_its_stream_and_others_lead_nowhere() {
        let path = "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters";
        assert_eq!(find(path), Some((Service::Only(ResourceType::Cluster), Variant::Delta)));
        let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
        assert_eq!(find(path), Some((Service::Aggregated, Variant::StateOfTheWorld)));
        for path in ["/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters", "/", "", "a/b", "/a"] {
            assert_eq!(find(path), None, "{path}");
        }
    }
}
