//! The admin API over gRPC: the same views in the messages of `pointsman.admin.v1`.

mod events;

use std::time::UNIX_EPOCH;

use proto::ResourceType;
use proto::admin;
use proto::admin::admin_server::{Admin, AdminServer};
use proto::pb::google::protobuf;
use tonic::{Request, Response, Status};

use super::{NodeFilter, ObjectFilter, Page, Views};
use crate::{Stopped, view};

/// Serves `pointsman.admin.v1.Admin`.
#[derive(Clone, Debug)]
pub(crate) struct AdminService {
    views: Views,
}

impl AdminService {
    /// The service, ready to be routed to.
    pub(crate) fn new(views: Views) -> AdminServer<Self> {
        AdminServer::new(Self { views })
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    type WatchEventsStream = events::Events;

    async fn watch_events(
        &self,
        request: Request<admin::WatchEventsRequest>,
    ) -> Result<Response<events::Events>, Status> {
        let request = request.into_inner();
        let after = Some(request.after).filter(|after| *after > 0);
        Ok(Response::new(events::events(self.views.events(events::filter(request)?, after))))
    }

    async fn list_nodes(
        &self,
        request: Request<admin::ListNodesRequest>,
    ) -> Result<Response<admin::ListNodesResponse>, Status> {
        let filter = NodeFilter { id_prefix: request.into_inner().id_prefix, state: None };
        let everything = Page { after: String::new(), limit: usize::MAX };
        let view = self.views.nodes(filter, everything).await;
        Ok(Response::new(admin::ListNodesResponse { nodes: view.nodes.into_iter().map(node).collect() }))
    }

    async fn get_node_config(
        &self,
        request: Request<admin::GetNodeConfigRequest>,
    ) -> Result<Response<admin::GetNodeConfigResponse>, Status> {
        let admin::GetNodeConfigRequest { node_id, type_urls } = request.into_inner();
        let find = |url: &String| {
            ResourceType::from_type_url(url)
                .ok_or_else(|| Status::invalid_argument(format!("there is no resource type \"{url}\"")))
        };
        let wanted = type_urls.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let takes = move |resource_type| wanted.is_empty() || wanted.contains(&resource_type);
        let resources = self.views.sent_to(&node_id, takes, resource).await;
        let mut resources =
            resources.ok_or_else(|| Status::not_found(format!("no stream of a node \"{node_id}\" is open")))?;
        resources.sort_by(|a, b| (&a.type_url, &a.name).cmp(&(&b.type_url, &b.name)));
        Ok(Response::new(admin::GetNodeConfigResponse { node_id, resources }))
    }

    async fn list_objects(
        &self,
        request: Request<admin::ListObjectsRequest>,
    ) -> Result<Response<admin::ListObjectsResponse>, Status> {
        let admin::ListObjectsRequest { kind, namespace, name } = request.into_inner();
        let everything = Page { after: String::new(), limit: usize::MAX };
        let view = self.views.objects(ObjectFilter { kind, namespace, name, state: None }, everything).await;
        let view = view.map_err(|Stopped| Status::unavailable(Stopped.to_string()))?;
        Ok(Response::new(admin::ListObjectsResponse { objects: view.objects.into_iter().map(object).collect() }))
    }
}

fn node(node: view::Node) -> admin::Node {
    admin::Node {
        id: node.id,
        cluster: node.cluster,
        address: node.address,
        user_agent_name: node.user_agent_name,
        user_agent_version: node.user_agent_version,
        distribution_version: node.distribution_version,
        missing_extensions: node.missing_extensions,
        connected_since: Some(timestamp(node.connected_since)),
        subscriptions: {
            let mut subscriptions: Vec<_> = node.subscriptions.into_iter().map(subscription).collect();
            subscriptions.sort_by(|a, b| a.type_url.cmp(&b.type_url));
            subscriptions
        },
        generation: node.generation,
        accepted_generation: node.accepted_generation,
    }
}

fn subscription(subscription: view::Subscription) -> admin::Subscription {
    admin::Subscription {
        type_url: subscription.type_url,
        subscribed_count: u32::try_from(subscription.subscribed_count).unwrap_or(u32::MAX),
        wildcard: subscription.wildcard,
        sent_version: subscription.sent_version,
        accepted_version: subscription.accepted_version,
        last_rejection: subscription.last_rejection.map(|rejection| admin::Rejection {
            version: rejection.version,
            message: rejection.message,
            time: Some(timestamp(rejection.time)),
        }),
    }
}

fn resource(cell: &snapshot::Cell, state: &xds::HoldingState) -> admin::NodeResource {
    let type_url = cell.resource_type().type_url();
    let state = match super::views::state_view(state) {
        view::ResourceState::Accepted => admin::ResourceState::Accepted,
        view::ResourceState::Pending => admin::ResourceState::Pending,
        view::ResourceState::Rejected => admin::ResourceState::Rejected,
    };
    admin::NodeResource {
        type_url: type_url.to_owned(),
        name: cell.name().to_string(),
        version: cell.version().to_string(),
        state: state.into(),
        body: Some(protobuf::Any {
            type_url: type_url.to_owned(),
            value: proto::descriptor::redact(type_url, &cell.value()),
        }),
    }
}

fn object(object: view::Object) -> admin::Object {
    let rejection = |rejection: view::NodeRejection| admin::NodeRejection {
        node_id: rejection.node_id,
        type_url: rejection.type_url,
        rejection: Some(admin::Rejection {
            version: rejection.version,
            message: rejection.message,
            time: Some(timestamp(rejection.time)),
        }),
    };
    admin::Object {
        kind: object.kind,
        namespace: object.namespace,
        name: object.name,
        generation: object.generation,
        problems: object.problems.into_iter().map(problem).collect(),
        accepted_nodes: object.accepted_nodes,
        pending_nodes: object.pending_nodes,
        rejected_nodes: object.rejected_nodes.into_iter().map(rejection).collect(),
        accepted_count: object.accepted as u64,
        pending_count: object.pending as u64,
        rejected_count: object.rejected as u64,
    }
}

fn problem(problem: view::Problem) -> admin::Problem {
    let severity = match problem.severity.as_str() {
        "error" => admin::Severity::Error,
        _ => admin::Severity::Warning,
    };
    admin::Problem {
        severity: severity.into(),
        field: problem.field,
        message: problem.message,
        consequence: problem.consequence,
        hint: problem.hint,
        file: problem.file,
        line: problem.line,
    }
}

pub(super) fn timestamp(time: view::Timestamp) -> protobuf::Timestamp {
    let since_epoch = time.time().duration_since(UNIX_EPOCH).unwrap_or_default();
    protobuf::Timestamp {
        seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since_epoch.subsec_nanos()).unwrap_or(0),
    }
}
