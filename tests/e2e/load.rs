//! What clients report about their traffic, and what others are told about clients.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use proto::pb::envoy::service::status::v3::{ClientStatusRequest, ConfigStatus};
use serde_json::{Value, json};
use testkit::grpc_client::GrpcClient;
use testkit::load::{Load, Plan};
use testkit::stats::{FALSE_ALARM, assert_split};

use crate::mesh::{Mesh, Reviews, SUBSETS, Variant, answering, split};

fn cluster(reviews: &Reviews, subset: &str) -> String {
    format!("outbound|{}|{subset}|reviews.default.svc.cluster.local", reviews.address.port())
}

/// What was reported of a cluster in all: successful requests and errors.
fn counts(load: &Value, cluster: &str) -> (u64, u64) {
    let clusters = load["clusters"].as_array().unwrap();
    let found = clusters.iter().find(|entry| entry["cluster"] == cluster);
    found.map_or((0, 0), |entry| (entry["successful"].as_u64().unwrap(), entry["errors"].as_u64().unwrap()))
}

#[tokio::test]
async fn envoy_reports_the_split_that_it_makes_and_follows_the_interval() {
    let reviews = Reviews::start();
    let files = [("reviews.yaml", &*format!("{}---\n{SUBSETS}", reviews.objects())), ("routes.yaml", &*split(80, 20))];
    let mesh = Mesh::start(&files).await;
    let client = mesh.envoy(Variant::Delta, &["--pod", "client", "--interception", "none", "--load-reports"]).await;
    mesh.synced(1).await;
    assert_eq!(mesh.get("/api/v1/load").await["clusters"], json!([]), "nobody was asked for anything");
    let settings = json!({ "interval_seconds": 0.5, "endpoints": true });
    let set = testkit::http::put_json(mesh.admin, "/api/v1/load/settings", &settings).await.unwrap();
    assert_eq!(set, settings);
    // Traffic before the first answer of the server is never reported, so some goes ahead of what is counted.
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan()).unwrap();
    let (v1, v2) = (cluster(&reviews, "v1"), cluster(&reviews, "v2"));
    let first = mesh
        .get_where("/api/v1/load", "both versions to be reported", |load| {
            counts(load, &v1).0 > 0 && counts(load, &v2).0 > 0
        })
        .await;
    let wanted = 2000;
    let last = mesh
        .get_where("/api/v1/load", "enough requests to be reported", |load| {
            counts(load, &v1).0 + counts(load, &v2).0 > counts(&first, &v1).0 + counts(&first, &v2).0 + wanted
        })
        .await;
    let between = |cluster: &str| counts(&last, cluster).0 - counts(&first, cluster).0;
    let observed = BTreeMap::from([("v1".to_owned(), between(&v1)), ("v2".to_owned(), between(&v2))]);
    assert_split(&observed, &[("v1", 80), ("v2", 20)], FALSE_ALARM);
    assert_eq!((counts(&last, &v1).1, counts(&last, &v2).1), (0, 0), "{last}");
    let one = mesh.get(&format!("/api/v1/load/{}", v1.replace('|', "%7C"))).await;
    assert_eq!(one["nodes"][0]["node_id"], "sidecar~127.0.0.1~client.default~default.svc.cluster.local");
    assert_eq!(one["endpoints"][0]["address"], reviews.v1.address().to_string());
    assert!(one["requests_per_second"].as_f64().unwrap() > 0.0, "{one}");

    // A report names the interval that it covers, and so does the rate that is made of it: after a change to a
    // longer one, reports come more rarely.
    let slow = json!({ "interval_seconds": 3600.0, "endpoints": false });
    testkit::http::put_json(mesh.admin, "/api/v1/load/settings", &slow).await.unwrap();
    let mut before = mesh.metric("pointsman_load_reports").await;
    // One report may have been on its way; then there is silence.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = mesh.metric("pointsman_load_reports").await;
        if now == before {
            break;
        }
        before = now;
    }
    assert_eq!(mesh.metric("pointsman_load_reports").await, before);
    drop(client);
    load.stop().await;
}

#[tokio::test]
async fn errors_are_reported_as_errors() {
    let reviews = Reviews::start();
    let files = [("reviews.yaml", &*format!("{}---\n{SUBSETS}", reviews.objects())), ("routes.yaml", &*split(100, 0))];
    let mesh = Mesh::start_with(&files, &["--load-reports-every", "0.5"]).await;
    let _client =
        mesh.envoy(Variant::StateOfTheWorld, &["--pod", "client", "--interception", "none", "--load-reports"]).await;
    mesh.synced(1).await;
    answering(reviews.plan()).await;
    let load = Load::start(reviews.plan()).unwrap();
    let v1 = cluster(&reviews, "v1");
    mesh.get_where("/api/v1/load", "success to be reported", |load| counts(load, &v1).0 > 0).await;
    load.stop().await;
    let failing = Load::start(Plan::get(reviews.address, "reviews", "/status/503")).unwrap();
    mesh.get_where("/api/v1/load", "errors to be reported", |load| counts(load, &v1).1 > 100).await;
    failing.stop().await;
}

