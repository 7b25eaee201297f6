//! What an Envoy says when, without IO.
//!
//! ```text
//! open     ──▶ clusters
//! clusters ──▶ endpoints (the ACK of clusters waits until they are warm)
//! endpoints ─▶ ACK of clusters, listeners, ACK of endpoints
//! listeners ─▶ routes, ACK of listeners
//! routes   ──▶ virtual hosts, ACK of routes
//! ```
//!
//! As recorded from Envoy 1.40: the same in both variants, clusters and listeners by the legacy wildcard, the node in the
//! first request only. Afterwards every response is acknowledged at once, except that clusters which are added or changed on
//! a delta stream wait for their endpoints again. A node that reconnects asks for everything at once.

use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;

use crate::catalogue::{Catalogue, Held, TYPES, assignment, position};
use crate::entries::Entries;
use crate::http2::Piece;
use crate::identity::Identity;
use crate::request::{NAMES, Request};
use crate::scan::Received;
use crate::scenario::Variant;

/// What a node thinks of what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// It accepts everything.
    Accepts,
    /// It refuses everything.
    Refuses,
}

/// What a response led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    /// It is acknowledged, or will be as soon as clusters are warm.
    Accepted,
    /// It is refused.
    Refused,
    /// Nobody asked for it, so nothing is said.
    Unasked,
}

/// What a node remembers of one type.
#[derive(Clone, Debug, Default)]
struct Subscription {
    /// Whether it was asked for on this stream.
    asked: bool,
    /// Resources that have come since the node first asked, removals included.
    came: usize,
    answered: bool,
    /// The version that is in use, for state-of-the-world.
    version: Box<[u8]>,
}

/// One node's side of a stream.
#[derive(Debug)]
pub(crate) struct Dialogue {
    variant: Variant,
    opinion: Opinion,
    /// The node's index.
    index: usize,
    subscriptions: [Subscription; TYPES.len()],
    /// Responses with clusters that are not warm.
    warming: Vec<Warming>,
    /// Endpoint assignments that have to come until they are. They are counted and not named, which is the same as long as
    /// a server answers what it is asked.
    cold: usize,
    /// Assignments that were asked for because their clusters came later.
    later: Vec<String>,
}

/// What the ACK of such a response will say.
#[derive(Debug)]
struct Warming {
    version: Box<[u8]>,
    nonce: Box<[u8]>,
}

impl Dialogue {
    /// Of a node that has not said anything yet.
    pub(crate) fn new(variant: Variant, opinion: Opinion, index: usize) -> Self {
        Self {
            variant,
            opinion,
            index,
            subscriptions: Default::default(),
            warming: Vec::new(),
            cold: 0,
            later: Vec::new(),
        }
    }

    /// Begins a stream as an Envoy does that has just started.
    pub(crate) fn open(&mut self, identity: &Identity, catalogue: &Catalogue, send: &mut dyn FnMut(Piece)) {
        *self = Self::new(self.variant, self.opinion, self.index);
        self.ask(ResourceType::Cluster, Some(identity), None, catalogue, send);
    }

    /// Begins a stream as an Envoy does that lost its server: with all that it asks for, and all that it has.
    pub(crate) fn resume(
        &mut self,
        identity: &Identity,
        catalogue: &Catalogue,
        held: &Held,
        send: &mut dyn FnMut(Piece),
    ) {
        (self.warming, self.cold) = (Vec::new(), 0);
        for subscription in &mut self.subscriptions {
            (subscription.asked, subscription.answered) = (false, true);
        }
        let mut identity = Some(identity);
        for kind in TYPES {
            if self.ask(kind, identity, Some(held), catalogue, send) {
                identity = None;
            }
        }
        self.ask_later(&self.later, send);
    }

    /// Answers a response.
    pub(crate) fn receive(
        &mut self,
        received: &Received,
        catalogue: &Catalogue,
        send: &mut dyn FnMut(Piece),
    ) -> Reaction {
        let Some((kind, at)) = received.kind.and_then(|kind| Some((kind, position(kind)?))) else {
            return Reaction::Unasked;
        };
        let subscription = &mut self.subscriptions[at];
        if !subscription.asked {
            return Reaction::Unasked;
        }
        let first = !std::mem::replace(&mut subscription.answered, true);
        let came = received.resources as usize + received.removed as usize;
        subscription.came += came;
        if self.opinion == Opinion::Refuses {
            self.answer(kind, &[], &received.nonce, Some("this node refuses everything"), catalogue, send);
            self.ask_next(kind, catalogue, send);
            return Reaction::Refused;
        }
        match kind {
            ResourceType::Cluster => {
                self.warm(first, received, catalogue, send);
                if self.cold > 0 {
                    let (version, nonce) = (received.version.as_slice().into(), received.nonce.as_slice().into());
                    self.warming.push(Warming { version, nonce });
                } else {
                    self.answer(kind, &received.version, &received.nonce, None, catalogue, send);
                    self.ask(ResourceType::Listener, None, None, catalogue, send);
                }
            }
            ResourceType::Endpoints => {
                self.cold = self.cold.saturating_sub(came);
                if self.cold == 0 {
                    for Warming { version, nonce } in std::mem::take(&mut self.warming) {
                        self.answer(ResourceType::Cluster, &version, &nonce, None, catalogue, send);
                    }
                    self.ask(ResourceType::Listener, None, None, catalogue, send);
                }
                self.answer(kind, &received.version, &received.nonce, None, catalogue, send);
            }
            ResourceType::Listener | ResourceType::Route => {
                self.ask_next(kind, catalogue, send);
                self.answer(kind, &received.version, &received.nonce, None, catalogue, send);
            }
            _ => self.answer(kind, &received.version, &received.nonce, None, catalogue, send),
        }
        Reaction::Accepted
    }

