//! Tells the journal what happens on a stream.

use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Origin, Snapshot};
use xds::{HeldBack, Node, Outcome, Wait};

use crate::journal::Journal;
use crate::view::{Event, EventKind, ResourceName};

/// Resources and objects that one event names.
const NAMED: usize = 16;

/// Tells the journal of one outcome on the stream of `node`. `newest` is what the stream was given last, and its
/// generation.
pub(super) fn tell(journal: &Journal, node: Option<&Arc<Node>>, newest: Option<(&Snapshot, u64)>, outcome: &Outcome) {
    let Some(node) = node else { return };
    let Some(kind) = kind(outcome).filter(|kind| journal.wants(*kind)) else { return };
    let event = Event { node_id: node.id.clone(), generation: newest.map_or(0, |(_, at)| at), ..Event::new(kind) };
    let named = |resource_type: ResourceType| resource_type.short().to_owned();
    let event = match outcome {
        Outcome::Identified(_) => event,
        Outcome::Sent { resource_type, version, changed, removed, .. } => Event {
            r#type: named(*resource_type),
            version: version.to_string(),
            count: *changed,
            removed: *removed,
            ..event
        },
        Outcome::Accepted { resource_type, version, after, .. } => Event {
            r#type: named(*resource_type),
            version: version.to_string(),
            seconds: Some(after.as_secs_f64()),
            ..event
        },
        Outcome::Rejected(rejection) => Event {
            r#type: named(rejection.resource_type),
            version: rejection.version.to_string(),
            message: rejection.message.to_string(),
            resources: resources(rejection.resource_type, &rejection.suspects),
            objects: objects(newest.map(|(snapshot, _)| snapshot), rejection.resource_type, &rejection.suspects),
            ..event
        },
        Outcome::Waiting { resource_type, count, wait } | Outcome::WaitExpired { resource_type, count, wait } => {
            Event { r#type: named(*resource_type), count: *count, message: words(wait), ..event }
        }
        Outcome::Isolated(held) | Outcome::Cleared(held) => Event {
            r#type: named(held.resource_type),
            version: held.version.to_string(),
            message: held.message.to_string(),
            resources: vec![ResourceName { r#type: named(held.resource_type), name: full_name(held) }],
            objects: paths(held.origins.iter()),
            ..event
        },
        Outcome::ParametersChanged(_)
        | Outcome::Subscribed { .. }
        | Outcome::UnknownType { .. }
        | Outcome::SearchGivenUp { .. }
        | Outcome::Overdue { .. } => return,
    };
    journal.record(event);
}

/// Tells the journal that the stream of a node has ended.
pub(super) fn tell_end(journal: &Journal, node: &Node, generation: u64, reason: &str) {
    journal.record(Event {
        node_id: node.id.clone(),
        generation,
        message: reason.to_owned(),
        ..Event::new(EventKind::Disconnected)
    });
}

fn kind(outcome: &Outcome) -> Option<EventKind> {
    match outcome {
        Outcome::Identified(_) => Some(EventKind::Connected),
        Outcome::Sent { .. } => Some(EventKind::Sent),
        Outcome::Accepted { .. } => Some(EventKind::Accepted),
        Outcome::Rejected(_) => Some(EventKind::Rejected),
        Outcome::Waiting { .. } => Some(EventKind::Waiting),
        Outcome::WaitExpired { .. } => Some(EventKind::WaitExpired),
        Outcome::Isolated(_) => Some(EventKind::Isolated),
        Outcome::Cleared(_) => Some(EventKind::Cleared),
        Outcome::ParametersChanged(_)
        | Outcome::Subscribed { .. }
        | Outcome::UnknownType { .. }
        | Outcome::SearchGivenUp { .. }
        | Outcome::Overdue { .. } => None,
    }
}

fn resources(resource_type: ResourceType, names: &[snapshot::Name]) -> Vec<ResourceName> {
    let named =
        |name: &snapshot::Name| ResourceName { r#type: resource_type.short().to_owned(), name: name.to_string() };
    names.iter().take(NAMED).map(named).collect()
}

/// The objects that resources came from, in order.
fn objects(snapshot: Option<&Snapshot>, resource_type: ResourceType, names: &[snapshot::Name]) -> Vec<String> {
    let cells = names.iter().take(NAMED).filter_map(|name| snapshot?.get(resource_type, name));
    paths(cells.flat_map(|cell| cell.origins()))
}

fn paths<'a>(origins: impl Iterator<Item = &'a Origin>) -> Vec<String> {
    let mut objects: Vec<_> = origins.map(|origin| origin.object.to_string()).collect();
    objects.sort();
    objects.dedup();
    objects.truncate(NAMED);
    objects
}

/// The resource, with its part if it is one: a virtual host as it would be called by itself.
fn full_name(held: &HeldBack) -> String {
    match &held.part {
        Some(part) => format!("{}/{part}", held.name),
        None => held.name.to_string(),
    }
}

fn words(wait: &Wait) -> String {
    match wait {
        Wait::ClusterNotSent { cluster } => format!("cluster \"{cluster}\" is not sent in its newest form"),
        Wait::ClusterNotAccepted { cluster } => format!("new cluster \"{cluster}\" is not accepted"),
        Wait::ClusterRefused { cluster } => {
            format!("the node refuses new cluster \"{cluster}\", so it keeps an older form")
        }
        Wait::PeersNotAdmitted { cluster } => {
            format!("cluster \"{cluster}\" is not accepted in the form that admits all of its endpoints")
        }
        Wait::AssignmentNotSent { assignment } => {
            format!("assignment \"{assignment}\" without the peers that it admits no more is not sent")
        }
        Wait::StillReferred { by_type, by } => {
            format!("{} \"{by}\" still refers to it", by_type.short().to_uppercase())
        }
        Wait::KeptByHeldBack { by_type, by } => {
            let by_type = by_type.short().to_uppercase();
            format!("{by_type} \"{by}\" needs it, which stays in an older form while something is refused")
        }
        Wait::NotYetAsked { resource_type } => {
            format!("{} is not up to date since the client came back", resource_type.short().to_uppercase())
        }
    }
}
