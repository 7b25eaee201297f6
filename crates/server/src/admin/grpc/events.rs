//! Events in the messages of `pointsman.admin.v1`.

use std::pin::Pin;

use futures_util::Stream;
use proto::{ResourceType, admin};
use tonic::Status;
use world::ObjectRef;

use super::timestamp;
use crate::journal::{EventFilter, Feed};
use crate::view::{self, EventKind};

/// What the client of `WatchEvents` reads.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<admin::Event, Status>> + Send>>;

/// The filter that a client asks for.
pub(super) fn filter(request: admin::WatchEventsRequest) -> Result<EventFilter, Status> {
    let admin::WatchEventsRequest { object, node_id, kinds, .. } = request;
    let object = match object.parse::<ObjectRef>() {
        _ if object.is_empty() => object,
        Ok(reference) => reference.path(),
        Err(error) => return Err(Status::invalid_argument(error.to_string())),
    };
    let known = |kind: i32| {
        let kind = EventKind::ALL.into_iter().find(|known| i32::from(message_kind(*known)) == kind);
        kind.ok_or_else(|| Status::invalid_argument("there is no such kind of events"))
    };
    let kinds = kinds.into_iter().map(known).collect::<Result<_, _>>()?;
    Ok(EventFilter::new(object, node_id, kinds))
}

/// The stream of messages.
pub(super) fn events(feed: Feed) -> Events {
    Box::pin(futures_util::stream::unfold(feed, async |mut feed| Some((Ok(event(&*feed.next().await?)), feed))))
}

fn event(event: &view::Event) -> admin::Event {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let url = |short: &str| {
        let found = ResourceType::ALL.into_iter().find(|known| known.short() == short);
        found.map(|known| known.type_url().to_owned()).unwrap_or_default()
    };
    let resource =
        |named: &view::ResourceName| admin::ResourceName { type_url: url(&named.r#type), name: named.name.clone() };
    admin::Event {
        id: event.id,
        time: Some(timestamp(event.time)),
        kind: message_kind(event.kind).into(),
        generation: event.generation,
        node_id: event.node_id.clone(),
        type_url: url(&event.r#type),
        version: event.version.clone(),
        objects: event.objects.clone(),
        resources: event.resources.iter().map(resource).collect(),
        count: number(event.count),
        removed: number(event.removed),
        audiences: number(event.audiences),
        lost: event.lost,
        seconds: event.seconds.unwrap_or_default(),
        message: event.message.clone(),
    }
}

fn message_kind(kind: EventKind) -> admin::EventKind {
    match kind {
        EventKind::Published => admin::EventKind::Published,
        EventKind::Sent => admin::EventKind::Sent,
        EventKind::Accepted => admin::EventKind::Accepted,
        EventKind::Rejected => admin::EventKind::Rejected,
        EventKind::Isolated => admin::EventKind::Isolated,
        EventKind::Cleared => admin::EventKind::Cleared,
        EventKind::Connected => admin::EventKind::Connected,
        EventKind::Disconnected => admin::EventKind::Disconnected,
        EventKind::Waiting => admin::EventKind::Waiting,
        EventKind::WaitExpired => admin::EventKind::WaitExpired,
        EventKind::Held => admin::EventKind::Held,
        EventKind::Released => admin::EventKind::Released,
        EventKind::Lost => admin::EventKind::Lost,
    }
}
