//! Tests with the real client: without xDS, and with a discovery server of fixed answers.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use prost::{Message, Name};
use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use proto::pb::envoy::config::core::v3::address::Address as AddressKind;
use proto::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use proto::pb::envoy::config::core::v3::{Address, AggregatedConfigSource, ConfigSource, Locality, SocketAddress};
use proto::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use proto::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use proto::pb::envoy::config::listener::v3::{ApiListener, Listener};
use proto::pb::envoy::config::route::v3::route::Action;
use proto::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use proto::pb::envoy::config::route::v3::route_match::PathSpecifier;
use proto::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use proto::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
};
use proto::pb::envoy::extensions::filters::http::router::v3::Router;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
};
use proto::pb::envoy::service::discovery::v3::aggregated_discovery_service_server as server;
use proto::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::pb::google::protobuf::{Any, UInt32Value};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::backend::Backend;
use crate::stats;
use crate::worker::Worker;

const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn calls_are_answered_by_the_sample_service_and_counted() {
    let backend = Backend::start("v1", (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let mut client = GrpcClient::start(&backend.address().to_string(), None).unwrap();
    for total in [10, 20] {
        let answers = client.call("/echo.Echo/Echo", 10, TIMEOUT, &[("x-user", "ann")]).await.unwrap();
        assert_eq!(answers, Answers { by_backend: [("v1".to_owned(), 10)].into(), ..Answers::default() });
        assert_eq!(backend.requests(), total);
    }
}

#[tokio::test]
async fn failed_calls_are_counted_with_their_status() {
    let nobody = crate::ports::local().unwrap();
    let mut client = GrpcClient::start(&nobody.to_string(), None).unwrap();
    let answers = client.call("/echo.Echo/Echo", 2, TIMEOUT, &[]).await.unwrap();
    assert!(answers.by_backend.is_empty());
    let (reason, count) = answers.errors.first_key_value().unwrap();
    assert!(reason.starts_with("UNAVAILABLE: ") && *count == 2, "{answers:?}");
}

#[tokio::test]
async fn a_bootstrap_that_is_refused_is_reported_with_its_reason() {
    let mut client = GrpcClient::start("xds:///without-a-bootstrap", Some(&json!("nonsense"))).unwrap();
    let answers = client.call("/echo.Echo/Echo", 1, TIMEOUT, &[]).await.unwrap();
    let (reason, _) = answers.errors.first_key_value().unwrap();
    assert!(reason.starts_with("UNAVAILABLE: Failed to create XdsClient"), "{reason}");
}

fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn aggregated() -> Option<ConfigSource> {
    let ads = ConfigSourceSpecifier::Ads(AggregatedConfigSource::default());
    Some(ConfigSource { config_source_specifier: Some(ads), ..ConfigSource::default() })
}

/// A listener for gRPC clients that looks its routes up under the name `routes`.
fn listener(name: &str) -> Any {
    let rds = Rds { config_source: aggregated(), route_config_name: "routes".to_owned() };
    let router = HttpFilter {
        name: "router".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack(&Router::default()))),
        ..HttpFilter::default()
    };
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        http_filters: vec![router],
        ..HttpConnectionManager::default()
    };
    let api_listener = Some(ApiListener { api_listener: Some(pack(&manager)) });
    pack(&Listener { name: name.to_owned(), api_listener, ..Listener::default() })
}

/// All requests go to clusters by weight.
fn routes(weights: &[(&str, u32)]) -> Any {
    let weighted = |(name, weight): &(&str, u32)| ClusterWeight {
        name: (*name).to_owned(),
        weight: Some(UInt32Value { value: *weight }),
        ..ClusterWeight::default()
    };
    let clusters = weights.iter().map(weighted).collect();
    let clusters = ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..WeightedCluster::default() });
    let action = RouteAction { cluster_specifier: Some(clusters), ..RouteAction::default() };
    let every_path = PathSpecifier::Prefix(String::new());
    let route = Route {
        r#match: Some(RouteMatch { path_specifier: Some(every_path), ..RouteMatch::default() }),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    let (domains, name) = (vec!["*".to_owned()], "all".to_owned());
    let host = VirtualHost { name, domains, routes: vec![route], ..VirtualHost::default() };
    let (name, virtual_hosts) = ("routes".to_owned(), vec![host]);
    pack(&RouteConfiguration { name, virtual_hosts, ..RouteConfiguration::default() })
}

