//! Envoy refuses something that Pointsman could not know to be wrong: it is said, and everything else goes on.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::backend::Backend;
use testkit::envoy::Envoy;
use testkit::load::{Load, Plan};
use testkit::stats::{FALSE_ALARM, assert_split};
use testkit::{ports, wait};

use crate::mesh::{Mesh, PATIENCE, Reviews, Variant, answering, marked, pod};

/// Something that Envoy refuses.
struct Case {
    /// Short name of the type that is refused.
    kind: &'static str,
    /// Kind and name of the object that is at fault.
    object: (&'static str, &'static str),
    /// The manifest of the object.
    broken: String,
    /// The same, mended.
    mended: String,
    /// Part of what Envoy says.
    words: &'static str,
    /// More arguments of the server.
    arguments: &'static [&'static str],
}

/// A service of its own on a port that another process has.
fn a_port_that_is_taken(taken: u16) -> Case {
    let service = |port: u16| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: unlucky, namespace: default}}\nspec:\n  \
             selector: {{app: ratings}}\n  ports: [{{name: http, port: {port}, targetPort: web}}]\n"
        )
    };
    Case {
        kind: "lds",
        object: ("Service", "unlucky"),
        broken: service(taken),
        mended: service(ports::local().unwrap().port()),
        words: "cannot bind",
        arguments: &[],
    }
}

/// Certificates are read by Envoy, not by the control plane.
fn a_file_that_is_not_there() -> Case {
    let rule = |policy: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: ratings, namespace: default}}\n\
             spec: {{host: ratings, trafficPolicy: {{{policy}}}}}\n"
        )
    };
    Case {
        kind: "cds",
        object: ("DestinationRule", "ratings"),
        broken: rule("tls: {mode: SIMPLE, caCertificates: /nowhere/ca.pem}"),
        mended: rule("loadBalancer: {simple: RANDOM}"),
        words: "/nowhere/ca.pem",
        arguments: &[],
    }
}

