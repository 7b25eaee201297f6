//! Puts together what the admin API answers, from what the streams say about themselves and from the plane.

use std::sync::Arc;
use std::time::Duration;

use proto::ResourceType;
use xds::{HoldingState, Service, Summary, Variant};

use super::index::Index;
use crate::Stopped;
use crate::discovery::{Entry, Report, Roster};
use crate::plane_task::PlaneHandle;
use crate::view;

/// Answers the questions of the admin API.
#[derive(Clone, Debug)]
pub(crate) struct Views {
    roster: Arc<Roster>,
    plane: PlaneHandle,
    /// How long a stream may take to say what it holds.
    patience: Duration,
}

/// Which objects to list. An empty text stands for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct ObjectFilter {
    /// `VirtualService` or `virtualservice`.
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl ObjectFilter {
    fn takes(&self, reference: &world::ObjectRef) -> bool {
        (self.kind.is_empty() || self.kind.eq_ignore_ascii_case(reference.kind.as_str()))
            && (self.namespace.is_empty() || self.namespace == *reference.namespace)
            && (self.name.is_empty() || self.name == *reference.name)
    }
}

impl Views {
    pub(crate) fn new(roster: Arc<Roster>, plane: PlaneHandle, patience: Duration) -> Self {
        Self { roster, plane, patience }
    }

    /// The connected nodes whose ids begin with `prefix`.
    pub(crate) async fn nodes(&self, prefix: &str) -> view::Nodes {
        let mut entries = self.roster.identified();
        entries.retain(|entry| entry.id().starts_with(prefix));
        let mut nodes: Vec<(u64, view::Node)> = Vec::new();
        for (entry, report) in Roster::inspect(entries, false, self.patience).await {
            let connection = entry.connection.seat.number();
            // One node may have several streams on a connection, one for each type.
            match nodes.iter_mut().rev().take_while(|(_, node)| node.id == entry.id()).find(|(c, _)| *c == connection) {
                Some((_, node)) => join(node, &entry, report.as_ref()),
                None => {
                    let mut node = describe(&entry);
                    join(&mut node, &entry, report.as_ref());
                    nodes.push((connection, node));
                }
            }
        }
        view::Nodes { nodes: nodes.into_iter().map(|(_, node)| node).collect() }
    }

    /// What the streams of this node were sent, of the types that `wanted` takes; `None` when no stream of such a
    /// node is open.
    pub(crate) async fn node_config(
        &self,
        id: &str,
        wanted: impl Fn(ResourceType) -> bool + Send + 'static,
    ) -> Option<view::NodeConfig> {
        self.sent_to(id, wanted, resource).await.map(|mut resources| {
            resources.sort_by(|a, b| (&a.type_url, &a.name).cmp(&(&b.type_url, &b.name)));
            view::NodeConfig { node_id: id.to_owned(), resources }
        })
    }

    /// [`Views::node_config`] in another form, unordered. The work is done on a thread where it delays no stream.
    pub(super) async fn sent_to<T: Send + 'static>(
        &self,
        id: &str,
        wanted: impl Fn(ResourceType) -> bool + Send + 'static,
        form: impl Fn(&snapshot::Cell, &HoldingState) -> T + Send + 'static,
    ) -> Option<Vec<T>> {
        let mut entries = self.roster.identified();
        entries.retain(|entry| entry.id() == id);
        if entries.is_empty() {
            return None;
        }
        let reports = Roster::inspect(entries, true, self.patience).await;
        let work = move || {
            let holdings = reports.iter().filter_map(|(_, report)| report.as_ref()).flat_map(|report| &report.holdings);
            holdings
                .filter(|holding| wanted(holding.cell.resource_type()))
                .map(|holding| form(&holding.cell, &holding.state))
                .collect()
        };
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// The objects, and where they have arrived.
    pub(crate) async fn objects(&self, filter: ObjectFilter) -> Result<view::Objects, Stopped> {
        let objects = self.plane.objects().await?;
        let reports = Roster::inspect(self.roster.identified(), true, self.patience).await;
        let work = move || {
            let index = Index::new(&reports);
            let wanted = objects.iter().filter(|object| filter.takes(&object.reference));
            view::Objects {
                objects: wanted.map(|object| index.describe(object)).collect(),
                silent_nodes: index.silent_nodes(),
            }
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Stopped)
    }

    /// Everything that is wrong.
    pub(crate) async fn problems(&self) -> Result<view::Problems, Stopped> {
        let problems = self.plane.problems().await?;
        Ok(view::Problems { problems: problems.iter().map(view::Problem::from).collect() })
    }
}

