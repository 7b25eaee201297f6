//! Whom a client may meet: no assignment with an endpoint that the client's cluster does not admit, and no cluster that
//! does not admit an endpoint which the client has.
//!
//! A cluster with mutual TLS lists the identities of its endpoints. When an endpoint of another one joins, the longer
//! list goes first, and the assignment once the client has accepted it: until then Envoy serves with the cluster that it
//! had, and gives that the new assignment, too. What the new cluster waits for while it warms is an assignment, so it is
//! sent the old one once more (rule P-55). When the last endpoint of an identity leaves, its assignment goes first.
//!
//! Where the identities are others altogether no order helps, and the cluster goes first: Envoy takes it into use with the
//! assignment that follows.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Cell, Name};

use super::{Order, assignments};
use crate::Wait;

impl Order<'_> {
    /// What an assignment must wait for, given the one that the client has.
    pub(super) fn before_assigning(&self, cell: &Cell, held: Option<&Arc<Cell>>) -> Option<Wait> {
        let clusters = self.substreams[ResourceType::Cluster.index()].as_deref()?;
        // Whoever has none can use none of the endpoints: nothing is lost by being early.
        let held = held.filter(|held| held.version() != cell.version())?;
        self.outdated().get(cell.name())?.iter().find_map(|outdated| {
            let name = outdated.name();
            let newest = self.target.get(ResourceType::Cluster, name)?;
            if outdated.admits(cell) || !newest.admits(cell) || clusters.has_refused(newest) {
                return None;
            }
            // Who cannot use what it has does not win by waiting.
            let sent = clusters.view.cell(ResourceType::Cluster, name).filter(|sent| sent.admits(held))?;
            Some(Wait::PeersNotAdmitted { cluster: sent.name().clone() })
        })
    }

    /// What a cluster must wait for, given the one that the client has.
    pub(super) fn before_narrowing(&self, cell: &Arc<Cell>, held: Option<&Arc<Cell>>) -> Option<Wait> {
        let endpoints = self.substreams[ResourceType::Endpoints.index()].as_deref()?;
        let held = held.filter(|held| held.version() != cell.version())?;
        assignments(cell).filter(|name| endpoints.subscription.covers(name)).find_map(|name| {
            let has = endpoints.view.cell(ResourceType::Endpoints, name)?;
            let newest = self.target.get(ResourceType::Endpoints, name)?;
            let is_sent = has.version() == newest.version() || endpoints.has_refused(newest);
            let helps = !cell.admits(has) && cell.admits(newest) && held.admits(newest);
            (!is_sent && helps).then(|| Wait::AssignmentNotSent { assignment: name.clone() })
        })
    }

    /// Clusters in forms that the client may hold and that admit fewer peers than the newest, by their assignments.
    fn outdated(&self) -> &BTreeMap<Name, Vec<Arc<Cell>>> {
        self.outdated.get_or_init(|| {
            let mut outdated: BTreeMap<Name, Vec<Arc<Cell>>> = BTreeMap::new();
            let clusters = self.substreams[ResourceType::Cluster.index()].as_deref();
            let mut older = clusters.map(|clusters| clusters.leftovers(self.target)).unwrap_or_default();
            older.retain(|older| {
                let newest = self.target.get(ResourceType::Cluster, older.name());
                newest.is_some_and(|newest| !older.admits_all_of(newest))
            });
            for cluster in older {
                for name in assignments(&cluster) {
                    outdated.entry(name.clone()).or_default().push(cluster.clone());
                }
            }
            outdated
        })
    }
}
