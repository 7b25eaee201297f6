//! What a route refers to comes and goes, under load.

use std::time::Instant;

use testkit::backend::Backend;
use testkit::envoy::Envoy;
use testkit::load::{Load, Outcome, Plan};
use testkit::stats::{FALSE_ALARM, assert_split};
use testkit::{ports, wait};

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, marked, pod, split};

/// A DestinationRule with these subsets: name and version.
fn rule(subsets: &[(&str, &str)]) -> String {
    let mut text = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
                    metadata: {name: reviews, namespace: default}\nspec:\n  host: reviews\n  subsets:\n"
        .to_owned();
    for (name, version) in subsets {
        text += &format!("    - {{name: {name}, labels: {{version: {version}}}}}\n");
    }
    text
}

/// A VirtualService with these weights by subset; responses carry `mark`.
fn routes(mark: &str, weights: &[(&str, u64)]) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http:\n    - headers: {{response: {{set: {{x-mark: {mark}}}}}}}\n      route:\n"
    );
    for (subset, weight) in weights {
        text += &format!("        - {{destination: {{host: reviews, subset: {subset}}}, weight: {weight}}}\n");
    }
    text
}

/// Waits until the Envoy has, or has no more, a cluster of a subset of `reviews`.
async fn subset_is(client: &Envoy, subset: &str, there: bool) {
    let what = format!("the cluster of subset {subset} to be {}", if there { "there" } else { "gone" });
    wait::until(&what, PATIENCE, async || {
        let clusters = client.clusters().await.map_err(|error| format!("{error:#}"))?;
        let names: Vec<_> =
            clusters["cluster_statuses"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
        match names.iter().any(|name| name.contains(&format!("|{subset}|reviews."))) == there {
            true => Ok(()),
            false => Err(format!("{names:?}")),
        }
    })
    .await
    .unwrap();
}

async fn a_subset_is_added_then_used_then_removed_and_no_request_fails(variant: Variant) {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let only_v1 = rule(&[("v1", "v1")]);
    let mesh = Mesh::start(&[
        ("reviews.yaml", &objects),
        ("rule.yaml", &only_v1),
        ("routes.yaml", &routes("a", &[("v1", 1)])),
    ])
    .await;
    let client = mesh.client(variant, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    // Added.
    mesh.write("rule.yaml", SUBSETS);
    subset_is(&client, "v2", true).await;
    // Used.
    let written = mesh.write("routes.yaml", &routes("b", &[("v1", 1), ("v2", 1)]));
    let since = marked(&load, written, "b").await;
    load.next(600, PATIENCE).await.unwrap();
    let window = load.window(since, Instant::now()).await;
    assert_split(&window.by_backend(), &[("v1", 1), ("v2", 1)], FALSE_ALARM);
    // Used no more.
    let written = mesh.write("routes.yaml", &routes("c", &[("v1", 1)]));
    let since = marked(&load, written, "c").await;
    // Removed.
    mesh.write("rule.yaml", &only_v1);
    subset_is(&client, "v2", false).await;
    load.next(200, PATIENCE).await.unwrap();
    assert_split(&load.since(since).await.by_backend(), &[("v1", 1)], FALSE_ALARM);
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn a_subset_is_added_then_used_then_removed_and_no_request_fails_by_delta() {
    a_subset_is_added_then_used_then_removed_and_no_request_fails(Variant::Delta).await;
}

#[tokio::test]
async fn a_subset_is_added_then_used_then_removed_and_no_request_fails_by_state_of_the_world() {
    a_subset_is_added_then_used_then_removed_and_no_request_fails(Variant::StateOfTheWorld).await;
}

/// Each write changes the rule and the route that uses it at once, so that only the order of delivery keeps a route from
/// naming a cluster that is not there yet, or not there any more.
async fn subsets_change_together_with_their_routes_and_no_request_fails(variant: Variant) {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let both = |mark: &str, subsets: &[(&str, &str)], weights: &[(&str, u64)]| {
        format!("{}---\n{}", rule(subsets), routes(mark, weights))
    };
    let first = both("first", &[("v1", "v1")], &[("v1", 1)]);
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("routes.yaml", &first)]).await;
    let client = mesh.client(variant, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    // Mark, subsets (name and version), weights by subset.
    type Step<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, u64)]);
    let steps: [Step<'_>; 5] = [
        ("added", &[("v1", "v1"), ("v2", "v2")], &[("v1", 1), ("v2", 1)]),
        ("renamed", &[("v1", "v1"), ("canary", "v2")], &[("v1", 1), ("canary", 1)]),
        ("both-renamed", &[("blue", "v1"), ("green", "v2")], &[("blue", 1), ("green", 1)]),
        ("swapped", &[("green", "v1"), ("blue", "v2")], &[("blue", 1), ("green", 1)]),
        ("removed", &[("v1", "v1")], &[("v1", 1)]),
    ];
    for (mark, subsets, weights) in steps {
        let written = mesh.write("routes.yaml", &both(mark, subsets, weights));
        let since = marked(&load, written, mark).await;
        load.next(300, PATIENCE).await.unwrap();
        let window = load.window(since, Instant::now()).await;
        let expected: &[(&str, u64)] = if weights.len() == 2 { &[("v1", 1), ("v2", 1)] } else { &[("v1", 1)] };
        assert_split(&window.by_backend(), expected, FALSE_ALARM);
    }
    for gone in ["v2", "canary", "blue", "green"] {
        subset_is(&client, gone, false).await;
    }
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn subsets_change_together_with_their_routes_and_no_request_fails_by_delta() {
    subsets_change_together_with_their_routes_and_no_request_fails(Variant::Delta).await;
}

