//! Make before break: what must reach the client, or leave it, first (rules P-53 to P-61).
//!
//! Two questions are asked of every resource that is owed. May it be sent: are the clusters that it uses there? And
//! may it be removed: has everything gone that refers to it? Both look at the other types of the same stream only. A
//! type that the client did not ask for on this stream never holds another one up (rule P-60).
//!
//! No wait can go round in a circle. Clusters and endpoints that are new are sent without waiting for anybody. Where one
//! waits for the other because of whom the client would meet ([`peers`]), either can do without the wait: a cluster that
//! warms is sent the assignment that the client has, and only one whose present form admits all of the next assignment
//! waits for that. An acknowledgement of clusters needs nothing but endpoints and secrets, and removals wait for later
//! types only. That holds for the
//! first delivery, too, where Envoy does not ask for listeners before it has accepted its clusters, and gRPC asks for
//! clusters only once it holds the routes that name them.

mod peers;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Cell, Name, Snapshot};

use super::substream::Substream;
use super::{Substreams, hosts};
use crate::Wait;

/// In which order types are looked at: those that others refer to first; secrets right after the clusters and before
/// the listeners that use them, runtime values before everything.
pub(crate) const ORDER: [ResourceType; ResourceType::ALL.len()] = [
    ResourceType::Runtime,
    ResourceType::Cluster,
    ResourceType::Endpoints,
    ResourceType::Secret,
    ResourceType::Listener,
    ResourceType::ExtensionConfig,
    ResourceType::ScopedRoute,
    ResourceType::Route,
    ResourceType::VirtualHost,
];

/// The order as it concerns one type at one moment.
pub(crate) struct Order<'a> {
    resource_type: ResourceType,
    /// The client brought resources from an earlier stream, not long ago.
    returning: bool,
    substreams: &'a Substreams,
    target: &'a Snapshot,
    /// Clusters, if resources of this type must look at them.
    clusters: Option<&'a Substream>,
    /// Names of this type that the client may still refer to against the target's will, and by what.
    referred: OnceCell<BTreeMap<Name, Wait>>,
    /// See [`Order::outdated`].
    outdated: OnceCell<BTreeMap<Name, Vec<Arc<Cell>>>>,
}

impl<'a> Order<'a> {
    pub(crate) fn new(
        resource_type: ResourceType,
        returning: bool,
        substreams: &'a Substreams,
        target: &'a Snapshot,
    ) -> Self {
        let clusters = substreams[ResourceType::Cluster.index()]
            .as_deref()
            .filter(|clusters| resource_type > ResourceType::Cluster && !clusters.is_settled(target));
        let (referred, outdated) = (OnceCell::new(), OnceCell::new());
        Self { resource_type, returning, substreams, target, clusters, referred, outdated }
    }

    /// Whether nothing that is sent now can have to wait.
    pub(crate) fn is_free_to_send(&self) -> bool {
        self.clusters.is_none()
    }

    /// What this resource must wait for before it is sent in place of `held`: a cluster that it uses and that the client
    /// subscribes to, but has not in its newest form (rule P-61) or has not accepted in any form (rules P-18, P-59). A
    /// changed cluster need not be accepted: the client serves with the old one until the new one is warm. Clusters and
    /// assignments wait for each other where the client would not admit who it meets.
    pub(crate) fn before_sending(&self, cell: &Arc<Cell>, held: Option<&Arc<Cell>>) -> Option<Wait> {
        match self.resource_type {
            ResourceType::Endpoints => return self.before_assigning(cell, held),
            ResourceType::Cluster => return self.before_narrowing(cell, held),
            _ => {}
        }
        let clusters = self.clusters?;
        cell.references().filter(|(to, _)| *to == ResourceType::Cluster).find_map(|(_, name)| {
            if !clusters.subscription.covers(name) {
                return None;
            }
            let newest = self.target.get(ResourceType::Cluster, name)?;
            // What the client refuses will not be accepted before it changes: waiting would only keep back what comes
            // along in the same resource. What can be kept back alone is: see `refused_cluster`.
            if clusters.has_refused(newest) {
                return None;
            }
            let sent = clusters.view.cell(ResourceType::Cluster, name);
            if sent.is_none_or(|sent| sent.version() != newest.version()) {
                return Some(Wait::ClusterNotSent { cluster: name.clone() });
            }
            clusters.is_unproven(newest).then(|| Wait::ClusterNotAccepted { cluster: name.clone() })
        })
    }

    /// Whether the client refuses any cluster.
    pub(crate) fn refuses_clusters(&self) -> bool {
        self.clusters.is_some_and(|clusters| clusters.refused() > 0)
    }

