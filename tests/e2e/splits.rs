//! Weighted splits and what changes in them, under load.

use std::time::Instant;

use testkit::load::{Load, Rate};
use testkit::stats::{FALSE_ALARM, assert_split};

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, marked, split};

/// The shape of Istio's own examples: hosts by their short names, no namespaces, weights that add up to 100, three
/// subsets of which the route uses two.
const BOOKINFO: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
    - reviews
  http:
    - route:
        - destination:
            host: reviews
            subset: v1
          weight: 80
        - destination:
            host: reviews
            subset: v2
          weight: 20
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: reviews
spec:
  host: reviews
  subsets:
    - name: v1
      labels:
        version: v1
    - name: v2
      labels:
        version: v2
    - name: v3
      labels:
        version: v3
";

async fn an_80_20_split_is_what_envoy_does(variant: Variant) {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("bookinfo.yaml", BOOKINFO)]).await;
    let _client = mesh.client(variant, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(1000.0)).unwrap();
    let window = load.next(2000, PATIENCE).await.unwrap();
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 80), ("v2", 20)], FALSE_ALARM);
}

#[tokio::test]
async fn an_80_20_split_is_what_envoy_does_by_delta() {
    an_80_20_split_is_what_envoy_does(Variant::Delta).await;
}

#[tokio::test]
async fn an_80_20_split_is_what_envoy_does_by_state_of_the_world() {
    an_80_20_split_is_what_envoy_does(Variant::StateOfTheWorld).await;
}

async fn weights_change_under_load_and_no_request_fails(variant: Variant) {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let mesh =
        Mesh::start(&[("reviews.yaml", &objects), ("rule.yaml", SUBSETS), ("routes.yaml", &split(100, 0))]).await;
    let _client = mesh.client(variant, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(800.0).connections(8)).unwrap();
    let begun = Instant::now();
    for (v1, v2) in [(80, 20), (50, 50), (0, 100), (1, 999), (100, 0), (50, 50)] {
        let written = mesh.write("routes.yaml", &split(v1, v2));
        let since = marked(&load, written, &format!("{v1}/{v2}")).await;
        load.next(400, PATIENCE).await.unwrap();
        let window = load.window(since, Instant::now()).await;
        assert_split(&window.by_backend(), &[("v1", v1), ("v2", v2)], FALSE_ALARM);
    }
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn weights_change_under_load_and_no_request_fails_by_delta() {
    weights_change_under_load_and_no_request_fails(Variant::Delta).await;
}

#[tokio::test]
async fn weights_change_under_load_and_no_request_fails_by_state_of_the_world() {
    weights_change_under_load_and_no_request_fails(Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn a_weight_of_one_in_a_thousand_is_one_in_a_thousand() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let mesh =
        Mesh::start(&[("reviews.yaml", &objects), ("rule.yaml", SUBSETS), ("routes.yaml", &split(1, 999))]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().rate(Rate::Unlimited).connections(8)).unwrap();
    // None of 15,000 for v1 would be a chance below one in a million.
    let window = load.next(15_000, PATIENCE).await.unwrap();
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 1), ("v2", 999)], FALSE_ALARM);
}

#[tokio::test]
async fn weights_need_not_add_up_to_a_hundred() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("rule.yaml", SUBSETS), ("routes.yaml", &split(3, 4))]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(1000.0).connections(8)).unwrap();
    let begun = Instant::now();
    // The last sum is one below what Envoy can count to.
    for (v1, v2) in [(7, 5), (2_000_000_000, 500_000_000), (i32::MAX as u64, i32::MAX as u64)] {
        let written = mesh.write("routes.yaml", &split(v1, v2));
        let since = marked(&load, written, &format!("{v1}/{v2}")).await;
        load.next(800, PATIENCE).await.unwrap();
        let window = load.window(since, Instant::now()).await;
        assert_split(&window.by_backend(), &[("v1", v1), ("v2", v2)], FALSE_ALARM);
    }
    load.since(begun).await.assert_no_failures();
}
