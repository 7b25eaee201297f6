//! Tests of the raw client against a server that answers by a fixed script and shows what it was sent.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use prost::{Message, Name};
use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::listener::v3::Listener;
use proto::pb::envoy::service::discovery::v3::aggregated_discovery_service_server as server;
use proto::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::worker::Worker;

const SOON: Duration = Duration::from_secs(120);

/// Answers a request without nonce with a cluster per name, and a refusal with the end of the stream. Reports all requests.
struct Script {
    sotw: mpsc::UnboundedSender<DiscoveryRequest>,
    delta: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
}

fn cluster(name: &str) -> Any {
    let cluster = Cluster { name: name.to_owned(), ..Cluster::default() };
    Any { type_url: Cluster::type_url(), value: cluster.encode_to_vec() }
}

type Responses<T> = Result<Response<ReceiverStream<Result<T, Status>>>, Status>;

#[tonic::async_trait]
impl server::AggregatedDiscoveryService for Script {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Responses<DiscoveryResponse> {
        let (mut requests, seen) = (request.into_inner(), self.sotw.clone());
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                seen.send(request.clone()).unwrap();
                if let Some(refusal) = request.error_detail {
                    answers.send(Err(Status::invalid_argument(refusal.message))).await.unwrap();
                } else if request.response_nonce.is_empty() {
                    let resources = request.resource_names.iter().map(|name| cluster(name)).collect();
                    let (version_info, nonce, type_url) = ("7".to_owned(), "n1".to_owned(), request.type_url);
                    let response = DiscoveryResponse { version_info, nonce, type_url, resources, ..Default::default() };
                    answers.send(Ok(response)).await.unwrap();
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Responses<DeltaDiscoveryResponse> {
        let (mut requests, seen) = (request.into_inner(), self.delta.clone());
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                seen.send(request.clone()).unwrap();
                let packed = |name: &String| Resource {
                    name: name.clone(),
                    version: "7".to_owned(),
                    resource: Some(cluster(name)),
                    ..Resource::default()
                };
                let resources: Vec<_> = request.resource_names_subscribe.iter().map(packed).collect();
                let removed_resources = request.resource_names_unsubscribe;
                if !resources.is_empty() || !removed_resources.is_empty() {
                    let (nonce, type_url) = ("n1".to_owned(), request.type_url);
                    let response =
                        DeltaDiscoveryResponse { nonce, type_url, resources, removed_resources, ..Default::default() };
                    answers.send(Ok(response)).await.unwrap();
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Server {
    address: SocketAddr,
    sotw: mpsc::UnboundedReceiver<DiscoveryRequest>,
    delta: mpsc::UnboundedReceiver<DeltaDiscoveryRequest>,
    _worker: Worker,
}

fn start() -> Server {
    let ((to_sotw, sotw), (to_delta, delta)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let (worker, address) = Worker::start("script", None, move |_| {
        let listener = crate::backend::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = listener.local_addr()?;
        let service = server::AggregatedDiscoveryServiceServer::new(Script { sotw: to_sotw, delta: to_delta });
        let serve = tonic::transport::Server::builder().add_service(service);
        Ok((address, async move { serve.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() }))
    })
    .unwrap();
    Server { address, sotw, delta, _worker: worker }
}

#[tokio::test]
async fn a_state_of_the_world_client_subscribes_acknowledges_and_refuses() {
    let mut server = start();
    let wire = Wire::connect(format!("http://{}", server.address)).await.unwrap();
    let mut stream = wire.sotw(node("n", "c"));
    stream.subscribe(ResourceType::Cluster, &["a", "b"]).await;
    let response = stream.next(SOON).await.unwrap();
    let clusters: Vec<Cluster> = unpack(&response.resources).unwrap();
    assert_eq!(clusters.iter().map(|cluster| &cluster.name).collect::<Vec<_>>(), ["a", "b"]);
    unpack::<Listener>(&response.resources).unwrap_err();
    stream.ack(&response).await;
    stream.exchange().silence(Duration::from_millis(50)).await.unwrap();
    stream.nack(&response, "no good").await;
    let end = stream.next(SOON).await.unwrap_err();
    assert_eq!(end.to_string(), "the stream ended with InvalidArgument: no good");
    assert_eq!(stream.next(SOON).await.unwrap_err().to_string(), end.to_string());

    let seen = |request: DiscoveryRequest| {
        (request.node.map(|node| node.id), request.version_info, request.response_nonce, request.resource_names.len())
    };
    let text = str::to_owned;
    assert_eq!(seen(server.sotw.recv().await.unwrap()), (Some(text("n")), text(""), text(""), 2));
    assert_eq!(seen(server.sotw.recv().await.unwrap()), (None, text("7"), text("n1"), 2));
    assert_eq!(seen(server.sotw.recv().await.unwrap()), (None, text("7"), text("n1"), 2));
}

#[tokio::test]
async fn a_delta_client_remembers_what_it_holds() {
    let mut server = start();
    let wire = Wire::connect(format!("http://{}", server.address)).await.unwrap();
    let mut stream = wire.delta(node("n", "c"));
    stream.subscribe(ResourceType::Cluster, &["a", "b"]).await;
    let response = stream.next(SOON).await.unwrap();
    assert!(stream.held(ResourceType::Cluster).is_empty(), "nothing is held before it is acknowledged");
    stream.ack(&response).await;
    stream.unsubscribe(ResourceType::Cluster, &["a"]).await;
    let removal = stream.next(SOON).await.unwrap();
    stream.ack(&removal).await;
    let held = stream.held(ResourceType::Cluster);
    assert_eq!(held, [("b".to_owned(), "7".to_owned())].into());
    stream.exchange().finish();
    assert_eq!(stream.next(SOON).await.unwrap_err().to_string(), "the stream ended with OK");

    let mut stream = wire.delta(node("n", "c"));
    stream.resume(ResourceType::Cluster, &[], &held).await;
    let mut resumed = None;
    while let Some(request) = server.delta.recv().await {
        if !request.initial_resource_versions.is_empty() {
            resumed = Some(request);
            break;
        }
    }
    let resumed = resumed.unwrap();
    assert_eq!(resumed.initial_resource_versions, [("b".to_owned(), "7".to_owned())].into());
    assert_eq!(resumed.node.unwrap().id, "n");
}

#[tokio::test]
async fn a_method_that_the_server_does_not_know_is_refused() {
    let server = start();
    let wire = Wire::connect(format!("http://{}", server.address)).await.unwrap();
    let mut stream = wire.sotw_of(ResourceType::Cluster, node("n", "c"));
    stream.subscribe(ResourceType::Cluster, &[]).await;
    let end = stream.next(SOON).await.unwrap_err();
    assert!(matches!(&end, WireError::Refused(status) if status.code() == tonic::Code::Unimplemented), "{end}");
}

#[tokio::test]
async fn a_unix_socket_is_an_address_and_a_missing_one_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xds.sock");
    Wire::connect(format!("unix:{}", path.display())).await.unwrap_err();
    let socket = path.clone();
    let (worker, ()) = Worker::start("script", None, move |_| {
        let listener = tokio::net::UnixListener::bind(socket)?;
        let service = server::AggregatedDiscoveryServiceServer::new(Script {
            sotw: mpsc::unbounded_channel().0,
            delta: mpsc::unbounded_channel().0,
        });
        let serve = tonic::transport::Server::builder().add_service(service);
        Ok(((), async move { serve.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap() }))
    })
    .unwrap();
    Wire::connect(format!("unix:{}", path.display())).await.unwrap();
    drop(worker);
}
