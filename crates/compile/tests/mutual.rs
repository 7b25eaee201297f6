//! Who is spoken to by mutual TLS, as policies and accounts change.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;

use compile::{Audience, AudienceId, Compiler, HostDelivery, Interception, Options, Proxy, Secrets, Work};
use proto::ResourceType;
use serde_json::Value;
use world::{Change, Settings, World};

const CLUSTER: &str = "outbound|80||web.default.svc.cluster.local";

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.1.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: other}
spec: {clusterIP: 10.1.0.2, selector: {app: other}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

struct Bed {
    world: World,
    compiler: Compiler,
    proved: AudienceId,
    unproved: AudienceId,
}

impl Bed {
    fn new(options: Options) -> Self {
        let mut world = World::new(Settings::default());
        changes(MESH).into_iter().for_each(|change| drop(world.apply(change)));
        let mut compiler = Compiler::new(options);
        let (proved, _) = compiler.add(&world, &client(Secrets::Stream));
        let (unproved, _) = compiler.add(&world, &client(Secrets::None));
        let mut bed = Self { world, compiler, proved, unproved };
        bed.apply(&pod("web-1", "10.2.0.1", "web", true));
        bed.apply(&pod("web-2", "10.2.0.2", "web", false));
        bed
    }

    fn apply(&mut self, yaml: &str) -> Work {
        let touched: BTreeSet<_> = changes(yaml).into_iter().flat_map(|change| self.world.apply(change)).collect();
        self.compiler.update(&self.world, &touched).work
    }

    fn resource(&mut self, id: AudienceId, kind: ResourceType) -> Value {
        let snapshot = self.compiler.snapshot(id);
        let cell = snapshot.get(kind, CLUSTER).unwrap();
        proto::descriptor::to_json(kind.type_url(), &cell.value())
    }

    /// The addresses of the endpoints that are spoken to by mutual TLS.
    fn marked(&mut self, id: AudienceId) -> Vec<String> {
        let assignment = self.resource(id, ResourceType::Endpoints);
        let all = assignment["endpoints"].as_array().unwrap().iter();
        let all = all.flat_map(|locality| locality["lb_endpoints"].as_array().unwrap());
        let mark = |endpoint: &&Value| {
            endpoint["metadata"]["filter_metadata"]["envoy.transport_socket_match"]["tlsMode"] == "istio"
        };
        let address = |endpoint: &Value| endpoint["endpoint"]["address"]["socket_address"]["address"].clone();
        all.filter(mark).map(|endpoint| address(endpoint).as_str().unwrap().to_owned()).collect()
    }

    /// Whom the client may find behind the cluster.
    fn peers(&mut self) -> Vec<String> {
        let cluster = self.resource(self.proved, ResourceType::Cluster);
        let tls = &cluster["transport_socket_matches"][0]["transport_socket"]["typed_config"]["common_tls_context"];
        let peers = tls["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"]
            .as_array()
            .unwrap();
        let text = |peer: &Value| peer["matcher"].as_object().unwrap().values().next().unwrap().clone();
        peers.iter().map(|peer| text(peer).as_str().unwrap().to_owned()).collect()
    }
}

fn changes(yaml: &str) -> Vec<Change> {
    let parsed = source::text::parse("test.yaml", yaml.as_bytes(), &source::Options::default());
    assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
    parsed.objects.into_iter().map(Change::Apply).collect()
}

fn client(secrets: Secrets) -> Audience {
    Audience {
        proxy: Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None },
        namespace: "default".into(),
        labels: Arc::default(),
        addresses: Vec::new(),
        hosts: HostDelivery::Inline,
        lacks: proto::Extensions::default(),
        secrets,
        control_plane: None,
    }
}

fn pod(name: &str, address: &str, account: &str, has_proxy: bool) -> String {
    let label = if has_proxy { ", security.istio.io/tlsMode: istio" } else { "" };
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: web{label}}}}}, \
         spec: {{serviceAccountName: {account}, containers: []}}, status: {{podIP: {address}}}}}"
    )
}

fn policy(at: (&str, &str), spec: &str) -> String {
    let (namespace, name) = at;
    format!(
        "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: {name}, namespace: \
         {namespace}}}, spec: {spec}}}"
    )
}