    /// Among references the first cluster that the client refuses and has in no form: requests to it fail until it is
    /// mended, so whoever has an older form without it does well to keep that.
    pub(crate) fn refused_cluster<'r>(
        &self,
        references: impl IntoIterator<Item = &'r (ResourceType, Name)>,
    ) -> Option<&'r Name> {
        let clusters = self.clusters?;
        let of_clusters = references.into_iter().filter(|(to, _)| *to == ResourceType::Cluster);
        of_clusters.map(|(_, name)| name).find(|name| {
            let newest = self.target.get(ResourceType::Cluster, name);
            newest.is_some_and(|newest| clusters.has_refused(newest))
                && clusters.view.cell(ResourceType::Cluster, name).is_none()
        })
    }

    /// What the removal of this name must wait for: a resource that the client may still hold and that refers to it.
    pub(crate) fn before_removing(&self, name: &Name) -> Option<Wait> {
        let referred = self.referred.get_or_init(|| self.find_referred());
        let by_parent = || snapshot::parent(name).and_then(|parent| referred.get(parent));
        // Nothing else refers to a virtual host, and another may have its domains already.
        let stays = |route: &str| self.target.get(ResourceType::Route, route).is_some();
        let is_host = self.resource_type == ResourceType::VirtualHost && snapshot::parent(name).is_some_and(stays);
        match referred.get(name).or_else(by_parent) {
            Some(wait) => Some(wait.clone()),
            None if is_host => None,
            None if self.returning => self.before_removing_from_returning(),
            None => None,
        }
    }

    fn find_referred(&self) -> BTreeMap<Name, Wait> {
        let mut referred = BTreeMap::new();
        for substream in self.later_types().filter_map(|t| self.substreams[t.index()].as_deref()) {
            for cell in substream.leftovers(self.target) {
                let (by_type, by) = (cell.resource_type(), cell.name());
                let is_kept = substream.keeps(&cell);
                if self.resource_type == ResourceType::VirtualHost && self.target.get(ResourceType::Route, by).is_none()
                {
                    // It refers to all its virtual hosts, which are found by its name.
                    referred.insert(by.clone(), Wait::StillReferred { by_type, by: by.clone() });
                }
                let names = cell.references().filter(|(to, _)| *to == self.resource_type);
                for (_, name) in names {
                    if is_kept {
                        // The longer of two waits.
                        referred.insert(name.clone(), Wait::KeptByHeldBack { by_type, by: by.clone() });
                    } else if !referred.contains_key(name) {
                        referred.insert(name.clone(), Wait::StillReferred { by_type, by: by.clone() });
                    }
                }
            }
        }
        referred
    }

    /// What a client came back with is known by version only, so not what it refers to: until each type that leads
    /// traffic was up to date once, anything may be in use.
    fn before_removing_from_returning(&self) -> Option<Wait> {
        let leads = |later: &ResourceType| match later {
            ResourceType::Cluster | ResourceType::Route | ResourceType::Listener => true,
            ResourceType::VirtualHost => hosts::are_expected(self.substreams, self.target),
            ResourceType::Runtime
            | ResourceType::Secret
            | ResourceType::Endpoints
            | ResourceType::ScopedRoute
            | ResourceType::ExtensionConfig => false,
        };
        self.later_types().filter(leads).find_map(|later| {
            let known = self.substreams[later.index()].as_ref().is_some_and(|substream| substream.known);
            (!known).then_some(Wait::NotYetAsked { resource_type: later })
        })
    }

    /// The types that can refer to this one.
    fn later_types(&self) -> impl Iterator<Item = ResourceType> + use<> {
        let own = self.resource_type;
        ResourceType::ALL.into_iter().filter(move |other| *other > own)
    }
}

/// Whether the newest form of a listener serves, or there is none any more: it was accepted, and so was everything
/// that it asks for by name.
pub(crate) fn is_ready(substreams: &Substreams, target: &Snapshot, listener: &str) -> bool {
    let Some(listeners) = substreams[ResourceType::Listener.index()].as_deref() else { return true };
    let Some(cell) = listeners.view.cell(ResourceType::Listener, listener) else { return true };
    // What the newest form asks for in vain cannot be waited for; an older form never had it.
    let newest = target.get(ResourceType::Listener, listener).is_some_and(|newest| newest.version() == cell.version());
    listeners.is_accepted(listener)
        && cell.references().all(|(to, name)| match to {
            ResourceType::Route | ResourceType::ScopedRoute | ResourceType::ExtensionConfig | ResourceType::Secret => {
                newest && target.get(*to, name).is_none()
                    || substreams[to.index()].as_ref().is_some_and(|substream| substream.is_accepted(name))
                        && (*to != ResourceType::Route || hosts::are_ready(substreams, target, name))
            }
            ResourceType::Runtime
            | ResourceType::Endpoints
            | ResourceType::Cluster
            | ResourceType::VirtualHost
            | ResourceType::Listener => true,
        })
}

/// The assignments of a resource's endpoints: what a changed cluster waits for (rule P-55).
pub(crate) fn assignments(cell: &Arc<Cell>) -> impl Iterator<Item = &Name> {
    cell.references().filter(|(to, _)| *to == ResourceType::Endpoints).map(|(_, name)| name)
}
