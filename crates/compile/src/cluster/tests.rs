#![allow(clippy::unwrap_used)]

mod policies;

use std::time::Duration;

use proptest::prelude::*;
use proto::ResourceType;
use world::api::istio::{
    ClientTls, ConnectionPool, ConsistentHash, HttpPool, LoadBalancer, Maglev, OutlierDetection, RingHash,
    SimpleLoadBalancer, TcpKeepalive, TcpPool, TrafficPolicy,
};
use world::{Address, Export, Health, Hostname, Kind, Labels, Locality, ObjectRef, Protocol, Resolution, TargetPort};

use super::*;
use crate::{HostDelivery, Interception, Peers, Proxy, Secrets};

const PROTOCOLS: [Protocol; 9] = [
    Protocol::Http,
    Protocol::Http2,
    Protocol::Grpc,
    Protocol::GrpcWeb,
    Protocol::Https,
    Protocol::Tls,
    Protocol::Tcp,
    Protocol::Auto,
    Protocol::Udp,
];
const RESOLUTIONS: [Resolution; 4] =
    [Resolution::Static, Resolution::Dns, Resolution::DnsRoundRobin, Resolution::Passthrough];

fn proxies() -> Vec<Proxy> {
    let sidecar = |interception| Proxy::Sidecar { interception, http_proxy_port: None };
    let kinds = [Interception::Redirect, Interception::Tproxy, Interception::None];
    kinds.map(sidecar).into_iter().chain([Proxy::Gateway, Proxy::Grpc]).collect()
}

fn audience(proxy: Proxy) -> Audience {
    Audience {
        proxy,
        namespace: "shop".into(),
        labels: Labels::new().into(),
        addresses: Vec::new(),
        hosts: HostDelivery::default(),
        lacks: proto::Extensions::default(),
        secrets: Default::default(),
        control_plane: None,
    }
}

fn service(protocol: Protocol, resolution: Resolution) -> Service {
    let origin = ObjectRef::new(Kind::ServiceEntry, "shop", "reviews");
    Service {
        host: Hostname::new("reviews.shop.svc.cluster.local"),
        namespace: "shop".into(),
        name: "reviews".into(),
        origin,
        created: "".into(),
        kubernetes: false,
        ports: vec![ServicePort { name: "p".into(), number: 80, protocol, target: TargetPort::Number(8080) }],
        addresses: Vec::new(),
        ranges: Vec::new(),
        resolution,
        headless: false,
        external: false,
        alias_of: None,
        selector: Arc::default(),
        subject_alt_names: Arc::default(),
        publish_not_ready: false,
        export: Export::All,
    }
}

fn endpoint(address: Address) -> Endpoint {
    Endpoint {
        address,
        port: 8080,
        labels: Labels::from([("version".to_owned(), "v1".to_owned())]).into(),
        locality: Locality::default(),
        weight: 1,
        health: Health::Healthy,
        workload: None,
        service_account: None,
        mutual_tls: false,
    }
}

