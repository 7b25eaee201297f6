//! Which kinds are understood, which are known but not supported yet, and which belong to others.

use world::Kind;

use super::suggest;

/// What an object's `apiVersion` and `kind` mean here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recognised {
    /// Understood.
    Supported(Kind),
    /// One of the kinds that Pointsman is to understand; what ignoring it means.
    NotYet(&'static str),
    /// A supported kind in a version that does not exist; the ones that do.
    WrongVersion(Vec<String>),
    /// A kind of Kubernetes that has no meaning for traffic.
    Foreign,
    /// Nothing that is known, and perhaps what was meant.
    Unknown(Option<&'static str>),
}

const ISTIO_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];

/// Supported kinds: group, kind, versions.
const SUPPORTED: &[(&str, Kind, &[&str])] = &[
    ("", Kind::Namespace, &["v1"]),
    ("", Kind::Service, &["v1"]),
    ("", Kind::Pod, &["v1"]),
    ("discovery.k8s.io", Kind::EndpointSlice, &["v1", "v1beta1"]),
    ("networking.istio.io", Kind::VirtualService, ISTIO_VERSIONS),
    ("networking.istio.io", Kind::DestinationRule, ISTIO_VERSIONS),
    ("networking.istio.io", Kind::ServiceEntry, ISTIO_VERSIONS),
    ("networking.istio.io", Kind::WorkloadEntry, ISTIO_VERSIONS),
    ("networking.istio.io", Kind::Gateway, ISTIO_VERSIONS),
    ("security.istio.io", Kind::PeerAuthentication, SECURITY_VERSIONS),
    ("security.istio.io", Kind::RequestAuthentication, SECURITY_VERSIONS),
    ("security.istio.io", Kind::AuthorizationPolicy, SECURITY_VERSIONS),
    ("networking.pointsman.dev", Kind::XdsResource, &["v1alpha1"]),
    ("policy.pointsman.dev", Kind::RateLimitPolicy, &["v1alpha1"]),
    ("delivery.pointsman.dev", Kind::DeploymentIntent, &["v1alpha1"]),
    ("delivery.pointsman.dev", Kind::AnalysisProfile, &["v1alpha1"]),
    ("delivery.pointsman.dev", Kind::RolloutRun, &["v1alpha1"]),
    ("delivery.pointsman.dev", Kind::Freeze, &["v1alpha1"]),
];

const NO_SCOPE: &str = "proxies receive the whole mesh";
const NO_PATCH: &str = "its patches are not made";
const NO_GROUP: &str = "workloads do not register themselves";
const NO_PROXY_SETTINGS: &str = "proxies keep their defaults";
const NO_PLUGIN: &str = "the plugin is not loaded";
const NO_TELEMETRY: &str = "telemetry stays at its defaults";
const NO_ROUTES: &str = "its routes have no effect";
const NO_LISTENERS: &str = "its listeners are not opened";
const NO_GRANT: &str = "it grants nothing";
const NO_TLS: &str = "connections to the backend keep their settings";
const NO_ENDPOINTS: &str = "its addresses are not used; write an EndpointSlice instead";

/// Known kinds without support yet: group, kind, what ignoring it means.
const NOT_YET: &[(&str, &str, &str)] = &[
    ("", "Endpoints", NO_ENDPOINTS),
    ("networking.istio.io", "Sidecar", NO_SCOPE),
    ("networking.istio.io", "EnvoyFilter", NO_PATCH),
    ("networking.istio.io", "WorkloadGroup", NO_GROUP),
    ("networking.istio.io", "ProxyConfig", NO_PROXY_SETTINGS),
    ("networking.istio.io", "TrafficExtension", NO_PLUGIN),
    ("extensions.istio.io", "WasmPlugin", NO_PLUGIN),
    ("extensions.istio.io", "TrafficExtension", NO_PLUGIN),
    ("telemetry.istio.io", "Telemetry", NO_TELEMETRY),
    ("install.istio.io", "IstioOperator", "its mesh settings are not read"),
    ("gateway.networking.k8s.io", "GatewayClass", NO_LISTENERS),
    ("gateway.networking.k8s.io", "Gateway", NO_LISTENERS),
    ("gateway.networking.k8s.io", "ListenerSet", NO_LISTENERS),
    ("gateway.networking.k8s.io", "HTTPRoute", NO_ROUTES),
    ("gateway.networking.k8s.io", "GRPCRoute", NO_ROUTES),
    ("gateway.networking.k8s.io", "TLSRoute", NO_ROUTES),
    ("gateway.networking.k8s.io", "TCPRoute", NO_ROUTES),
    ("gateway.networking.k8s.io", "UDPRoute", NO_ROUTES),
    ("gateway.networking.k8s.io", "ReferenceGrant", NO_GRANT),
    ("gateway.networking.k8s.io", "BackendTLSPolicy", NO_TLS),
    ("gateway.networking.x-k8s.io", "XListenerSet", NO_LISTENERS),
    ("gateway.networking.x-k8s.io", "XBackendTrafficPolicy", NO_ROUTES),
    ("gateway.networking.x-k8s.io", "XMesh", NO_ROUTES),
];

/// Kinds of the core group that say nothing about traffic. The other groups of Kubernetes are taken whole.
const CORE: &[&str] = &[
    "Binding",
    "ComponentStatus",
    "ConfigMap",
    "Event",
    "LimitRange",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "ServiceAccount",
];

