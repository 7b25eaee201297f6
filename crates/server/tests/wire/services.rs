//! The gRPC services beside discovery.

use proto::ResourceType;
use proto::admin::admin_client::AdminClient;
use proto::admin::{
    EventKind, GetNodeConfigRequest, ListNodesRequest, ListObjectsRequest, ResourceState, WatchEventsRequest,
};
use proto::pb::google::protobuf::Any;
use testkit::wire::node;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::fixture::{CLUSTER, NODE, RETRIES, REVIEWS, Running, SOON, config, eventually, serving, start};

async fn channel(server: &Running) -> Channel {
    Endpoint::from_shared(server.xds()).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_serving_once_the_configuration_is_read() {
    let server = start(config()).await;
    let mut health = HealthClient::new(channel(&server).await);
    let status = |response: HealthCheckResponse| response.status();
    let before = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(status(before.into_inner()), ServingStatus::NotServing);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(status(watch.message().await.unwrap().unwrap()), ServingStatus::NotServing);
    server.input.set_synced().await.unwrap();
    let next = tokio::time::timeout(SOON, watch.message()).await.unwrap();
    assert_eq!(status(next.unwrap().unwrap()), ServingStatus::Serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_what_is_served_and_describes_it() {
    let server = serving(config(), REVIEWS).await;
    let mut client = ServerReflectionClient::new(channel(&server).await);
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("pointsman.admin.v1.Admin".to_owned())),
    ];
    let mut answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut next = async || -> ServerReflectionResponse { answers.message().await.unwrap().unwrap() };
    let Some(MessageResponse::ListServicesResponse(list)) = next().await.message_response else { panic!() };
    let names: Vec<_> = list.service.iter().map(|service| &*service.name).collect();
    for name in [
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        "envoy.service.cluster.v3.ClusterDiscoveryService",
        "pointsman.admin.v1.Admin",
        "grpc.health.v1.Health",
        "envoy.service.load_stats.v3.LoadReportingService",
        "envoy.service.status.v3.ClientStatusDiscoveryService",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("RateLimitQuota")), "{names:?}");
    let Some(MessageResponse::FileDescriptorResponse(files)) = next().await.message_response else { panic!() };
    assert!(!files.file_descriptor_proto.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_over_grpc_too() {
    let server = serving(config(), REVIEWS).await;
    let mut admin = AdminClient::new(channel(&server).await);
    let wanted = WatchEventsRequest {
        node_id: NODE.to_owned(),
        kinds: vec![EventKind::Accepted.into(), EventKind::Connected.into()],
        ..WatchEventsRequest::default()
    };
    let mut events = admin.watch_events(wanted).await.unwrap().into_inner();
    let mut stream = server.wire().await.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let response = stream.next(SOON).await.unwrap();
    stream.ack(&response).await;
    let connected = events.message().await.unwrap().unwrap();
    assert_eq!((connected.kind(), &*connected.node_id), (EventKind::Connected, NODE));
    let accepted = events.message().await.unwrap().unwrap();
    assert_eq!((accepted.kind(), accepted.version), (EventKind::Accepted, response.system_version_info));
    assert_eq!(accepted.type_url, ResourceType::Cluster.type_url());
    let wrong = WatchEventsRequest { object: "reviews".to_owned(), ..WatchEventsRequest::default() };
    assert_eq!(admin.watch_events(wrong).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    // Who watches does not keep the server from ending.
    server.stop().await.unwrap();
    assert!(events.message().await.unwrap_or(None).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_answers_over_grpc() {
    let server = serving(config(), &format!("{REVIEWS}---{RETRIES}")).await;
    let mut stream = server.wire().await.delta(node(NODE, "client"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let response = stream.next(SOON).await.unwrap();
    stream.ack(&response).await;

    let admin = AdminClient::new(channel(&server).await);
    let nodes = eventually(
        || async { admin.clone().list_nodes(ListNodesRequest::default()).await.unwrap().into_inner().nodes },
        |nodes| nodes[0].subscriptions[0].accepted_version == nodes[0].subscriptions[0].sent_version,
    )
    .await;
    assert_eq!((&*nodes[0].id, &*nodes[0].cluster), (NODE, "client"));
    assert!(nodes[0].connected_since.as_ref().unwrap().seconds > 1_700_000_000);

    let request = GetNodeConfigRequest { node_id: NODE.to_owned(), type_urls: Vec::new() };
    let config = admin.clone().get_node_config(request).await.unwrap().into_inner();
    let resource = config.resources.iter().find(|resource| resource.name == CLUSTER).unwrap();
    assert_eq!(resource.state(), ResourceState::Accepted);
    let sent = response.resources.iter().find(|resource| resource.name == CLUSTER).unwrap();
    // Redacting writes the message anew, in another order of fields.
    let json = |any: &Any| proto::descriptor::to_json(&any.type_url, &any.value);
    assert_eq!(resource.body.as_ref().map(json), sent.resource.as_ref().map(json));

    let missing = GetNodeConfigRequest { node_id: "nobody".to_owned(), type_urls: Vec::new() };
    assert_eq!(admin.clone().get_node_config(missing).await.unwrap_err().code(), Code::NotFound);

    let request = ListObjectsRequest { kind: "virtualservice".to_owned(), ..ListObjectsRequest::default() };
    let objects = admin.clone().list_objects(request).await.unwrap().into_inner().objects;
    assert_eq!((objects.len(), &*objects[0].name), (1, "reviews"));
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_are_not_served_are_unimplemented() {
    let server = serving(config(), REVIEWS).await;
    let wire = server.wire().await;
    for method in ["/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters", "/no.such.Service/Method"] {
        let mut call: testkit::wire::Exchange<
            proto::pb::envoy::service::discovery::v3::DiscoveryRequest,
            proto::pb::envoy::service::discovery::v3::DiscoveryResponse,
        > = wire.open(method);
        match call.next(SOON).await {
            Err(testkit::wire::WireError::Refused(status)) => assert_eq!(status.code(), Code::Unimplemented),
            other => panic!("{method}: {other:?}"),
        }
    }
}