#[tokio::test]
async fn subsets_change_together_with_their_routes_and_no_request_fails_by_state_of_the_world() {
    subsets_change_together_with_their_routes_and_no_request_fails(Variant::StateOfTheWorld).await;
}

async fn endpoints_come_and_go_and_no_request_fails(variant: Variant) {
    let reviews = Reviews::start();
    let v3 = Backend::start("v3", ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    let pods = |versions: &[&str]| {
        let all = [("v1", &reviews.v1), ("v2", &reviews.v2), ("v3", &v3)];
        let chosen: Vec<_> = all.into_iter().filter(|(version, _)| versions.contains(version)).collect();
        reviews.objects_of(&chosen)
    };
    let mesh = Mesh::start(&[("reviews.yaml", &pods(&["v1"]))]).await;
    let _client = mesh.client(variant, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    for _ in 0..2 {
        let written = mesh.write("reviews.yaml", &pods(&["v1", "v2", "v3"]));
        load.first(written, PATIENCE, |sample| sample.backend() == Some("v2")).await.unwrap();
        load.first(written, PATIENCE, |sample| sample.backend() == Some("v3")).await.unwrap();
        let window = load.next(600, PATIENCE).await.unwrap();
        assert_split(&window.by_backend(), &[("v1", 1), ("v2", 1), ("v3", 1)], FALSE_ALARM);
        mesh.write("reviews.yaml", &pods(&["v1"]));
        wait::until("all requests at v1", PATIENCE, async || {
            let window = load.next(100, PATIENCE).await.unwrap();
            if window.by_backend().keys().eq(["v1"]) { Ok(()) } else { Err(window) }
        })
        .await
        .unwrap();
    }
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn endpoints_come_and_go_and_no_request_fails_by_delta() {
    endpoints_come_and_go_and_no_request_fails(Variant::Delta).await;
}

#[tokio::test]
async fn endpoints_come_and_go_and_no_request_fails_by_state_of_the_world() {
    endpoints_come_and_go_and_no_request_fails(Variant::StateOfTheWorld).await;
}

/// A second service is called all the time, and must not notice.
async fn a_service_is_deleted_and_recreated_and_the_others_do_not_notice(variant: Variant) {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let ratings = Backend::start("ratings", ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    let other = ports::local().unwrap();
    let others = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: ratings, namespace: default}}\nspec:\n  \
         selector: {{app: ratings}}\n  ports: [{{name: http, port: {}, targetPort: web}}]\n{}",
        other.port(),
        pod("ratings", "app: ratings", ratings.address()),
    );
    let files = [
        ("reviews.yaml", &*objects),
        ("ratings.yaml", &others),
        ("rule.yaml", SUBSETS),
        ("routes.yaml", &split(80, 20)),
    ];
    let mesh = Mesh::start(&files).await;
    let _client = mesh.client(variant, "client").await;
    answering(reviews.plan()).await;
    answering(Plan::get(other, "ratings", "/")).await;
    let background = Load::start(Plan::get(other, "ratings", "/").per_second(400.0)).unwrap();
    let load = Load::start(reviews.plan().per_second(800.0).connections(8)).unwrap();
    load.next(100, PATIENCE).await.unwrap().assert_no_failures();
    for _ in 0..2 {
        let deleted = mesh.remove("reviews.yaml");
        // Its port is closed: requests that were under way are answered, new ones find nobody.
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Broken(_));
        load.first(deleted, PATIENCE, |sample| refused(&sample.outcome)).await.unwrap();
        let written = mesh.write("reviews.yaml", &objects);
        load.first(written, PATIENCE, |sample| sample.expected).await.unwrap();
        wait::until("answers to all requests", PATIENCE, async || {
            let window = load.next(50, PATIENCE).await.unwrap();
            if window.failures().next().is_none() { Ok(()) } else { Err(window) }
        })
        .await
        .unwrap();
        let window = load.next(1000, PATIENCE).await.unwrap();
        window.assert_no_failures();
        assert_split(&window.by_backend(), &[("v1", 80), ("v2", 20)], FALSE_ALARM);
    }
    let all = background.stop().await;
    all.assert_no_failures();
    assert_eq!(all.by_backend().keys().collect::<Vec<_>>(), ["ratings"]);
}

#[tokio::test]
async fn a_service_is_deleted_and_recreated_and_the_others_do_not_notice_by_delta() {
    a_service_is_deleted_and_recreated_and_the_others_do_not_notice(Variant::Delta).await;
}

#[tokio::test]
async fn a_service_is_deleted_and_recreated_and_the_others_do_not_notice_by_state_of_the_world() {
    a_service_is_deleted_and_recreated_and_the_others_do_not_notice(Variant::StateOfTheWorld).await;
}
