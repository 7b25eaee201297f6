//! Nodes, connected and gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xds::{Node, Service, Summary, Variant};

use super::{Page, Views, by_id, held};
use crate::admin::index::Index;
use crate::discovery::{Departed, Entry, Report, Roster};
use crate::{Stopped, view};

/// Which nodes to list. An empty text stands for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFilter {
    pub(crate) id_prefix: String,
    pub(crate) state: Option<view::Sync>,
}

impl Views {
    /// The nodes that are connected; those that left lately only when they are asked for by their state.
    pub(crate) async fn nodes(&self, filter: NodeFilter, page: Page) -> view::Nodes {
        let takes = |id: &str| id.starts_with(&filter.id_prefix) && (page.after.is_empty() || *id > *page.after);
        let mut entries = self.roster.identified();
        entries.retain(|entry| takes(entry.id()));
        let mut departed = Vec::new();
        if filter.state == Some(view::Sync::Disconnected) {
            entries.clear();
            departed = self.roster.departed();
            departed.retain(|gone| takes(&gone.node.id));
        }
        let ids: BTreeSet<String> = entries.iter().map(|entry| entry.id().to_owned()).collect();
        // Whoever asks for a state must know that of all; else only those that are shown need to be asked.
        let end = ids.iter().nth(page.limit).filter(|_| filter.state.is_none());
        if let Some(end) = end {
            entries.retain(|entry| entry.id() < &**end);
        }
        let mut nodes = self.described(entries, &departed).await;
        nodes.retain(|node| filter.state.is_none_or(|state| node.sync == state));
        let mut shown = BTreeSet::new();
        let is_shown = |node: &&view::Node| {
            shown.insert(node.id.clone());
            shown.len() <= page.limit
        };
        let count = nodes.iter().take_while(is_shown).count();
        let last = match end {
            Some(_) => ids.iter().nth(page.limit - 1).cloned(),
            None if count < nodes.len() => shown.into_iter().nth(page.limit - 1),
            None => None,
        };
        nodes.truncate(count);
        held::tell_nodes(&mut nodes, &self.held().await);
        view::Nodes { nodes, next: last.unwrap_or_default() }
    }

    /// A node with the objects that concern it; `None` when nothing is known of such a node.
    pub(crate) async fn node(&self, id: &str) -> Result<Option<view::NodeObjects>, Stopped> {
        let mut entries = self.roster.identified();
        entries.retain(|entry| entry.id() == id);
        let mut departed = self.roster.departed();
        departed.retain(|gone| gone.node.id == id);
        if entries.is_empty() && departed.is_empty() {
            return Ok(None);
        }
        let newest = self.plane.objects().await?;
        let reports = Roster::inspect(entries, false, self.patience).await;
        let mut connections = join_connections(&reports, &departed);
        held::tell_nodes(&mut connections, &self.held().await);
        let work = move || {
            let generations: BTreeMap<String, i64> =
                newest.iter().map(|object| (object.reference.path(), object.generation)).collect();
            let index = Index::new(by_id(reports), None);
            let object = |path: &Arc<str>| {
                let node = index.object_nodes(path).next()?;
                Some(view::NodeObject {
                    object: path.to_string(),
                    newest_generation: generations.get(&**path).copied().unwrap_or(0),
                    generation: node.generation,
                    state: node.state,
                    why: node.why,
                })
            };
            view::NodeObjects { connections, objects: index.paths().iter().filter_map(object).collect() }
        };
        tokio::task::spawn_blocking(work).await.map(Some).map_err(|_| Stopped)
    }

    async fn described(&self, entries: Vec<Entry>, departed: &[Arc<Departed>]) -> Vec<view::Node> {
        let reports = Roster::inspect(entries, false, self.patience).await;
        join_connections(&reports, departed)
    }
}