#[tokio::test]
async fn a_grpc_client_reports_its_load() {
    let reviews = Reviews::start();
    let service = reviews.objects().replace("name: http,", "name: grpc,");
    let files = [("reviews.yaml", &*format!("{service}---\n{SUBSETS}")), ("routes.yaml", &*split(50, 50))];
    let mesh = Mesh::start_with(&files, &["--load-reports-every", "0.5"]).await;
    let bootstrap = mesh.bootstrap(&["--kind", "grpc", "--pod", "client"]);
    let target = format!("xds:///reviews.default.svc.cluster.local:{}", reviews.address.port());
    let mut client = GrpcClient::start(&target, Some(&bootstrap)).unwrap();
    let (v1, v2) = (cluster(&reviews, "v1"), cluster(&reviews, "v2"));
    let mut reported = false;
    for _ in 0..40 {
        client.call("/shop.Reviews/Get", 50, Duration::from_secs(10), &[]).await.unwrap();
        let load = mesh.get("/api/v1/load").await;
        reported = counts(&load, &v1).0 > 0 && counts(&load, &v2).0 > 0;
        if reported {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(reported, "{}", mesh.get("/api/v1/load").await);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_in_words() {
    let mesh = Mesh::start(&[]).await;
    for (body, words) in [
        (json!({ "interval_seconds": -1.0 }), "neither 0 nor from 0.1 to 3600"),
        (json!({ "interval_seconds": 0.01 }), "neither 0 nor from 0.1 to 3600"),
        (json!({ "interval_seconds": 1.0, "endpoint": true }), "unknown field `endpoint`"),
        (json!("often"), "invalid type"),
    ] {
        let error = testkit::http::put_json(mesh.admin, "/api/v1/load/settings", &body).await.unwrap_err();
        assert!(format!("{error:#}").contains(words), "{body}: {error:#}");
    }
    assert_eq!(mesh.get("/api/v1/load/settings").await["interval_seconds"], 0.0);
}

#[tokio::test]
async fn the_client_status_service_tells_what_each_node_was_sent() {
    let reviews = Reviews::start();
    let files = [("reviews.yaml", &*format!("{}---\n{SUBSETS}", reviews.objects())), ("routes.yaml", &*split(80, 20))];
    let mesh = Mesh::start(&files).await;
    let _client = mesh.client(Variant::Delta, "client").await;
    mesh.synced(1).await;
    let mut tool = ClientStatusDiscoveryServiceClient::connect(format!("http://{}", mesh.xds)).await.unwrap();
    let answer = tool.fetch_client_status(ClientStatusRequest::default()).await.unwrap().into_inner();
    let [config] = &answer.config[..] else { panic!("{answer:?}") };
    assert_eq!(config.node.as_ref().unwrap().id, "sidecar~127.0.0.1~client.default~default.svc.cluster.local");
    let name = cluster(&reviews, "v2");
    let found: Vec<_> = config.generic_xds_configs.iter().filter(|resource| resource.name == name).collect();
    let types: Vec<_> = found.iter().map(|resource| resource.type_url.rsplit('.').next().unwrap()).collect();
    assert_eq!(types, ["ClusterLoadAssignment", "Cluster"], "{found:?}");
    assert!(config.generic_xds_configs.iter().all(|resource| resource.config_status() == ConfigStatus::Synced));
    let body = found[1].xds_config.as_ref().unwrap();
    assert!(!body.value.is_empty() && body.type_url == found[1].type_url);

    let bare = ClientStatusRequest { exclude_resource_contents: true, ..ClientStatusRequest::default() };
    let answer = tool.fetch_client_status(bare).await.unwrap().into_inner();
    assert!(answer.config[0].generic_xds_configs.iter().all(|resource| resource.xds_config.is_none()));
    let requests = tokio_stream::iter([ClientStatusRequest::default(), ClientStatusRequest::default()]);
    let mut answers = tool.stream_client_status(requests).await.unwrap().into_inner();
    for _ in 0..2 {
        assert_eq!(answers.message().await.unwrap().unwrap().config.len(), 1, "an answer for each request");
    }
    assert!(answers.message().await.unwrap().is_none());
}