fn cluster(name: &str) -> Any {
    pack(&Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: aggregated(), ..EdsClusterConfig::default() }),
        ..Cluster::default()
    })
}

fn endpoints(cluster_name: &str, address: SocketAddr) -> Any {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    let address = Some(Address { address: Some(AddressKind::SocketAddress(socket)) });
    let endpoint = HostIdentifier::Endpoint(Endpoint { address, ..Endpoint::default() });
    let locality = LocalityLbEndpoints {
        locality: Some(Locality { region: "here".to_owned(), ..Locality::default() }),
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        lb_endpoints: vec![LbEndpoint { host_identifier: Some(endpoint), ..LbEndpoint::default() }],
        ..LocalityLbEndpoints::default()
    };
    let (cluster_name, endpoints) = (cluster_name.to_owned(), vec![locality]);
    pack(&ClusterLoadAssignment { cluster_name, endpoints, ..ClusterLoadAssignment::default() })
}

/// Answers each request that is no acknowledgement with the resources of its type, whatever names it asks for.
struct Fixed {
    resources: Vec<Any>,
}

type Responses<T> = Result<Response<ReceiverStream<Result<T, Status>>>, Status>;

#[tonic::async_trait]
impl server::AggregatedDiscoveryService for Fixed {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Responses<DiscoveryResponse> {
        let (mut requests, all) = (request.into_inner(), self.resources.clone());
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let type_url = request.type_url;
                let (version_info, nonce) = ("1".to_owned(), "n".to_owned());
                if request.response_nonce.is_empty() {
                    let resources = all.iter().filter(|any| any.type_url == type_url).cloned().collect();
                    let response = DiscoveryResponse { version_info, resources, type_url, nonce, ..Default::default() };
                    answers.send(Ok(response)).await.unwrap();
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Responses<DeltaDiscoveryResponse> {
        Err(Status::unimplemented("gRPC clients do not use this variant"))
    }
}

#[tokio::test]
async fn the_clients_own_resolver_follows_a_split() {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let (v1, v2) = (Backend::start("v1", any).unwrap(), Backend::start("v2", any).unwrap());
    let resources = vec![
        listener("echo:80"),
        routes(&[("c1", 80), ("c2", 20)]),
        cluster("c1"),
        cluster("c2"),
        endpoints("c1", v1.address()),
        endpoints("c2", v2.address()),
    ];
    let (_server, address) = Worker::start("fixed", None, move |_| {
        let listener = crate::backend::bind(any)?;
        let address = listener.local_addr()?;
        let service = server::AggregatedDiscoveryServiceServer::new(Fixed { resources });
        let serve = tonic::transport::Server::builder().add_service(service);
        Ok((address, async move { serve.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() }))
    })
    .unwrap();
    let bootstrap = json!({
        "xds_servers": [{
            "server_uri": address.to_string(),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {"id": "client"},
    });
    let mut client = GrpcClient::start("xds:///echo:80", Some(&bootstrap)).unwrap();
    let calls = stats::sample_size(&[80, 20], &[50, 50], stats::FALSE_ALARM, 0.999);
    let answers = client.call("/echo.Echo/Echo", u32::try_from(calls).unwrap(), TIMEOUT, &[]).await.unwrap();
    assert!(answers.errors.is_empty(), "{answers:?}");
    stats::assert_split(&answers.by_backend, &[("v1", 80), ("v2", 20)], stats::FALSE_ALARM);
    assert!(stats::fit(&answers.by_backend, &[("v1", 50), ("v2", 50)]).p < stats::FALSE_ALARM, "{answers:?}");
}