/// The operator promises that Envoys take large expressions, but this one's runtime does not.
fn an_expression_that_is_too_large(variant: Variant) -> Case {
    let routes = |length: u32| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: ratings, namespace: default}}\n\
             spec:\n  hosts: [ratings]\n  http:\n    - match: [{{uri: {{regex: \"/[a-z]{{{length}}}\"}}}}]\n      \
             route: [{{destination: {{host: ratings}}}}]\n    - route: [{{destination: {{host: ratings}}}}]\n"
        )
    };
    Case {
        kind: match variant {
            Variant::StateOfTheWorld => "rds",
            Variant::Delta => "vhds",
        },
        object: ("VirtualService", "ratings"),
        broken: routes(400),
        mended: routes(4),
        words: "max program size",
        arguments: &["--max-regex-instructions", "32768"],
    }
}

async fn a_refusal_harms_nothing_else(variant: Variant, case: Case) {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let ratings = Backend::start("ratings", ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    let address = ports::local().unwrap();
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: ratings, namespace: default}}\nspec:\n  \
         selector: {{app: ratings}}\n  ports: [{{name: http, port: {}, targetPort: web}}]\n{}",
        address.port(),
        pod("ratings", "app: ratings", ratings.address()),
    );
    let files = [("reviews.yaml", &*objects), ("ratings.yaml", &*service), ("routes.yaml", &split(80, "v1"))];
    let mesh = Mesh::start_with(&files, case.arguments).await;
    let client = plain_envoy(&mesh, variant).await;
    answering(reviews.plan()).await;
    answering(Plan::get(address, "ratings", "/")).await;
    mesh.synced(1).await;
    let background = Load::start(Plan::get(address, "ratings", "/").per_second(300.0)).unwrap();
    let load = Load::start(reviews.plan().per_second(600.0).connections(8)).unwrap();
    let begun = Instant::now();

    mesh.write("broken.yaml", &case.broken);
    let refused = object_where(&mesh, &case, "refused", |object| !list(object, "rejected_nodes").is_empty()).await;
    let rejection = &list(&refused, "rejected_nodes")[0];
    assert_eq!(rejection["node_id"], "sidecar~127.0.0.1~client.default~default.svc.cluster.local");
    assert!(rejection["message"].as_str().unwrap().contains(case.words), "{rejection}");
    let node = mesh.get("/api/v1/nodes").await["nodes"][0].clone();
    assert_eq!(node["sync"], "rejected", "{node}");
    let subscription = list(&node, "subscriptions").into_iter().find(|of| of["type"] == case.kind).unwrap();
    assert!(subscription["last_rejection"]["message"].as_str().unwrap().contains(case.words), "{subscription}");
    let status = status(&mesh);
    let wanted = format!("refused {}: ", case.kind);
    assert!(status.contains(&wanted) && status.contains(case.words), "{status}");
    assert_eq!(mesh.metric(&rejects(case.kind)).await, 1);

    // Weights, subsets and endpoints go on changing.
    for (weight, canary) in [(50, "v1"), (20, "other"), (70, "v1")] {
        let written = mesh.write("routes.yaml", &split(weight, canary));
        let since = marked(&load, written, &format!("{weight}-{canary}")).await;
        let took = since - written;
        assert!(took < Duration::from_secs(5), "{took:?} until {weight}-{canary} arrived");
        load.next(300, PATIENCE).await.unwrap();
        let window = load.window(since, Instant::now()).await;
        assert_split(&window.by_backend(), &[("v1", weight), ("v2", 100 - weight)], FALSE_ALARM);
    }
    let written = mesh.write("routes.yaml", &split(100, "v1").replace("subset: v2", "subset: v1"));
    marked(&load, written, "100-v1").await;
    mesh.write("reviews.yaml", &reviews.objects_of(&[("v1", &reviews.v1)]));
    let path = "/api/v1/nodes/sidecar~127.0.0.1~client.default~default.svc.cluster.local/config?type=eds";
    let gone = reviews.v2.address().ip().to_string();
    mesh.get_where(path, "the endpoint to be gone", |config| {
        let resources = list(config, "resources");
        !resources.is_empty() && resources.iter().all(|of| of["state"] == "accepted" && !of.to_string().contains(&gone))
    })
    .await;
    assert_split(&load.next(100, PATIENCE).await.unwrap().by_backend(), &[("v1", 1)], FALSE_ALARM);

    // What was refused is not sent again for its own sake: at rest nothing is sent, and by delta it went out once.
    let pushes = settled(&mesh, case.kind).await;
    load.next(300, PATIENCE).await.unwrap();
    assert_eq!(mesh.metric(&self::pushes(case.kind)).await, pushes, "something is sent in a loop");
    if variant == Variant::Delta {
        assert_eq!(mesh.metric(&rejects(case.kind)).await, 1);
    }
    assert_eq!(mesh.get("/api/v1/nodes").await["nodes"][0]["sync"], "rejected");
    let still = object_where(&mesh, &case, "refused", |object| !list(object, "rejected_nodes").is_empty()).await;
    assert!(list(&still, "rejected_nodes")[0]["message"].as_str().unwrap().contains(case.words), "{still}");

    mesh.write("broken.yaml", &case.mended);
    let mended = object_where(&mesh, &case, "accepted", |object| {
        list(object, "rejected_nodes").is_empty() && list(object, "accepted_nodes").len() == 1
    });
    mended.await;
    mesh.synced(1).await;
    assert!(!self::status(&mesh).contains("refused "), "{}", self::status(&mesh));
    background.stop().await.assert_no_failures();
    load.since(begun).await.assert_no_failures();
    drop(client);
}

/// An Envoy whose bootstrap says nothing about regular expressions, so that its default holds.
async fn plain_envoy(mesh: &Mesh, variant: Variant) -> Envoy {
    let mut arguments = vec!["--pod", "client", "--interception", "none"];
    if variant == Variant::StateOfTheWorld {
        arguments.push("--state-of-the-world");
    }
    let mut bootstrap = mesh.bootstrap(&arguments);
    bootstrap.as_object_mut().unwrap().remove("layered_runtime");
    Envoy::start(bootstrap).await.unwrap()
}

