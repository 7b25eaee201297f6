//! A change compiles what depends on it and nothing else, and what is compiled is closed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use compile::{Audience, Compiler, HostDelivery, Interception, Options, Proxy, Work};
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use snapshot::Snapshot;
use world::{Change, Settings, World};

fn changes(yaml: &str) -> Vec<Change> {
    let parsed = source::text::parse("test.yaml", yaml.as_bytes(), &source::Options::default());
    assert!(parsed.problems.is_empty(), "{:#?}", parsed.problems);
    parsed.objects.into_iter().map(Change::Apply).collect()
}

struct Plane {
    world: World,
    compiler: Compiler,
}

impl Plane {
    fn new(yaml: &str, options: Options) -> Self {
        let mut world = World::new(Settings::default());
        for change in changes(yaml) {
            world.apply(change);
        }
        Self { world, compiler: Compiler::new(options) }
    }

    fn apply(&mut self, yaml: &str) -> (Work, Vec<Snapshot>) {
        self.change(changes(yaml))
    }

    fn change(&mut self, changes: Vec<Change>) -> (Work, Vec<Snapshot>) {
        let mut touched = BTreeSet::new();
        for change in changes {
            touched.extend(self.world.apply(change));
        }
        let update = self.compiler.update(&self.world, &touched);
        let concerned = self.compiler.concerned(&update);
        (update.work, concerned.into_iter().filter_map(|id| self.compiler.refresh(id)).collect())
    }
}

fn sidecar(interception: Interception) -> Audience {
    Audience {
        proxy: Proxy::Sidecar { interception, http_proxy_port: Some(3128) },
        namespace: "default".into(),
        labels: Arc::default(),
        addresses: vec![IpAddr::from([10, 9, 0, 1])],
        hosts: HostDelivery::Inline,
        lacks: proto::Extensions::default(),
        secrets: Default::default(),
        control_plane: None,
    }
}

fn service(name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  clusterIP: 10.1.0.{}
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}, {{name: tcp-db, port: 5432}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}, {{name: tcp-db, port: 5432}}]
endpoints: [{{addresses: [10.2.0.1]}}, {{addresses: [10.2.0.2]}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}}}
spec:
  host: {name}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
",
        name.len()
    )
}

fn routes(name: &str, v1: u32, v2: u32) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [{name}]
  http:
    - route:
        - {{destination: {{host: {name}, subset: v1, port: {{number: 80}}}}, weight: {v1}}}
        - {{destination: {{host: {name}, subset: v2, port: {{number: 80}}}}, weight: {v2}}}
"
    )
}

fn mesh(services: usize) -> String {
    let names = (0..services).map(|i| format!("s{i}"));
    names.map(|name| service(&name) + &routes(&name, 80, 20)).collect()
}

fn audiences() -> Vec<Audience> {
    let plain = |proxy| Audience { proxy, ..sidecar(Interception::Redirect) };
    let inline =
        [sidecar(Interception::Redirect), sidecar(Interception::None), plain(Proxy::Gateway), plain(Proxy::Grpc)];
    inline.iter().cloned().chain(inline.iter().cloned().map(separate)).collect()
}

fn separate(audience: Audience) -> Audience {
    Audience { hosts: HostDelivery::Separate, ..audience }
}

#[test]
fn a_changed_weight_runs_one_unit_whatever_the_number_of_services() {
    for services in [3, 30, 300] {
        let mut plane = Plane::new(&mesh(services), Options::default());
        let before = plane.compiler.add(&plane.world, &sidecar(Interception::Redirect)).1;
        let (work, snapshots) = plane.apply(&routes("s1", 10, 90));
        // The virtual host; and the filter chains of the TCP port, which the same object could route.
        assert!(work.units <= 2, "{work:?} with {services} services");
        let [after] = &snapshots[..] else { panic!("one audience has a new snapshot") };
        for resource_type in ResourceType::ALL {
            let changed: Vec<_> =
                after.changes(&before, resource_type).changed.iter().map(|cell| cell.name().to_string()).collect();
            let wanted: &[&str] = if resource_type == ResourceType::Route { &["80", "http_proxy"] } else { &[] };
            assert_eq!(changed, wanted, "{resource_type}");
        }
    }
}

