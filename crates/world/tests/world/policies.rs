//! Which policies concern a workload, and which of its questions a change of one touches.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use crate::support::{apply, object, remove};
use world::{Key, Kind, Labels, Meta, Object, PolicyKind, Reader, World};

const KIND: PolicyKind = PolicyKind::AuthorizationPolicy;

fn policy(at: &str, selector: &str) -> Object {
    object(&format!("AuthorizationPolicy {at}"), &format!(r#"{{"selector": {{"matchLabels": {selector}}}}}"#))
}

fn created(object: Object, time: &str) -> Object {
    Object { meta: Meta { created: time.into(), ..object.meta.clone() }, ..object }
}

fn labels() -> Labels {
    [("app".to_owned(), "web".to_owned()), ("version".to_owned(), "v1".to_owned())].into()
}

/// The names of the policies of each level.
fn levels(world: &World, namespace: &str) -> [Vec<String>; 4] {
    let found = Reader::new(world).policies(KIND, &namespace.into(), &labels());
    let names = |all: &[&Arc<Object>]| all.iter().map(|object| object.reference.name.to_string()).collect();
    [names(&found.mesh), names(&found.mesh_selected), names(&found.namespace), names(&found.workload)]
}

#[test]
fn policies_are_found_by_level_and_the_oldest_comes_first() {
    let mut world = World::default();
    for object in [
        policy("istio-system/root", "{}"),
        policy("istio-system/root-web", r#"{"app": "web"}"#),
        created(policy("shop/young", "{}"), "2026-02-01T00:00:00Z"),
        created(policy("shop/z-old", "{}"), "2026-01-01T00:00:00Z"),
        policy("shop/web", r#"{"app": "web"}"#),
        policy("shop/both", r#"{"version": "v1", "app": "web"}"#),
        policy("shop/other", r#"{"app": "web", "version": "v2"}"#),
        policy("bar/elsewhere", "{}"),
        object("AuthorizationPolicy shop/gateway", r#"{"targetRefs": [{"kind": "Gateway", "name": "edge"}]}"#),
        object("PeerAuthentication shop/mtls", "{}"),
    ] {
        apply(&mut world, object);
    }
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (root, root_web) = (names(&["root"]), names(&["root-web"]));
    let shop = [root.clone(), root_web.clone(), names(&["z-old", "young"]), names(&["both", "web"])];
    assert_eq!(levels(&world, "shop"), shop);
    assert_eq!(levels(&world, "istio-system"), [root, root_web, Vec::new(), Vec::new()]);
}

#[test]
fn a_change_of_a_policy_touches_the_workloads_that_it_can_concern_and_no_others() {
    let mut world = World::default();
    let reads_of = |world: &World, kind, namespace: &str, labels: &Labels| {
        let reader = Reader::new(world);
        reader.policies(kind, &namespace.into(), labels);
        reader.into_reads()
    };
    let web = reads_of(&world, KIND, "shop", &labels());
    let other = reads_of(&world, KIND, "shop", &[("app".to_owned(), "other".to_owned())].into());
    let elsewhere = reads_of(&world, KIND, "bar", &labels());
    let other_kind = reads_of(&world, PolicyKind::PeerAuthentication, "shop", &labels());

    let touched = apply(&mut world, policy("shop/web", r#"{"app": "web", "version": "v2"}"#));
    let selecting = Key::SelectingPolicies("shop".into(), "app=web".into());
    assert_eq!(touched, [Key::PoliciesIn(KIND, "shop".into()), selecting].into());
    assert!(!web.is_disjoint(&touched));
    assert!(other.is_disjoint(&touched) && elsewhere.is_disjoint(&touched));

    let touched = apply(&mut world, policy("shop/all", "{}"));
    assert!(!web.is_disjoint(&touched) && !other.is_disjoint(&touched));
    assert!(elsewhere.is_disjoint(&touched) && other_kind.is_disjoint(&touched));

    let touched = apply(&mut world, policy("istio-system/mesh", "{}"));
    assert!([&web, &other, &elsewhere].iter().all(|reads| !reads.is_disjoint(&touched)));

    // A selector that moves concerns those that it left as well.
    let touched = apply(&mut world, policy("shop/web", r#"{"app": "other"}"#));
    assert!(!web.is_disjoint(&touched) && !other.is_disjoint(&touched));
    let touched = remove(&mut world, Kind::AuthorizationPolicy, "shop", "web");
    assert!(web.is_disjoint(&touched) && !other.is_disjoint(&touched));
}

#[test]
fn peer_authentications_without_effect_are_told() {
    let mut world = World::default();
    let peer = |at: &str, spec: &str| object(&format!("PeerAuthentication {at}"), spec);
    let web = r#"{"selector": {"matchLabels": {"app": "web"}}}"#;
    for object in [
        peer("istio-system/default", "{}"),
        peer("istio-system/selecting", web),
        created(peer("shop/young", "{}"), "2026-02-01T00:00:00Z"),
        created(peer("shop/old", "{}"), "2026-01-01T00:00:00Z"),
        peer("shop/web", web),
        peer("shop/web-again", web),
        peer("bar/web", web),
    ] {
        apply(&mut world, object);
    }
    let told: Vec<_> = world.problems().into_iter().map(|problem| problem.to_string().replace('\n', "")).collect();
    assert_eq!(
        told,
        [
            "warning: PeerAuthentication istio-system/selecting: spec.selector: a policy of the root namespace is for the \
             whole mesh, and cannot select workloads; it has no effect    Put it into the namespace of the workloads.",
            "warning: PeerAuthentication shop/web-again: the same workloads have PeerAuthentication shop/web already; it \
             has no effect    Join the two, or select other workloads.",
            "warning: PeerAuthentication shop/young: the same workloads have PeerAuthentication shop/old already; it has \
             no effect    Join the two, or select other workloads.",
        ]
    );
}