    /// Finds out which endpoints clusters wait for, and asks for those that nobody asked for before.
    fn warm(&mut self, first: bool, received: &Received, catalogue: &Catalogue, send: &mut dyn FnMut(Piece)) {
        if first {
            let names = catalogue.names(ResourceType::Endpoints, self.index).flatten();
            self.cold = names.map_or(0, |(_, window)| window.count);
            self.ask(ResourceType::Endpoints, None, None, catalogue, send);
            return;
        }
        let message = received.message.as_deref().filter(|_| catalogue.follows());
        // What cannot be read is for a real client to refuse; here it just has no clusters.
        let resources =
            message.and_then(|bytes| DeltaDiscoveryResponse::decode(bytes).ok()).unwrap_or_default().resources;
        let mut unknown = Vec::new();
        for resource in resources.into_iter().filter_map(|resource| resource.resource) {
            let Ok(cluster) = Cluster::decode(resource.value.as_slice()) else { continue };
            let Some(name) = assignment(&cluster) else { continue };
            self.cold += 1;
            if !catalogue.knows(name) && !self.later.iter().any(|known| known == name) {
                unknown.push(name.to_owned());
            }
        }
        self.ask_later(&unknown, send);
        self.later.append(&mut unknown);
    }

    /// Asks for assignments that are not in the catalogue.
    fn ask_later(&self, names: &[String], send: &mut dyn FnMut(Piece)) {
        if !names.is_empty() {
            let entries = Entries::texts(NAMES, names.iter().map(String::as_str));
            let names = Some((&entries, entries.all()));
            Request { names, ..Request::of(self.variant, ResourceType::Endpoints) }.send(send);
        }
    }

    /// Whether everything that the node wants has come, and nothing waits to be warm.
    pub(crate) fn is_synced(&self, catalogue: &Catalogue) -> bool {
        self.warming.is_empty() && TYPES.iter().all(|kind| !self.is_waiting(*kind, catalogue))
    }

    /// Whether resources of a type are still to come for the first time.
    fn is_waiting(&self, kind: ResourceType, catalogue: &Catalogue) -> bool {
        let Some(names) = catalogue.names(kind, self.index) else { return false };
        let Some(subscription) = position(kind).map(|at| &self.subscriptions[at]) else { return false };
        let wanted = names.map_or(0, |(_, window)| window.count);
        !subscription.answered || (subscription.came < wanted && self.opinion == Opinion::Accepts)
    }

    /// Asks for what comes after this type. After clusters only a node that refuses them asks so, as nothing gets warm.
    fn ask_next(&mut self, kind: ResourceType, catalogue: &Catalogue, send: &mut dyn FnMut(Piece)) {
        match kind {
            ResourceType::Cluster => {
                self.ask(ResourceType::Endpoints, None, None, catalogue, send);
                self.ask(ResourceType::Listener, None, None, catalogue, send);
            }
            ResourceType::Listener => {
                self.ask(ResourceType::Route, None, None, catalogue, send);
            }
            ResourceType::Route => {
                self.ask(ResourceType::VirtualHost, None, None, catalogue, send);
            }
            _ => {}
        }
    }

    /// Asks for a type unless that was done; whether something was sent.
    fn ask(
        &mut self,
        kind: ResourceType,
        node: Option<&Identity>,
        held: Option<&Held>,
        catalogue: &Catalogue,
        send: &mut dyn FnMut(Piece),
    ) -> bool {
        let (Some(at), Some(names)) = (position(kind), catalogue.names(kind, self.index)) else { return false };
        // Virtual hosts have no state-of-the-world variant.
        if self.subscriptions[at].asked || (kind == ResourceType::VirtualHost && self.variant == Variant::Sotw) {
            return false;
        }
        self.subscriptions[at].asked = true;
        let request = Request { node, names, ..Request::of(self.variant, kind) };
        match (self.variant, held) {
            (Variant::Sotw, Some(_)) => Request { version: &self.subscriptions[at].version, ..request }.send(send),
            (Variant::Delta, Some(held)) => {
                Request { held: held.of(kind, catalogue, self.index), ..request }.send(send);
            }
            (_, None) => request.send(send),
        }
        true
    }

    /// Sends an ACK, or a NACK with a reason.
    fn answer(
        &mut self,
        kind: ResourceType,
        version: &[u8],
        nonce: &[u8],
        refusal: Option<&str>,
        catalogue: &Catalogue,
        send: &mut dyn FnMut(Piece),
    ) {
        let Some(at) = position(kind) else { return };
        let request = Request { nonce, refusal, ..Request::of(self.variant, kind) };
        match self.variant {
            Variant::Delta => request.send(send),
            Variant::Sotw => {
                if refusal.is_none() && *self.subscriptions[at].version != *version {
                    self.subscriptions[at].version = version.into();
                }
                let names = catalogue.names(kind, self.index).flatten();
                Request { version: &self.subscriptions[at].version, names, ..request }.send(send);
            }
        }
    }
}

#[cfg(test)]
mod tests;