#[test]
fn a_changed_weight_encodes_one_virtual_host_where_they_are_separate() {
    for services in [3, 30, 300] {
        let audience = Audience {
            proxy: Proxy::Sidecar { interception: Interception::Redirect, http_proxy_port: None },
            ..separate(sidecar(Interception::Redirect))
        };
        let mut plane = Plane::new(&mesh(services), Options::default());
        let before = plane.compiler.add(&plane.world, &audience).1;
        assert_eq!(before.len(ResourceType::VirtualHost), services + 1, "one each, and what takes the rest");
        let (work, snapshots) = plane.apply(&routes("s1", 10, 90));
        assert_eq!(work.resources, 1, "{work:?} with {services} services");
        for resource_type in ResourceType::ALL {
            let changes = snapshots[0].changes(&before, resource_type);
            let changed: Vec<_> = changes.changed.iter().map(|cell| cell.name().to_string()).collect();
            if resource_type != ResourceType::VirtualHost {
                assert_eq!(changed, [""; 0], "{resource_type}");
                continue;
            }
            assert_eq!(changed, ["80/s1.default.svc.cluster.local:80"]);
            assert!(changes.delta_body().len() < 1_500, "{} bytes", changes.delta_body().len());
        }
    }
}

#[test]
fn both_ways_to_deliver_virtual_hosts_say_the_same() {
    let elsewhere = routes("s2", 1, 1).replace("metadata: {name: s2}", "metadata: {name: other}");
    let elsewhere = elsewhere.replace("hosts: [s2]", "hosts: [\"*.test\", s2.test]");
    let mut plane = Plane::new(&(mesh(4) + &elsewhere), Options::default());
    for inline in audiences().into_iter().filter(|audience| audience.hosts == HostDelivery::Inline) {
        let apart = plane.compiler.add(&plane.world, &separate(inline.clone())).1;
        let inline = plane.compiler.add(&plane.world, &inline).1;
        assert_eq!(inline.len(ResourceType::VirtualHost), 0);
        assert_eq!(inline.len(ResourceType::Route), apart.len(ResourceType::Route));
        for cell in inline.iter(ResourceType::Route) {
            let whole = RouteConfiguration::decode(&*cell.value()).unwrap();
            let head = apart.get(ResourceType::Route, cell.name()).expect("the same route configurations");
            let mut joined = RouteConfiguration::decode(&*head.value()).unwrap();
            let hosts: Vec<_> = apart.under(ResourceType::VirtualHost, cell.name()).collect();
            assert_eq!(joined.vhds.take().is_some(), !hosts.is_empty(), "{}", cell.name());
            for cell in hosts {
                let host = VirtualHost::decode(&*cell.value()).unwrap();
                assert_eq!(host.name, **cell.name(), "Envoy removes a host by this name");
                assert!(host.domains.iter().map(String::as_str).eq(cell.aliases().iter().map(|alias| &**alias)));
                let (_, name) = host.name.split_once('/').unwrap();
                joined.virtual_hosts.push(VirtualHost { name: name.to_owned(), ..host });
            }
            assert_eq!(joined, whole);
        }
    }
}

#[test]
fn a_domain_that_changes_its_host_changes_both_in_one_step() {
    let audience = separate(sidecar(Interception::Redirect));
    let mut plane = Plane::new(&service("s2"), Options::default());
    let before = plane.compiler.add(&plane.world, &audience).1;
    // It has the same address, and comes first by its name.
    let (_, snapshots) = plane.apply(&service("s1"));
    let changes = snapshots[0].changes(&before, ResourceType::VirtualHost);
    let aliases = |name: &str| {
        let cell = changes.changed.iter().find(|cell| &**cell.name() == name).expect("it changed");
        cell.aliases().iter().any(|alias| &**alias == "10.1.0.2")
    };
    assert!(aliases("80/s1.default.svc.cluster.local:80"));
    assert!(!aliases("80/s2.default.svc.cluster.local:80"));
}

