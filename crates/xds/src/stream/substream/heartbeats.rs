//! Resources that a client forgets unless it hears of them again (rules P-63 to P-65).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::ResourceType;
use snapshot::{Cell, Name};

use super::Substream;
use crate::Variant;

/// Heartbeats in the time after which a client forgets: two may be late or lost.
const IN_A_TTL: u32 = 3;

/// A client is told again no more often than this, however short the TTL is.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);

/// When the client was told of each resource with a TTL. Streams without such resources have none of this.
#[derive(Debug, Default)]
pub(crate) struct Heartbeats {
    told: BTreeMap<Name, Told>,
    /// The nonce of the last heartbeats, and what they were for: they are no responses whose acknowledgement is awaited.
    last: Option<(String, Vec<Name>)>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    /// `None` while the resource waits to be sent once more as a whole.
    due: Option<Instant>,
}

impl Heartbeats {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.told.values().filter_map(|told| told.due).min()
    }
}

impl Substream {
    /// Whether the client holds anything that it forgets.
    pub(crate) fn has_heartbeats(&self) -> bool {
        self.heartbeats.is_some()
    }

    /// Notes that the client is told of these resources now.
    pub(crate) fn tell<'c>(&mut self, cells: impl Iterator<Item = &'c Arc<Cell>>, now: Instant) {
        for cell in cells {
            match cell.ttl() {
                Some(ttl) => {
                    let told = Told { at: now, due: Some(now + period(ttl)) };
                    self.heartbeats.get_or_insert_default().told.insert(cell.name().clone(), told);
                }
                None => {
                    if let Some(heartbeats) = &mut self.heartbeats {
                        heartbeats.told.remove(cell.name());
                    }
                }
            }
        }
    }

    /// Notes resources that the client says it holds: how long it still will is not known.
    pub(crate) fn tell_soon(&mut self, cells: &[Arc<Cell>], now: Instant) {
        for cell in cells.iter().filter(|cell| cell.ttl().is_some()) {
            let told = Told { at: now, due: Some(now) };
            self.heartbeats.get_or_insert_default().told.insert(cell.name().clone(), told);
        }
    }

    /// Takes what is due: resources of which it is enough to say that they are still there. What cannot be said by a heartbeat is marked to be sent once more as a whole: in
    /// state-of-the-world, where Envoy does not count heartbeats and takes an answer of nothing else for an empty one
    /// (`GrpcMuxImpl::onDiscoveryResponse`, `source/extensions/config_subscription/grpc/grpc_mux_impl.cc`); for virtual
    /// hosts, of which it takes none (`DeltaSubscriptionState::isHeartbeatResponse`); and what the client has forgotten
    /// by now (rule P-65).
    pub(crate) fn take_due(&mut self, variant: Variant, now: Instant) -> Vec<Arc<Cell>> {
        let mut due = Vec::new();
        let Some(mut heartbeats) = self.heartbeats.take() else { return due };
        let kind = self.resource_type;
        let mut whole = Vec::new();
        heartbeats.told.retain(|name, told| {
            if told.due.is_some_and(|at| now < at) {
                return true;
            }
            let held = self.view.cell(kind, name).filter(|_| self.subscription.covers(name));
            let Some((held, ttl)) = held.and_then(|held| Some((held.clone(), held.ttl()?))) else {
                return false;
            };
            if told.due.is_none() {
                return true;
            }
            let takes_heartbeats = variant == Variant::Delta && kind != ResourceType::VirtualHost;
            if takes_heartbeats && now < told.at + ttl {
                *told = Told { at: now, due: Some(now + period(ttl)) };
                due.push(held);
            } else {
                told.due = None;
                whole.push(name.clone());
            }
            true
        });
        whole.into_iter().for_each(|name| self.repeat_name(name));
        if !heartbeats.told.is_empty() {
            self.heartbeats = Some(heartbeats);
        }
        due
    }

    /// Notes under which nonce heartbeats went out.
    pub(crate) fn heartbeats_sent(&mut self, nonce: String, cells: &[Arc<Cell>]) {
        if let Some(heartbeats) = &mut self.heartbeats {
            heartbeats.last = Some((nonce, cells.iter().map(|cell| cell.name().clone()).collect()));
        }
    }

    /// The client refused heartbeats: it does not hold what they were for, so that is sent to it as a whole.
    pub(crate) fn heartbeats_refused(&mut self, nonce: &str) {
        let refused =
            self.heartbeats.as_mut().and_then(|heartbeats| heartbeats.last.take_if(|(last, _)| last == nonce));
        for name in refused.into_iter().flat_map(|(_, names)| names) {
            if self.subscription.covers(&name) && self.view.cell(self.resource_type, &name).is_some() {
                self.repeat_name(name);
            }
        }
    }
}

fn period(ttl: Duration) -> Duration {
    (ttl / IN_A_TTL).max(SHORTEST_PERIOD)
}
