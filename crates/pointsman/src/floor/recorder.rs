//! Takes down what a server sends to one client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::config::listener::v3::Listener;
use proto::pb::envoy::config::route::v3::RouteConfiguration;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use proto::pb::google::protobuf::Any;
use testkit::wire::{Delta, Sotw, Wire, WireError, node};

use super::recording::{Recording, Variant, framed};

/// How long a response may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a server may take until it has read its configuration.
const SYNCED: Duration = Duration::from_secs(60);

/// Connects as a sidecar does, takes everything, has each change made once, and returns what was sent.
///
/// # Errors
/// The server does not answer as a control plane does.
pub(super) async fn record(
    server: &str,
    variant: Variant,
    changes: &[(&'static str, SocketAddr, String)],
) -> Result<Recording> {
    let wire = Wire::connect(format!("http://{server}")).await?;
    let begun = Instant::now();
    let mut first = HashMap::new();
    let (mut client, clusters) = loop {
        let mut client = Client::new(&wire, variant);
        match client.take(ResourceType::Cluster, &[], &mut first).await {
            Ok(clusters) => break (client, clusters),
            Err(error) if is_early(&error) && begun.elapsed() < SYNCED => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error),
        }
    };
    let by_eds: Vec<_> = unpacked::<Cluster>(&clusters)?.into_iter().filter_map(assignment).collect();
    client.take(ResourceType::Endpoints, &by_eds, &mut first).await?;
    let listeners = client.take(ResourceType::Listener, &[], &mut first).await?;
    let routes =
        unpacked::<Listener>(&listeners)?.iter().flat_map(routes_of).collect::<std::collections::BTreeSet<_>>();
    let routes: Vec<_> = routes.into_iter().collect();
    if !routes.is_empty() {
        let routes = client.take(ResourceType::Route, &routes, &mut first).await?;
        if unpacked::<RouteConfiguration>(&routes)?.iter().any(|routes| routes.vhds.is_some()) {
            client.take(ResourceType::VirtualHost, &[], &mut first).await?;
        }
    }
    let mut recording = Recording { first, changes: HashMap::new() };
    for (name, control, path) in changes {
        crate::floor::post(*control, path).await.with_context(|| format!("cannot have \"{name}\" changed"))?;
        let (_, frame) = client.next().await.with_context(|| format!("after \"{name}\""))?;
        recording.changes.insert(name, frame);
    }
    Ok(recording)
}

/// Whether the server has not read its configuration yet.
fn is_early(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(WireError::Refused(status)) if status.code() == tonic::Code::Unavailable)
}

/// A client of either variant.
enum Client {
    Delta(Box<Delta>),
    Sotw(Box<Sotw>),
}

impl Client {
    fn new(wire: &Wire, variant: Variant) -> Self {
        let node = Node {
            user_agent_name: "envoy".to_owned(),
            ..node("sidecar~10.255.255.254~recorder.ns-0~ns-0.svc.cluster.local", "recorder.ns-0")
        };
        match variant {
            Variant::Delta => Self::Delta(Box::new(wire.delta(node))),
            Variant::Sotw => Self::Sotw(Box::new(wire.sotw(node))),
        }
    }

    /// Subscribes, takes down the answer, and returns what it holds.
    async fn take(
        &mut self,
        kind: ResourceType,
        names: &[String],
        first: &mut HashMap<String, Bytes>,
    ) -> Result<Vec<Any>> {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        match self {
            Self::Delta(client) => client.subscribe(kind, &names).await,
            Self::Sotw(client) => client.subscribe(kind, &names).await,
        }
        let (resources, frame) = self.next().await.with_context(|| format!("cannot take {kind}"))?;
        let Some(is) = resources.first().map(|resource| resource.type_url.clone()) else {
            bail!("the server has no {kind}");
        };
        if is != kind.type_url() {
            bail!("the server answered with \"{is}\" where {kind} was asked for");
        }
        first.insert(is, frame);
        Ok(resources)
    }

    /// The next response, acknowledged.
    async fn next(&mut self) -> Result<(Vec<Any>, Bytes)> {
        match self {
            Self::Delta(client) => {
                let response = client.next(PATIENCE).await?;
                client.ack(&response).await;
                let frame = framed(&response.encode_to_vec());
                Ok((response.resources.into_iter().filter_map(|entry| entry.resource).collect(), frame))
            }
            Self::Sotw(client) => {
                let response = client.next(PATIENCE).await?;
                client.ack(&response).await;
                let frame = framed(&response.encode_to_vec());
                Ok((response.resources, frame))
            }
        }
    }
}

fn unpacked<M: prost::Message + prost::Name + Default>(resources: &[Any]) -> Result<Vec<M>> {
    testkit::wire::unpack(resources)
}

/// The name of a cluster's assignment, if it has one.
fn assignment(cluster: Cluster) -> Option<String> {
    let eds = cluster.eds_cluster_config?;
    Some(if eds.service_name.is_empty() { cluster.name } else { eds.service_name })
}

/// The route configurations that a listener asks for.
fn routes_of(listener: &Listener) -> Vec<String> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let filters = chains.flat_map(|chain| &chain.filters);
    let packed = filters.filter_map(|filter| match &filter.config_type {
        Some(proto::pb::envoy::config::listener::v3::filter::ConfigType::TypedConfig(any)) => Some(any),
        _ => None,
    });
    let managers = packed.filter_map(|any| HttpConnectionManager::decode(any.value.as_slice()).ok());
    managers
        .filter_map(|manager| match manager.route_specifier {
            Some(RouteSpecifier::Rds(rds)) => Some(rds.route_config_name),
            _ => None,
        })
        .filter(|name| !name.is_empty())
        .collect()
}
