//! Pointsman ends, crashes and comes back, under load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::envoy::Envoy;
use testkit::load::Load;
use testkit::stats::{FALSE_ALARM, assert_split};
use testkit::wait;
use testkit::wire::{Delta, ResourceType, Wire, WireError, node, node_of};

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, marked, split};

/// The types that an Envoy asks for, and the raw client below.
const TYPES: [&str; 5] = ["cds", "eds", "lds", "rds", "vhds"];

/// When each dynamic resource of an Envoy was last changed by an update, by its name.
async fn last_updates(client: &Envoy) -> BTreeMap<String, String> {
    fn collect(value: &Value, found: &mut BTreeMap<String, String>) {
        // What is static has no version.
        if let (Some(at), Some(_)) = (value.get("last_updated"), value.get("version_info")) {
            let body = value.as_object().unwrap().values().find(|value| value["@type"].is_string()).unwrap();
            let name = body["name"].as_str().or(body["cluster_name"].as_str()).unwrap();
            found.insert(format!("{} {name}", body["@type"].as_str().unwrap()), at.to_string());
        }
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            Value::Object(values) => values.values().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    collect(&client.config_dump().await.unwrap(), &mut found);
    assert!(found.len() > 5, "{found:?}");
    found
}

/// Kills the server as a crash would, lets some requests pass, starts it again, and waits until the client is back.
async fn crash_and_return(mesh: &mut Mesh, load: &Load) {
    mesh.server.kill().await.unwrap();
    load.next(300, PATIENCE).await.unwrap().assert_no_failures();
    mesh.restart().await;
    mesh.synced(1).await;
}

async fn a_crash_fails_no_request_and_what_changed_meanwhile_arrives(variant: Variant) {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let files = [("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &split(80, 20))];
    let mut mesh = Mesh::start(&files).await;
    let client = mesh.client(variant, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    crash_and_return(&mut mesh, &load).await;
    // It lives: changes arrive.
    let written = mesh.write("routes.yaml", &split(50, 50));
    let since = marked(&load, written, "50/50").await;
    load.next(400, PATIENCE).await.unwrap();
    let window = load.window(since, Instant::now()).await;
    assert_split(&window.by_backend(), &[("v1", 1), ("v2", 1)], FALSE_ALARM);

    mesh.server.kill().await.unwrap();
    // While it is away v2 leaves the route, and the rule. A client of the state of the world cannot tell afterwards what it
    // holds, so a cluster that is gone by then would be taken from it before the route that uses it: there the rule follows
    // later.
    let only_v1 = SUBSETS.replace("    - {name: v2, labels: {version: v2}}\n", "");
    assert_ne!(only_v1, SUBSETS);
    mesh.write("routes.yaml", &split(100, 0).replace(", subset: v2", ", subset: v1"));
    if variant == Variant::Delta {
        mesh.write("rule.yaml", &only_v1);
    }
    load.next(100, PATIENCE).await.unwrap().assert_no_failures();
    let restarted = Instant::now();
    mesh.restart().await;
    let since = marked(&load, restarted, "100/0").await;
    mesh.synced(1).await;
    load.next(400, PATIENCE).await.unwrap();
    assert_split(&load.since(since).await.by_backend(), &[("v1", 1)], FALSE_ALARM);
    mesh.write("rule.yaml", &only_v1);
    wait::until("the cluster of v2 to be gone", PATIENCE, async || {
        let held = last_updates(&client).await;
        if held.keys().any(|name| name.contains("|v2|")) { Err(format!("{held:?}")) } else { Ok(()) }
    })
    .await
    .unwrap();
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_crash_fails_no_request_and_what_changed_meanwhile_arrives_by_delta() {
    a_crash_fails_no_request_and_what_changed_meanwhile_arrives(Variant::Delta).await;
}

#[tokio::test]
async fn a_crash_fails_no_request_and_what_changed_meanwhile_arrives_by_state_of_the_world() {
    a_crash_fails_no_request_and_what_changed_meanwhile_arrives(Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn after_a_crash_a_delta_client_is_sent_nothing_that_it_has() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let files = [("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &split(80, 20))];
    let mut mesh = Mesh::start(&files).await;
    let client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    mesh.synced(1).await;
    let load = Load::start(reviews.plan().per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    let before = last_updates(&client).await;
    let first = sent(&mesh).await;
    assert!(first.values().all(|bytes| *bytes > 200), "the first time everything is sent: {first:?}");

    crash_and_return(&mut mesh, &load).await;
    // Its first answers are there, as it is synced. An answer without resources has some 100 bytes.
    let again = sent(&mesh).await;
    assert!(again.values().all(|bytes| *bytes < 200), "bytes by type: {again:?}, the first time: {first:?}");
    assert_eq!(last_updates(&client).await, before);

    // One change costs only what it is about: not the clusters, not the listeners.
    let written = mesh.write("routes.yaml", &split(50, 50));
    marked(&load, written, "50/50").await;
    mesh.synced(1).await;
    let changed: Vec<_> =
        last_updates(&client).await.into_iter().filter(|(name, at)| before.get(name) != Some(at)).collect();
    assert!(changed.len() == 1 && changed[0].0.contains("RouteConfiguration"), "{changed:?}");
    load.since(begun).await.assert_no_failures();
}

/// Bytes of responses by type, since the server was started.
async fn sent(mesh: &Mesh) -> BTreeMap<&'static str, u64> {
    let mut bytes = BTreeMap::new();
    for kind in TYPES {
        bytes.insert(kind, mesh.metric(&format!("pointsman_sent_bytes{{type=\"{kind}\"}}")).await);
    }
    bytes
}

/// The same as bytes on the wire: a client that keeps what it was sent, and comes back with the versions.
#[tokio::test]
async fn versions_of_before_the_crash_are_honoured_after_it() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let files = [("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &split(80, 20))];
    let mut mesh = Mesh::start(&files).await;
    let address = format!("http://{}", mesh.xds);
    let who = node_of(&mesh.bootstrap(&["--pod", "raw", "--interception", "none"]));
    let mut stream = Wire::connect(&*address).await.unwrap().delta(who.clone());
    let route = format!("reviews.default.svc.cluster.local:{}", reviews.address.port());
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let clusters = take(&mut stream).await;
    assert!(clusters.iter().filter(|name| name.contains("|reviews.default.svc.")).count() == 3, "{clusters:?}");
    let assigned: Vec<_> = clusters.iter().map(String::as_str).filter(|name| name.contains("|reviews.")).collect();
    stream.subscribe(ResourceType::Endpoints, &assigned).await;
    assert_eq!(take(&mut stream).await.len(), 3);
    stream.subscribe(ResourceType::Listener, &[]).await;
    let listeners = take(&mut stream).await;
    assert!(!listeners.is_empty());
    let routes: Vec<String> = vec![reviews.address.port().to_string(), route];
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    stream.subscribe(ResourceType::Route, &routes).await;
    let found = take(&mut stream).await;
    assert!(!found.is_empty(), "none of {routes:?} is there");
    let kinds = [ResourceType::Cluster, ResourceType::Endpoints, ResourceType::Listener, ResourceType::Route];
    let held = kinds.map(|kind| stream.held(kind));

    mesh.server.kill().await.unwrap();
    assert!(matches!(stream.next(PATIENCE).await, Err(WireError::Refused(_) | WireError::Ended)));
    // One thing changes while it is away.
    mesh.write("routes.yaml", &split(10, 90));
    mesh.restart().await;
    let mut stream = Wire::connect(&*address).await.unwrap().delta(who.clone());
    for (kind, versions) in kinds.into_iter().zip(&held) {
        let wildcard = matches!(kind, ResourceType::Cluster | ResourceType::Listener);
        let names: Vec<_> = if wildcard { Vec::new() } else { versions.keys().map(String::as_str).collect() };
        stream.resume(kind, &names, versions).await;
    }
    let mut resent = Vec::new();
    let mut answered = Vec::new();
    while !answered.contains(&ResourceType::Route.type_url().to_owned()) || answered.len() < 4 {
        let response = match stream.next(Duration::from_secs(2)).await {
            Ok(response) => response,
            Err(WireError::Late(_)) => break,
            Err(end) => panic!("{end}"),
        };
        resent.extend(response.resources.iter().map(|resource| resource.name.clone()));
        assert!(response.removed_resources.is_empty(), "{:?}", response.removed_resources);
        stream.ack(&response).await;
        answered.push(response.type_url);
    }
    assert_eq!(resent.len(), 1, "only the route configuration that changed: {resent:?}");
    assert!(resent[0].contains(&reviews.address.port().to_string()), "{resent:?}");
    stream.exchange().silence(Duration::from_millis(200)).await.unwrap();
}

/// Takes and acknowledges one response; the names of its resources.
async fn take(stream: &mut Delta) -> Vec<String> {
    let response = stream.next(PATIENCE).await.unwrap();
    stream.ack(&response).await;
    response.resources.into_iter().map(|resource| resource.name).collect()
}

#[tokio::test]
async fn sigterm_drains_the_streams_and_fails_no_request() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let files = [("reviews.yaml", &*objects), ("rule.yaml", SUBSETS), ("routes.yaml", &split(80, 20))];
    let mut mesh = Mesh::start(&files).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let address = format!("http://{}", mesh.xds);
    let mut stream = Wire::connect(&*address).await.unwrap().delta(node("raw", "raw"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    take(&mut stream).await;
    let load = Load::start(reviews.plan().per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    let status = mesh.server.terminate(Duration::from_secs(5)).await.unwrap();
    assert!(status.success(), "{status}\n{}", mesh.server.output());
    // A client that knows why looks for another replica at once.
    match stream.next(PATIENCE).await {
        Err(WireError::Refused(status)) => assert_eq!(status.code() as i32, 14, "UNAVAILABLE is 14: {status}"),
        other => panic!("the stream must end as UNAVAILABLE: {other:?}"),
    }
    load.next(200, PATIENCE).await.unwrap().assert_no_failures();
    mesh.restart().await;
    mesh.synced(1).await;
    let written = mesh.write("routes.yaml", &split(50, 50));
    marked(&load, written, "50/50").await;
    load.since(begun).await.assert_no_failures();
}
