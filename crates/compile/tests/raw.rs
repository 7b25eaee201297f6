//! Resources that were written down reach the clients that they are for, beside what is compiled.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;

use compile::{Audience, Compiler, Interception, Options, Proxy};
use proto::ResourceType;
use snapshot::Snapshot;
use world::{Change, Key, Settings, World};

struct Mesh {
    world: World,
    compiler: Compiler,
}

impl Mesh {
    fn new(yaml: &str) -> Self {
        let mut mesh = Self { world: World::new(Settings::default()), compiler: Compiler::new(Options::default()) };
        mesh.apply(yaml);
        mesh
    }

    /// Applies objects; returns how many audiences have another snapshot now.
    fn apply(&mut self, yaml: &str) -> usize {
        let parsed = source::text::parse("test.yaml", yaml.as_bytes(), &source::Options::default());
        assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
        let mut touched: BTreeSet<Key> = BTreeSet::new();
        for object in parsed.objects {
            touched.extend(self.world.apply(Change::Apply(object)));
        }
        let update = self.compiler.update(&self.world, &touched);
        let concerned = self.compiler.concerned(&update);
        concerned.into_iter().filter_map(|id| self.compiler.refresh(id)).count()
    }

    fn snapshot(&mut self, audience: &Audience) -> Snapshot {
        self.compiler.add(&self.world, audience).1
    }

    fn problems(&self) -> Vec<String> {
        self.compiler.problems().iter().map(ToString::to_string).collect()
    }
}

fn client(proxy: Proxy, namespace: &str, labels: &[(&str, &str)]) -> Audience {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Audience {
        proxy,
        namespace: namespace.into(),
        labels: Arc::new(labels),
        addresses: Vec::new(),
        hosts: compile::HostDelivery::Inline,
        lacks: compile::Extensions::default(),
        secrets: Default::default(),
        control_plane: None,
    }
}

fn sidecar(namespace: &str, labels: &[(&str, &str)]) -> Audience {
    client(Proxy::Sidecar { interception: Interception::None, http_proxy_port: None }, namespace, labels)
}

fn raw(name: &str, head: &str, resources: &[&str]) -> String {
    let list: String = resources.iter().map(|resource| format!("    - {resource}\n")).collect();
    format!(
        "---\napiVersion: networking.pointsman.dev/v1alpha1\nkind: XdsResource\nmetadata: {{{name}}}\nspec:\n{head}  resources:\n{list}"
    )
}

const LAYER: &str = r#"{"@type": type.googleapis.com/envoy.service.runtime.v3.Runtime, name: rtds, layer: {a: 1}}"#;
const ROUTE: &str = r#"{"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration, name: mine, virtual_hosts: [{name: h, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: backend}}]}]}"#;
const BACKEND: &str = r#"{"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: backend}"#;
const SERVICE: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s1}\nspec: {clusterIP: 10.1.0.1, ports: [{name: http, port: 80}]}\n";

#[test]
fn a_raw_resource_reaches_its_clients_of_every_kind_and_nobody_else() {
    let selector = "  selector: {matchLabels: {app: a}}\n";
    let mut mesh = Mesh::new(&(SERVICE.to_owned() + &raw("name: layer", selector, &[LAYER])));
    for proxy in [sidecar("default", &[]).proxy, Proxy::Gateway, Proxy::Grpc] {
        let own = mesh.snapshot(&client(proxy.clone(), "default", &[("app", "a"), ("other", "x")]));
        let cell = own.get(ResourceType::Runtime, "rtds").unwrap();
        assert_eq!(cell.origins().map(|origin| &*origin.object).collect::<Vec<_>>(), ["xdsresource/default/layer"]);
        for (namespace, label) in [("default", "b"), ("far", "a")] {
            let other = mesh.snapshot(&client(proxy.clone(), namespace, &[("app", label)]));
            assert_eq!(other.len(ResourceType::Runtime), 0, "{namespace} {label}");
        }
    }
    let everywhere = raw("name: all, namespace: istio-system", "", &[&LAYER.replace("rtds", "all")]);
    assert!(mesh.apply(&everywhere) > 0);
    assert!(mesh.snapshot(&sidecar("far", &[])).get(ResourceType::Runtime, "all").is_some());
    assert_eq!(mesh.problems(), [""; 0]);
}