#[test]
fn an_endpoint_that_comes_runs_one_unit_and_changes_assignments_only() {
    let mut plane = Plane::new(&mesh(20), Options::default());
    let before = plane.compiler.add(&plane.world, &sidecar(Interception::Redirect)).1;
    let slice = service("s7").split("---\n").nth(2).unwrap().replace("10.2.0.2", "10.2.0.3");
    let (work, snapshots) = plane.apply(&slice);
    assert_eq!(work.units, 1, "{work:?}");
    for resource_type in ResourceType::ALL {
        let changed = snapshots[0].changes(&before, resource_type).changed.len();
        let wanted = if resource_type == ResourceType::Endpoints { 2 } else { 0 };
        assert_eq!(changed, wanted, "{resource_type}");
    }
}

#[test]
fn what_is_compiled_incrementally_equals_what_is_compiled_from_scratch() {
    let steps = [
        mesh(4),
        routes("s1", 10, 90),
        service("other") + &routes("other", 1, 1),
        service("s2").replace("name: v2", "name: v3"),
        routes("s2", 0, 5).replace("hosts: [s2]", "hosts: [s2, elsewhere.test]"),
        service("s3").replace("port: 80,", "port: 8000,"),
    ];
    let mut plane = Plane::new("", Options::default());
    for audience in audiences() {
        plane.compiler.add(&plane.world, &audience);
    }
    for (at, step) in steps.iter().enumerate() {
        plane.apply(step);
        let mut fresh = Compiler::new(Options::default());
        for audience in audiences() {
            let incremental = plane.compiler.add(&plane.world, &audience).1;
            let scratch = fresh.add(&plane.world, &audience).1;
            assert_eq!(incremental.dangling(), [], "step {at}, {audience:?}");
            for resource_type in ResourceType::ALL {
                let content = |snapshot: &Snapshot| -> Vec<_> {
                    snapshot.iter(resource_type).map(|cell| (cell.name().clone(), cell.value())).collect()
                };
                assert!(content(&incremental) == content(&scratch), "step {at}, {resource_type}, {audience:?}");
                assert_eq!(incremental.version(resource_type), scratch.version(resource_type));
            }
        }
        let mut problems = plane.compiler.problems();
        problems.sort();
        assert_eq!(problems, fresh.problems(), "step {at}");
    }
}

#[test]
fn removing_everything_leaves_what_is_always_there() {
    let mut plane = Plane::new(&mesh(3), Options::default());
    for audience in audiences() {
        plane.compiler.add(&plane.world, &audience);
    }
    let all: Vec<_> = plane.world.objects().map(|object| Change::Remove(object.reference.clone())).collect();
    plane.change(all);
    let empty = World::new(Settings::default());
    for audience in audiences() {
        let left = plane.compiler.add(&plane.world, &audience).1;
        let nothing = Compiler::new(Options::default()).add(&empty, &audience).1;
        for resource_type in ResourceType::ALL {
            assert_eq!(left.version(resource_type), nothing.version(resource_type), "{resource_type} {audience:?}");
        }
    }
}

#[test]
fn a_subset_that_nobody_defines_is_answered_and_its_rule_is_printed_ready_to_paste() {
    let lonely = service("my-app").split("---\napiVersion: networking").next().unwrap().to_owned();
    let plane_of = |options| {
        let mut plane = Plane::new(&(lonely.clone() + &routes("my-app", 80, 20)), options);
        let snapshot = plane.compiler.add(&plane.world, &sidecar(Interception::Redirect)).1;
        (plane, snapshot)
    };
    let (mut plane, snapshot) = plane_of(Options::default());
    assert_eq!(snapshot.dangling(), []);
    let problems = plane.compiler.problems();
    let problem = problems.iter().find(|p| p.field.contains("subset")).expect("a problem about the subset");
    let manifest = problem.hint.find("apiVersion").map(|at| problem.hint[at..].to_owned()).expect("a manifest");
    plane.apply(&manifest);
    assert_eq!(plane.compiler.problems(), [], "the manifest mends it");
    let mended = plane.compiler.add(&plane.world, &sidecar(Interception::Redirect)).1;
    let route = mended.get(ResourceType::Route, "80").unwrap().value();
    let text = format!("{:?}", RouteConfiguration::decode(&*route).unwrap());
    assert!(text.contains("outbound|80|v1|my-app.default.svc.cluster.local"), "{text}");
}

