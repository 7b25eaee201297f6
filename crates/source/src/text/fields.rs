//! Fields that exist in the API but not in [`world::api`]: those that say nothing about traffic are passed over, those
//! that do are reported as not supported yet.

use world::Kind;

/// How a field that the type lacks is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It exists and does not matter here.
    Irrelevant,
    /// It exists and would matter.
    NotYet,
    /// It does not exist.
    Unknown,
}

/// The standing of the field with this pattern (`spec.ports[].nodePort`) in objects of `kind`.
pub(super) fn standing(kind: &Kind, pattern: &str) -> Standing {
    let (parent, name) = pattern.rsplit_once('.').unwrap_or(("", pattern));
    let listed = |table: &[(&str, &[&str])]| table.iter().any(|(p, names)| *p == parent && names.contains(&name));
    if listed(irrelevant(kind)) {
        return Standing::Irrelevant;
    }
    // A DestinationRule's policy stands in three places.
    let parent = parent.replace("spec.subsets[].trafficPolicy", "spec.trafficPolicy");
    let parent = parent.replace("spec.trafficPolicy.portLevelSettings[]", "spec.trafficPolicy");
    let listed = |table: &[(&str, &[&str])]| table.iter().any(|(p, names)| *p == parent && names.contains(&name));
    if listed(not_yet(kind)) { Standing::NotYet } else { Standing::Unknown }
}

/// Whether a field of this pattern that nobody knows may be the one that says who is kept out: the object is not what it
/// seems then. Fields of an AuthorizationPolicy put only their rule in doubt, see
/// [`world::api::istio::AuthorizationPolicy::garble`].
pub(super) fn is_decisive(kind: &Kind, pattern: &str) -> bool {
    match kind {
        Kind::PeerAuthentication | Kind::RequestAuthentication | Kind::RateLimitPolicy => {
            standing(kind, pattern) == Standing::Unknown
        }
        Kind::Gateway | Kind::DestinationRule => {
            pattern.contains(".tls.") && standing(kind, pattern) == Standing::Unknown
        }
        Kind::ConfigMap => {
            const DECISIVE: [&str; 3] = [
                "data.mesh.extensionProviders[]",
                "data.mesh.pathNormalization",
                "data.mesh.defaultConfig.gatewayTopology",
            ];
            DECISIVE.iter().any(|place| pattern.starts_with(place)) && standing(kind, pattern) == Standing::Unknown
        }
        Kind::Namespace
        | Kind::Service
        | Kind::Pod
        | Kind::EndpointSlice
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::VirtualService
        | Kind::AuthorizationPolicy
        | Kind::XdsResource
        | Kind::DeploymentIntent
        | Kind::AnalysisProfile
        | Kind::RolloutRun
        | Kind::Freeze
        | Kind::Other(_) => false,
    }
}

/// The names that exist beside the modelled ones under `parent`, for "did you mean".
pub(super) fn beside(kind: &Kind, pattern: &str) -> impl Iterator<Item = &'static str> {
    let parent = pattern.rsplit_once('.').map_or("", |(parent, _)| parent).to_owned();
    let tables = irrelevant(kind).iter().chain(not_yet(kind));
    tables.filter(move |(p, _)| *p == parent).flat_map(|(_, names)| names.iter().copied())
}

/// What does the same as a field that is not supported yet; empty when nothing does.
pub(super) fn instead(kind: &Kind, pattern: &str) -> String {
    let known = INSTEAD.iter().find(|(path, _)| *kind == Kind::ConfigMap && *path == pattern);
    known.map(|(_, flag)| format!("Start pointsman with {flag} instead.")).unwrap_or_default()
}

type Table = &'static [(&'static str, &'static [&'static str])];

fn irrelevant(kind: &Kind) -> Table {
    match kind {
        Kind::Service => SERVICE,
        Kind::Pod => POD,
        Kind::EndpointSlice => ENDPOINT_SLICE,
        Kind::Namespace
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::DestinationRule
        | Kind::VirtualService
        | Kind::Gateway
        | Kind::PeerAuthentication
        | Kind::RequestAuthentication
        | Kind::AuthorizationPolicy
        | Kind::RateLimitPolicy
        | Kind::XdsResource
        | Kind::DeploymentIntent
        | Kind::AnalysisProfile
        | Kind::RolloutRun
        | Kind::Freeze
        | Kind::ConfigMap
        | Kind::Other(_) => &[],
    }
}