#[test]
fn a_workload_that_says_so_is_spoken_to_by_mutual_tls_unless_a_policy_forbids_it() {
    let mut bed = Bed::new(Options::default());
    let (proved, unproved) = (bed.proved, bed.unproved);
    assert_eq!(bed.marked(proved), ["10.2.0.1"]);
    assert!(bed.marked(unproved).is_empty());
    for (spec, is_marked) in [
        ("{mtls: {mode: DISABLE}}", false),
        ("{mtls: {mode: STRICT}}", true),
        ("{selector: {matchLabels: {app: web}}, portLevelMtls: {8080: {mode: DISABLE}}}", false),
        ("{selector: {matchLabels: {app: web}}, portLevelMtls: {80: {mode: DISABLE}}}", true),
        ("{selector: {matchLabels: {app: other}}, mtls: {mode: DISABLE}}", true),
    ] {
        bed.apply(&policy(("default", "a"), spec));
        assert_eq!(!bed.marked(proved).is_empty(), is_marked, "{spec}");
    }
    bed.apply(&policy(("istio-system", "mesh"), "{mtls: {mode: DISABLE}}"));
    assert!(bed.marked(proved).is_empty());
}

#[test]
fn a_new_account_is_one_that_a_client_may_find() {
    let mut bed = Bed::new(Options::default());
    assert_eq!(bed.peers(), ["spiffe://cluster.local/ns/default/sa/web"]);
    bed.apply(&pod("web-3", "10.2.0.3", "second", true));
    let both = ["spiffe://cluster.local/ns/default/sa/second", "spiffe://cluster.local/ns/default/sa/web"];
    assert_eq!(bed.peers(), both);
    // The cluster stays as it is while endpoints of known accounts come.
    let before = bed.resource(bed.proved, ResourceType::Cluster);
    let work = bed.apply(&pod("web-4", "10.2.0.4", "second", true));
    assert_eq!(bed.resource(bed.proved, ResourceType::Cluster), before);
    assert!(work.units <= 6, "{work:?}");
}

#[test]
fn a_cluster_says_whom_it_admits_and_an_assignment_who_its_endpoints_are() {
    let mut bed = Bed::new(Options::default());
    let (proved, unproved) = (bed.proved, bed.unproved);
    let cells = |bed: &mut Bed, id| {
        let snapshot = bed.compiler.snapshot(id);
        let get = |kind| snapshot.get(kind, CLUSTER).unwrap().clone();
        (get(ResourceType::Cluster), get(ResourceType::Endpoints))
    };
    let (cluster, assignment) = cells(&mut bed, proved);
    bed.apply(&pod("web-3", "10.2.0.3", "second", true));
    let (wider, joined) = cells(&mut bed, proved);
    assert!(!cluster.admits(&joined) && wider.admits(&joined) && wider.admits(&assignment));
    assert!(wider.admits_all_of(&cluster) && !cluster.admits_all_of(&wider));
    // Another endpoint of an account that is known changes nothing.
    bed.apply(&pod("web-4", "10.2.0.4", "second", true));
    let (same, grown) = cells(&mut bed, proved);
    assert!(wider.admits(&grown) && wider.admits_all_of(&same));
    // Who speaks no mutual TLS admits everybody, and so does a rule that gives names of its own.
    let (plain, _) = cells(&mut bed, unproved);
    assert!(plain.admits(&grown));
    bed.apply(
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web}, spec: {host: web, \
         trafficPolicy: {tls: {mode: ISTIO_MUTUAL, subjectAltNames: [somebody]}}}}",
    );
    let (named, _) = cells(&mut bed, proved);
    bed.apply(&pod("web-5", "10.2.0.5", "third", true));
    let (_, third) = cells(&mut bed, proved);
    assert!(!same.admits(&third) && named.admits(&third));
}

#[test]
fn a_policy_asks_about_the_endpoints_of_its_namespace_and_no_others() {
    let mut bed = Bed::new(Options::default());
    assert_eq!(bed.apply(&policy(("elsewhere", "a"), "{mtls: {mode: STRICT}}")).units, 0);
    let work = bed.apply(&policy(("default", "a"), "{mtls: {mode: STRICT}}"));
    // Clusters and assignments of one host for the client that has proved who it is, and the way into two workloads.
    assert_eq!(work.units, 4, "{work:?}");
}

#[test]
fn without_automatic_tls_only_rules_ask_for_it() {
    let mut bed = Bed::new(Options { auto_mtls: false, ..Options::default() });
    let proved = bed.proved;
    assert!(bed.marked(proved).is_empty());
    assert!(bed.resource(proved, ResourceType::Cluster).get("transport_socket_matches").is_none());
    bed.apply(
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web}, spec: {host: web, \
         trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}",
    );
    let cluster = bed.resource(proved, ResourceType::Cluster);
    assert_eq!(
        cluster["transport_socket"]["typed_config"]["sni"], "outbound_.80_._.web.default.svc.cluster.local",
        "{cluster}"
    );
    // Whoever cannot goes on in plaintext, and is told.
    let unproved = bed.unproved;
    assert!(bed.resource(unproved, ResourceType::Cluster).get("transport_socket").is_none());
    let told: Vec<_> = bed.compiler.problems().iter().map(|problem| problem.field.clone()).collect();
    assert_eq!(told, ["spec.trafficPolicy.tls.mode"]);
}
