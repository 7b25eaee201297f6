//! Clients that come back: what they say they hold from an earlier stream, and how far that is believed.

use std::collections::BTreeSet;
use std::time::Instant;

use proto::ResourceType;
use snapshot::{Name, Snapshot};

use super::Stream;
use super::order::{self, assignments};
use super::plan::Plan;
use super::substream::Substream;

impl Stream {
    pub(super) fn is_returning(&self, now: Instant) -> bool {
        self.returning_until.is_some_and(|until| now < until)
    }

    /// Notes which types are up to date, so that nothing from an earlier stream is left in them. True for news.
    pub(super) fn learn(&mut self, target: &Snapshot) -> bool {
        let up_to_date = |substream: &Substream| {
            let unknown = !substream.known && !substream.subscription.is_empty();
            unknown
                && substream.is_settled(target)
                // A listener from an earlier stream serves until its replacement does.
                && (substream.resource_type() != ResourceType::Listener
                    || target
                        .iter(ResourceType::Listener)
                        .filter(|cell| substream.subscription.covers(cell.name()))
                        .all(|cell| order::is_ready(&self.substreams, target, cell.name())))
        };
        let news: Vec<_> =
            self.substreams.iter().flatten().filter(|s| up_to_date(s)).map(|s| s.resource_type()).collect();
        for resource_type in &news {
            self.substream(*resource_type).known = true;
        }
        !news.is_empty()
    }

    /// Compares what a returning client says it holds with the snapshot (rule P-49).
    ///
    /// An assignment of equal version is not sent again if the client came with the newest version of its cluster,
    /// too (rule P-50): then nothing of it changed while the client was away. What remains is a cluster that was
    /// replaced just before the connection broke and still waits for its assignment; Envoy shows it by not
    /// acknowledging its clusters, and `handle_timeout` acts on that.
    ///
    /// True if there was something to compare.
    pub(super) fn resolve_claims(&mut self, resource_type: ResourceType, target: &Snapshot, now: Instant) -> bool {
        let has_claims = self.substreams[resource_type.index()].as_ref().is_some_and(|s| s.has_claims());
        if !has_claims && self.trusted_assignments.is_empty() && self.renewed_routes.is_empty() {
            return false;
        }
        let trusted = std::mem::take(&mut self.trusted_assignments);
        let renewed = if resource_type == ResourceType::VirtualHost {
            std::mem::take(&mut self.renewed_routes)
        } else {
            BTreeSet::new()
        };
        let is_trusted = |name: &str| match resource_type {
            ResourceType::Endpoints => trusted.contains(name),
            ResourceType::VirtualHost => !snapshot::parent(name).is_some_and(|route| renewed.contains(route)),
            _ => true,
        };
        let ttls = self.ttls();
        let (mut with_ttl, mut with_clusters) = (Vec::new(), Vec::new());
        // Assignments that were asked for earlier were not trusted.
        let trusts_now = resource_type == ResourceType::Cluster && !self.was_served(ResourceType::Endpoints);
        self.substream(resource_type).resolve_claims(target, is_trusted, |cell| {
            if ttls && cell.ttl().is_some() {
                with_ttl.push(cell.clone());
            }
            if trusts_now {
                with_clusters.extend(assignments(cell).cloned());
            }
        });
        self.trusted_assignments = trusted;
        if !with_ttl.is_empty() {
            self.substream(resource_type).tell_soon(&with_ttl, now);
        }
        match resource_type {
            ResourceType::Cluster if self.trusted_assignments.is_empty() => {
                self.trusted_assignments = with_clusters.into_iter().collect();
            }
            ResourceType::Cluster => self.trusted_assignments.extend(with_clusters),
            ResourceType::Endpoints => self.forget_trusted_assignments(),
            _ => {}
        }
        has_claims
    }

    /// Trust is of use until assignments were asked for, and until the first clusters are acknowledged.
    pub(super) fn was_served(&self, resource_type: ResourceType) -> bool {
        self.substreams[resource_type.index()].as_ref().is_some_and(|substream| substream.view.base.is_some())
    }

    pub(super) fn forget_trusted_assignments(&mut self) {
        let awaited = |clusters: &Substream| clusters.responses == 0 || clusters.flights.iter().any(|f| f.first);
        let clusters_awaited = self.substreams[ResourceType::Cluster.index()].as_deref().is_some_and(awaited);
        let asked = self.substreams[ResourceType::Endpoints.index()].is_some();
        if asked && !clusters_awaited && !self.trusted_assignments.is_empty() {
            self.trusted_assignments = BTreeSet::new();
        }
    }

    /// Rule P-55: a cluster that changed waits for its assignment to come once more, after it, even if the endpoints
    /// stayed the same. Rule P-56 follows: what is marked now is only cleared by sending it from now on.
    pub(super) fn mark_assignments(&mut self, plan: &Plan, target: &Snapshot) {
        if self.substreams[ResourceType::Endpoints.index()].is_none() {
            return;
        }
        let changed: Vec<Name> = if plan.is_whole() {
            target.iter(ResourceType::Cluster).flat_map(assignments).cloned().collect()
        } else {
            plan.send.iter().flat_map(assignments).cloned().collect()
        };
        self.repeat_assignments(changed.iter());
    }

    pub(super) fn repeat_assignments<'a>(&mut self, names: impl Iterator<Item = &'a Name>) {
        if let Some(endpoints) = &mut self.substreams[ResourceType::Endpoints.index()] {
            self.resting.remove(ResourceType::Endpoints);
            for name in names.filter(|name| endpoints.subscription.covers(name)).cloned().collect::<Vec<_>>() {
                endpoints.repeat_name(name);
            }
        }
    }
}
