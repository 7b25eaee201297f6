//! The contract that incremental compilation rests on: an answer can only change if a key that was read for it is
//! touched.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::support::object;
use proptest::prelude::*;
use world::{Change, Hostname, Key, Kind, Labels, Object, ObjectRef, PolicyKind, Reader, Scope, Settings, World};

const HOSTS: [&str; 6] =
    ["a.n.svc.cluster.local", "b.n.svc.cluster.local", "a.m.svc.cluster.local", "x.com", "*.com", "*"];

/// Small enough that objects meet: two namespaces, two names, two addresses, two labels.
fn objects() -> impl Strategy<Value = Object> {
    let namespace = prop_oneof![Just("n"), Just("m")];
    let name = prop_oneof![Just("a"), Just("b")];
    let labels = prop_oneof![Just(""), Just("app=a"), Just("app=b"), Just("app=a,version=v1")];
    (0..19usize, namespace, name, labels, 0..3u8, any::<bool>()).prop_map(|(shape, namespace, name, labels, n, flag)| {
        let at = format!("{namespace}/{name}");
        let selector = ["{}", r#"{"app": "a"}"#, r#"{"app": "a", "version": "v1"}"#][usize::from(n)];
        let host = HOSTS[usize::from(n) + 3];
        let export = if flag { r#", "exportTo": ["."]"# } else { "" };
        match shape {
            0 => object(
                &format!("Service {at}"),
                &format!(
                    r#"{{"selector": {selector}, "publishNotReadyAddresses": {flag},
                        "ports": [{{"name": "http", "port": 80, "targetPort": "web"}}]}}"#
                ),
            ),
            1 => object(&format!("Service {at}"), r#"{"type": "ExternalName", "externalName": "x.com", "ports": [{"port": 80}]}"#),
            2 | 3 => {
                let target = if flag { r#", "targetRef": {"kind": "Pod", "name": "b"}"# } else { "" };
                object(
                    &format!("EndpointSlice {at} kubernetes.io/service-name={}", if n == 0 { "b" } else { "a" }),
                    &format!(
                        r#"{{"addressType": "IPv4", "ports": [{{"name": "http", "port": {}}}],
                            "endpoints": [{{"addresses": ["10.0.0.{n}"]{target}}}]}}"#,
                        80 + u16::from(n)
                    ),
                )
            }
            4..=6 => {
                let address = if n == 2 { String::new() } else { format!(r#""podIP": "10.0.0.{n}","#) };
                object(
                    &format!("Pod {at} {labels}"),
                    &format!(
                        r#"{{"spec": {{"containers": [{{"name": "c", "ports": [{{"name": "web", "containerPort": 8080}}]}}]}},
                            "status": {{{address} "phase": "{}"}}}}"#,
                        if flag { "Running" } else { "Succeeded" }
                    ),
                )
            }
            7 => object(
                &format!("ServiceEntry {at}"),
                &format!(
                    r#"{{"hosts": ["{host}", "a.n.svc.cluster.local"], "resolution": "STATIC"{export},
                        "ports": [{{"number": 80, "name": "http"}}], "workloadSelector": {{"labels": {selector}}}}}"#
                ),
            ),
            8 => object(
                &format!("ServiceEntry {at}"),
                &format!(
                    r#"{{"hosts": ["x.com"], "resolution": "STATIC"{export}, "ports": [{{"number": 80, "name": "http"}}],
                        "addresses": ["10.1.0.{}"], "endpoints": [{{"address": "10.0.0.{n}"}}]}}"#,
                    if flag { "nowhere" } else { "1" }
                ),
            ),
            9 => object(
                &format!("WorkloadEntry {at} {labels}"),
                &format!(r#"{{"address": "10.0.0.{n}", "labels": {selector}}}"#),
            ),
            10 | 11 => {
                let gateways = ["[]", r#"["a"]"#, r#"["mesh", "n/b"]"#][usize::from(n)];
                let short = if flag { "a" } else { host };
                object(
                    &format!("VirtualService {at}"),
                    &format!(
                        r#"{{"hosts": ["{short}"], "gateways": {gateways}{export},
                            "http": [{{"match": [{{"sourceLabels": {selector}}}]}}]}}"#
                    ),
                )
            }
            12 => object(
                &format!("DestinationRule {at}"),
                &format!(r#"{{"host": "{host}", "subsets": [{{"name": "v{n}"}}, {{"name": "v1"}}]{export}}}"#),
            ),
            14 => object(
                &format!("RolloutRun {at}"),
                &format!(
                    r#"{{"service": {{"name": "a", "namespace": "n", "ports": [{}]}}, "assignment": {{"version": {n},
                        "split": {{"Weights": []}}, "routes": [], "mirror": null, "stickiness": {{}}, "fallback": null}}}}"#,
                    if flag { "80" } else { "" }
                ),
            ),
            15 => object(&format!("DeploymentIntent {at}"), r#"{"service": {"name": "a"}}"#),
            13 => object(
                &format!("XdsResource {at}"),
                &format!(r#"{{"selector": {{"matchLabels": {selector}}}, "resources": [{{"@type": "t", "name": "n{n}"}}]}}"#),
            ),
            16 => object(&format!("PeerAuthentication {at}"), &format!(r#"{{"selector": {{"matchLabels": {selector}}}}}"#)),
            17 => {
                let target = if flag { r#"{"kind": "Gateway", "name": "a"}"# } else { "" };
                object(
                    &format!("AuthorizationPolicy {at}"),
                    &format!(r#"{{"selector": {{"matchLabels": {selector}}}, "targetRefs": [{target}]}}"#),
                )
            }
            _ => object(&format!("Gateway {at}"), &format!(r#"{{"selector": {selector}}}"#)),
        }
    })
}

/// A world whose root namespace is one of those that objects are in.
fn empty_world() -> World {
    World::new(Settings { root_namespace: "m".into(), ..Settings::default() })
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = (objects(), 0..4u8).prop_map(|(object, dice)| match dice {
        0 => Change::Remove(object.reference),
        _ => Change::Apply(Arc::new(object)),
    });
    prop::collection::vec(change, 1..25)
}

/// Every question that can be asked, with its answer and what was read for it.
fn answers(world: &World) -> BTreeMap<String, (String, BTreeSet<Key>)> {
    let mut all = BTreeMap::new();
    let mut ask = |question: String, answer: &dyn Fn(&Reader<'_>) -> String| {
        let reader = Reader::new(world);
        let answer = answer(&reader);
        all.insert(question, (answer, reader.into_reads()));
    };
    let own: Labels = [("app".to_owned(), "a".to_owned()), ("version".to_owned(), "v1".to_owned())].into();
    for namespace in ["n", "m"] {
        let namespace: Arc<str> = namespace.into();
        let scope = Scope { namespace: namespace.clone() };
        for name in HOSTS {
            let host = Hostname::new(name);
            ask(format!("service {namespace} {name}"), &|r| format!("{:?}", r.service(&host, &scope)));
            ask(format!("endpoints {namespace} {name}"), &|r| {
                r.service(&host, &scope).map(|s| format!("{:?}", r.endpoints(s, 80))).unwrap_or_default()
            });
            ask(format!("routes {namespace} {name}"), &|r| format!("{:?}", r.mesh_routes(&host, &scope)));
            ask(format!("split {namespace} {name}"), &|r| format!("{:?}", r.split(&host, 80)));
            ask(format!("rule {namespace} {name}"), &|r| format!("{:?}", r.rule(&host, "n", &scope, &own)));
        }
        for name in ["a", "b"] {
            let gateway = ObjectRef::new(Kind::Gateway, &namespace, name);
            ask(format!("gateway routes {namespace} {name}"), &|r| format!("{:?}", r.gateway_routes(&gateway)));
            ask(format!("virtual service {namespace} {name}"), &|r| {
                format!("{:?}", r.virtual_service(&namespace, name))
            });
            for address in ["10.0.0.0", "10.0.0.1"] {
                let addresses: [IpAddr; 1] = [address.parse().unwrap()];
                ask(format!("labels {namespace} {name} {address}"), &|r| {
                    format!("{:?}", r.workload_labels(&namespace, name, &addresses))
                });
                ask(format!("served {namespace} {address}"), &|r| {
                    format!("{:?}", r.served_by(&namespace, &own, &addresses))
                });
            }
        }
        for kind in [PolicyKind::PeerAuthentication, PolicyKind::AuthorizationPolicy] {
            ask(format!("{kind:?} {namespace}"), &|r| format!("{:?}", r.policies(kind, &namespace, &own)));
            ask(format!("{kind:?} around {namespace}"), &|r| {
                format!("{:?}", r.policies_nearby(kind, &namespace, &own))
            });
        }
        ask(format!("raw {namespace}"), &|r| format!("{:?}", r.xds_resources(&scope, &own)));
        ask(format!("gateways {namespace}"), &|r| format!("{:?}", r.gateways(&own)));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_changes_without_a_touched_key(changes in changes()) {
        let mut world = empty_world();
        let mut before = answers(&world);
        for change in changes {
            let said = format!("{change:?}");
            let touched = world.apply(change);
            let after = answers(&world);
            for (question, (answer, reads)) in &before {
                if after[question].0 != *answer {
                    prop_assert!(
                        !reads.is_disjoint(&touched),
                        "{question}: was {answer}, is {}; read {reads:?}; {said} touched {touched:?}", after[question].0
                    );
                }
            }
            before = after;
        }
    }

    #[test]
    fn the_way_to_a_state_does_not_matter(changes in changes()) {
        let mut world = empty_world();
        for change in &changes {
            world.apply(change.clone());
        }
        let mut fresh = empty_world();
        let mut last: Vec<_> = world.objects().cloned().collect();
        last.sort_by(|a, b| b.reference.cmp(&a.reference));
        for object in last {
            fresh.apply(Change::Apply(object));
        }
        let (walked, direct) = (answers(&world), answers(&fresh));
        for (question, (answer, reads)) in &walked {
            prop_assert_eq!((answer, reads), (&direct[question].0, &direct[question].1), "{}", question);
        }
        prop_assert_eq!(world.problems(), fresh.problems());
    }

    #[test]
    fn a_world_that_is_emptied_is_empty(changes in changes()) {
        let mut world = empty_world();
        for change in &changes {
            world.apply(change.clone());
        }
        let all: Vec<_> = world.objects().map(|o| o.reference.clone()).collect();
        for reference in all {
            world.apply(Change::Remove(reference));
        }
        let empty = empty_world();
        let answers_of = |world: &World| answers(world).into_iter().map(|(q, (a, _))| (q, a)).collect::<BTreeMap<_, _>>();
        prop_assert_eq!(answers_of(&world), answers_of(&empty));
        prop_assert_eq!(world.hosts().count() + world.route_hosts().count() + world.client_label_keys().count(), 0);
    }
}
