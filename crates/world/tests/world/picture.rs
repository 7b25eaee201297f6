//! What a world answers, object by object.
#![allow(clippy::unwrap_used)]

use crate::support::{apply, object, remove};
use world::{Address, Endpoint, Hostname, Key, Kind, Labels, Object, ObjectRef, Reader, Scope, World};

fn world_of(objects: &[Object]) -> World {
    let mut world = World::default();
    for object in objects {
        apply(&mut world, object.clone());
    }
    world
}

fn scope(namespace: &str) -> Scope {
    Scope { namespace: namespace.into() }
}

fn host(text: &str) -> Hostname {
    Hostname::new(text)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn endpoints(world: &World, name: &str, port: u16) -> Vec<Endpoint> {
    let reader = Reader::new(world);
    let service = reader.service(&host(name), &scope("shop")).unwrap();
    reader.endpoints(service, port)
}

/// `10.0.0.1:9080 v1`: address, port, and the label `version`.
fn short(endpoints: &[Endpoint]) -> Vec<String> {
    let address = |a: &Address| match a {
        Address::Ip(ip) => ip.to_string(),
        Address::Name(name) => name.to_string(),
        Address::Unix(path) => path.to_string(),
    };
    let version = |e: &Endpoint| e.labels.get("version").cloned().unwrap_or_default();
    endpoints.iter().map(|e| format!("{}:{} {}", address(&e.address), e.port, version(e)).trim().to_owned()).collect()
}

fn reviews() -> Object {
    object(
        "Service shop/reviews",
        r#"{"selector": {"app": "reviews"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "web"}, {"name": "tcp", "port": 90, "targetPort": 9090}]}"#,
    )
}

fn pod(name: &str, version: &str, address: &str, ready: &str) -> Object {
    object(
        &format!("Pod shop/{name} app=reviews,version={version}"),
        &format!(
            r#"{{"spec": {{"serviceAccountName": "sa-{name}", "containers": [{{"name": "c",
                 "ports": [{{"name": "web", "containerPort": 9080}}]}}]}},
                "status": {{"podIP": "{address}", "conditions": [{{"type": "Ready", "status": "{ready}"}}]}}}}"#
        ),
    )
}

fn slice(name: &str, service: &str, endpoints: &str) -> Object {
    object(
        &format!("EndpointSlice shop/{name} kubernetes.io/service-name={service}"),
        &format!(
            r#"{{"addressType": "IPv4", "ports": [{{"name": "http", "port": 9080}}, {{"name": "tcp", "port": 9090}}],
                "endpoints": [{endpoints}]}}"#
        ),
    )
}

