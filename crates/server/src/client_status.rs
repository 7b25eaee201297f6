//! The client status service (CSDS): what each node was sent, and how it took it, for tools that speak Envoy's own
//! API (rule P-71). The same inspections answer the admin API.
//!
//! It is the server's side of the story: what a client says of itself comes from the client's own CSDS. When a
//! resource was last sent is not remembered, so `last_updated` stays empty.

mod matching;

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use proto::pb::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
use proto::pb::envoy::config::core::v3 as core;
use proto::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use proto::pb::envoy::service::status::v3::client_status_discovery_service_server::{
    ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
};
use proto::pb::envoy::service::status::v3::{ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus};
use proto::pb::google::protobuf;
use snapshot::Cell;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use xds::{HoldingState, Node, Verdict};

use crate::discovery::{Entry, Report, Roster};
use matching::Matchers;

/// Serves `envoy.service.status.v3.ClientStatusDiscoveryService`.
#[derive(Clone, Debug)]
pub(crate) struct ClientStatusService {
    roster: Arc<Roster>,
    /// How long a stream may take to say what it holds.
    patience: Duration,
}

impl ClientStatusService {
    /// The service, ready to be routed to.
    pub(crate) fn new(roster: Arc<Roster>, patience: Duration) -> ClientStatusDiscoveryServiceServer<Self> {
        ClientStatusDiscoveryServiceServer::new(Self { roster, patience })
    }

    async fn answer(&self, request: ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
        let matchers = Matchers::new(&request.node_matchers)
            .map_err(|error| Status::invalid_argument(format!("node_matchers: {error}")))?;
        let mut entries = self.roster.identified();
        entries.retain(|entry| entry.node.as_ref().is_some_and(|node| matchers.take(node)));
        let reports = Roster::inspect(entries, true, self.patience).await;
        let with_contents = !request.exclude_resource_contents;
        // JSON of everything that thousands of nodes hold takes its time, which no stream should wait for.
        let work = move || ClientStatusResponse { config: configs(&reports, with_contents) };
        tokio::task::spawn_blocking(work).await.map_err(|_| Status::unavailable("shutting down"))
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<ClientStatusResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ClientStatusDiscoveryService for ClientStatusService {
    type StreamClientStatusStream = Answers;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let service = self.clone();
        let answers = request.into_inner().then(move |request| {
            let service = service.clone();
            async move { service.answer(request?).await }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        self.answer(request.into_inner()).await.map(Response::new)
    }
}

/// One entry for each stream's node, in order of id; a node with a stream for each type has as many entries, told
/// apart by `client_scope`.
fn configs(reports: &[(Entry, Option<Report>)], with_contents: bool) -> Vec<ClientConfig> {
    let config = |(entry, report): &(Entry, Option<Report>)| {
        let node = entry.node.as_deref()?;
        let resources = report.as_ref().map(|report| resources(report, with_contents)).unwrap_or_default();
        Some(ClientConfig {
            node: Some(node_message(node)),
            generic_xds_configs: resources,
            client_scope: format!("stream {}", entry.number),
            ..ClientConfig::default()
        })
    };
    reports.iter().filter_map(config).collect()
}

/// What a stream was sent and what it is still to be sent, in order of type and name.
fn resources(report: &Report, with_contents: bool) -> Vec<GenericXdsConfig> {
    let mut found = BTreeMap::new();
    for holding in &report.holdings {
        let cell = &holding.cell;
        let wanted = report.target.as_ref().and_then(|target| target.get(cell.resource_type(), cell.name()));
        let is_newest = wanted.is_some_and(|wanted| wanted.version() == holding.stands_for);
        let (config, client) = match &holding.state {
            HoldingState::Rejected { verdict: Verdict::Culprit | Verdict::Untried, .. } => {
                (ConfigStatus::Error, ClientResourceStatus::Nacked)
            }
            HoldingState::Sent | HoldingState::Rejected { verdict: Verdict::Suspect, .. } => {
                (ConfigStatus::Stale, ClientResourceStatus::Requested)
            }
            HoldingState::Accepted if is_newest => (ConfigStatus::Synced, ClientResourceStatus::Acked),
            HoldingState::Accepted => (ConfigStatus::Stale, ClientResourceStatus::Acked),
        };
        let mut entry = resource(holding.in_force.as_ref().unwrap_or(cell), config, client, with_contents);
        if let HoldingState::Rejected { message, since, .. } = &holding.state {
            entry.error_state = Some(failure(report, cell, message, *since));
        }
        found.insert((cell.resource_type(), cell.name().clone()), entry);
    }
    let Some(target) = &report.target else { return found.into_values().collect() };
    let held: HashMap<_, _> = report.summaries.iter().map(|summary| (summary.resource_type, summary)).collect();
    for summary in held.values().filter(|summary| summary.wildcard) {
        for cell in target.iter(summary.resource_type) {
            found
                .entry((summary.resource_type, cell.name().clone()))
                .or_insert_with(|| resource(cell, ConfigStatus::NotSent, ClientResourceStatus::Requested, false));
        }
    }
    for (resource_type, name) in &report.missing {
        found.entry((*resource_type, name.clone())).or_insert_with(|| GenericXdsConfig {
            type_url: resource_type.type_url().to_owned(),
            name: name.to_string(),
            config_status: ConfigStatus::NotSent.into(),
            client_status: ClientResourceStatus::DoesNotExist.into(),
            ..GenericXdsConfig::default()
        });
    }
    found.into_values().collect()
}

fn resource(cell: &Cell, config: ConfigStatus, client: ClientResourceStatus, with_contents: bool) -> GenericXdsConfig {
    let type_url = cell.resource_type().type_url();
    let body =
        || protobuf::Any { type_url: type_url.to_owned(), value: proto::descriptor::redact(type_url, &cell.value()) };
    GenericXdsConfig {
        type_url: type_url.to_owned(),
        name: cell.name().to_string(),
        version_info: cell.version().to_string(),
        xds_config: with_contents.then(body),
        config_status: config.into(),
        client_status: client.into(),
        ..GenericXdsConfig::default()
    }
}

fn failure(report: &Report, cell: &Cell, message: &str, since: Instant) -> UpdateFailureState {
    let time = report.time(since).duration_since(UNIX_EPOCH).ok();
    UpdateFailureState {
        details: message.to_owned(),
        version_info: cell.version().to_string(),
        last_update_attempt: time.map(|time| protobuf::Timestamp {
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            nanos: time.subsec_nanos() as i32,
        }),
        ..UpdateFailureState::default()
    }
}

fn node_message(node: &Node) -> core::Node {
    core::Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        metadata: Some(node.metadata.clone()),
        locality: Some(core::Locality {
            region: node.locality.region.clone(),
            zone: node.locality.zone.clone(),
            sub_zone: node.locality.sub_zone.clone(),
        }),
        user_agent_name: node.user_agent_name.clone(),
        user_agent_version_type: Some(core::node::UserAgentVersionType::UserAgentVersion(
            node.user_agent_version.clone(),
        )),
        client_features: node.client_features.clone(),
        ..core::Node::default()
    }
}
