//! gRPC without a proxy: when clients speak mutual TLS, and what servers are told of policies.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;

use compile::{Audience, AudienceId, Compiler, HostDelivery, Options, Proxy, Secrets};
use proto::ResourceType;
use serde_json::Value;
use world::{Change, Labels, Settings, World};

const CLUSTER: &str = "outbound|80||web.default.svc.cluster.local";
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.1.0.1, selector: {app: web}, ports: [{name: grpc, port: 80, targetPort: 8080}]}
";

struct Bed {
    world: World,
    compiler: Compiler,
}

impl Bed {
    fn new() -> Self {
        let settings = Settings { trust_domain_aliases: vec!["old.example".into()], ..Settings::default() };
        let mut bed = Self { world: World::new(settings), compiler: Compiler::new(Options::default()) };
        bed.apply(SERVICE);
        bed
    }

    fn add(&mut self, audience: &Audience) -> AudienceId {
        self.compiler.add(&self.world, audience).0
    }

    fn apply(&mut self, yaml: &str) {
        let parsed = source::text::parse("test.yaml", yaml.as_bytes(), &source::Options::default());
        assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
        let changes = parsed.objects.into_iter().map(Change::Apply);
        let touched: BTreeSet<_> = changes.flat_map(|change| self.world.apply(change)).collect();
        self.compiler.update(&self.world, &touched);
    }

    fn resource(&mut self, id: AudienceId, kind: ResourceType, name: &str) -> Option<Value> {
        let snapshot = self.compiler.snapshot(id);
        let cell = snapshot.get(kind, name)?;
        Some(proto::descriptor::to_json(kind.type_url(), &cell.value()))
    }

    /// Whom the client may find behind the cluster; `None` for plaintext.
    fn peers(&mut self, id: AudienceId) -> Option<Vec<String>> {
        self.peers_of(id, CLUSTER)
    }

    fn peers_of(&mut self, id: AudienceId, cluster: &str) -> Option<Vec<String>> {
        let cluster = self.resource(id, ResourceType::Cluster, cluster).unwrap();
        assert!(cluster["transport_socket_matches"].is_null(), "gRPC refuses it: {cluster}");
        let tls = &cluster.get("transport_socket")?["typed_config"]["common_tls_context"];
        assert!(tls["tls_params"].is_null() && tls["tls_certificate_provider_instance"]["instance_name"] == "default");
        let context = &tls["validation_context"];
        assert_eq!(context["ca_certificate_provider_instance"]["instance_name"], "default");
        let text = |name: &Value| name.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        Some(context["match_subject_alt_names"].as_array().unwrap().iter().map(text).collect())
    }

    fn listener(&mut self, id: AudienceId) -> Listener {
        let json = self.resource(id, ResourceType::Listener, "xds.istio.io/grpc/lds/inbound/10.2.0.1:8080").unwrap();
        let chain = &json["filter_chains"][0];
        let filters = chain["filters"][0]["typed_config"]["http_filters"].as_array().unwrap();
        let name = |filter: &Value| filter["name"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
        Listener {
            tls: chain.get("transport_socket").map(|socket| socket["typed_config"].clone()),
            filters: filters.iter().map(name).collect(),
            json,
        }
    }

    fn problems(&self) -> Vec<String> {
        self.compiler.problems().iter().map(ToString::to_string).collect()
    }

    fn has_problem(&self, text: &str) -> bool {
        self.problems().iter().any(|problem| problem.contains(text))
    }
}

struct Listener {
    tls: Option<Value>,
    filters: Vec<String>,
    json: Value,
}

fn audience(secrets: Secrets, labels: &[(&str, &str)]) -> Audience {
    let labels: Labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let addresses = if labels.is_empty() { Vec::new() } else { vec!["10.2.0.1".parse().unwrap()] };
    Audience {
        proxy: Proxy::Grpc,
        namespace: "default".into(),
        labels: Arc::new(labels),
        addresses,
        hosts: HostDelivery::Inline,
        lacks: proto::Extensions::default(),
        secrets,
        control_plane: None,
    }
}

const MESH_LABEL: (&str, &str) = ("security.istio.io/tlsMode", "istio");

fn client(secrets: Secrets) -> Audience {
    audience(secrets, &[])
}

fn server(secrets: Secrets) -> Audience {
    audience(secrets, &[("app", "web"), MESH_LABEL])
}

fn pod(name: &str, address: &str, version: &str, is_labelled: bool) -> String {
    let label = if is_labelled { ", security.istio.io/tlsMode: istio" } else { "" };
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: web, version: {version}{label}}}}}, \
         spec: {{serviceAccountName: web, containers: []}}, status: {{podIP: {address}}}}}"
    )
}