fn describe(entry: &Entry) -> view::Node {
    let node = entry.node.clone().unwrap_or_default();
    view::Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        address: entry.connection.peer.to_string(),
        user_agent_name: node.user_agent_name.clone(),
        user_agent_version: node.user_agent_version.clone(),
        distribution_version: node.metadata_text(&["ISTIO_VERSION"]).unwrap_or_default().to_owned(),
        connected_since: entry.connection.opened.into(),
        sync: view::Sync::Synced,
        subscriptions: Vec::new(),
    }
}

/// Adds one stream to the node of its connection.
fn join(node: &mut view::Node, entry: &Entry, report: Option<&Report>) {
    let Some(report) = report else {
        node.sync = view::Sync::Unknown;
        return;
    };
    let summaries = report.summaries.iter();
    node.subscriptions.extend(summaries.map(|summary| subscription(entry, report, summary)));
    let sync = sync(report);
    let gravity = |sync: view::Sync| match sync {
        view::Sync::Synced => 0,
        view::Sync::Pending => 1,
        view::Sync::Rejected => 2,
        view::Sync::Unknown => 3,
    };
    if gravity(sync) > gravity(node.sync) {
        node.sync = sync;
    }
}

/// How a stream stands. A wildcard subscription is in step when it was sent the version of what it is to have;
/// subscriptions by name have no version of their own to compare, and are in step when nothing is open.
fn sync(report: &Report) -> view::Sync {
    let Some(target) = &report.target else { return view::Sync::Pending };
    let is_refused = |summary: &Summary| {
        summary.refused > 0
            || summary.last_rejection.as_ref().is_some_and(|rejection| Some(rejection.version) == summary.sent)
    };
    let is_open = |summary: &Summary| {
        let lags = summary.wildcard
            && summary.names == 0
            && summary.sent.is_none_or(|sent| sent != target.version(summary.resource_type));
        lags || summary.unacknowledged > 0 || !summary.waiting.is_empty()
    };
    if report.summaries.iter().any(is_refused) {
        view::Sync::Rejected
    } else if report.summaries.iter().any(is_open) {
        view::Sync::Pending
    } else {
        view::Sync::Synced
    }
}

fn subscription(entry: &Entry, report: &Report, summary: &Summary) -> view::Subscription {
    let version = |version: Option<snapshot::Version>| version.map(|v| v.to_string()).unwrap_or_default();
    view::Subscription {
        r#type: summary.resource_type.short().to_owned(),
        type_url: summary.resource_type.type_url().to_owned(),
        service: match entry.service {
            Service::Aggregated => "ads".to_owned(),
            Service::Only(resource_type) => resource_type.short().to_owned(),
        },
        variant: match entry.variant {
            Variant::StateOfTheWorld => "sotw".to_owned(),
            Variant::Delta => "delta".to_owned(),
        },
        wildcard: summary.wildcard,
        refused_count: summary.refused,
        subscribed_count: summary.names,
        sent_version: version(summary.sent),
        accepted_version: version(summary.accepted),
        waiting: summary.waiting.iter().map(ToString::to_string).collect(),
        last_rejection: summary.last_rejection.as_ref().map(|rejection| view::Rejection {
            version: rejection.version.to_string(),
            message: rejection.message.to_string(),
            time: report.time(rejection.at).into(),
        }),
    }
}

fn resource(cell: &snapshot::Cell, state: &HoldingState) -> view::Resource {
    let type_url = cell.resource_type().type_url();
    let origins: std::collections::BTreeSet<String> = cell.origins().map(|origin| origin.object.to_string()).collect();
    view::Resource {
        r#type: cell.resource_type().short().to_owned(),
        type_url: type_url.to_owned(),
        name: cell.name().to_string(),
        version: cell.version().to_string(),
        state: state_view(state),
        rejection: match state {
            HoldingState::Rejected { message } => message.to_string(),
            HoldingState::Sent | HoldingState::Accepted => String::new(),
        },
        origins: origins.into_iter().collect(),
        body: proto::descriptor::to_redacted_json(type_url, &cell.value()),
    }
}

/// How the API names the state of a holding.
pub(super) fn state_view(state: &HoldingState) -> view::ResourceState {
    match state {
        HoldingState::Sent => view::ResourceState::Pending,
        HoldingState::Accepted => view::ResourceState::Accepted,
        HoldingState::Rejected { .. } => view::ResourceState::Rejected,
    }
}
