//! What is said on a load reporting stream.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use load::{Ask, Focus, Policy, Refusal, Stream};
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use proto::pb::envoy::service::load_stats::v3::LoadStatsRequest;

fn hello(features: &[&str]) -> LoadStatsRequest {
    let node = Node {
        id: "n".to_owned(),
        client_features: features.iter().map(|&feature| feature.to_owned()).collect(),
        ..Node::default()
    };
    LoadStatsRequest { node: Some(node), cluster_stats: Vec::new() }
}

fn report(cluster: &str, ok: u64) -> LoadStatsRequest {
    let place = UpstreamLocalityStats { total_successful_requests: ok, ..UpstreamLocalityStats::default() };
    let stats = ClusterStats {
        cluster_name: cluster.to_owned(),
        upstream_locality_stats: vec![place],
        ..ClusterStats::default()
    };
    LoadStatsRequest { node: None, cluster_stats: vec![stats] }
}

fn every_second() -> Ask {
    Policy::every(Duration::from_secs(1)).ask()
}

const ALL: &str = "envoy.lrs.supports_send_all_clusters";

#[test]
fn a_client_that_can_is_asked_for_all_clusters() {
    let mut stream = Stream::new(every_second());
    assert_eq!(stream.poll_response(), None, "nobody is there yet");
    assert_eq!(stream.handle_request(hello(&[ALL])), Ok(None));
    let response = stream.poll_response().unwrap();
    assert!(response.send_all_clusters && response.clusters.is_empty());
    assert_eq!(response.load_reporting_interval.unwrap().seconds, 1);
    assert_eq!(stream.poll_response(), None, "it is said once");
}

#[test]
fn a_client_that_cannot_is_told_the_names_of_its_clusters() {
    let mut stream = Stream::new(every_second());
    stream.handle_request(hello(&[])).unwrap();
    assert!(stream.needs_held());
    assert_eq!(stream.poll_response(), None, "its clusters are not known yet");
    stream.handle_held(BTreeSet::from(["a".into(), "b".into()]));
    assert_eq!(stream.poll_response().unwrap().clusters, ["a", "b"]);
    stream.handle_held(BTreeSet::from(["a".into()]));
    assert_eq!(stream.poll_response().unwrap().clusters, ["a"]);
}

#[test]
fn a_change_of_what_is_asked_is_said_at_once_and_can_be_taken_back() {
    let mut policy = Policy::default();
    let mut stream = Stream::new(policy.ask());
    stream.handle_request(hello(&[ALL])).unwrap();
    assert_eq!(stream.poll_response(), None, "nothing is asked, so the client waits");
    let clusters: BTreeSet<Arc<str>> = BTreeSet::from(["v2".into()]);
    policy.set_focus("run".into(), Focus { clusters, interval: Duration::from_millis(500), endpoints: true });
    stream.handle_ask(policy.ask());
    let response = stream.poll_response().unwrap();
    assert_eq!((response.clusters, response.send_all_clusters), (vec!["v2".to_owned()], false));
    assert_eq!(response.load_reporting_interval.unwrap().nanos, 500_000_000);
    assert!(response.report_endpoint_granularity);
    policy.end_focus("run");
    stream.handle_ask(policy.ask());
    assert!(stream.poll_response().unwrap().clusters.is_empty(), "the client is told to rest");
}

#[test]
fn reports_are_taken_once_they_were_asked_for() {
    let mut stream = Stream::new(every_second());
    stream.handle_request(hello(&[ALL])).unwrap();
    assert_eq!(stream.handle_request(report("a", 1)), Err(Refusal::NotAsked));
    stream.poll_response().unwrap();
    let taken = stream.handle_request(report("a", 3)).unwrap().unwrap();
    assert_eq!(taken.clusters[0].counts().successful, 3);
}

#[test]
fn a_first_message_without_a_node_id_is_refused() {
    let nameless = LoadStatsRequest { node: Some(Node::default()), ..LoadStatsRequest::default() };
    assert_eq!(Stream::new(every_second()).handle_request(nameless), Err(Refusal::NoNode));
    assert_eq!(Stream::new(every_second()).handle_request(report("a", 1)), Err(Refusal::NoNode));
}
