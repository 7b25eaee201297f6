//! The admin HTTP API.

use std::time::Instant;

use proto::ResourceType;
use server::view::{Failure, NodeConfig, Nodes, Objects, Problems, ResourceState, Sync};
use testkit::wire::{Sotw, node};

use crate::fixture::{CLUSTER, NODE, RATINGS, RETRIES, REVIEWS, SOON, config, eventually, serving};

async fn next_cluster_response(stream: &mut Sotw) -> proto::pb::envoy::service::discovery::v3::DiscoveryResponse {
    stream.next(SOON).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_shows_who_it_is_what_it_asked_for_and_how_far_it_is() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    let mut stream = wire.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let response = next_cluster_response(&mut stream).await;
    let nodes: Nodes = server.json("/api/v1/nodes").await;
    assert_eq!(nodes.nodes[0].id, NODE);
    assert_eq!(nodes.nodes[0].sync, Sync::Pending);

    stream.ack(&response).await;
    let nodes = eventually(
        || server.json::<Nodes>("/api/v1/nodes"),
        |nodes| nodes.nodes.first().is_some_and(|node| node.sync == Sync::Synced),
    )
    .await;
    let subscription = &nodes.nodes[0].subscriptions[0];
    assert_eq!((&*subscription.r#type, &*subscription.service, &*subscription.variant), ("cds", "ads", "sotw"));
    assert!(subscription.wildcard);
    assert_eq!(subscription.sent_version, response.version_info);
    assert_eq!(subscription.accepted_version, response.version_info);

    // A second stream on the same connection belongs to the same node.
    let mut endpoints = wire.sotw_of(ResourceType::Endpoints, node(NODE, "client"));
    endpoints.subscribe(ResourceType::Endpoints, &[CLUSTER]).await;
    endpoints.next(SOON).await.unwrap();
    let nodes: Nodes = server.json("/api/v1/nodes?id_prefix=sidecar~").await;
    assert_eq!(nodes.nodes.len(), 1);
    assert_eq!(nodes.nodes[0].subscriptions.len(), 2);
    let none: Nodes = server.json("/api/v1/nodes?id_prefix=other").await;
    assert_eq!(none.nodes, []);

    drop((stream, endpoints));
    eventually(|| server.json::<Nodes>("/api/v1/nodes"), |nodes| nodes.nodes.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_config_of_a_node_is_exactly_what_it_was_sent() {
    let server = serving(config(), REVIEWS).await;
    let mut stream = server.wire().await.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let response = next_cluster_response(&mut stream).await;
    let path = format!("/api/v1/nodes/{NODE}/config");
    let config: NodeConfig = server.json(&path).await;
    assert_eq!(config.node_id, NODE);
    assert_eq!(config.resources.len(), response.resources.len());
    for any in &response.resources {
        let body = proto::descriptor::to_json(&any.type_url, &any.value);
        let shown = config.resources.iter().find(|resource| resource.body == body);
        assert_eq!(shown.expect("every resource is shown").state, ResourceState::Pending);
    }
    let cluster = config.resources.iter().find(|resource| resource.name == CLUSTER).unwrap();
    assert!(cluster.origins.iter().any(|origin| origin == "service/default/reviews"), "{:?}", cluster.origins);

    let listeners: NodeConfig = server.json(&format!("{path}?type=lds")).await;
    assert_eq!(listeners.resources, []);
    let both: NodeConfig = server.json(&format!("{path}?type=lds,cds")).await;
    assert_eq!(both.resources.len(), response.resources.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_tells_who_has_it_who_lacks_it_and_who_refused_it() {
    let server = serving(config(), REVIEWS).await;
    let mut stream = server.wire().await.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let first = next_cluster_response(&mut stream).await;
    let path = "/api/v1/objects?kind=Service&namespace=default&name=reviews";
    let pending: Objects = server.json(path).await;
    assert_eq!(pending.objects.len(), 1);
    assert_eq!(pending.objects[0].pending_nodes, [NODE]);
    assert_eq!((&*pending.objects[0].file, pending.objects[0].line), ("mesh.yaml", 2));

    stream.ack(&first).await;
    eventually(|| server.json::<Objects>(path), |view| view.objects[0].accepted_nodes == [NODE]).await;

    server.apply(RATINGS).await;
    let second = next_cluster_response(&mut stream).await;
    stream.nack(&second, "Error adding/updating cluster(s) of ratings: no").await;
    let ratings = "/api/v1/objects?name=ratings";
    let view = eventually(|| server.json::<Objects>(ratings), |view| !view.objects[0].rejected_nodes.is_empty()).await;
    let rejection = &view.objects[0].rejected_nodes[0];
    assert_eq!(rejection.node_id, NODE);
    assert_eq!(rejection.message, "Error adding/updating cluster(s) of ratings: no");
    let nodes: Nodes = server.json("/api/v1/nodes").await;
    assert_eq!(nodes.nodes[0].sync, Sync::Rejected);
    assert_eq!(server.metric("pilot_total_xds_rejects{type=\"cds\"}").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_a_node_has_in_an_older_version_only_is_pending() {
    let server = serving(config(), REVIEWS).await;
    let mut stream = server.wire().await.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Endpoints, &[CLUSTER]).await;
    let first = stream.next(SOON).await.unwrap();
    stream.ack(&first).await;
    let path = "/api/v1/objects?kind=service&name=reviews";
    let accepted = |view: &Objects| view.objects[0].accepted_nodes == [NODE];
    eventually(|| server.json::<Objects>(path), accepted).await;
    server.apply(&REVIEWS.replace("10.2.0.1", "10.2.0.9")).await;
    let second = stream.next(SOON).await.unwrap();
    let view: Objects = server.json(path).await;
    assert_eq!(view.objects[0].pending_nodes, [NODE]);
    stream.ack(&second).await;
    eventually(|| server.json::<Objects>(path), accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_are_listed_and_counted() {
    let server = serving(config(), REVIEWS).await;
    let reference = world::ObjectRef::new(world::Kind::VirtualService, "default", "broken");
    let problem = world::Problem::error(&reference, "spec.hosts", "the list is empty").consequence("it has no effect");
    server.input.apply(Vec::new(), vec![problem], Instant::now()).await.unwrap();
    let problems = eventually(
        || server.json::<Problems>("/api/v1/problems"),
        |view| view.problems.iter().any(|problem| problem.object == "virtualservice/default/broken"),
    )
    .await;
    assert_eq!(problems.problems[0].severity, "error");
    assert_eq!(server.metric("pointsman_problems{severity=\"error\"}").await, Some(1.0));
    let view: Objects = server.json("/api/v1/objects?name=broken").await;
    assert_eq!(view.objects[0].problems[0].consequence, "it has no effect");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_gets_a_way_out() {
    let server = serving(config(), REVIEWS).await;
    let cases = [
        ("GET", "/nothing", 404, "GET / lists what there is"),
        ("GET", "/api/v1/nodes/nobody/config", 404, "GET /api/v1/nodes lists the nodes that are connected"),
        (
            "POST",
            "/api/v1/nodes",
            405,
            "GET / lists what there is; what is not listed with another method is read-only",
        ),
        ("GET", "/api/v1/objects?color=red", 400, "known parameters: kind, namespace, name, state, limit, after"),
        (
            "GET",
            "/api/v1/nodes/x/config?type=xyz",
            400,
            "known types: rtds, sds, eds, cds, vhds, rds, srds, ecds, lds, or their type URLs",
        ),
    ];
    for (method, path, status, hint) in cases {
        let (got, text) = server.ask(method, path).await;
        assert_eq!(got, status, "{text}");
        let failure: Failure = serde_json::from_str(&text).unwrap();
        assert_eq!(failure.hint, hint);
        assert!(!failure.error.is_empty());
    }
    let (status, page) = server.get("/").await;
    assert_eq!(status, 200);
    assert!(page.contains("/api/v1/objects"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_names_that_dashboards_ask_for() {
    let server = serving(config(), &format!("{REVIEWS}---{RETRIES}")).await;
    let mut stream = server.wire().await.sotw(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let response = next_cluster_response(&mut stream).await;
    stream.ack(&response).await;
    eventually(|| server.metric("pointsman_acknowledgement_seconds_count{type=\"cds\"}"), |count| *count == Some(1.0))
        .await;
    for (name, value) in [
        ("pilot_xds{version=\"unknown\"}", 1.0),
        ("pilot_xds_pushes{type=\"cds\"}", 1.0),
        ("pilot_xds_push_time_count{type=\"cds\"}", 1.0),
        ("pilot_xds_send_time_count", 1.0),
        ("pilot_xds_config_size_bytes_count{type=\"cds\"}", 1.0),
        ("pilot_services", 1.0),
        ("pilot_virt_services", 1.0),
        ("pointsman_streams{service=\"ads\",variant=\"sotw\"}", 1.0),
        ("pointsman_connections", 1.0),
        ("pointsman_seen_to_published_seconds_count", 1.0),
    ] {
        assert_eq!(server.metric(name).await, Some(value), "{name}");
    }
    server.apply(RATINGS).await;
    let response = next_cluster_response(&mut stream).await;
    stream.ack(&response).await;
    eventually(|| server.metric("pilot_proxy_convergence_time_count"), |count| *count == Some(1.0)).await;
    let (_, text) = server.get("/metrics").await;
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn every_metric_is_documented_and_every_documented_one_exists() {
    let page = include_str!("../../../../docs/metrics.md");
    let source = [include_str!("../../src/metrics.rs"), include_str!("../../src/metrics/judged.rs")];
    let name = |line: &str| line.split('`').nth(1).map(str::to_owned);
    let documented: std::collections::BTreeSet<_> =
        page.lines().filter(|line| line.starts_with("| `")).filter_map(name).collect();
    let registered: std::collections::BTreeSet<_> = source
        .iter()
        .flat_map(|file| file.split('"'))
        .filter(|text| {
            (text.starts_with("pilot_") || text.starts_with("pointsman_"))
                && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(documented, registered);
}
