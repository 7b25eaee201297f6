//! Responses that the client rejected, whole or in part.
//!
//! A rejection is of a response, but clients apply of it what they can (rule P-15). Envoy 1.40 was seen to add every
//! cluster and listener that it can, to carry out the removals, and to list the others by name, after words that
//! always begin alike ([`NAMED_ONLY`]); gRPC takes all resources but those that it names (gRFC A46). Then the rest
//! counts as accepted: otherwise one refused cluster would keep back all routes that use a cluster that came along
//! with it, in state-of-the-world for as long as it is refused, because it is part of every response.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use snapshot::{Cell, Name};

use super::Substream;
use crate::Rejection;
use crate::stream::flight::{Contents, Flight, Fresh, Rejected};
use crate::stream::view::Held;

/// Rejected responses that are remembered at most; older ones are counted as accepted.
const REJECTED_KEPT: usize = 16;

/// How Envoy begins when it has applied everything but what it names
/// (`source/common/upstream/cds_api_helper.cc`, `source/common/listener_manager/lds_api.cc` of 1.40).
const NAMED_ONLY: &str = "Error adding/updating ";

/// How Envoy ends a message that it has cut (`Utility::truncateGrpcStatusMessage`, `source/common/config/utility.cc`).
const CUT: &str = "...(truncated)";

/// What a client that rejects a response may have applied of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Anything between nothing and everything.
    Unknown,
    /// All that its words do not name, if they name something.
    Unnamed,
}

impl Applied {
    /// As far as the words of a client tell.
    pub(crate) fn by(message: &str, grpc: bool) -> Self {
        let lists = grpc || message.starts_with(NAMED_ONLY);
        if lists && !message.ends_with(CUT) { Applied::Unnamed } else { Applied::Unknown }
    }
}

impl Substream {
    /// Books the rejection of the response at `index`.
    pub(crate) fn reject(
        &mut self,
        index: usize,
        code: i32,
        message: &str,
        applied: Applied,
        at: Instant,
    ) -> Rejection {
        let mut flight = self.flights.remove(index);
        let named = self.named(&flight, message);
        let mut suspects: Vec<_> = named.iter().cloned().collect();
        if suspects.is_empty() && flight.contents.len(self.resource_type) == 1 {
            suspects = flight.contents.iter(self.resource_type).map(|cell| cell.name().clone()).collect();
        }
        let rejection = Rejection {
            resource_type: self.resource_type,
            nonce: flight.nonce.clone(),
            version: flight.version,
            code,
            message: message.into(),
            at,
            suspects,
        };
        self.last_rejection = Some(rejection.clone());
        let in_part = applied == Applied::Unnamed && !named.is_empty();
        if in_part {
            self.accept_rest(&mut flight, &named, at);
        } else if flight.contents.len(self.resource_type) > 0 {
            self.owe_removals(&flight);
        }
        self.rejected.push(Rejected { flight, message: rejection.message.clone(), named: in_part });
        self.forget_replaced_rejections();
        if self.rejected.len() > REJECTED_KEPT {
            self.rejected.remove(0);
        }
        rejection
    }

    /// The resources of a response that the client's words name: of all that was in it, if that was the whole set.
    fn named(&self, flight: &Flight, message: &str) -> BTreeSet<Name> {
        let is_named = |cell: &&Arc<Cell>| names(message, cell.name());
        let name = |cell: &Arc<Cell>| cell.name().clone();
        let mut named: BTreeSet<_> = flight.contents.iter(self.resource_type).filter(is_named).map(name).collect();
        if flight.full_state {
            let kept = self.view.exceptions.values().filter_map(Held::cell);
            let base = self.view.base.iter().flat_map(|base| base.iter(self.resource_type));
            named.extend(base.chain(kept).filter(is_named).map(name));
        }
        named
    }