#[test]
fn endpoints_of_slices_carry_the_labels_of_their_pods() {
    let world = world_of(&[
        reviews(),
        pod("a", "v1", "10.0.0.1", "True"),
        pod("b", "v2", "10.0.0.2", "True"),
        slice(
            "one",
            "reviews",
            r#"{"addresses": ["10.0.0.2"], "zone": "z"}, {"addresses": ["10.0.0.9"],
                "targetRef": {"kind": "Pod", "name": "a"}}"#,
        ),
        slice("two", "reviews", r#"{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}"#),
        slice("other", "ratings", r#"{"addresses": ["10.0.0.3"]}"#),
    ]);
    let found = endpoints(&world, "reviews.shop.svc.cluster.local", 80);
    assert_eq!(short(&found), ["10.0.0.1:9080 v1", "10.0.0.2:9080 v2", "10.0.0.9:9080 v1"]);
    assert_eq!(found[1].locality.zone.as_ref(), "z");
    assert_eq!(found[0].service_account.as_deref(), Some("sa-a"));
    assert_eq!(found[0].workload, Some(("shop".into(), "a".into())));
    assert_eq!(
        short(&endpoints(&world, "reviews.shop.svc.cluster.local", 90)),
        ["10.0.0.1:9090 v1", "10.0.0.2:9090 v2", "10.0.0.9:9090 v1"]
    );
    assert_eq!(short(&endpoints(&world, "reviews.shop.svc.cluster.local", 81)), [""; 0]);
}

#[test]
fn endpoints_that_are_not_ready_are_left_out_unless_the_service_publishes_them() {
    let conditions = |c: &str, last: u8| format!(r#"{{"addresses": ["10.0.0.{last}"], "conditions": {{{c}}}}}"#);
    let all = [
        conditions("", 1),
        conditions(r#""ready": true"#, 2),
        conditions(r#""ready": false"#, 3),
        conditions(r#""ready": true, "terminating": true"#, 4),
    ]
    .join(",");
    let mut world = world_of(&[reviews(), slice("one", "reviews", &all)]);
    let name = "reviews.shop.svc.cluster.local";
    assert_eq!(short(&endpoints(&world, name, 80)), ["10.0.0.1:9080", "10.0.0.2:9080"]);
    let publishing = object(
        "Service shop/reviews",
        r#"{"publishNotReadyAddresses": true, "ports": [{"name": "http", "port": 80}]}"#,
    );
    apply(&mut world, publishing);
    assert_eq!(short(&endpoints(&world, name, 80)), ["10.0.0.1:9080", "10.0.0.2:9080", "10.0.0.3:9080"]);
}

#[test]
fn without_slices_the_selector_finds_the_pods() {
    let mut world = world_of(&[
        reviews(),
        pod("a", "v1", "10.0.0.1", "True"),
        pod("b", "v2", "10.0.0.2", "False"),
        object("Pod shop/c app=other", r#"{"status": {"podIP": "10.0.0.3"}}"#),
        object("Pod else/d app=reviews", r#"{"status": {"podIP": "10.0.0.4"}}"#),
    ]);
    let name = "reviews.shop.svc.cluster.local";
    assert_eq!(short(&endpoints(&world, name, 80)), ["10.0.0.1:9080 v1"], "a named target port");
    assert_eq!(short(&endpoints(&world, name, 90)), ["10.0.0.1:9090 v1"], "a target port by number");
    apply(&mut world, slice("one", "reviews", ""));
    assert_eq!(short(&endpoints(&world, name, 80)), [""; 0], "a slice, even an empty one, is the truth");
    remove(&mut world, Kind::EndpointSlice, "shop", "one");
    assert_eq!(short(&endpoints(&world, name, 80)), ["10.0.0.1:9080 v1"]);
}

#[test]
fn a_pod_on_a_shared_address_counts_in_its_own_namespace() {
    // Pods on the host's network have the node's address.
    let world = world_of(&[
        reviews(),
        object("Pod also/agent app=agent", r#"{"status": {"podIP": "10.0.0.1"}}"#),
        pod("a", "v1", "10.0.0.1", "True"),
        slice("one", "reviews", r#"{"addresses": ["10.0.0.1"]}"#),
    ]);
    assert_eq!(short(&endpoints(&world, "reviews.shop.svc.cluster.local", 80)), ["10.0.0.1:9080 v1"]);
    let reader = Reader::new(&world);
    let found = reader.workload_labels(&"shop".into(), "unknown", &["10.0.0.1".parse().unwrap()]);
    assert_eq!(found, Some(labels(&[("app", "reviews"), ("version", "v1")])));
}

#[test]
fn a_finished_pod_gives_its_address_up() {
    let world = world_of(&[
        reviews(),
        object("Pod shop/a-job app=job,version=old", r#"{"status": {"podIP": "10.0.0.1", "phase": "Succeeded"}}"#),
        pod("b", "v1", "10.0.0.1", "True"),
        slice("one", "reviews", r#"{"addresses": ["10.0.0.1"]}"#),
    ]);
    assert_eq!(short(&endpoints(&world, "reviews.shop.svc.cluster.local", 80)), ["10.0.0.1:9080 v1"]);
}

#[test]
fn a_service_entry_takes_endpoints_from_itself_or_from_the_workloads_it_selects() {
    let world = world_of(&[
        object(
            "ServiceEntry shop/inline",
            r#"{"hosts": ["inline.com"], "resolution": "STATIC", "ports": [{"number": 80, "name": "http", "targetPort": 81}],
                "endpoints": [{"address": "10.1.0.2", "ports": {"http": 8080}, "weight": 3, "locality": "r/z/s"},
                              {"address": "10.1.0.1"}, {"address": "unix:///run/x"}]}"#,
        ),
        object(
            "ServiceEntry shop/selecting",
            r#"{"hosts": ["selecting.com"], "resolution": "STATIC", "ports": [{"number": 80, "name": "http"}],
                "workloadSelector": {"labels": {"app": "vm"}}}"#,
        ),
        object("WorkloadEntry shop/vm1", r#"{"address": "10.2.0.1", "labels": {"app": "vm", "version": "v1"}}"#),
        object("WorkloadEntry shop/vm2 app=vm,version=v2", r#"{"address": "10.2.0.2", "ports": {"http": 8080}}"#),
        object("WorkloadEntry else/vm3 app=vm", r#"{"address": "10.2.0.3"}"#),
        object("Pod shop/p app=vm,version=v3", r#"{"status": {"podIP": "10.2.0.4"}}"#),
        object(
            "ServiceEntry shop/resolved",
            r#"{"hosts": ["resolved.com"], "resolution": "DNS", "ports": [{"number": 443, "name": "tls"}]}"#,
        ),
    ]);
    let found = endpoints(&world, "inline.com", 80);
    assert_eq!(short(&found), ["10.1.0.1:81", "10.1.0.2:8080", "/run/x:0"]);
    assert_eq!((found[1].weight, &*found[1].locality.sub_zone), (3, "s"));
    assert_eq!(
        short(&endpoints(&world, "selecting.com", 80)),
        ["10.2.0.1:80 v1", "10.2.0.2:8080 v2", "10.2.0.4:80 v3"]
    );
    assert_eq!(short(&endpoints(&world, "resolved.com", 443)), ["resolved.com:443"]);
}

#[test]
fn of_several_services_on_one_host_the_clients_own_then_kubernetes_then_the_oldest_counts() {
    let entry = |at: &str, created: &str| {
        let mut object =
            object(at, r#"{"hosts": ["a.shop.svc.cluster.local"], "ports": [{"number": 80, "name": "http"}]}"#);
        object.meta.created = created.into();
        object
    };
    let mut world = world_of(&[
        entry("ServiceEntry other/young", "2026-02-01T00:00:00Z"),
        entry("ServiceEntry other/old", "2026-01-01T00:00:00Z"),
    ]);
    let found = |world: &World, from: &str| {
        let reader = Reader::new(world);
        reader.service(&host("a.shop.svc.cluster.local"), &scope(from)).map(|s| s.origin.to_string())
    };
    assert_eq!(found(&world, "client").unwrap(), "ServiceEntry other/old");
    apply(&mut world, object("Service shop/a", r#"{"ports": [{"port": 80}]}"#));
    assert_eq!(found(&world, "client").unwrap(), "Service shop/a");
    assert_eq!(found(&world, "other").unwrap(), "ServiceEntry other/old");
    remove(&mut world, Kind::Service, "shop", "a");
    remove(&mut world, Kind::ServiceEntry, "other", "old");
    assert_eq!(found(&world, "client").unwrap(), "ServiceEntry other/young");
}

#[test]
fn a_service_is_seen_where_it_is_exported_to() {
    let exported = |at: &str, to: &str| {
        let name = at.split('/').next_back().unwrap();
        object(
            at,
            &format!(r#"{{"hosts": ["{name}.com"], "exportTo": {to}, "ports": [{{"number": 80, "name": "http"}}]}}"#),
        )
    };
    let mut annotated = object("Service shop/k", r#"{"ports": [{"port": 80}]}"#);
    annotated.meta.annotations.insert("networking.istio.io/exportTo".into(), "., friends".into());
    let world = world_of(&[
        exported("ServiceEntry shop/own", r#"["."]"#),
        exported("ServiceEntry shop/all", r#"["*"]"#),
        exported("ServiceEntry shop/none", r#"["~"]"#),
        exported("ServiceEntry shop/some", r#"["friends", "."]"#),
        annotated,
    ]);
    let seen = |from: &str| {
        let reader = Reader::new(&world);
        let names = ["own.com", "all.com", "none.com", "some.com", "k.shop.svc.cluster.local"];
        names.into_iter().filter(|n| reader.service(&host(n), &scope(from)).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(seen("shop"), ["own.com", "all.com", "some.com", "k.shop.svc.cluster.local"]);
    assert_eq!(seen("friends"), ["all.com", "some.com", "k.shop.svc.cluster.local"]);
    assert_eq!(seen("strangers"), ["all.com"]);
}

fn routes(at: &str, hosts: &str, more: &str) -> Object {
    object(at, &format!(r#"{{"hosts": {hosts}, "http": [{{"route": [{{"destination": {{"host": "x"}}}}]}}] {more}}}"#))
}

#[test]
fn the_virtual_service_with_the_most_specific_host_governs() {
    let mut world = world_of(&[
        routes("VirtualService shop/any", r#"["*"]"#, ""),
        routes("VirtualService shop/com", r#"["*.com"]"#, ""),
        routes("VirtualService shop/b", r#"["*.b.com"]"#, ""),
        routes("VirtualService shop/short", r#"["reviews"]"#, ""),
        routes("VirtualService shop/gate", r#"["c.b.com"]"#, r#", "gateways": ["front"]"#),
    ]);
    let found = |world: &World, name: &str| {
        let reader = Reader::new(world);
        reader.mesh_routes(&host(name), &scope("shop")).map(|o| o.reference.name.to_string()).unwrap()
    };
    assert_eq!(found(&world, "c.b.com"), "b", "one that is bound to a gateway only does not count in the mesh");
    assert_eq!(found(&world, "b.com"), "com");
    assert_eq!(found(&world, "a.org"), "any");
    assert_eq!(found(&world, "*.b.com"), "b");
    assert_eq!(found(&world, "reviews.shop.svc.cluster.local"), "short");
    apply(&mut world, routes("VirtualService shop/gate", r#"["c.b.com"]"#, r#", "gateways": ["front", "mesh"]"#));
    assert_eq!(found(&world, "c.b.com"), "gate");
}

#[test]
fn of_virtual_services_with_one_host_the_oldest_that_is_exported_governs() {
    let mut old = routes("VirtualService shop/z", r#"["a.com"]"#, r#", "exportTo": ["."]"#);
    old.meta.created = "2026-01-01T00:00:00Z".into();
    let mut young = routes("VirtualService shop/a", r#"["a.com"]"#, "");
    young.meta.created = "2026-02-01T00:00:00Z".into();
    let world = world_of(&[young, old]);
    let found = |from: &str| {
        Reader::new(&world).mesh_routes(&host("a.com"), &scope(from)).map(|o| o.reference.name.to_string()).unwrap()
    };
    assert_eq!(found("shop"), "z");
    assert_eq!(found("client"), "a");
}

#[test]
fn gateways_find_their_virtual_services_by_name_in_either_form() {
    let world = world_of(&[
        routes("VirtualService shop/near", r#"["a.com"]"#, r#", "gateways": ["front"]"#),
        routes("VirtualService far/far", r#"["b.com"]"#, r#", "gateways": ["shop/front", "mesh"]"#),
        routes("VirtualService far/wrong", r#"["c.com"]"#, r#", "gateways": ["front"]"#),
    ]);
    let reader = Reader::new(&world);
    let bound = reader.gateway_routes(&ObjectRef::new(Kind::Gateway, "shop", "front"));
    let names: Vec<_> = bound.iter().map(|o| o.reference.to_string()).collect();
    assert_eq!(names, ["VirtualService far/far", "VirtualService shop/near"]);
}

#[test]
fn rules_are_looked_up_in_the_clients_the_services_and_the_root_namespace() {
    let rule = |at: &str, host: &str, subset: &str| {
        object(at, &format!(r#"{{"host": "{host}", "subsets": [{{"name": "{subset}"}}]}}"#))
    };
    let name = "reviews.shop.svc.cluster.local";
    let mut world = world_of(&[
        rule("DestinationRule client/c", "*.svc.cluster.local", "client"),
        rule("DestinationRule shop/s", "reviews", "service"),
        rule("DestinationRule istio-system/r", "*.cluster.local", "root"),
        rule("DestinationRule strangers/x", name, "strangers"),
    ]);
    let subsets = |world: &World, from: &str| {
        let rule = Reader::new(world).rule(&host(name), "shop", &scope(from), &Labels::new());
        rule.subsets.iter().map(|s| s.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(subsets(&world, "client"), ["client"]);
    assert_eq!(subsets(&world, "nobody"), ["service"]);
    remove(&mut world, Kind::DestinationRule, "shop", "s");
    assert_eq!(subsets(&world, "nobody"), ["root"]);
    remove(&mut world, Kind::DestinationRule, "istio-system", "r");
    assert_eq!(subsets(&world, "nobody"), [""; 0]);
}

#[test]
fn rules_for_one_host_are_merged_oldest_first_and_selectors_pick_clients() {
    let rule = |at: &str, created: &str, spec: &str| {
        let mut object = object(at, spec);
        object.meta.created = created.into();
        object
    };
    let world = world_of(&[
        rule(
            "DestinationRule shop/a",
            "2026-02-01T00:00:00Z",
            r#"{"host": "x.com", "subsets": [{"name": "v1", "labels": {"late": "yes"}}, {"name": "v2"}],
                "trafficPolicy": {"tls": {"mode": "SIMPLE"}}}"#,
        ),
        rule("DestinationRule shop/z", "2026-01-01T00:00:00Z", r#"{"host": "x.com", "subsets": [{"name": "v1"}]}"#),
        rule(
            "DestinationRule shop/special",
            "2025-01-01T00:00:00Z",
            r#"{"host": "x.com", "workloadSelector": {"matchLabels": {"app": "client"}}, "subsets": [{"name": "s"}]}"#,
        ),
    ]);
    let merged = |from: &str, client: &Labels| Reader::new(&world).rule(&host("x.com"), "shop", &scope(from), client);
    let names = |rule: &world::EffectiveRule| rule.subsets.iter().map(|s| s.name.to_string()).collect::<Vec<_>>();
    let plain = merged("shop", &Labels::new());
    assert_eq!(names(&plain), ["v1", "v2"]);
    assert!(plain.subset("v1").unwrap().labels.is_empty(), "the older rule's subset counts");
    assert!(plain.policy.is_some());
    assert_eq!(names(&merged("shop", &labels(&[("app", "client")]))), ["s", "v1", "v2"]);
    assert_eq!(names(&merged("other", &labels(&[("app", "client")]))), ["v1", "v2"], "only in its own namespace");
}

#[test]
fn a_workload_serves_what_selects_it_and_what_names_its_address() {
    let world = world_of(&[
        reviews(),
        pod("a", "v1", "10.0.0.1", "False"),
        object("Service shop/manual", r#"{"ports": [{"name": "http", "port": 70}]}"#),
        object("Service shop/elsewhere", r#"{"ports": [{"name": "http", "port": 71}]}"#),
        object("Service shop/others", r#"{"selector": {"app": "others"}, "ports": [{"port": 72}]}"#),
        object("Service else/reviews", r#"{"selector": {"app": "reviews"}, "ports": [{"port": 73}]}"#),
        slice("m", "manual", r#"{"addresses": ["10.0.0.1"]}"#),
        slice("e", "elsewhere", r#"{"addresses": ["10.0.0.2"]}"#),
        object(
            "ServiceEntry shop/inline",
            r#"{"hosts": ["inline.com"], "resolution": "STATIC", "ports": [{"number": 74, "name": "http"}],
                "endpoints": [{"address": "10.0.0.1", "ports": {"http": 7400}}]}"#,
        ),
    ]);
    let reader = Reader::new(&world);
    let own = labels(&[("app", "reviews"), ("version", "v1")]);
    let served = reader.served_by(&"shop".into(), &own, &["10.0.0.1".parse().unwrap()]);
    let shown: Vec<_> = served.iter().map(|(s, port, target)| format!("{} {port}->{target}", s.name)).collect();
    assert_eq!(shown, ["inline 74->7400", "manual 70->9080", "reviews 80->9080", "reviews 90->9090"]);
    let by_labels = reader.served_by(&"shop".into(), &own, &[]);
    assert_eq!(by_labels.len(), 1, "a named target port needs the pod: {by_labels:?}");
}

#[test]
fn a_workloads_labels_come_from_its_pod_by_name_or_address_or_from_its_entry() {
    let world = world_of(&[
        pod("a", "v1", "10.0.0.1", "True"),
        object("WorkloadEntry shop/vm app=vm", r#"{"address": "10.9.0.1", "labels": {"app": "machine"}}"#),
    ]);
    let found = |name: &str, address: &str| {
        Reader::new(&world).workload_labels(&"shop".into(), name, &[address.parse().unwrap()])
    };
    assert_eq!(found("a", "10.0.0.7").unwrap()["version"], "v1");
    assert_eq!(found("b", "10.0.0.1").unwrap()["version"], "v1");
    assert_eq!(found("vm", "10.0.0.7").unwrap()["app"], "machine");
    assert_eq!(found("nobody", "10.0.0.7"), None);
}

/// The keys that a change touches, in order.
fn touched(world: &mut World, object: Object) -> Vec<Key> {
    apply(world, object).into_iter().collect()
}

#[test]
fn a_change_touches_what_it_concerns_and_nothing_else() {
    let reviews_host = host("reviews.shop.svc.cluster.local");
    let mut world = World::default();
    let workloads = Key::Workloads("shop".into());
    assert_eq!(
        touched(&mut world, reviews()),
        [Key::Service(reviews_host.clone()), Key::Endpoints(reviews_host.clone()), workloads.clone()]
    );
    assert_eq!(touched(&mut world, slice("one", "reviews", "")), [Key::Endpoints(reviews_host.clone())]);
    assert_eq!(
        touched(&mut world, pod("a", "v1", "10.0.0.1", "True")),
        [Key::Endpoints(reviews_host.clone()), workloads.clone()]
    );
    let mut weighted = routes("VirtualService shop/reviews", r#"["reviews"]"#, "");
    let keys = [Key::Routes(reviews_host.clone()), Key::VirtualService("shop".into(), "reviews".into())];
    assert_eq!(touched(&mut world, weighted.clone()), keys);
    if let world::Spec::VirtualService(spec) = &mut weighted.spec {
        spec.http[0].route[0].weight = Some(5);
    }
    assert_eq!(touched(&mut world, weighted.clone()), keys);
    assert_eq!(touched(&mut world, weighted), [], "the same again");
    assert_eq!(
        touched(&mut world, object("DestinationRule shop/r", r#"{"host": "reviews"}"#)),
        [Key::Rules(reviews_host)]
    );
    assert_eq!(touched(&mut world, object("Gateway shop/g", r#"{"servers": []}"#)), [Key::Gateways]);
    assert_eq!(touched(&mut world, object("Namespace /shop", "{}")), []);
}

#[test]
fn an_edit_leaves_alone_which_client_labels_are_asked_about() {
    let with = |weight: u32| {
        object(
            "VirtualService shop/a",
            &format!(
                r#"{{"hosts": ["a.com"], "http": [{{"match": [{{"sourceLabels": {{"app": "x"}}}}],
                    "route": [{{"destination": {{"host": "a"}}, "weight": {weight}}}]}}]}}"#
            ),
        )
    };
    let mut world = World::default();
    assert!(touched(&mut world, with(1)).contains(&Key::ClientLabels));
    assert!(!touched(&mut world, with(2)).contains(&Key::ClientLabels), "they are the same before and after");
    assert!(remove(&mut world, Kind::VirtualService, "shop", "a").contains(&Key::ClientLabels));
}

#[test]
fn an_object_that_only_moved_in_its_file_touches_nothing_and_has_its_new_place() {
    let placed = |line: u32| {
        let mut object = reviews();
        object.meta.location = Some(world::Location { file: "a.yaml".into(), line, column: 1 });
        object
    };
    let mut world = world_of(&[placed(1)]);
    assert_eq!(touched(&mut world, placed(9)), []);
    let reference = ObjectRef::new(Kind::Service, "shop", "reviews");
    assert_eq!(world.object(&reference).unwrap().meta.location.as_ref().unwrap().line, 9);
}

#[test]
fn raw_resources_are_for_their_namespace_and_those_of_the_root_for_all_that_the_selector_takes() {
    let raw = |at: &str, selector: &str| {
        object(&format!("XdsResource {at}"), &format!(r#"{{{selector} "resources": [{{"@type": "t"}}]}}"#))
    };
    let mut world = world_of(&[
        raw("shop/own", ""),
        raw("shop/labelled", r#""selector": {"matchLabels": {"app": "a"}},"#),
        raw("istio-system/everywhere", ""),
        raw("far/far", ""),
    ]);
    let found = |world: &World, from: &str, labels: &[(&str, &str)]| {
        let labels: Labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let reader = Reader::new(world);
        let all = reader.xds_resources(&scope(from), &labels);
        all.iter().map(|o| o.reference.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(&world, "shop", &[]), ["everywhere", "own"]);
    assert_eq!(found(&world, "shop", &[("app", "a")]), ["everywhere", "labelled", "own"]);
    assert_eq!(found(&world, "istio-system", &[]), ["everywhere"]);
    assert!(world.client_label_keys().eq(["app"]));
    remove(&mut world, Kind::XdsResource, "shop", "labelled");
    assert_eq!(world.client_label_keys().count(), 0);
}

#[test]
fn an_object_counts_what_it_says_anew_unless_its_source_does() {
    let reference = ObjectRef::new(Kind::Service, "shop", "reviews");
    let mut world = World::default();
    assert_eq!(world.generation(&reference), 0);
    apply(&mut world, reviews());
    apply(&mut world, reviews());
    assert_eq!(world.generation(&reference), 1, "the same again is no news");
    let mut other = reviews();
    other.meta.annotations.insert("a".to_owned(), "b".to_owned());
    apply(&mut world, other.clone());
    assert_eq!(world.generation(&reference), 2);
    other.meta.generation = 17;
    apply(&mut world, other);
    assert_eq!(world.generation(&reference), 17);
    remove(&mut world, Kind::Service, "shop", "reviews");
    assert_eq!(world.generation(&reference), 0);
    apply(&mut world, reviews());
    assert_eq!(world.generation(&reference), 1);
}

#[test]
fn objects_are_named_by_paths_with_any_name_of_the_kind() {
    for path in ["virtualservice/shop/reviews", "VirtualService/shop/reviews", "virtualservices/shop/reviews"] {
        assert_eq!(path.parse(), Ok(ObjectRef::new(Kind::VirtualService, "shop", "reviews")), "{path}");
    }
    for (path, kind) in [
        ("vs/shop/a", Kind::VirtualService),
        ("dr/shop/a", Kind::DestinationRule),
        ("svc/shop/a", Kind::Service),
        ("serviceentries/shop/a", Kind::ServiceEntry),
        ("xdsresources/shop/a", Kind::XdsResource),
    ] {
        let named = ObjectRef::new(kind, "shop", "a");
        assert_eq!(path.parse(), Ok(named.clone()), "{path}");
        assert_eq!(named.path().parse(), Ok(named));
    }
    assert_eq!("ns/shop".parse(), Ok(ObjectRef::new(Kind::Namespace, "", "shop")));
    let wrong = |path: &str| path.parse::<ObjectRef>().unwrap_err().to_string();
    for path in ["", "/", "reviews", "service/reviews", "service//reviews", "service/a/b/c", "namespace/a/b", "a/b/c/d"]
    {
        assert!(wrong(path).contains("is not KIND/NAMESPACE/NAME"), "{path}: {}", wrong(path));
    }
    assert_eq!(wrong("toaster/a/b"), "\"toaster/a/b\" is of no kind that is known: \"toaster\"");
}

#[test]
fn a_run_divides_the_ports_that_it_names_once_it_has_an_assignment() {
    let host = host("reviews.shop.svc.cluster.local");
    let run = |name: &str, ports: &str, assignment: &str| {
        object(
            &format!("RolloutRun ops/{name}"),
            &format!(r#"{{"service": {{"name": "reviews", "namespace": "shop", "ports": {ports}}}{assignment}}}"#),
        )
    };
    let assigned = r#", "assignment": {"version": 1, "split": {"Weights": [["v2", 5], ["v1", 95]]}, "routes": [],
        "mirror": null, "stickiness": {}, "fallback": null}"#;
    let mut world = World::default();
    let name_of = |world: &World, is_divided: bool, port| {
        let reader = Reader::new(world);
        let name = reader.split(&host, port).map(|object| object.reference.name.to_string());
        let key = if is_divided { Key::Splits } else { Key::Service };
        assert_eq!(reader.into_reads().into_iter().collect::<Vec<_>>(), [key(host.clone())]);
        name
    };
    assert_eq!(touched(&mut world, run("b", "[80]", "")), []);
    assert_eq!(name_of(&world, false, 80), None);
    // Who found no run has read the service alone.
    assert_eq!(
        touched(&mut world, run("b", "[80]", assigned)),
        [Key::Service(host.clone()), Key::Splits(host.clone())]
    );
    assert_eq!(touched(&mut world, run("c", "[]", assigned)), [Key::Splits(host.clone())]);
    let other = assigned.replace("95", "94");
    assert_eq!(touched(&mut world, run("c", "[]", &other)), [Key::Splits(host.clone())]);
    assert_eq!(name_of(&world, true, 80).as_deref(), Some("b"));
    assert_eq!(name_of(&world, true, 90).as_deref(), Some("c"));
    remove(&mut world, Kind::RolloutRun, "ops", "c");
    assert_eq!(name_of(&world, true, 90), None);
    let gone = remove(&mut world, Kind::RolloutRun, "ops", "b");
    assert_eq!(gone.into_iter().collect::<Vec<_>>(), [Key::Service(host.clone()), Key::Splits(host.clone())]);
    assert_eq!(name_of(&world, false, 80), None);
}