/// Runs `look` on the input that these make.
fn with_input<T>(
    proxy: Proxy,
    service: &Service,
    rule: &EffectiveRule,
    subset: Option<&Subset>,
    endpoints: &[Endpoint],
    look: impl FnOnce(&ClusterInput<'_>) -> T,
) -> T {
    with_mutual(proxy, service, rule, subset, endpoints, None, look)
}

/// The same for a client that speaks mutual TLS of the mesh in this way.
fn with_mutual<T>(
    proxy: Proxy,
    service: &Service,
    rule: &EffectiveRule,
    subset: Option<&Subset>,
    endpoints: &[Endpoint],
    mutual_tls: Option<&MutualTls>,
    look: impl FnOnce(&ClusterInput<'_>) -> T,
) -> T {
    let secrets = match (mutual_tls, &proxy) {
        (None, _) => Secrets::None,
        (Some(_), Proxy::Grpc) => Secrets::Provider,
        (Some(_), Proxy::Sidecar { .. } | Proxy::Gateway) => Secrets::Stream,
    };
    let audience = Audience { secrets, ..audience(proxy) };
    let name = crate::names::outbound_cluster(80, subset.map_or("", |subset| &subset.name), &service.host);
    let port = &service.ports[0];
    let audience = &audience;
    let rollout = None;
    look(&ClusterInput { audience, name: &name, service, port, subset, rule, rollout, mutual_tls, endpoints })
}

/// What must hold for any input.
fn assert_sound(input: &ClusterInput<'_>) {
    let structs = outbound(input);
    let bytes = encoded(input);
    assert_eq!(Cluster::decode(&bytes.value[..]).unwrap(), structs.value, "both say the same");
    assert_eq!(bytes.value.len(), structs.value.encoded_len(), "and nothing is said twice");
    assert_eq!(bytes.problems, structs.problems);
    assert_eq!(bytes.origins, structs.origins);
    let type_url = ResourceType::Cluster.type_url();
    assert_eq!(&*proto::wire::canonicalize(type_url, &bytes.value), &bytes.value[..], "the bytes are canonical");
    assert_eq!(encoded(input).value, bytes.value, "and the same every time");
    let checked = proto::wire::check(type_url, &bytes.value);
    assert!(checked.is_ok(), "{checked:?}");
    for problem in &bytes.problems {
        assert!(!problem.message.is_empty() && !problem.consequence.is_empty(), "{problem}");
        assert!(problem.field.starts_with("spec."), "{problem}");
        assert!(problem.object.is_some(), "{problem}");
    }
}

#[test]
fn bytes_and_structs_say_the_same_for_every_kind_of_cluster_without_policy() {
    let endpoints = [endpoint(Address::Name("a.example".into())), endpoint(Address::Ip([10, 0, 0, 1].into()))];
    let subset = Subset {
        name: "v1".into(),
        labels: Labels::from([("version".to_owned(), "v1".to_owned())]),
        policy: None,
        origin: ObjectRef::new(Kind::DestinationRule, "shop", "reviews"),
    };
    for proxy in proxies() {
        for protocol in PROTOCOLS {
            for resolution in RESOLUTIONS {
                let service = service(protocol, resolution);
                for endpoints in [&endpoints[..], &endpoints[1..], &[]] {
                    for subset in [None, Some(&subset)] {
                        let rule = EffectiveRule::default();
                        with_input(proxy.clone(), &service, &rule, subset, endpoints, assert_sound);
                        let mutual = MutualTls {
                            peers: Peers::of(endpoints, &service, &world::Settings::default()),
                            is_automatic: protocol != Protocol::Tls,
                            is_taken_by_all: true,
                        };
                        with_mutual(proxy.clone(), &service, &rule, subset, endpoints, Some(&mutual), assert_sound);
                    }
                }
            }
        }
    }
}

#[test]
fn the_ways_to_endpoints_follow_resolution_and_client() {
    use Discovery::{Eds, LogicalDns, Nothing, OriginalDestination, StrictDns};
    let name = [endpoint(Address::Name("a.example".into()))];
    let address = [endpoint(Address::Ip([10, 0, 0, 1].into()))];
    let sidecar = Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None };
    let bare = Proxy::Sidecar { interception: Interception::None, http_proxy_port: None };
    let cases: [(&Proxy, Resolution, &[Endpoint], Discovery); 15] = [
        (&sidecar, Resolution::Static, &[], Eds),
        (&sidecar, Resolution::Passthrough, &[], OriginalDestination),
        (&bare, Resolution::Passthrough, &[], Eds),
        (&Proxy::Gateway, Resolution::Passthrough, &[], Eds),
        (&Proxy::Grpc, Resolution::Passthrough, &[], Eds),
        (&sidecar, Resolution::Dns, &name, StrictDns),
        (&sidecar, Resolution::Dns, &address, StrictDns),
        (&sidecar, Resolution::Dns, &[], StrictDns),
        (&sidecar, Resolution::DnsRoundRobin, &name, LogicalDns),
        (&sidecar, Resolution::DnsRoundRobin, &address, LogicalDns),
        (&sidecar, Resolution::DnsRoundRobin, &[], Nothing),
        (&Proxy::Grpc, Resolution::Dns, &name, LogicalDns),
        (&Proxy::Grpc, Resolution::Dns, &address, Eds),
        (&Proxy::Grpc, Resolution::DnsRoundRobin, &[], Eds),
        (&Proxy::Gateway, Resolution::Dns, &name, StrictDns),
    ];
    for (proxy, resolution, endpoints, expected) in cases {
        let service = service(Protocol::Http, resolution);
        let rule = EffectiveRule::default();
        let found = with_input(proxy.clone(), &service, &rule, None, endpoints, |input| input.discovery());
        assert_eq!(found, expected, "{proxy:?} {resolution:?} {endpoints:?}");
    }
}

#[test]
fn grpc_clients_get_only_what_they_take() {
    use proto::pb::envoy::config::cluster::v3::cluster::LbPolicy;
    let hashing = |hash: ConsistentHash| LoadBalancer { consistent_hash: Some(hash), ..LoadBalancer::default() };
    let by_header = ConsistentHash { http_header_name: Some("user".into()), ..ConsistentHash::default() };
    let simple = |simple| LoadBalancer { simple: Some(simple), ..LoadBalancer::default() };
    let cases = [
        (None, LbPolicy::RoundRobin, 0),
        (Some(simple(SimpleLoadBalancer::RoundRobin)), LbPolicy::RoundRobin, 0),
        (Some(simple(SimpleLoadBalancer::Random)), LbPolicy::RoundRobin, 1),
        (Some(simple(SimpleLoadBalancer::LeastRequest)), LbPolicy::RoundRobin, 1),
        (Some(simple(SimpleLoadBalancer::Passthrough)), LbPolicy::RoundRobin, 1),
        (Some(hashing(by_header.clone())), LbPolicy::RingHash, 0),
        (Some(hashing(ConsistentHash { maglev: Some(Maglev::default()), ..by_header })), LbPolicy::RingHash, 1),
    ];
    let service = service(Protocol::Grpc, Resolution::Static);
    for (load_balancer, expected, warnings) in cases {
        let rule = rule(TrafficPolicy { load_balancer: load_balancer.clone(), ..TrafficPolicy::default() });
        with_input(Proxy::Grpc, &service, &rule, None, &[], |input| {
            assert_sound(input);
            let built = outbound(input);
            assert_eq!(built.value.lb_policy(), expected, "{load_balancer:?}");
            assert_eq!(built.problems.len(), warnings, "{:?}", built.problems);
            let cluster = built.value;
            assert!(cluster.transport_socket.is_none() && cluster.typed_extension_protocol_options.is_empty());
            assert!(cluster.outlier_detection.is_none() && cluster.metadata.is_none());
        });
    }
}

#[test]
fn odd_values_are_reported_and_have_their_defaults() {
    let tcp = |tcp| pool(ConnectionPool { tcp: Some(tcp), http: None });
    let http = |http| pool(ConnectionPool { http: Some(http), tcp: None });
    let outlier = |outlier| TrafficPolicy { outlier_detection: Some(outlier), ..TrafficPolicy::default() };
    let tls = |tls| TrafficPolicy { tls: Some(tls), ..TrafficPolicy::default() };
    let mode = |mode: &str| ClientTls { mode: Some(mode.into()), ..ClientTls::default() };
    let hash = |hash| balance(LoadBalancer { consistent_hash: Some(hash), ..LoadBalancer::default() });
    let by_ip = || ConsistentHash { use_source_ip: Some(true), ..ConsistentHash::default() };
    let maglev = |size| hash(ConsistentHash { maglev: Some(Maglev { table_size: Some(size) }), ..by_ip() });
    let ring = |size| hash(ConsistentHash { minimum_ring_size: Some(size), ..by_ip() });
    let keepalive = |tcp_keepalive| tcp(TcpPool { tcp_keepalive: Some(tcp_keepalive), ..TcpPool::default() });
    let millis = |millis| Some(Duration::from_millis(millis));
    let nanosecond = Some(Duration::from_nanos(1));
    let ages = Some(Duration::from_secs(u64::MAX / 1_000_000_000));
    let cases: Vec<(TrafficPolicy, &[&str])> = vec![
        (tcp(TcpPool { max_connections: Some(-1), ..Default::default() }), &["connectionPool.tcp.maxConnections"]),
        (tcp(TcpPool { connect_timeout: millis(0), ..Default::default() }), &["connectionPool.tcp.connectTimeout"]),
        (tcp(TcpPool { connect_timeout: nanosecond, ..Default::default() }), &["connectionPool.tcp.connectTimeout"]),
        (tcp(TcpPool { connect_timeout: ages, ..Default::default() }), &["connectionPool.tcp.connectTimeout"]),
        (
            tcp(TcpPool { max_connection_duration: millis(0), ..Default::default() }),
            &["connectionPool.tcp.maxConnectionDuration"],
        ),
        (tcp(TcpPool { idle_timeout: millis(0), ..Default::default() }), &[]),
        (tcp(TcpPool { idle_timeout: nanosecond, ..Default::default() }), &["connectionPool.tcp.idleTimeout"]),
        (http(HttpPool { idle_timeout: ages, ..Default::default() }), &["connectionPool.http.idleTimeout"]),
        (
            keepalive(TcpKeepalive { probes: Some(0), time: millis(0), interval: ages }),
            &[
                "connectionPool.tcp.tcpKeepalive.probes",
                "connectionPool.tcp.tcpKeepalive.time",
                "connectionPool.tcp.tcpKeepalive.interval",
            ],
        ),
        (keepalive(TcpKeepalive { probes: Some(3), time: millis(1), interval: None }), &[]),
        (
            http(HttpPool {
                http1_max_pending_requests: Some(-1),
                http2_max_requests: Some(-2),
                max_requests_per_connection: Some(-3),
                max_retries: Some(-4),
                max_concurrent_streams: Some(-5),
                h2_upgrade_policy: Some("PERHAPS".into()),
                ..Default::default()
            }),
            &[
                "connectionPool.http.http1MaxPendingRequests",
                "connectionPool.http.http2MaxRequests",
                "connectionPool.http.maxRetries",
                "connectionPool.http.h2UpgradePolicy",
                "connectionPool.http.maxRequestsPerConnection",
                "connectionPool.http.maxConcurrentStreams",
            ],
        ),
        (
            outlier(OutlierDetection {
                interval: millis(0),
                base_ejection_time: nanosecond,
                max_ejection_percent: Some(101),
                min_health_percent: Some(-1),
                consecutive_errors: Some(-1),
                consecutive_local_origin_failures: Some(1),
                ..Default::default()
            }),
            &[
                "outlierDetection.consecutiveErrors",
                "outlierDetection.consecutiveLocalOriginFailures",
                "outlierDetection.interval",
                "outlierDetection.baseEjectionTime",
                "outlierDetection.maxEjectionPercent",
                "outlierDetection.minHealthPercent",
            ],
        ),
        (maglev(0), &[]),
        (maglev(5_000_011), &[]),
        (maglev(65_536), &["loadBalancer.consistentHash.maglev.tableSize"]),
        (maglev(5_000_077), &["loadBalancer.consistentHash.maglev.tableSize"]),
        (ring(0), &[]),
        (ring(8_388_608), &[]),
        (ring(8_388_609), &["loadBalancer.consistentHash.minimumRingSize"]),
        (hash(ConsistentHash::default()), &["loadBalancer.consistentHash"]),
        (
            hash(ConsistentHash { ring_hash: Some(RingHash::default()), maglev: Some(Maglev::default()), ..by_ip() }),
            &["loadBalancer.consistentHash"],
        ),
        (
            balance(LoadBalancer {
                simple: Some(SimpleLoadBalancer::Random),
                consistent_hash: Some(by_ip()),
                warmup_duration_secs: millis(1000),
            }),
            &["loadBalancer.simple", "loadBalancer.warmupDurationSecs"],
        ),
        (
            balance(LoadBalancer { warmup_duration_secs: millis(0), ..Default::default() }),
            &["loadBalancer.warmupDurationSecs"],
        ),
        (tls(mode("DISABLE")), &[]),
        (tls(mode("SIMPLE")), &[]),
        (tls(mode("ISTIO_MUTUAL")), &["tls.mode"]),
        (tls(mode("OPTIONAL")), &["tls.mode"]),
        (tls(mode("MUTUAL")), &["tls.clientCertificate"]),
        (tls(ClientTls { client_certificate: Some("/a".into()), ..mode("MUTUAL") }), &["tls.privateKey"]),
        (tls(ClientTls { credential_name: Some("secret".into()), ..mode("MUTUAL") }), &["tls.credentialName"]),
    ];
    let service = service(Protocol::Http, Resolution::Static);
    for (policy, fields) in cases {
        let shown = format!("{policy:?}");
        let rule = rule(policy);
        with_input(Proxy::Gateway, &service, &rule, None, &[], |input| {
            assert_sound(input);
            let found: Vec<_> = encoded(input).problems.into_iter().map(|problem| problem.field).collect();
            let expected: Vec<_> = fields.iter().map(|field| format!("spec.trafficPolicy.{field}")).collect();
            assert_eq!(found, expected, "{shown}");
        });
    }
}

fn pool(pool: ConnectionPool) -> TrafficPolicy {
    TrafficPolicy { connection_pool: Some(pool), ..TrafficPolicy::default() }
}

fn balance(balancer: LoadBalancer) -> TrafficPolicy {
    TrafficPolicy { load_balancer: Some(balancer), ..TrafficPolicy::default() }
}

fn rule(policy: TrafficPolicy) -> EffectiveRule {
    let origin = ObjectRef::new(Kind::DestinationRule, "shop", "reviews");
    EffectiveRule {
        policy: Some(policy),
        policy_origin: Some(origin.clone()),
        origins: vec![origin],
        ..EffectiveRule::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_policy_makes_a_cluster_that_envoys_rules_allow(
        policy in policies::any_policy(),
        proxy in prop::sample::select(proxies()),
        protocol in prop::sample::select(PROTOCOLS.to_vec()),
        resolution in prop::sample::select(RESOLUTIONS.to_vec()),
        addresses in prop::collection::vec(
            prop_oneof![
                any::<std::net::IpAddr>().prop_map(Address::Ip),
                "[a-z]{0,9}".prop_map(|name| Address::Name(name.into())),
                "/[a-z]{0,9}".prop_map(|path| Address::Unix(path.into())),
            ],
            0..3,
        ),
    ) {
        let endpoints: Vec<_> = addresses.into_iter().map(endpoint).collect();
        let service = service(protocol, resolution);
        with_input(proxy, &service, &rule(policy), None, &endpoints, assert_sound);
    }
}
