//! Routes that name what does not exist: said, answered explicitly, and mended live.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;
use testkit::load::{Load, Window};
use testkit::stats::{FALSE_ALARM, assert_split};
use testkit::wait;

use crate::mesh::{Mesh, PATIENCE, Reviews, SUBSETS, Variant, answering, marked, split};

/// A DestinationRule that knows v1 only.
const ONLY_V1: &str = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
";

/// Counts by what answered: the backend, or the status if that was not 200.
fn by_answer(window: &Window) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for sample in window.samples() {
        let answer = match (sample.status(), sample.backend()) {
            (Some(200), Some(backend)) => backend.to_owned(),
            _ => sample.outcome.to_string(),
        };
        *counts.entry(answer).or_default() += 1;
    }
    counts
}

/// The body of the first request that is answered 503.
async fn body_of_a_refusal(reviews: &Reviews) -> String {
    wait::until("an answer with status 503", PATIENCE, async || match reviews.plan().once().await {
        Ok(reply) if reply.status == 503 => Ok(reply.body().to_owned()),
        Ok(reply) => Err(format!("status {}", reply.status)),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
    .unwrap()
}

/// The problems of the VirtualService, as the admin API shows them.
async fn problems(mesh: &Mesh) -> Vec<Value> {
    let path = "/api/v1/objects?kind=VirtualService&namespace=default&name=reviews";
    mesh.get(path).await["objects"][0]["problems"].as_array().unwrap().clone()
}

async fn the_share_of_a_missing_subset_is_refused_with_the_reason(variant: Variant) {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let mesh =
        Mesh::start(&[("reviews.yaml", &objects), ("rule.yaml", ONLY_V1), ("routes.yaml", &split(80, 20))]).await;
    let _client = mesh.client(variant, "client").await;
    let body = body_of_a_refusal(&reviews).await;
    assert!(
        body.contains("no DestinationRule defines subset \"v2\" of \"reviews.default.svc.cluster.local\""),
        "{body}"
    );
    assert!(body.contains("VirtualService default/reviews"), "{body}");
    let load = Load::start(reviews.plan().per_second(1000.0)).unwrap();
    let window = load.next(2000, PATIENCE).await.unwrap();
    assert_split(&by_answer(&window), &[("v1", 80), ("status 503 from an unnamed backend", 20)], FALSE_ALARM);
    // An odd share, which takes a finer fraction.
    let written = mesh.write("routes.yaml", &split(2, 1));
    let since = marked(&load, written, "2/1").await;
    load.next(1000, PATIENCE).await.unwrap();
    let window = load.window(since, Instant::now()).await;
    assert_split(&by_answer(&window), &[("v1", 2), ("status 503 from an unnamed backend", 1)], FALSE_ALARM);
    // And none of it once the subset is there.
    let written = mesh.write("rule.yaml", SUBSETS);
    load.first(written, PATIENCE, |sample| sample.backend() == Some("v2")).await.unwrap();
    let window = load.next(1000, PATIENCE).await.unwrap();
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 2), ("v2", 1)], FALSE_ALARM);
}

#[tokio::test]
async fn the_share_of_a_missing_subset_is_refused_with_the_reason_by_delta() {
    the_share_of_a_missing_subset_is_refused_with_the_reason(Variant::Delta).await;
}

#[tokio::test]
async fn the_share_of_a_missing_subset_is_refused_with_the_reason_by_state_of_the_world() {
    the_share_of_a_missing_subset_is_refused_with_the_reason(Variant::StateOfTheWorld).await;
}

#[tokio::test]
async fn the_share_of_a_missing_subset_goes_to_the_others_if_so_wished() {
    let reviews = Reviews::start();
    let (objects, routes) = (reviews.objects(), split(80, 20));
    let files = [("reviews.yaml", &*objects), ("rule.yaml", ONLY_V1), ("routes.yaml", &*routes)];
    let mesh = Mesh::start_with(&files, &["--missing-destination", "reweight"]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(1000.0)).unwrap();
    let window = load.next(1000, PATIENCE).await.unwrap();
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 1)], FALSE_ALARM);
    let problems = problems(&mesh).await;
    assert_eq!(
        problems[0]["consequence"], "its share, 20 of 100, goes to the rule's other destinations",
        "{problems:?}"
    );
}

#[tokio::test]
async fn a_virtual_service_alone_is_mended_by_pasting_what_its_problem_prints() {
    let reviews = Reviews::start();
    let (objects, routes) = (reviews.objects(), split(80, 20));
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("routes.yaml", &routes)]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    let body = body_of_a_refusal(&reviews).await;
    assert!(body.contains("\"v1\"") && body.contains("\"v2\""), "the reason names both subsets: {body}");
    let load = Load::start(reviews.plan().per_second(1000.0)).unwrap();
    let window = load.next(200, PATIENCE).await.unwrap();
    assert_split(&by_answer(&window), &[("status 503 from an unnamed backend", 1)], FALSE_ALARM);

    let found = problems(&mesh).await;
    let fields: Vec<_> = found.iter().map(|problem| problem["field"].as_str().unwrap()).collect();
    let subset_of = |index| format!("spec.http[0].route[{index}].destination.subset");
    assert_eq!(fields, [subset_of(0), subset_of(1)], "{found:?}");
    assert_eq!(found[0]["severity"], "error");
    assert!(found[0]["file"].as_str().unwrap().ends_with("routes.yaml"), "{found:?}");
    let pasted = found[0]["hint"].as_str().unwrap();
    assert_eq!(found[1]["hint"], pasted, "one rule mends both");

    let written = mesh.write("pasted.yaml", pasted);
    load.first(written, PATIENCE, |sample| sample.backend() == Some("v2")).await.unwrap();
    let window = load.next(2000, PATIENCE).await.unwrap();
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 80), ("v2", 20)], FALSE_ALARM);
    assert_eq!(problems(&mesh).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_virtual_service_alone_works_where_subsets_are_inferred() {
    let reviews = Reviews::start();
    let (objects, routes) = (reviews.objects(), split(80, 20));
    let files = [("reviews.yaml", &*objects), ("routes.yaml", &*routes)];
    let mesh = Mesh::start_with(&files, &["--infer-subsets", "version"]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan().per_second(1000.0)).unwrap();
    let window = load.next(2000, PATIENCE).await.unwrap();
    window.assert_no_failures();
    assert_split(&window.by_backend(), &[("v1", 80), ("v2", 20)], FALSE_ALARM);
    assert_eq!(problems(&mesh).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_route_to_a_service_that_does_not_exist_is_refused_until_it_does() {
    let reviews = Reviews::start();
    let objects = reviews.objects();
    let routes = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: ratings}}]}]
";
    let mesh = Mesh::start(&[("reviews.yaml", &objects), ("routes.yaml", routes)]).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    let body = body_of_a_refusal(&reviews).await;
    assert!(body.contains("no service \"ratings.default.svc.cluster.local\""), "{body}");
    let found = problems(&mesh).await;
    assert_eq!(found[0]["field"], "spec.http[0].route[0].destination.host", "{found:?}");
    let port = testkit::ports::local().unwrap().port();
    let ratings = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: ratings, namespace: default}}\nspec:\n  \
         selector: {{app: reviews}}\n  ports: [{{name: http, port: {port}, targetPort: web}}]\n"
    );
    mesh.write("ratings.yaml", &ratings);
    answering(reviews.plan()).await;
}
