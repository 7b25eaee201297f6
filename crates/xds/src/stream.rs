//! One discovery stream.

mod flight;
mod hosts;
pub(crate) mod interest;
mod isolation;
mod name_pool;
mod name_set;
mod order;
mod plan;
mod requests;
mod returning;
mod step;
mod subscription;
mod substream;
mod types;
mod view;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use proto::ResourceType;
use snapshot::{Cell, Name, Snapshot};

pub(crate) use self::flight::Contents;
use self::hosts::Scope;
pub(crate) use self::interest::Interest;
pub use self::name_pool::NamePool;
use self::order::ORDER;
use self::step::Step;
use self::substream::Substream;
use self::types::Types;
use crate::{Holding, Node, Outcome, Refusal, Request, Response, Service, Settings, Standing, Summary, Variant, Wants};

type Substreams = [Option<Box<Substream>>; ResourceType::ALL.len()];

/// The server's end of one stream. Feed it with the `handle_` methods, then drain `poll_response` and `poll_outcome`
/// until both return `None`, and come back at `poll_timeout` at the latest.
#[derive(Debug)]
pub struct Stream {
    variant: Variant,
    service: Service,
    settings: Settings,
    node: Option<Arc<Node>>,
    snapshot: Option<Snapshot>,
    substreams: Substreams,
    /// Types of which nothing can be owed before something happens to them: they are passed over. It is the rule for all but
    /// one or two of them, and to look at each costs as much as what follows from most changes.
    resting: Types,
    /// The snapshot for which they rest.
    looked_at: Option<Snapshot>,
    /// Shared by all types, so that no nonce is used twice on the stream (rule P-11).
    last_nonce: u64,
    outcomes: VecDeque<Outcome>,
    /// Until when a client that came with resources from an earlier stream may still ask for the types it uses. Envoy
    /// asks for all of them at once.
    returning_until: Option<Instant>,
    /// Assignments that a returning client holds in their newest form together with the cluster they belong to.
    trusted_assignments: BTreeSet<Name>,
    /// Route configurations that a returning client was sent before it said which virtual hosts it holds.
    renewed_routes: BTreeSet<Name>,
}

impl Stream {
    /// A stream on which nothing was said yet.
    pub fn new(variant: Variant, service: Service, settings: Settings) -> Self {
        Self {
            variant,
            service,
            settings,
            node: None,
            snapshot: None,
            substreams: Substreams::default(),
            resting: Types::default(),
            looked_at: None,
            last_nonce: 0,
            outcomes: VecDeque::new(),
            returning_until: None,
            trusted_assignments: BTreeSet::new(),
            renewed_routes: BTreeSet::new(),
        }
    }

    /// Takes in a message from the client.
    ///
    /// # Errors
    /// The stream must be closed with the refusal's status: the first message says no node id (rule P-08), a type URL
    /// is missing or not this service's (rule P-02), or a limit is exceeded.
    pub fn handle_request(&mut self, now: Instant, request: Request) -> Result<(), Refusal> {
        match (self.variant, request) {
            (Variant::StateOfTheWorld, Request::StateOfTheWorld(request)) => self.handle_sotw(now, request),
            (Variant::Delta, Request::Delta(request)) => self.handle_delta(now, request),
            (Variant::StateOfTheWorld, Request::Delta(_)) | (Variant::Delta, Request::StateOfTheWorld(_)) => {
                Err(Refusal::invalid("the request belongs to the other variant of the protocol"))
            }
        }
    }

    /// Takes in what is published now. Until the first snapshot requests wait: what is not loaded yet must not look
    /// like nothing (rule P-42). A snapshot that was not delivered yet is skipped, and the order starts again with
    /// the clusters of the newest (rule P-61).
    pub fn handle_snapshot(&mut self, _now: Instant, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    /// Lets time pass. Resources whose waits are over are handed out by the next `poll_response`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut cold = false;
        for substream in self.substreams.iter_mut().flatten() {
            let resource_type = substream.resource_type();
            for flight in substream.flights.iter_mut().filter(|flight| !flight.overdue) {
                if now < flight.sent_at + self.settings.acknowledgement_wait {
                    continue;
                }
                flight.overdue = true;
                cold |= flight.first && resource_type == ResourceType::Cluster;
                self.outcomes.push_back(Outcome::Overdue { resource_type, nonce: flight.nonce.clone() });
            }
        }
        if cold {
            // A returning client that does not acknowledge its clusters has one that is not warm: the assignment that
            // it says it holds may be older than the cluster (rule P-50). So it gets all of them after all.
            let trusted = std::mem::take(&mut self.trusted_assignments);
            self.repeat_assignments(trusted.iter());
        }
    }