fn peer(name: &str, spec: &str) -> String {
    format!("{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: {name}}}, spec: {spec}}}")
}

fn rule(tls: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: web}}, \
         spec: {{host: web, trafficPolicy: {{tls: {tls}}}}}}}"
    )
}

fn policy(name: &str, spec: &str) -> String {
    format!("{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: {name}}}, spec: {spec}}}")
}

const SUBSETS: &str = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web}, \
    spec: {host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}}";
const STRICT: &str = "{mtls: {mode: STRICT}}";
const ACCOUNTS: [&str; 2] = ["spiffe://cluster.local/ns/default/sa/web", "spiffe://old.example/ns/default/sa/web"];

#[test]
fn a_client_speaks_mutual_tls_where_all_endpoints_take_nothing_else() {
    let mut bed = Bed::new();
    let (provided, bare) = (bed.add(&client(Secrets::Provider)), bed.add(&client(Secrets::None)));
    bed.apply(&pod("web-1", "10.2.0.1", "v1", true));
    assert_eq!(bed.peers(provided), None, "PERMISSIVE servers without a proxy take plaintext");
    bed.apply(&peer("all", STRICT));
    assert_eq!(bed.peers(provided).unwrap(), ACCOUNTS);
    assert_eq!(bed.peers(bare), None);
    assert!(bed.has_problem("whose bootstrap names no certificate provider; its calls to them fail"));
    // One that says nothing of TLS takes plaintext, so all are called in the clear.
    bed.apply(&pod("web-2", "10.2.0.2", "v2", false));
    assert_eq!(bed.peers(provided), None);
    assert!(bed.has_problem("only some endpoints of port 80 of web.default.svc.cluster.local"), "{:?}", bed.problems());
    bed.apply(&pod("web-2", "10.2.0.2", "v2", true));
    assert_eq!(bed.peers(provided).unwrap(), ACCOUNTS);
    bed.apply(&peer("v2", "{selector: {matchLabels: {version: v2}}, mtls: {mode: PERMISSIVE}}"));
    assert_eq!(bed.peers(provided), None);
    bed.apply(&peer("all", "{mtls: {mode: DISABLE}}"));
    assert_eq!(bed.peers(provided), None);
    assert!(
        !bed.has_problem("certificate provider") && !bed.has_problem("only some endpoints"),
        "{:?}",
        bed.problems()
    );
    // The marks of endpoints are for proxies.
    let assignment = bed.resource(provided, ResourceType::Endpoints, CLUSTER).unwrap().to_string();
    assert!(!assignment.contains("tlsMode"), "{assignment}");
}

#[test]
fn each_subset_is_called_as_all_of_its_endpoints_take_it() {
    let mut bed = Bed::new();
    let provided = bed.add(&client(Secrets::Provider));
    let subset = |name: &str| CLUSTER.replace("||", &format!("|{name}|"));
    let (v1, v2) = (subset("v1"), subset("v2"));
    bed.apply(SUBSETS);
    bed.apply(&peer("all", STRICT));
    bed.apply(&pod("web-1", "10.2.0.1", "v1", false));
    bed.apply(&pod("web-2", "10.2.0.2", "v2", true));
    assert_eq!(bed.peers_of(provided, &v1), None);
    assert_eq!(bed.peers_of(provided, &v2).unwrap(), ACCOUNTS);
    // The service as a whole is mixed, and the subsets are not.
    assert_eq!(bed.peers(provided), None);
    assert!(
        bed.has_problem("only some endpoints of port 80 of web.default.svc.cluster.local take"),
        "{:?}",
        bed.problems()
    );
    assert!(!bed.has_problem("in subset"), "{:?}", bed.problems());
    // A subset that is mixed is called in the clear, and told.
    bed.apply(&pod("web-3", "10.2.0.3", "v2", false));
    assert_eq!(bed.peers_of(provided, &v2), None);
    assert!(bed.has_problem("of web.default.svc.cluster.local in subset \"v2\" take"), "{:?}", bed.problems());
    assert!(!bed.has_problem("in subset \"v1\""), "{:?}", bed.problems());
    // One without endpoints is what the service is.
    bed.apply(&pod("web-1", "10.2.0.1", "v3", true));
    assert_eq!(bed.peers_of(provided, &v1), None);
    bed.apply(&pod("web-3", "10.2.0.3", "v2", true));
    for cluster in [CLUSTER, &v1, &v2] {
        assert_eq!(bed.peers_of(provided, cluster).unwrap(), ACCOUNTS, "{cluster}");
    }
    assert!(!bed.has_problem("only some endpoints"), "{:?}", bed.problems());
}

