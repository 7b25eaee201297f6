//! Golden files: `tests/golden/route/<feature>.yaml` holds a setting and VirtualServices, `<feature>.golden.json` the
//! virtual host that they become, with its problems, clusters and origins. `UPDATE_GOLDEN=1` writes them anew.
// The golden files are read and written here, on request only.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod odd_input;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use prost::Name;
use proto::pb::envoy::config::route::v3::VirtualHost;
use serde::Deserialize;
use serde_json::{Value, json};
use world::api::istio::{ConsistentHash, Destination, VirtualService};
use world::{Hostname, Kind, Labels, Meta, Object, ObjectRef, Protocol, Spec};

use super::{EncodedHost, VirtualHostInput, destinations, virtual_host};
use crate::{
    Audience, Built, HostDelivery, Interception, Missing, MissingDestination, Options, Proxy, Target, names, target,
};

const DOMAIN: &str = "cluster.local";

/// First document of a case: for whom is compiled, and what there is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Setting {
    client: String,
    namespace: String,
    labels: Labels,
    port: u16,
    gateways: Vec<String>,
    domains: Vec<String>,
    missing: String,
    default: Option<String>,
    https_redirect: bool,
    services: BTreeMap<String, KnownService>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            client: "sidecar".to_owned(),
            namespace: "default".to_owned(),
            labels: Labels::new(),
            port: 9080,
            gateways: vec!["mesh".to_owned()],
            domains: vec!["reviews.default.svc.cluster.local".to_owned()],
            missing: "unavailable".to_owned(),
            default: None,
            https_redirect: false,
            services: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KnownService {
    ports: Vec<u16>,
    subsets: Vec<String>,
    hash: Option<ConsistentHash>,
}

#[derive(Deserialize)]
struct Manifest {
    metadata: Identity,
    spec: VirtualService,
}

#[derive(Deserialize)]
struct Identity {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

impl Setting {
    fn audience(&self) -> Audience {
        let proxy = match self.client.as_str() {
            "sidecar" => Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None },
            "gateway" => Proxy::Gateway,
            "grpc" => Proxy::Grpc,
            other => panic!("unknown client {other}"),
        };
        let labels = Arc::new(self.labels.clone());
        Audience {
            proxy,
            namespace: self.namespace.as_str().into(),
            labels,
            addresses: Vec::new(),
            hosts: HostDelivery::default(),
            lacks: proto::Extensions::default(),
            secrets: Default::default(),
            control_plane: None,
        }
    }

    fn resolve(&self, namespace: &str, destination: &Destination, port: u16) -> Target {
        let host = Hostname::qualified(&destination.host, namespace, DOMAIN);
        let Some(service) = self.services.get(host.as_str()) else { return Target::Missing(Missing::Service { host }) };
        let asked = destination.port.as_ref().map(|p| p.number);
        let port = match (asked, &service.ports[..]) {
            (None, [only]) => *only,
            (None, _) => port,
            (Some(port), _) => port,
        };
        if !service.ports.contains(&port) {
            return Target::Missing(Missing::Port { host, port: asked, known: service.ports.clone() });
        }
        if !destination.subset.is_empty() && !service.subsets.contains(&destination.subset) {
            let suggestion = target::suggestion(&host, &[&destination.subset], "version");
            return Target::Missing(Missing::Subset { host, subset: destination.subset.clone(), suggestion });
        }
        let name = names::outbound_cluster(port, &destination.subset, &host);
        Target::Cluster { name, hash: service.hash.clone(), protocol: Protocol::Http, rollout: None }
    }

    fn compile(&self, objects: &[Arc<Object>]) -> Built<EncodedHost> {
        // The first, and those of the same host.
        let governing: Vec<_> = objects.iter().filter(|o| spec(o).hosts == spec(&objects[0]).hosts).collect();
        let find = |namespace: &str, name: &str| {
            let named = |o: &&Arc<Object>| &*o.reference.namespace == namespace && &*o.reference.name == name;
            objects.iter().find(named).cloned()
        };
        let missing_destination = match self.missing.as_str() {
            "unavailable" => MissingDestination::Unavailable,
            "reweight" => MissingDestination::Reweight,
            other => panic!("unknown policy {other}"),
        };
        let gateways: Vec<&str> = self.gateways.iter().map(String::as_str).collect();
        let default = |name: &String| Target::Cluster {
            name: name.as_str().into(),
            hash: None,
            protocol: Protocol::Http,
            rollout: None,
        };
        virtual_host(&VirtualHostInput {
            audience: &self.audience(),
            gateways: &gateways,
            port: self.port,
            name: &format!("{}:{}", self.domains[0], self.port),
            domains: self.domains.clone(),
            virtual_services: &governing,
            delegate: &find,
            default: self.default.as_ref().map(default),
            resolve: &|namespace, destination, port| self.resolve(namespace, destination, port),
            options: &Options { missing_destination, ..Options::default() },
            service: None,
            https_redirect: self.https_redirect,
        })
    }
}