    /// Counts as accepted all but the resources that are `named`.
    fn accept_rest(&mut self, flight: &mut Flight, named: &BTreeSet<Name>, at: Instant) {
        let replaced = std::mem::take(&mut flight.replaced);
        flight.retain(self.resource_type, named);
        let (kept, done): (Vec<_>, Vec<_>) = replaced.into_iter().partition(|cell| named.contains(cell.name()));
        flight.replaced = kept;
        flight.removed.clear();
        self.linger(done, at);
        if flight.full_state {
            for earlier in &mut self.rejected {
                earlier.flight.retain(self.resource_type, named);
                earlier.flight.replaced.retain(|cell| named.contains(cell.name()));
                earlier.named = true;
            }
        }
    }

    /// The removals in a rejected response may not have been applied, and nothing will ever change about them: so they
    /// are owed again, without what came with them. A response of removals only is not repeated.
    fn owe_removals(&mut self, flight: &Flight) {
        for name in flight.removed.iter().filter(|name| self.subscription.covers(name)) {
            let old = flight.replaced.iter().find(|cell| cell.name() == name).map(|cell| Held::Cell(cell.clone()));
            let unknown = self.view.cell(self.resource_type, name).is_none();
            if unknown {
                self.view.exceptions.entry(name.clone()).or_insert(old.unwrap_or(Held::Foreign(None)));
            }
        }
    }

    /// Drops rejections of which nothing is in the view any more.
    pub(super) fn forget_replaced_rejections(&mut self) {
        let Self { view, subscription, rejected, flights, resource_type, .. } = self;
        rejected.retain(|rejected| {
            let still_sent = |cell: &Arc<Cell>| {
                subscription.covers(cell.name())
                    && view.cell(*resource_type, cell.name()).is_some_and(|held| held.version() == cell.version())
            };
            // While a newer response is in flight the client may hold what the rejected one was to replace.
            !flights.is_empty() || rejected.flight.contents.iter(*resource_type).any(still_sent)
        });
    }

    /// Whether the client rejected this resource and said so by name.
    pub(crate) fn is_refused_by_name(&self, cell: &Cell) -> bool {
        !self.flights.iter().any(|flight| flight.contents.contains(cell))
            && self.rejected.iter().any(|rejected| rejected.named && rejected.flight.contents.contains(cell))
    }

    /// How many resources the client was sent last, subscribes to, and rejected.
    pub(in crate::stream) fn refused(&self) -> usize {
        let contents = self.rejected.iter().flat_map(|rejected| rejected.flight.contents.iter(self.resource_type));
        let refused = contents.filter(|cell| {
            self.subscription.covers(cell.name())
                && self
                    .view
                    .cell(self.resource_type, cell.name())
                    .is_some_and(|held| held.version() == cell.version() && self.is_refused(held))
        });
        refused.map(|cell| cell.name()).collect::<BTreeSet<_>>().len()
    }
}

impl Flight {
    /// Keeps only what is `named`.
    fn retain(&mut self, resource_type: proto::ResourceType, named: &BTreeSet<Name>) {
        let cells = self.contents.iter(resource_type).filter(|cell| named.contains(cell.name()));
        let cells: Vec<_> = cells.cloned().collect();
        let fresh = cells.iter().map(|cell| cell.name()).filter(|name| match &self.fresh {
            Fresh::All => true,
            Fresh::Names(names) => names.contains(*name),
        });
        self.fresh = Fresh::Names(fresh.cloned().collect());
        self.contents = Contents::Cells(cells.into());
    }
}

/// Whether a client's words name a resource: its name stands there as a word of its own.
fn names(message: &str, name: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '|' | '/');
    !name.is_empty()
        && message.match_indices(name).any(|(at, _)| {
            let before = message[..at].chars().next_back();
            let mut after = message[at + name.len()..].chars();
            let ends = match after.next() {
                None => true,
                // A full stop or a colon ends the name unless the word goes on after it.
                Some('.' | ':') => after.next().is_none_or(|c| !joins(c)),
                Some(c) => !joins(c),
            };
            ends && before.is_none_or(|c| !joins(c) && !matches!(c, '.' | ':'))
        })
}