#[test]
fn a_rule_goes_before_what_endpoints_take() {
    let mut bed = Bed::new();
    let (provided, bare) = (bed.add(&client(Secrets::Provider)), bed.add(&client(Secrets::None)));
    bed.apply(&pod("web-1", "10.2.0.1", "v1", true));
    bed.apply(&rule("{mode: ISTIO_MUTUAL}"));
    assert_eq!(bed.peers(provided).unwrap(), ACCOUNTS);
    assert_eq!(bed.peers(bare), None);
    assert!(bed.has_problem("the bootstrap of a gRPC client names no certificate provider"), "{:?}", bed.problems());
    bed.apply(&rule("{mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://a/ns/b/sa/c']}"));
    assert_eq!(bed.peers(provided).unwrap(), ["spiffe://a/ns/b/sa/c"]);
    bed.apply(&peer("all", STRICT));
    for tls in ["{mode: DISABLE}", "{mode: SIMPLE}"] {
        bed.apply(&rule(tls));
        assert_eq!(bed.peers(provided), None, "{tls}");
    }
}

#[test]
fn a_server_has_a_listener_for_each_address_that_it_may_ask_for() {
    let mut bed = Bed::new();
    let id = bed.add(&server(Secrets::Provider));
    for before in ["xds.istio.io/grpc/lds/inbound/", "grpc/server?xds.resource.listening_address="] {
        for (address, ip) in [("0.0.0.0", "0.0.0.0"), ("[::]", "::"), ("10.2.0.1", "10.2.0.1")] {
            let name = format!("{before}{address}:8080");
            let listener = bed.resource(id, ResourceType::Listener, &name).unwrap();
            let socket = &listener["address"]["socket_address"];
            assert_eq!((&socket["address"], &socket["port_value"]), (&ip.into(), &8080.into()), "{name}");
            let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
            let route = &manager["route_config"]["virtual_hosts"][0]["routes"][0];
            assert!(
                route["non_forwarding_action"].is_object() && manager["use_remote_address"].is_null(),
                "{listener}"
            );
        }
    }
    assert!(bed.resource(id, ResourceType::Listener, "xds.istio.io/grpc/lds/inbound/10.2.0.1:80").is_none());
}