/// Groups of Kubernetes whose names do not end in `.k8s.io`.
const GROUPS: &[&str] = &["apps", "autoscaling", "batch", "extensions", "policy"];

/// Kinds without a namespace, of those that can be in a problem.
const CLUSTER_SCOPED: &[&str] = &["Namespace", "GatewayClass", "Node", "PersistentVolume", "ComponentStatus", "XMesh"];

/// Recognises an object by its `apiVersion` (`v1`, `networking.istio.io/v1`) and `kind`.
pub(super) fn recognise(api_version: &str, kind: &str) -> Recognised {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let Some((_, supported, versions)) = SUPPORTED.iter().find(|(g, k, _)| *g == group && k.as_str() == kind) {
        return match versions.contains(&version) {
            true => Recognised::Supported(supported.clone()),
            false => Recognised::WrongVersion(versions_of(group, versions)),
        };
    }
    if let Some((_, _, consequence)) = NOT_YET.iter().find(|(g, k, _)| *g == group && *k == kind) {
        return Recognised::NotYet(consequence);
    }
    // A group that was forgotten (`v1` for a VirtualService) or written without its version.
    if group.is_empty()
        && let Some((g, _, versions)) = SUPPORTED.iter().find(|(g, k, _)| !g.is_empty() && k.as_str() == kind)
    {
        return Recognised::WrongVersion(versions_of(g, versions));
    }
    let istio_or_ours = group.ends_with(".istio.io") || group.ends_with(".pointsman.dev");
    let gateway_api = group.starts_with("gateway.networking.");
    let of_kubernetes = group.ends_with(".k8s.io") || group.ends_with(".x-k8s.io") || GROUPS.contains(&group);
    if (group.is_empty() && CORE.contains(&kind)) || (of_kubernetes && !gateway_api) {
        return Recognised::Foreign;
    }
    let candidates = SUPPORTED.iter().map(|(g, k, _)| (*g, k.as_str())).chain(NOT_YET.iter().map(|(g, k, _)| (*g, *k)));
    let near = candidates.filter(|(g, _)| *g == group || istio_or_ours).map(|(_, k)| k);
    Recognised::Unknown(suggest::nearest(kind, near))
}

fn versions_of(group: &str, versions: &[&str]) -> Vec<String> {
    let full = |version: &&str| if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") };
    versions.iter().map(full).collect()
}

/// The supported kind of this name, whatever its group.
pub(super) fn supported(kind: &str) -> Option<Kind> {
    SUPPORTED.iter().find(|(_, k, _)| k.as_str() == kind).map(|(_, k, _)| k.clone())
}

/// Whether objects of this kind have no namespace.
pub(super) fn is_cluster_scoped(kind: &str) -> bool {
    CLUSTER_SCOPED.contains(&kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_version_of_a_supported_kind_is_the_same_kind() {
        for version in ["v1", "v1beta1", "v1alpha3"] {
            let found = recognise(&format!("networking.istio.io/{version}"), "VirtualService");
            assert_eq!(found, Recognised::Supported(Kind::VirtualService));
        }
        assert_eq!(recognise("discovery.k8s.io/v1beta1", "EndpointSlice"), Recognised::Supported(Kind::EndpointSlice));
    }

    #[test]
    fn a_version_that_does_not_exist_is_told_from_a_kind_that_does_not() {
        assert!(matches!(recognise("networking.istio.io/v2", "Gateway"), Recognised::WrongVersion(_)));
        assert!(matches!(recognise("v1", "VirtualService"), Recognised::WrongVersion(_)));
        let meant = Recognised::Unknown(Some("VirtualService"));
        assert_eq!(recognise("networking.istio.io/v1", "VirtualServce"), meant);
        assert_eq!(recognise("serving.knative.dev/v1", "Service"), Recognised::Unknown(None));
    }

    #[test]
    fn the_gateways_of_istio_and_of_the_gateway_api_are_different_kinds() {
        assert_eq!(recognise("networking.istio.io/v1", "Gateway"), Recognised::Supported(Kind::Gateway));
        assert_eq!(recognise("gateway.networking.k8s.io/v1", "Gateway"), Recognised::NotYet(NO_LISTENERS));
    }

    #[test]
    fn what_stands_beside_services_in_ordinary_manifests_is_passed_over() {
        for (api_version, kind) in [
            ("apps/v1", "Deployment"),
            ("v1", "ConfigMap"),
            ("v1", "ServiceAccount"),
            ("batch/v1", "Job"),
            ("rbac.authorization.k8s.io/v1", "ClusterRole"),
            ("networking.k8s.io/v1", "Ingress"),
        ] {
            assert_eq!(recognise(api_version, kind), Recognised::Foreign, "{api_version} {kind}");
        }
    }

    #[test]
    fn every_supported_kind_is_known_by_name_on_the_command_line() {
        for (_, kind, _) in SUPPORTED {
            let text = format!("{}/default/x", kind.as_str());
            let wanted = match kind {
                Kind::Namespace => "namespace/x".parse(),
                _ => text.parse::<world::ObjectRef>(),
            };
            assert_eq!(wanted.unwrap().kind, *kind);
        }
    }
}
