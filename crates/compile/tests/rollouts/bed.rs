//! One service with two revisions, a run, and ways to look at what is compiled of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use compile::{Audience, Compiler, Extensions, HostDelivery, Interception, Options, Proxy};
use proto::ResourceType;
use serde_json::{Value, json};
use snapshot::Snapshot;
use world::{Change, Key, Kind, Meta, Object, ObjectRef, Settings, Spec, World};

pub const REVIEWS: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: reviews}
spec:
  hosts: [reviews.default.svc.cluster.local]
  addresses: [10.1.0.1]
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}, {name: tcp-db, number: 5432, protocol: TCP}]
  endpoints:
    - {address: 10.2.1.1, labels: {version: v1}}
    - {address: 10.2.1.2, labels: {version: v1}}
    - {address: 10.2.1.3, labels: {version: v1}}
    - {address: 10.2.2.1, labels: {version: v2}}
    - {address: 10.2.2.2, labels: {version: v2}}
";

pub struct Mesh {
    world: World,
    compiler: Compiler,
}

impl Mesh {
    pub fn new(manifests: &[&str]) -> Self {
        let mut world = World::new(Settings::default());
        for text in manifests {
            let parsed = source::text::parse("test.yaml", text.as_bytes(), &source::Options::default());
            assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
            parsed.objects.into_iter().for_each(|object| _ = world.apply(Change::Apply(object)));
        }
        Self { world, compiler: Compiler::new(Options::default()) }
    }

    /// Puts the run in force; how many units ran.
    pub fn apply_run(&mut self, spec: &Value) -> usize {
        let reference = ObjectRef::new(Kind::RolloutRun, "default", "run-1");
        let spec = Spec::RolloutRun(serde_json::from_value(spec.clone()).unwrap());
        let generation = self.world.generation(&reference) + 1;
        let object = Object { reference, meta: Meta { generation, ..Meta::default() }, spec };
        let touched: BTreeSet<Key> = self.world.apply(Change::Apply(Arc::new(object)));
        self.compiler.update(&self.world, &touched).work.units
    }

    pub fn snapshot(&mut self, audience: &Audience) -> Snapshot {
        let snapshot = self.compiler.add(&self.world, audience).1;
        assert_eq!(snapshot.dangling(), []);
        snapshot
    }

    pub fn resource(&mut self, audience: &Audience, resource_type: ResourceType, name: &str) -> Value {
        let snapshot = self.snapshot(audience);
        let names: Vec<_> = snapshot.iter(resource_type).map(|cell| cell.name().to_string()).collect();
        let cell = snapshot.get(resource_type, name).unwrap_or_else(|| panic!("{resource_type} {name} in {names:?}"));
        proto::descriptor::to_json(resource_type.type_url(), &cell.value())
    }

    /// The localities of an assignment: sub-zone, addresses, weight and priority.
    pub fn endpoints(
        &mut self,
        audience: &Audience,
        cluster: &str,
    ) -> Vec<(&'static str, Vec<&'static str>, u64, u64)> {
        let assignment = self.resource(audience, ResourceType::Endpoints, cluster);
        // Kept for the test's life, so that what is expected can be written as it is.
        let text = |value: &Value| -> &'static str { String::leak(value.as_str().unwrap_or_default().to_owned()) };
        let localities = assignment["endpoints"].as_array().into_iter().flatten().map(|locality| {
            let endpoints = locality["lb_endpoints"].as_array().unwrap().iter();
            let addresses = endpoints.map(|e| text(&e["endpoint"]["address"]["socket_address"]["address"])).collect();
            let weight = locality["load_balancing_weight"].as_u64().unwrap();
            (text(&locality["locality"]["sub_zone"]), addresses, weight, locality["priority"].as_u64().unwrap_or(0))
        });
        localities.collect()
    }

    /// The routes of a virtual host, or of the first one of a route configuration.
    pub fn routes_at(&mut self, audience: &Audience, name: &str) -> Vec<Value> {
        let host = match name.contains('/') {
            true => self.resource(audience, ResourceType::VirtualHost, name),
            false => self.resource(audience, ResourceType::Route, name)["virtual_hosts"][0].clone(),
        };
        host["routes"].as_array().unwrap().clone()
    }

    pub fn problems(&self) -> Vec<String> {
        self.compiler.problems().iter().map(ToString::to_string).collect()
    }
}

/// The routes of reviews.
pub fn routes(mesh: &mut Mesh, audience: &Audience) -> Vec<Value> {
    match audience.proxy {
        Proxy::Grpc => mesh.routes_at(audience, "outbound|80||reviews.default.svc.cluster.local"),
        Proxy::Sidecar { .. } | Proxy::Gateway => mesh.routes_at(audience, "80/reviews.default.svc.cluster.local:80"),
    }
}

/// Clusters and weights of a route; everything for a single one.
pub fn weights(route: &Value) -> Vec<(&str, u32)> {
    match route["route"]["cluster"].as_str() {
        Some(only) => vec![(only, 1_000_000)],
        None => route["route"]["weighted_clusters"]["clusters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| (entry["name"].as_str().unwrap(), entry["weight"].as_u64().unwrap() as u32))
            .collect(),
    }
}

/// A run of reviews with this split.
pub fn run(split: Value) -> Value {
    json!({
        "service": {"name": "reviews"}, "label": "version", "stable": "v1", "candidate": "v2",
        "assignment": {
            "version": 1, "split": split, "routes": [], "mirror": null, "stickiness": {}, "fallback": null,
        },
    })
}

/// This part of a million for the candidate, the rest for what is stable.
pub fn canary(candidate: u32) -> Value {
    let percent = |parts: u32| f64::from(parts) / 1e4;
    json!({"Weights": [["v2", percent(candidate)], ["v1", percent(1_000_000 - candidate)]]})
}

fn client(proxy: Proxy, hosts: HostDelivery) -> Audience {
    let labels = match proxy {
        Proxy::Gateway => [("istio".to_owned(), "edge".to_owned())].into(),
        Proxy::Sidecar { .. } | Proxy::Grpc => Default::default(),
    };
    Audience {
        proxy,
        namespace: "default".into(),
        labels: Arc::new(labels),
        addresses: Vec::new(),
        hosts,
        lacks: Extensions::default(),
        secrets: Default::default(),
        control_plane: None,
    }
}

pub fn sidecar() -> Audience {
    let proxy = Proxy::Sidecar { interception: Interception::None, http_proxy_port: None };
    client(proxy, HostDelivery::Separate)
}

pub fn gateway() -> Audience {
    client(Proxy::Gateway, HostDelivery::Inline)
}

pub fn grpc() -> Audience {
    client(Proxy::Grpc, HostDelivery::Inline)
}

/// Holds `got` to the golden file of this name.
pub fn golden(name: &str, got: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rollout").join(format!("{name}.json"));
    let got = format!("{got:#}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, got).unwrap();
    } else {
        let wanted = std::fs::read_to_string(&path).unwrap_or_default();
        let differing = wanted.lines().zip(got.lines()).position(|(wanted, got)| wanted != got);
        let differing = differing.map(|at| got.lines().skip(at).take(3).collect::<Vec<_>>());
        assert!(wanted == got, "{}: {differing:?}", path.display());
    }
}