fn spec(object: &Object) -> &VirtualService {
    match &object.spec {
        Spec::VirtualService(spec) => spec,
        _ => panic!("{}", object.reference),
    }
}

fn object(namespace: &str, name: &str, spec: VirtualService) -> Arc<Object> {
    let reference = ObjectRef::new(Kind::VirtualService, namespace, name);
    Arc::new(Object { reference, meta: Meta::default(), spec: Spec::VirtualService(spec) })
}

fn read(text: &str) -> (Setting, Vec<Arc<Object>>) {
    let mut documents = text.split("\n---\n");
    let setting = serde_saphyr::from_str(documents.next().unwrap()).unwrap();
    let objects = documents.map(|document| {
        let Manifest { metadata, spec } = serde_saphyr::from_str(document).unwrap();
        object(metadata.namespace.as_deref().unwrap_or("default"), &metadata.name, spec)
    });
    (setting, objects.collect())
}

fn json(built: &Built<EncodedHost>) -> Value {
    let bytes = built.value.encode();
    proto::wire::check(&VirtualHost::type_url(), &bytes).expect("Envoy's own rules hold");
    json!({
        "virtualHost": proto::descriptor::to_json(&VirtualHost::type_url(), &bytes),
        "problems": built.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "clusters": built.clusters,
        "origins": built.origins,
    })
}

#[test]
fn virtual_services_become_the_virtual_hosts_of_the_golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/route");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        cases += 1;
        let (setting, objects) = read(&std::fs::read_to_string(&path).unwrap());
        let got = format!("{:#}\n", json(&setting.compile(&objects)));
        let golden = path.with_extension("golden.json");
        if update {
            std::fs::write(&golden, got).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != got {
            wrong.push(format!("{}: got\n{got}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 20, "the golden files are there");
}

#[test]
fn a_suggested_rule_is_a_destination_rule() {
    let host = Hostname::new("reviews.shop.svc.cluster.local");
    let text = target::suggestion(&host, &["v1", "2", "true"], "version");
    #[derive(Deserialize)]
    struct Suggested {
        metadata: Identity,
        spec: world::api::istio::DestinationRule,
    }
    let rule: Suggested = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(rule.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(rule.spec.host, host.as_str());
    let subsets: Vec<_> = rule.spec.subsets.iter().map(|s| (s.name.as_str(), s.labels["version"].as_str())).collect();
    assert_eq!(subsets, [("v1", "v1"), ("2", "2"), ("true", "true")]);
}

#[test]
fn destinations_are_listed_with_their_fields() {
    let spec: VirtualService = serde_saphyr::from_str(
        "{http: [{route: [{destination: {host: a}}], mirror: {host: b}, mirrors: [{destination: {host: c}}]}],
          tls: [{route: [{destination: {host: d}}]}], tcp: [{route: [{destination: {host: e}}]}]}",
    )
    .unwrap();
    let listed: Vec<_> = destinations(&spec).map(|(field, d)| format!("{field}={}", d.host)).collect();
    assert_eq!(
        listed,
        [
            "spec.http[0].route[0].destination=a",
            "spec.http[0].mirror=b",
            "spec.http[0].mirrors[0].destination=c",
            "spec.tls[0].route[0].destination=d",
            "spec.tcp[0].route[0].destination=e",
        ]
    );
}

#[test]
fn heads_and_catch_alls_keep_envoys_rules() {
    let setting = Setting::default();
    let head = super::configuration_head("9080", &setting.audience());
    let hosts = [super::allow_any(), super::block_all(), super::blackhole(80)];
    for host in &hosts {
        proto::wire::check(&VirtualHost::type_url(), &host.encode()).unwrap();
    }
    assert!(head.ignore_port_in_host_matching);
    let grpc = super::configuration_head("x:80", &Setting { client: "grpc".to_owned(), ..setting }.audience());
    assert!(!grpc.ignore_port_in_host_matching);
}