#[test]
fn a_change_of_something_else_leaves_the_raw_layer_alone() {
    let mut mesh = Mesh::new(&(SERVICE.to_owned() + &raw("name: layer", "", &[LAYER, ROUTE, BACKEND])));
    let before = mesh.snapshot(&sidecar("default", &[]));
    assert_eq!(before.dangling(), []);
    mesh.apply(&SERVICE.replace("s1", "s2").replace("10.1.0.1", "10.1.0.2"));
    let after = mesh.snapshot(&sidecar("default", &[]));
    assert!(Arc::ptr_eq(before.layers().last().unwrap(), after.layers().last().unwrap()));
    assert_eq!(after.changes(&before, ResourceType::Runtime).changed.len(), 0);
}

#[test]
fn a_compiled_resource_counts_before_a_raw_one_of_its_name_for_as_long_as_it_is_there() {
    let cluster = BACKEND.replace("backend", "outbound|80||s1.default.svc.cluster.local");
    let mut mesh = Mesh::new(&raw("name: shadow", "", &[&cluster, LAYER]));
    let name = "outbound|80||s1.default.svc.cluster.local";
    let own = sidecar("default", &[]);
    let alone = mesh.snapshot(&own).get(ResourceType::Cluster, name).unwrap().clone();
    assert_eq!(mesh.problems(), [""; 0]);
    mesh.apply(SERVICE);
    let both = mesh.snapshot(&own);
    assert_ne!(both.get(ResourceType::Cluster, name).unwrap().version(), alone.version());
    assert_eq!(both.iter(ResourceType::Cluster).filter(|cell| &**cell.name() == name).count(), 1, "not twice");
    assert!(both.get(ResourceType::Runtime, "rtds").is_some(), "the rest of the object is sent");
    let [problem] = &mesh.problems()[..] else { panic!("one problem") };
    assert!(
        problem
            .contains("CDS \"outbound|80||s1.default.svc.cluster.local\" has the name of a resource that is compiled"),
        "{problem}"
    );
    assert_eq!(mesh.apply(SERVICE), 0, "equal input publishes nothing");
}

#[test]
fn of_two_raw_resources_with_one_name_the_first_counts_and_the_other_is_told() {
    let mut mesh = Mesh::new(&raw("name: a", "", &[LAYER]));
    let first = mesh.snapshot(&sidecar("default", &[])).get(ResourceType::Runtime, "rtds").unwrap().version();
    mesh.apply(&raw("name: b", "", &[&LAYER.replace("a: 1", "a: 2")]));
    let still = mesh.snapshot(&sidecar("default", &[])).get(ResourceType::Runtime, "rtds").unwrap().version();
    assert_eq!(first, still);
    let [problem] = &mesh.problems()[..] else { panic!("one problem") };
    assert!(
        problem.contains(
            "XdsResource default/b: spec.resources[0]: RTDS \"rtds\" is already that of XdsResource default/a"
        ),
        "{problem}"
    );
}

#[test]
fn what_a_raw_resource_names_is_known_and_told_when_it_is_not_there() {
    let mut mesh = Mesh::new(&raw("name: route", "", &[ROUTE]));
    let route = mesh.snapshot(&sidecar("default", &[])).get(ResourceType::Route, "mine").unwrap().clone();
    assert_eq!(route.references().collect::<Vec<_>>(), [&(ResourceType::Cluster, "backend".into())]);
    let [problem] = &mesh.problems()[..] else { panic!("one problem") };
    assert!(problem.contains("RDS \"mine\" names CDS \"backend\", which is not served"), "{problem}");
    mesh.apply(&raw("name: cluster", "", &[BACKEND]));
    assert_eq!(mesh.problems(), [""; 0]);
}
