//! From objects to the nodes that have what came of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use plane::ObjectView;
use snapshot::Cell;
use xds::{Holding, HoldingState, Summary};

use crate::discovery::{Entry, Report};
use crate::view::{self, NodeRejection, ResourceState};

/// What each object's resources have met with at each node that they concern.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By the object's path in lower case kind, then by node.
    objects: HashMap<String, BTreeMap<Arc<str>, Reception>>,
    silent: Vec<Arc<str>>,
}

/// How one node took what came of one object: the worst of its resources.
#[derive(Clone, Debug)]
struct Reception {
    state: ResourceState,
    rejection: Option<NodeRejection>,
}

impl Index {
    /// The index of what streams say they hold, measured against what they are to have: a resource of which a node
    /// holds an older version is pending, however well that one was taken.
    pub(super) fn new(reports: &[(Entry, Option<Report>)]) -> Self {
        let mut index = Self::default();
        let mut origins = Origins::default();
        for (entry, report) in reports {
            let node: Arc<str> = entry.id().into();
            match report {
                Some(report) => index.add(&node, report, &mut origins),
                None => index.silent.push(node),
            }
        }
        index.silent.dedup();
        index
    }

    /// Ids of the nodes that did not answer, ordered.
    pub(super) fn silent_nodes(&self) -> Vec<String> {
        self.silent.iter().map(ToString::to_string).collect()
    }

    /// One object with its problems and its nodes.
    pub(super) fn describe(&self, object: &ObjectView) -> view::Object {
        let meta = object.object.as_ref().map(|object| &object.meta);
        let location = meta.and_then(|meta| meta.location.as_ref());
        let mut view = view::Object {
            kind: object.reference.kind.to_string(),
            namespace: object.reference.namespace.to_string(),
            name: object.reference.name.to_string(),
            generation: meta.map_or(0, |meta| meta.generation),
            file: location.map(|location| location.file.to_string()).unwrap_or_default(),
            line: location.map_or(0, |location| location.line),
            problems: object.problems.iter().map(view::Problem::from).collect(),
            accepted_nodes: Vec::new(),
            pending_nodes: Vec::new(),
            rejected_nodes: Vec::new(),
        };
        for (node, reception) in self.objects.get(&object.reference.path()).into_iter().flatten() {
            match (&reception.rejection, reception.state) {
                (Some(rejection), _) => view.rejected_nodes.push(rejection.clone()),
                (None, ResourceState::Accepted) => view.accepted_nodes.push(node.to_string()),
                (None, ResourceState::Pending | ResourceState::Rejected) => view.pending_nodes.push(node.to_string()),
            }
        }
        view
    }

    fn add(&mut self, node: &Arc<str>, report: &Report, origins: &mut Origins) {
        for summary in &report.summaries {
            let resource_type = summary.resource_type;
            let held: HashMap<&str, &Holding> = report
                .holdings
                .iter()
                .filter(|holding| holding.cell.resource_type() == resource_type)
                .map(|holding| (&**holding.cell.name(), holding))
                .collect();
            let Some(target) = &report.target else { continue };
            // What is subscribed by name and was not sent yet cannot be told from what is not subscribed; it is
            // sent within the moment in which it is asked for, so only the wildcard counts what is not held.
            let wanted =
                target.iter(resource_type).filter(|cell| summary.wildcard || held.contains_key(&**cell.name()));
            for cell in wanted {
                let holding = held.get(&**cell.name()).filter(|holding| holding.cell.version() == cell.version());
                let reception = reception(node, report, summary, cell, holding.map(|holding| &holding.state));
                for origin in origins.of(cell).iter() {
                    let nodes = self.objects.entry(origin.clone()).or_default();
                    nodes.entry(node.clone()).and_modify(|worst| worst.worsen(&reception)).or_insert(reception.clone());
                }
            }
        }
    }
}

fn reception(
    node: &Arc<str>,
    report: &Report,
    summary: &Summary,
    cell: &Cell,
    state: Option<&HoldingState>,
) -> Reception {
    match state {
        Some(HoldingState::Accepted) => Reception { state: ResourceState::Accepted, rejection: None },
        Some(HoldingState::Sent) | None => Reception { state: ResourceState::Pending, rejection: None },
        Some(HoldingState::Rejected { message }) => {
            let at = summary.last_rejection.as_ref().map_or(report.now.0, |rejection| rejection.at);
            let rejection = NodeRejection {
                node_id: node.to_string(),
                type_url: cell.resource_type().type_url().to_owned(),
                resource: cell.name().to_string(),
                version: cell.version().to_string(),
                message: message.to_string(),
                time: report.time(at).into(),
            };
            Reception { state: ResourceState::Rejected, rejection: Some(rejection) }
        }
    }
}

impl Reception {
    fn worsen(&mut self, other: &Reception) {
        if other.state > self.state {
            *self = other.clone();
        }
    }
}

/// The origins of cells. Streams share cells, and a route configuration may have thousands of origins, so each is
/// looked at once.
#[derive(Default)]
struct Origins {
    by_cell: HashMap<*const Cell, Arc<[String]>>,
}

impl Origins {
    /// The paths of the objects that the cell came from, each once.
    fn of(&mut self, cell: &Arc<Cell>) -> Arc<[String]> {
        let find = || {
            let mut paths: Vec<String> = cell.origins().map(|origin| origin.object.to_string()).collect();
            paths.sort();
            paths.dedup();
            paths.into()
        };
        self.by_cell.entry(Arc::as_ptr(cell)).or_insert_with(find).clone()
    }
}