#[test]
fn a_server_takes_mutual_tls_only_under_strict_and_none_elsewhere() {
    let mut bed = Bed::new();
    let (provided, bare) = (bed.add(&server(Secrets::Provider)), bed.add(&server(Secrets::None)));
    let unlabelled = bed.add(&audience(Secrets::Provider, &[("app", "web")]));
    let taken = |bed: &mut Bed, id| {
        let listener = bed.listener(id);
        (listener.tls.is_some(), listener.filters.join(" "))
    };
    assert_eq!(taken(&mut bed, provided), (false, "router".to_owned()));
    assert!(bed.has_problem("takes plaintext at port 8080, and has the label"), "{:?}", bed.problems());
    bed.apply(&peer("all", STRICT));
    assert_eq!(taken(&mut bed, provided), (true, "mesh router".to_owned()));
    let tls = bed.listener(provided).tls.unwrap();
    assert_eq!(tls["require_client_certificate"], true);
    assert!(!tls.to_string().contains("subject_alt_names"), "gRPC servers refuse it: {tls}");
    for domain in ["spiffe://cluster.local/", "spiffe://old.example/"] {
        assert!(bed.listener(provided).json.to_string().contains(&format!(r#"{{"prefix":"{domain}"}}"#)));
    }
    // Without a certificate nobody can prove anything to it, and so nobody passes.
    assert_eq!(taken(&mut bed, bare), (false, "mesh router".to_owned()));
    assert!(bed.has_problem("a gRPC server without a proxy whose bootstrap names no certificate provider"));
    assert_eq!(taken(&mut bed, unlabelled), (true, "mesh router".to_owned()));
    assert!(bed.has_problem("clients call it in the clear, and are refused"));
    bed.apply(&peer("web", "{selector: {matchLabels: {app: web}}, portLevelMtls: {8080: {mode: DISABLE}}}"));
    assert_eq!(taken(&mut bed, provided), (false, "router".to_owned()));
}

#[test]
fn what_a_server_does_not_know_lets_nothing_through() {
    let mut bed = Bed::new();
    let id = bed.add(&server(Secrets::Provider));
    let refused = [
        ("tokens", "when: [{key: 'request.auth.claims[a]', values: [b]}]"),
        ("tokens", "from: [{source: {requestPrincipals: ['*']}}]"),
        ("addresses of clients behind a proxy", "from: [{source: {notRemoteIpBlocks: [10.0.0.0/8]}}]"),
        ("the server name of TLS", "when: [{key: connection.sni, values: [a]}]"),
        ("what filters have noted", "when: [{key: 'experimental.envoy.filters.x[a]', values: [b]}]"),
        ("headers of gRPC's own", "when: [{key: 'request.headers[grpc-timeout]', values: ['*']}]"),
        ("headers of gRPC's own", "when: [{key: 'request.headers[:scheme]', notValues: [https]}]"),
    ];
    for (unknown, rule) in refused {
        for action in ["ALLOW", "DENY"] {
            bed.apply(&policy("p", &format!("{{action: {action}, rules: [{{{rule}}}]}}")));
            let listener = bed.listener(id);
            let text = listener.json.to_string();
            for word in ["sourced_metadata", "remote_ip", "requested_server_name", "grpc-timeout", ":scheme"] {
                assert!(!text.replace("direct_remote_ip", "").contains(word), "{rule}: {text}");
            }
            assert!(bed.has_problem(unknown), "{rule}: {:?}", bed.problems());
            let rules = &listener.json["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]["typed_config"]
                ["rules"]["policies"]["ns[default]-policy[p]-rule[0]"];
            let is_any = rules["principals"][0]["any"] == true && rules["permissions"][0]["any"] == true;
            let is_never = rules["principals"][0]["not_id"]["any"] == true;
            assert!(if action == "DENY" { is_any } else { is_never }, "{action} {rule}: {rules}");
        }
    }
}

#[test]
fn filters_of_a_server_have_names_of_their_own_and_do_what_can_be_done() {
    let mut bed = Bed::new();
    let id = bed.add(&server(Secrets::Provider));
    bed.apply(&peer("all", STRICT));
    for (name, spec) in [
        ("a", "{rules: [{to: [{operation: {paths: ['/a.B/*', '/c/{*}']}}]}]}"),
        ("b", "{action: DENY, rules: [{to: [{operation: {hosts: [x], methods: [POST], ports: ['8080']}}]}]}"),
        ("c", "{action: CUSTOM, provider: {name: p}, rules: [{to: [{operation: {paths: [/d]}}]}]}"),
        ("d", "{action: AUDIT, rules: [{}]}"),
    ] {
        bed.apply(&policy(name, spec));
    }
    bed.apply(
        "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: e, annotations: \
         {istio.io/dry-run: 'true'}}, spec: {action: DENY, rules: [{}]}}",
    );
    bed.apply(
        "{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: f}, spec: {jwtRules: \
         [{issuer: i, jwksUri: 'http://i/keys'}]}}",
    );
    let listener = bed.listener(id);
    assert_eq!(listener.filters, ["mesh", "deny", "allow", "router"]);
    let deny = &listener.json["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][1]["typed_config"];
    let ids: Vec<_> = deny["rules"]["policies"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(ids, ["ns[default]-policy[b]-rule[0]", "ns[default]-policy[c]-rule[0]"]);
    assert!(deny["shadow_rules"].is_null());
    for told in ["cannot ask a provider", "mark nothing", "try nothing", "check no tokens"] {
        assert!(bed.has_problem(told), "{told}: {:?}", bed.problems());
    }
    let snapshot = bed.compiler.snapshot(id);
    assert!(snapshot.dangling().is_empty());
}