fn not_yet(kind: &Kind) -> Table {
    match kind {
        Kind::Service => &[("spec", &["trafficDistribution"])],
        Kind::VirtualService => VIRTUAL_SERVICE,
        Kind::DestinationRule => DESTINATION_RULE,
        Kind::ConfigMap => MESH_CONFIG,
        Kind::Gateway
        | Kind::Pod
        | Kind::EndpointSlice
        | Kind::Namespace
        | Kind::PeerAuthentication
        | Kind::RequestAuthentication
        | Kind::AuthorizationPolicy
        | Kind::RateLimitPolicy
        | Kind::XdsResource
        | Kind::DeploymentIntent
        | Kind::AnalysisProfile
        | Kind::RolloutRun
        | Kind::Freeze
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::Other(_) => &[],
    }
}

const SERVICE: Table = &[
    (
        "spec",
        &[
            "allocateLoadBalancerNodePorts",
            "externalIPs",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamilyPolicy",
            "loadBalancerClass",
            "loadBalancerIP",
            "loadBalancerSourceRanges",
            "sessionAffinity",
            "sessionAffinityConfig",
        ],
    ),
    ("spec.ports[]", &["nodePort"]),
];

const ENDPOINT_SLICE: Table = &[
    ("endpoints[]", &["deprecatedTopology", "hints", "topology"]),
    ("endpoints[].targetRef", &["apiVersion", "fieldPath", "resourceVersion", "uid"]),
];

const POD: Table = &[
    (
        "spec",
        &[
            "activeDeadlineSeconds",
            "affinity",
            "automountServiceAccountToken",
            "dnsConfig",
            "dnsPolicy",
            "enableServiceLinks",
            "ephemeralContainers",
            "hostAliases",
            "hostIPC",
            "hostPID",
            "hostUsers",
            "hostname",
            "hostnameOverride",
            "imagePullSecrets",
            "initContainers",
            "nodeSelector",
            "os",
            "overhead",
            "preemptionPolicy",
            "priority",
            "priorityClassName",
            "readinessGates",
            "resourceClaims",
            "resources",
            "restartPolicy",
            "runtimeClassName",
            "schedulerName",
            "schedulingGates",
            "securityContext",
            "serviceAccount",
            "setHostnameAsFQDN",
            "shareProcessNamespace",
            "subdomain",
            "terminationGracePeriodSeconds",
            "tolerations",
            "topologySpreadConstraints",
            "volumes",
            "workloadRef",
        ],
    ),
    (
        "spec.containers[]",
        &[
            "args",
            "command",
            "env",
            "envFrom",
            "image",
            "imagePullPolicy",
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "resizePolicy",
            "resources",
            "restartPolicy",
            "restartPolicyRules",
            "securityContext",
            "startupProbe",
            "stdin",
            "stdinOnce",
            "terminationMessagePath",
            "terminationMessagePolicy",
            "tty",
            "volumeDevices",
            "volumeMounts",
            "workingDir",
        ],
    ),
    ("spec.containers[].ports[]", &["hostIP", "hostPort"]),
    (
        "status",
        &[
            "allocatedResources",
            "containerStatuses",
            "ephemeralContainerStatuses",
            "extendedResourceClaimStatus",
            "hostIP",
            "hostIPs",
            "initContainerStatuses",
            "message",
            "nominatedNodeName",
            "observedGeneration",
            "podIPs",
            "qosClass",
            "reason",
            "resize",
            "resourceClaimStatuses",
            "resources",
            "startTime",
        ],
    ),
    ("status.conditions[]", &["lastProbeTime", "lastTransitionTime", "message", "observedGeneration", "reason"]),
];

const VIRTUAL_SERVICE: Table = &[
    (
        "spec.http[]",
        &[
            "appendHeaders",
            "appendRequestHeaders",
            "appendResponseHeaders",
            "removeResponseHeaders",
            "websocketUpgrade",
        ],
    ),
    ("spec.http[].fault.abort", &["http2Error"]),
    ("spec.http[].fault.delay", &["exponentialDelay"]),
    ("spec.tcp[].match[]", &["sourceSubnet"]),
];

const DESTINATION_RULE: Table = &[
    ("spec.trafficPolicy", &["proxyProtocol", "retryBudget", "tunnel"]),
    ("spec.trafficPolicy.loadBalancer", &["localityLbSetting", "warmup"]),
    ("spec.trafficPolicy.loadBalancer.consistentHash.httpCookie", &["attributes"]),
    ("spec.trafficPolicy.tls", &["caCrl"]),
];