    /// The next message for the client, computed from the newest snapshot; `None` when nothing is owed now.
    pub fn poll_response(&mut self, now: Instant) -> Option<Response> {
        let target = self.snapshot.clone()?;
        self.move_on(&target);
        self.end_lingering(&target, now);
        if let Some(heartbeats) = self.heartbeats(now) {
            return Some(heartbeats);
        }
        loop {
            let mut moved = self.is_returning(now) && self.learn(&target);
            for resource_type in ORDER {
                if self.resting.contains(resource_type) {
                    continue;
                }
                match self.step(resource_type, &target, now) {
                    Step::Sent(response) => return Some(response),
                    Step::Moved => moved = true,
                    Step::Idle => {}
                }
                if self.substreams[resource_type.index()].as_ref().is_none_or(|substream| substream.rests(&target)) {
                    self.resting.insert(resource_type);
                }
            }
            if !moved {
                return None;
            }
        }
    }

    /// What happened since the last call, oldest first, one at a time.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// When `handle_timeout` and `poll_response` must be called again even if nothing comes in.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_types = self.substreams.iter().flatten().filter_map(|substream| substream.deadline(&self.settings));
        of_types.chain(self.hosts_wait_until()).min()
    }

    /// Who the client is; `None` before its first request.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// Exactly what the client was sent and still subscribes to, by type in the order of `ResourceType::ALL`.
    pub fn holdings(&self) -> Vec<Holding> {
        self.standings().iter().flat_map(Standing::holdings).collect()
    }

    /// The same in a form that costs little when the client is in step, in the same order.
    pub fn standings(&self) -> Vec<Standing> {
        let standing = |substream: &Substream| {
            let scope = Scope::new(substream.resource_type(), self.service, &self.substreams);
            substream.standing(scope, self.snapshot.as_ref())
        };
        self.substreams.iter().flatten().map(|substream| standing(substream)).collect()
    }

    /// Names that the client asks for and that do not exist, in the order of `ResourceType::ALL`, then of the name.
    pub fn missing(&self) -> Vec<(ResourceType, Name)> {
        let substreams = self.substreams.iter().flatten();
        substreams.flat_map(|s| s.missing().map(|name| (s.resource_type(), name.clone()))).collect()
    }

    /// What the client asks for of one type.
    pub fn wants(&self, resource_type: ResourceType) -> Wants<'_> {
        Wants::new(self.substreams[resource_type.index()].as_ref().map(|substream| substream.subscription.interest()))
    }

    /// Whether nothing is awaited: every response was answered, and no resource waits for another.
    pub fn is_at_rest(&self) -> bool {
        self.substreams.iter().flatten().all(|substream| substream.flights.is_empty() && substream.waits.is_empty())
    }

    /// Whether the client refuses anything of what it was sent.
    pub fn is_refused(&self) -> bool {
        self.substreams.iter().flatten().any(|substream| substream.refused() > 0)
    }

    /// How each type that was asked for stands, in the order of `ResourceType::ALL`.
    pub fn summary(&self) -> Vec<Summary> {
        self.substreams.iter().flatten().map(|substream| substream.summary()).collect()
    }

    /// Takes types that rest and that are the same in `target` along to it, so that no old snapshot is kept alive by
    /// them; the others are to be looked at.
    fn move_on(&mut self, target: &Snapshot) {
        let Some(old) = self.looked_at.as_ref().filter(|old| !old.same_as(target)) else {
            self.looked_at.get_or_insert_with(|| target.clone());
            return;
        };
        let resting = self.resting;
        for resource_type in ORDER.into_iter().filter(|resource_type| resting.contains(*resource_type)) {
            if !target.is_same_in(resource_type, old) {
                self.resting.remove(resource_type);
            } else if let Some(base) =
                self.substreams[resource_type.index()].as_mut().and_then(|substream| substream.view.base.as_mut())
            {
                *base = target.clone();
            }
        }
        self.looked_at = Some(target.clone());
    }

    /// What there is of a type, to be changed: it is looked at again.
    fn substream(&mut self, resource_type: ResourceType) -> &mut Substream {
        self.resting.remove(resource_type);
        self.substreams[resource_type.index()].get_or_insert_with(|| Box::new(Substream::new(resource_type)))
    }

    /// Lets go of listeners that serve no more. Envoy acknowledges a changed listener at once, but goes on with the old
    /// one until the new one has its routes, filters and secrets.
    fn end_lingering(&mut self, target: &Snapshot, now: Instant) {
        if self.resting.contains(ResourceType::Listener) {
            return;
        }
        let Some(listeners) = self.substreams[ResourceType::Listener.index()].as_deref() else { return };
        if listeners.lingering.is_empty() {
            return;
        }
        let serves = |(old, since): &(Arc<Cell>, Instant)| {
            now < *since + self.settings.order_wait && !order::is_ready(&self.substreams, target, old.name())
        };
        let kept = listeners.lingering.iter().filter(|lingering| serves(lingering)).cloned().collect();
        self.substream(ResourceType::Listener).lingering = kept;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