/// One entry for each node on each connection, in order of id, then of connection; those that left last.
fn join_connections(reports: &[(Entry, Option<Report>)], departed: &[Arc<Departed>]) -> Vec<view::Node> {
    let mut nodes: Vec<(u64, view::Node)> = Vec::new();
    for (entry, report) in reports {
        let connection = entry.connection.seat.number();
        // One node may have several streams on a connection, one for each type.
        match nodes.iter_mut().rev().take_while(|(_, node)| node.id == entry.id()).find(|(c, _)| *c == connection) {
            Some((_, node)) => join(node, entry.service, entry.variant, report.as_ref()),
            None => {
                let mut node = of_entry(entry);
                join(&mut node, entry.service, entry.variant, report.as_ref());
                nodes.push((connection, node));
            }
        }
    }
    let mut nodes: Vec<_> = nodes.into_iter().map(|(_, node)| node).collect();
    for gone in departed {
        // Of several streams that ended, the last tells.
        let same = nodes.iter_mut().find(|node| node.id == gone.node.id && node.disconnected.is_some());
        match same {
            Some(node) => *node = of_departed(gone),
            None => nodes.push(of_departed(gone)),
        }
    }
    nodes.sort_by(|a, b| (&a.id, a.disconnected.is_some()).cmp(&(&b.id, b.disconnected.is_some())));
    nodes
}

fn of_entry(entry: &Entry) -> view::Node {
    let node = entry.node.clone().unwrap_or_default();
    describe(&node, entry.connection.peer.to_string(), entry.connection.opened.into())
}

fn of_departed(gone: &Departed) -> view::Node {
    let mut node = describe(&gone.node, gone.address.clone(), gone.opened.into());
    join(&mut node, gone.service, gone.variant, Some(&gone.report));
    node.sync = view::Sync::Disconnected;
    node.disconnected = Some(view::Disconnected { since: gone.ended.1.into(), reason: gone.reason.clone() });
    node
}

fn describe(node: &Node, address: String, connected_since: view::Timestamp) -> view::Node {
    view::Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        address,
        user_agent_name: node.user_agent_name.clone(),
        user_agent_version: node.user_agent_version.clone(),
        distribution_version: node.metadata_text(&["ISTIO_VERSION"]).unwrap_or_default().to_owned(),
        missing_extensions: node.lacks.iter().map(|extension| extension.name().to_owned()).collect(),
        connected_since,
        sync: view::Sync::Synced,
        generation: 0,
        accepted_generation: 0,
        waiting: Vec::new(),
        disconnected: None,
        subscriptions: Vec::new(),
    }
}

/// Adds one stream to the node of its connection.
fn join(node: &mut view::Node, service: Service, variant: Variant, report: Option<&Report>) {
    let Some(report) = report else {
        node.sync = view::Sync::Unknown;
        return;
    };
    let is_first = node.subscriptions.is_empty();
    let settled = report.settled.unwrap_or(0);
    node.generation = node.generation.max(report.generation);
    node.accepted_generation = if is_first { settled } else { node.accepted_generation.min(settled) };
    let summaries = report.summaries.iter();
    node.subscriptions.extend(summaries.map(|summary| subscription(service, variant, report, summary)));
    let sync = sync(report);
    let gravity = |sync: view::Sync| match sync {
        view::Sync::Synced => 0,
        view::Sync::Pending => 1,
        view::Sync::Rejected => 2,
        view::Sync::Unknown | view::Sync::Disconnected => 3,
    };
    if gravity(sync) > gravity(node.sync) {
        node.sync = sync;
    }
}

/// How a stream stands: whether it was sent what is published, and has accepted it.
fn sync(report: &Report) -> view::Sync {
    let Some(target) = &report.target else { return view::Sync::Pending };
    let is_refused = |summary: &Summary| {
        summary.refused > 0
            || summary.last_rejection.as_ref().is_some_and(|rejection| Some(rejection.version) == summary.sent)
    };
    let is_open = |summary: &Summary| summary.unacknowledged > 0 || !summary.waiting.is_empty();
    if report.summaries.iter().any(is_refused) {
        view::Sync::Rejected
    } else if report.summaries.iter().any(is_open) || !report.standings.iter().all(|s| s.is_up_to_date(target)) {
        view::Sync::Pending
    } else {
        view::Sync::Synced
    }
}

fn subscription(service: Service, variant: Variant, report: &Report, summary: &Summary) -> view::Subscription {
    let version = |version: Option<snapshot::Version>| version.map(|v| v.to_string()).unwrap_or_default();
    view::Subscription {
        r#type: summary.resource_type.short().to_owned(),
        type_url: summary.resource_type.type_url().to_owned(),
        service: match service {
            Service::Aggregated => "ads".to_owned(),
            Service::Only(resource_type) => resource_type.short().to_owned(),
        },
        variant: match variant {
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
