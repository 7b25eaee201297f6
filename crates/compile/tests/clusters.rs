//! Golden tests of clusters and assignments: one feature a file.
//!
//! `tests/golden/cluster-<feature>.yaml` holds manifests under a first line `# audience: sidecar` (or `bare`, a
//! sidecar without interception; `proved` or `agent`, a sidecar with a certificate; `gateway`; `grpc`). Beside it, `cluster-<feature>.golden.json` holds every cluster
//! that the services give, the assignments of those that ask for one, and the problems. `POINTSMAN_GOLDEN=write` writes
//! those files anew; read the difference before committing it.
// Reading and writing golden files is what IO there is.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use compile::cluster::{self, ClusterInput, Discovery, InboundInput};
use compile::{Audience, HostDelivery, Interception, MutualTls, Peers, Proxy, Secrets, endpoints, names};
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::cluster::v3::Cluster;
use serde_json::{Value, json};
use world::{Address, Change, Labels, Protocol, Reader, Resolution, Settings, World};

#[test]
fn clusters_are_as_recorded() {
    let mut cases: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("cluster-") && name.ends_with(".yaml")
    });
    cases.sort();
    assert!(cases.len() > 15, "the cases are there");
    let different: Vec<_> =
        cases.iter().filter(|case| !matches(&case.with_extension("golden.json"), &compiled(case))).collect();
    assert!(different.is_empty(), "other than recorded: {different:#?}");
}

#[test]
fn fixed_clusters_are_as_recorded() {
    let inbound = |protocol, interception, default_endpoint| {
        let input = InboundInput { target_port: 8080, protocol, interception, default_endpoint, services: &[] };
        checked(&cluster::inbound(&input).encode_to_vec())
    };
    let socket = Address::Unix("/run/app.sock".into());
    let found = json!({
        "black_hole": checked(&cluster::black_hole().encode_to_vec()),
        "passthrough": checked(&cluster::passthrough().encode_to_vec()),
        "inbound_passthrough": checked(&cluster::inbound_passthrough().encode_to_vec()),
        "inbound, intercepted, HTTP": inbound(Protocol::Http, Interception::Redirect, None),
        "inbound, intercepted, HTTP/2": inbound(Protocol::Http2, Interception::Tproxy, None),
        "inbound, bare, undeclared": inbound(Protocol::Auto, Interception::None, None),
        "inbound, bare, TCP, on a socket": inbound(Protocol::Tcp, Interception::None, Some((&socket, 0))),
    });
    assert!(matches(&folder().join("fixed-clusters.golden.json"), &found), "other than recorded");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Whether the file holds `found`; prints where not, and writes it when asked to.
fn matches(file: &Path, found: &Value) -> bool {
    let found = format!("{found:#}\n");
    if std::env::var("POINTSMAN_GOLDEN").is_ok_and(|what| what == "write") {
        fs::write(file, &found).unwrap();
        return true;
    }
    let recorded = fs::read_to_string(file).unwrap_or_default();
    for (index, (was, is)) in recorded.lines().zip(found.lines()).enumerate().filter(|(_, (was, is))| was != is).take(3)
    {
        println!("{}:{}:\n- {was}\n+ {is}", file.display(), index + 1);
    }
    recorded == found
}

fn compiled(case: &Path) -> Value {
    let text = fs::read_to_string(case).unwrap();
    let audience = audience(text.lines().next().and_then(|line| line.strip_prefix("# audience: ")).unwrap());
    let name = case.file_name().unwrap().to_str().unwrap();
    let parsed = source::text::parse(name, text.as_bytes(), &source::Options::default());
    assert!(parsed.problems.is_empty(), "{name}: {:#?}", parsed.problems);
    let mut world = World::new(Settings::default());
    for object in parsed.objects {
        world.apply(Change::Apply(object));
    }
    let (mut clusters, mut assignments, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    let reader = Reader::new(&world);
    for host in world.hosts() {
        let service = reader.service(host, &audience.scope()).unwrap();
        let rule = reader.rule(host, &service.namespace, &audience.scope(), &audience.labels);
        for port in &service.ports {
            let found = reader.endpoints(service, port.number);
            let mutual_tls = (audience.secrets != Secrets::None).then(|| MutualTls {
                peers: Peers::of(&found, service, reader.settings()),
                is_automatic: !service.external,
                is_taken_by_all: true,
            });
            let is_inline = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
            for subset in std::iter::once(None).chain(rule.subsets.iter().map(Some)) {
                let name = names::outbound_cluster(port.number, subset.map_or("", |subset| &subset.name), host);
                let inline = if is_inline { &found[..] } else { &[] };
                let input = ClusterInput {
                    audience: &audience,
                    name: &name,
                    service,
                    port,
                    subset,
                    rule: &rule,
                    rollout: None,
                    mutual_tls: mutual_tls.as_ref(),
                    endpoints: inline,
                };
                let built = cluster::encoded(&input);
                assert_eq!(Cluster::decode(&built.value[..]).unwrap(), cluster::outbound(&input).value);
                clusters.push(checked(&built.value));
                problems.extend(built.problems.iter().map(ToString::to_string));
                if input.discovery() == Discovery::Eds {
                    let all = Labels::new();
                    let of_subset = endpoints::of_subset(&found, subset.map_or(&all, |subset| &subset.labels));
                    let bytes = endpoints::assignment(&name, of_subset, &audience.proxy);
                    assignments.push(json_of(ResourceType::Endpoints, &bytes));
                    problems.extend(
                        endpoints::problems(&service.origin, &found, &audience.proxy).iter().map(ToString::to_string),
                    );
                }
            }
        }
    }
    problems.dedup();
    json!({ "clusters": clusters, "endpoints": assignments, "problems": problems })
}

fn audience(word: &str) -> Audience {
    let sidecar = |interception| Proxy::Sidecar { interception, http_proxy_port: None };
    let proxy = match word {
        "sidecar" | "proved" | "agent" => sidecar(Interception::Redirect),
        "bare" => sidecar(Interception::None),
        "gateway" => Proxy::Gateway,
        "grpc" | "provided" => Proxy::Grpc,
        other => panic!("no audience is called {other}"),
    };
    Audience {
        proxy,
        namespace: "default".into(),
        labels: Labels::new().into(),
        addresses: Vec::new(),
        hosts: HostDelivery::default(),
        lacks: proto::Extensions::default(),
        secrets: match word {
            "proved" => Secrets::Stream,
            "agent" => Secrets::Agent,
            "provided" => Secrets::Provider,
            _ => Secrets::None,
        },
        control_plane: None,
    }
}

/// The JSON of a cluster that breaks none of the rules that Envoy states.
fn checked(bytes: &[u8]) -> Value {
    let checked = proto::wire::check(ResourceType::Cluster.type_url(), bytes);
    assert!(checked.is_ok(), "{checked:#?}");
    json_of(ResourceType::Cluster, bytes)
}

fn json_of(resource_type: ResourceType, bytes: &[u8]) -> Value {
    let bytes = proto::wire::canonicalize(resource_type.type_url(), bytes);
    proto::descriptor::to_json(resource_type.type_url(), &bytes)
}
