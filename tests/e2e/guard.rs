//! A candidate that loses its endpoints while it has half of the traffic, and what that costs its callers.

use std::time::{Duration, Instant};

use testkit::backend::Backend;
use testkit::ports;

use crate::mesh::PATIENCE;
use crate::rollouts::{Stage, intent};

const STEPS: [&str; 3] = ["setWeight: 50", "pause: {}", "setWeight: 100"];
const ALONE: &str = "  safety: {fallbackToStable: false}\n";
const CONNECTIONS: usize = 8;

/// No request is repeated.
const ONCE: &str = "retries: {attempts: 0}, ";

/// A route that says this, too.
fn route(more: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  hosts: [reviews]\n  http: [{{{more}route: [{{destination: {{host: reviews}}}}]}}]\n"
    )
}

/// Half of the traffic is v2's.
async fn half(more: &str, of_route: &str) -> Stage {
    let stage = Stage::start(&intent(&STEPS, more)).await;
    stage.mesh.write("route.yaml", &route(of_route));
    stage.deploy();
    stage.at(50.0).await;
    stage
}

/// v2 is gone from the files.
fn take_away(stage: &Stage) -> Instant {
    stage.mesh.write("reviews.yaml", &stage.reviews.objects_of(&[("v1", &stage.reviews.v1)]))
}

/// v2's process ends.
fn kill(stage: &mut Stage) -> Instant {
    let other = Backend::start("other", ports::pod(ports::local().unwrap().port()).unwrap()).unwrap();
    drop(std::mem::replace(&mut stage.reviews.v2, other));
    Instant::now()
}

async fn rolled_back(stage: &Stage) {
    let rollout = stage.until("the run to have gone back", |rollout| rollout["phase"] == "RolledBack").await;
    assert!(rollout["reason"].as_str().unwrap().contains("has no healthy endpoint any more"), "{rollout}");
}

#[tokio::test]
async fn an_endpoint_that_is_taken_from_the_files_while_it_answers_costs_no_request() {
    let mut stage = half(ALONE, ONCE).await;
    let load = stage.load(1_000.0);
    let begun = Instant::now();
    load.next(500, PATIENCE).await.unwrap();
    take_away(&stage);
    rolled_back(&stage).await;
    // Its process ends once nobody sends it anything.
    tokio::time::sleep(Duration::from_millis(300)).await;
    kill(&mut stage);
    load.next(500, PATIENCE).await.unwrap();
    let window = load.since(begun).await;
    assert!(window.by_backend()["v2"] > 100, "{window}");
    window.assert_no_failures();
    assert_eq!(stage.mesh.metric("pointsman_waits{reason=\"endpoints_gone\"}").await, 1);
    assert_eq!(stage.mesh.metric("pointsman_waits_expired{reason=\"endpoints_gone\"}").await, 0);
}

#[tokio::test]
async fn an_endpoint_that_dies_costs_what_is_sent_to_it_until_its_weight_is_gone_and_nothing_after() {
    let mut stage = half(ALONE, ONCE).await;
    let load = stage.load(500.0);
    load.next(200, PATIENCE).await.unwrap();
    let dead = kill(&mut stage);
    take_away(&stage);
    rolled_back(&stage).await;
    let withdrawn = Instant::now();
    load.next(500, PATIENCE).await.unwrap();
    let window = load.since(dead).await;
    // What was sent before the answer of the API was seen may end a little later.
    load.since(withdrawn + Duration::from_millis(200)).await.assert_no_failures();
    let failures: Vec<_> = window.failures().collect();
    let last = failures.iter().map(|sample| sample.finished()).max();
    let until = last.map(|last| last.saturating_duration_since(dead));
    eprintln!("{} requests failed, the last {until:?} after the end of the process", failures.len());
    assert!(failures.iter().all(|sample| matches!(sample.status(), Some(503))), "{window}");
    assert_eq!(stage.mesh.metric("pointsman_waits_expired{reason=\"endpoints_gone\"}").await, 0);
}

#[tokio::test]
async fn with_a_fallback_a_dead_candidate_costs_no_request_that_may_be_repeated() {
    let mut stage = half("", "retries: {attempts: 2, retryOn: \"connect-failure,reset\"}, ").await;
    let load = stage.load(500.0);
    let begun = Instant::now();
    load.next(200, PATIENCE).await.unwrap();
    kill(&mut stage);
    // The proxies send its requests to stable by themselves, before anybody has told the server.
    load.next(300, PATIENCE).await.unwrap();
    take_away(&stage);
    rolled_back(&stage).await;
    load.next(300, PATIENCE).await.unwrap();
    load.since(begun).await.assert_no_failures();
}

#[tokio::test]
async fn with_a_fallback_and_the_usual_retries_only_what_was_under_way_fails() {
    let mut stage = half("", "").await;
    let load = stage.load(500.0);
    load.next(200, PATIENCE).await.unwrap();
    let begun = Instant::now();
    let dead = kill(&mut stage);
    take_away(&stage);
    rolled_back(&stage).await;
    load.next(300, PATIENCE).await.unwrap();
    let under_way = load.window(begun, dead + Duration::from_millis(20)).await.failures().count();
    assert!(under_way <= CONNECTIONS, "{under_way} requests were under way");
    load.since(dead + Duration::from_millis(20)).await.assert_no_failures();
}