#[test]
fn subsets_can_be_inferred_from_a_label_of_the_pods() {
    let pods = "---
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: my-app, version: v1}}
status: {podIP: 10.2.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: b, labels: {app: my-app, version: v2}}
status: {podIP: 10.2.0.2}
";
    let lonely = service("my-app").split("---\napiVersion: networking").next().unwrap().to_owned();
    let options = Options { infer_subsets: Some("version".into()), ..Options::default() };
    let mut plane = Plane::new(&(lonely + &routes("my-app", 80, 20) + pods), options);
    let snapshot = plane.compiler.add(&plane.world, &sidecar(Interception::Redirect)).1;
    assert_eq!(plane.compiler.problems(), []);
    assert_eq!(snapshot.dangling(), []);
    let name = "outbound|80|v2|my-app.default.svc.cluster.local";
    assert!(snapshot.get(ResourceType::Cluster, name).is_some());
    assert!(snapshot.get(ResourceType::Endpoints, name).is_some());
}

#[test]
fn routes_to_what_does_not_exist_leave_nothing_dangling() {
    let mut plane = Plane::new(&service("s1"), Options::default());
    plane.apply(&routes("s1", 80, 20).replace("subset: v2", "subset: v9"));
    plane.apply(&routes("nobody", 1, 1).replace("hosts: [nobody]", "hosts: [s2]"));
    plane.apply(&service("s2"));
    for audience in audiences() {
        let snapshot = plane.compiler.add(&plane.world, &audience).1;
        assert_eq!(snapshot.dangling(), [], "{audience:?}");
    }
    let said: Vec<_> = plane.compiler.problems().iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|problem| problem.contains("no DestinationRule defines subset \"v9\"")), "{said:?}");
    assert!(said.iter().any(|problem| problem.contains("no service \"nobody.default.svc.cluster.local\"")), "{said:?}");
}

/// Each cell's origins under a name, as `object@generation`.
fn origins(snapshot: &Snapshot, resource_type: ResourceType, name: &str) -> BTreeSet<String> {
    let cell = snapshot.get(resource_type, name).unwrap();
    cell.origins().map(|origin| format!("{}@{}", origin.object, origin.generation)).collect()
}

#[test]
fn resources_say_which_generation_of_an_object_they_came_from_and_versions_do_not_depend_on_it() {
    let tcp = "outbound|5432||s1.default.svc.cluster.local";
    let mut plane = Plane::new(&mesh(3), Options::default());
    let first = plane.compiler.add(&plane.world, &sidecar(Interception::Redirect)).1;
    assert!(origins(&first, ResourceType::Route, "80").contains("virtualservice/default/s1@1"));

    let (_, snapshots) = plane.apply(&routes("s1", 10, 90));
    let of_80 = origins(&snapshots[0], ResourceType::Route, "80");
    assert!(of_80.contains("virtualservice/default/s1@2"), "{of_80:?}");
    assert!(of_80.contains("virtualservice/default/s0@1"), "{of_80:?}");

    // The same content in another generation of its source: every version stays, the origins follow.
    let before = snapshots[0].clone();
    let stated = |yaml: String| yaml.replace("metadata: {name: s1}", "metadata: {name: s1, generation: 7}");
    let (_, snapshots) = plane.apply(&stated(service("s1") + &routes("s1", 10, 90)));
    let now = &snapshots[0];
    for resource_type in ResourceType::ALL {
        assert_eq!(now.version(resource_type), before.version(resource_type), "{resource_type}");
    }
    assert!(origins(now, ResourceType::Route, "80").contains("virtualservice/default/s1@7"));
    assert!(origins(now, ResourceType::Cluster, tcp).contains("service/default/s1@7"));
    // A listener that several services could share is put together from what each of them wants.
    let listener = now.iter(ResourceType::Listener).find(|cell| cell.name().ends_with("_5432")).unwrap();
    let of_listener = origins(now, ResourceType::Listener, listener.name());
    assert!(of_listener.iter().any(|origin| origin.ends_with("@7")), "{of_listener:?}");
}