/// `reviews` by subsets `v1` and `v2`, where v1's is called `name`, in one manifest; responses carry weight and name.
fn split(weight: u64, name: &str) -> String {
    let rest = 100 - weight;
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  host: reviews\n  subsets:\n    - {{name: {name}, labels: {{version: v1}}}}\n    \
         - {{name: v2, labels: {{version: v2}}}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http:\n    - headers: {{response: {{set: {{x-mark: {weight}-{name}}}}}}}\n      \
         route:\n        - {{destination: {{host: reviews, subset: {name}}}, weight: {weight}}}\n        \
         - {{destination: {{host: reviews, subset: v2}}, weight: {rest}}}\n"
    )
}

fn rejects(kind: &str) -> String {
    format!("pilot_total_xds_rejects{{type=\"{kind}\"}}")
}

fn pushes(kind: &str) -> String {
    format!("pilot_xds_pushes{{type=\"{kind}\"}}")
}

/// Waits until every response is answered; returns how many of this type there were.
async fn settled(mesh: &Mesh, kind: &str) -> u64 {
    wait::until("every response to be answered", PATIENCE, async || {
        let count = mesh.metric(&pushes(kind)).await;
        let nodes = mesh.get("/api/v1/nodes").await;
        match nodes["nodes"][0]["sync"] != "pending" && mesh.metric(&pushes(kind)).await == count {
            true => Ok(count),
            false => Err(nodes),
        }
    })
    .await
    .unwrap()
}

async fn object_where(mesh: &Mesh, case: &Case, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let (kind, name) = case.object;
    let path = format!("/api/v1/objects?kind={kind}&namespace=default&name={name}");
    let what = format!("{kind} {name} to be {what}");
    mesh.get_where(&path, &what, |answer| wanted(&answer["objects"][0])).await["objects"][0].clone()
}

fn list(value: &Value, field: &str) -> Vec<Value> {
    value[field].as_array().cloned().unwrap_or_default()
}

/// What `pointsman status` prints.
fn status(mesh: &Mesh) -> String {
    let admin = mesh.admin.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman")).args(["status", "--admin", &admin]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A port that somebody else listens on, without sharing it as Envoys do among themselves.
fn taken() -> (TcpListener, u16) {
    let address = ports::local().unwrap();
    (TcpListener::bind(address).unwrap(), address.port())
}

#[tokio::test]
async fn a_listener_on_a_taken_port_harms_nothing_else_by_delta() {
    let (_holder, port) = taken();
    a_refusal_harms_nothing_else(Variant::Delta, a_port_that_is_taken(port)).await;
}

#[tokio::test]
async fn a_listener_on_a_taken_port_harms_nothing_else_by_state_of_the_world() {
    let (_holder, port) = taken();
    a_refusal_harms_nothing_else(Variant::StateOfTheWorld, a_port_that_is_taken(port)).await;
}

#[tokio::test]
async fn a_cluster_with_a_file_that_is_not_there_harms_nothing_else_by_delta() {
    a_refusal_harms_nothing_else(Variant::Delta, a_file_that_is_not_there()).await;
}

#[tokio::test]
async fn a_cluster_with_a_file_that_is_not_there_harms_nothing_else_by_state_of_the_world() {
    a_refusal_harms_nothing_else(Variant::StateOfTheWorld, a_file_that_is_not_there()).await;
}

#[tokio::test]
async fn a_route_with_too_large_an_expression_harms_nothing_else_by_delta() {
    a_refusal_harms_nothing_else(Variant::Delta, an_expression_that_is_too_large(Variant::Delta)).await;
}

#[tokio::test]
async fn a_route_with_too_large_an_expression_harms_nothing_else_by_state_of_the_world() {
    a_refusal_harms_nothing_else(Variant::StateOfTheWorld, an_expression_that_is_too_large(Variant::StateOfTheWorld))
        .await;
}