/// Arguments that do what a field of the mesh configuration does.
const INSTEAD: [(&str, &str); 2] =
    [("data.mesh.outboundTrafficPolicy", "--outbound-policy"), ("data.mesh.rootNamespace", "--root-namespace")];

const MESH_CONFIG: Table = &[
    (
        "data.mesh",
        &[
            "accessLogEncoding",
            "accessLogFile",
            "accessLogFormat",
            "ca",
            "caCertificates",
            "certificates",
            "configSources",
            "connectTimeout",
            "defaultDestinationRuleExportTo",
            "defaultHttpRetryPolicy",
            "defaultProviders",
            "defaultServiceExportTo",
            "defaultTrafficPolicy",
            "defaultVirtualServiceExportTo",
            "disableEnvoyListenerLog",
            "discoverySelectors",
            "dnsRefreshRate",
            "enableAutoMtls",
            "enableEnvoyAccessLogService",
            "enablePrometheusMerge",
            "enableTracing",
            "h2UpgradePolicy",
            "hboneIdleTimeout",
            "inboundClusterStatName",
            "inboundTrafficPolicy",
            "ingressClass",
            "ingressControllerMode",
            "ingressSelector",
            "ingressService",
            "localityLbSetting",
            "meshMTLS",
            "outboundClusterStatName",
            "outboundTrafficPolicy",
            "protocolDetectionTimeout",
            "proxyHttpPort",
            "proxyInboundListenPort",
            "proxyListenPort",
            "rootNamespace",
            "serviceEntryVisibility",
            "serviceScopeConfigs",
            "serviceSettings",
            "tcpKeepalive",
            "tlsDefaults",
            "verifyCertificateAtClient",
            "zoneAwareLbSetting",
        ],
    ),
    ("data.mesh.defaultConfig.gatewayTopology", &["proxyProtocol"]),
    (
        "data.mesh.defaultConfig",
        &[
            "availabilityZone",
            "binaryPath",
            "caCertificatesPem",
            "concurrency",
            "configPath",
            "controlPlaneAuthPolicy",
            "customConfigFile",
            "discoveryAddress",
            "discoveryRefreshDelay",
            "drainDuration",
            "envoyAccessLogService",
            "envoyMetricsService",
            "envoyMetricsServiceAddress",
            "extraStatTags",
            "fileFlushInterval",
            "fileFlushMinSizeKb",
            "holdApplicationUntilProxyStarts",
            "image",
            "interceptionMode",
            "meshId",
            "parentShutdownDuration",
            "privateKeyProvider",
            "proxyAdminPort",
            "proxyBootstrapTemplatePath",
            "proxyHeaders",
            "proxyMetadata",
            "proxyStatsMatcher",
            "readinessProbe",
            "runtimeValues",
            "sds",
            "serviceCluster",
            "statNameLength",
            "statsdUdpAddress",
            "statusPort",
            "terminationDrainDuration",
            "tracing",
            "tracingServiceName",
            "zipkinAddress",
        ],
    ),
    (
        "data.mesh.extensionProviders[]",
        &[
            "datadog",
            "envoyFileAccessLog",
            "envoyHttpAls",
            "envoyOtelAls",
            "envoyTcpAls",
            "lightstep",
            "opencensus",
            "opentelemetry",
            "prometheus",
            "sds",
            "skywalking",
            "stackdriver",
            "zipkin",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_field_has_one_standing_wherever_the_policy_stands() {
        for parent in [
            "spec.trafficPolicy",
            "spec.subsets[].trafficPolicy",
            "spec.trafficPolicy.portLevelSettings[]",
            "spec.subsets[].trafficPolicy.portLevelSettings[]",
        ] {
            let pattern = format!("{parent}.loadBalancer.localityLbSetting");
            assert_eq!(standing(&Kind::DestinationRule, &pattern), Standing::NotYet, "{pattern}");
        }
        assert_eq!(standing(&Kind::DestinationRule, "spec.trafficPolicy.tunel"), Standing::Unknown);
    }

    #[test]
    fn a_pods_volumes_do_not_matter_and_its_typing_errors_do() {
        assert_eq!(standing(&Kind::Pod, "spec.volumes"), Standing::Irrelevant);
        assert_eq!(standing(&Kind::Pod, "spec.volums"), Standing::Unknown);
    }
}
