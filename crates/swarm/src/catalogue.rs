//! What the nodes ask for by name, as the scout learned it.

use std::collections::{BTreeMap, BTreeSet};

use proto::ResourceType;
use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};

use crate::entries::{Entries, Window};
use crate::request::{HELD, NAMES};
use crate::scenario::Endpoints;

/// The types that a node asks for, in the order in which it first does.
pub(crate) const TYPES: [ResourceType; 5] = [
    ResourceType::Cluster,
    ResourceType::Endpoints,
    ResourceType::Listener,
    ResourceType::Route,
    ResourceType::VirtualHost,
];

/// Where a type is in [`TYPES`]; `None` for one that no node asks for.
pub(crate) fn position(kind: ResourceType) -> Option<usize> {
    TYPES.iter().position(|listed| *listed == kind)
}

/// The name of the endpoint assignment that a cluster takes; `None` if it takes none.
pub(crate) fn assignment(cluster: &Cluster) -> Option<&str> {
    if cluster.cluster_discovery_type != Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)) {
        return None;
    }
    let named = cluster.eds_cluster_config.as_ref().map(|eds| eds.service_name.as_str());
    Some(named.filter(|name| !name.is_empty()).unwrap_or(&cluster.name))
}

/// Names and versions of resources by type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// By name; the version is empty in state-of-the-world.
    pub(crate) resources: BTreeMap<ResourceType, BTreeMap<String, String>>,
    /// Whether route configurations take their virtual hosts from VHDS.
    pub(crate) virtual_hosts: bool,
}

impl Found {
    /// The names of one type, and their versions.
    pub(crate) fn of(&self, kind: ResourceType) -> impl Iterator<Item = (&str, &str)> {
        self.resources.get(&kind).into_iter().flatten().map(|(name, version)| (name.as_str(), version.as_str()))
    }

    /// How many there are of one type.
    pub(crate) fn count(&self, kind: ResourceType) -> usize {
        self.resources.get(&kind).map_or(0, BTreeMap::len)
    }
}

/// What all nodes ask for, encoded.
#[derive(Debug)]
pub(crate) struct Catalogue {
    endpoints: Entries,
    routes: Entries,
    /// How many assignments one node asks for.
    each: usize,
    /// Their names, if nodes ask for all of them and so also for those of clusters that come later.
    known: Option<BTreeSet<String>>,
    virtual_hosts: bool,
}

impl Catalogue {
    /// From what a scout found. Nodes ask for these assignments, for all routes, and for whatever clusters, listeners and
    /// virtual hosts there are.
    pub(crate) fn new(found: &Found, endpoints: &Endpoints) -> Self {
        let names = found.of(ResourceType::Endpoints).map(|(name, _)| name).filter(|name| endpoints.wants(name));
        let routes = found.of(ResourceType::Route).map(|(name, _)| name);
        let endpoint_names = Entries::texts(NAMES, names);
        let all = *endpoints == Endpoints::default();
        let known = all.then(|| found.of(ResourceType::Endpoints).map(|(name, _)| name.to_owned()).collect());
        let each = endpoints.each.unwrap_or(usize::MAX).min(endpoint_names.len());
        Self {
            endpoints: endpoint_names,
            routes: Entries::texts(NAMES, routes),
            each,
            known,
            virtual_hosts: found.virtual_hosts,
        }
    }

    /// What the node with this index asks for of a type; `None` for nothing. No names: whatever there is.
    pub(crate) fn names(&self, kind: ResourceType, node: usize) -> Option<Option<(&Entries, Window)>> {
        let named = |entries, window: Window| (window.count > 0).then_some(Some((entries, window)));
        match kind {
            ResourceType::Cluster | ResourceType::Listener => Some(None),
            ResourceType::Endpoints => named(&self.endpoints, self.window(node)),
            ResourceType::Route => named(&self.routes, self.routes.all()),
            ResourceType::VirtualHost => self.virtual_hosts.then_some(None),
            _ => None,
        }
    }

    /// Whether nodes ask for the assignments of clusters that come later.
    pub(crate) fn follows(&self) -> bool {
        self.known.is_some()
    }

    /// Whether a name was there at the start, so that every node has asked for it.
    pub(crate) fn knows(&self, assignment: &str) -> bool {
        self.known.as_ref().is_some_and(|known| known.contains(assignment))
    }

    /// The assignments that the node with this index asks for: neighbours ask for neighbouring runs.
    fn window(&self, node: usize) -> Window {
        Window { first: node * self.each % self.endpoints.len().max(1), count: self.each }
    }
}

/// Versions that reconnecting nodes have, encoded; in the order of the catalogue's names.
#[derive(Debug)]
pub(crate) struct Held {
    by_type: [Entries; TYPES.len()],
}

impl Held {
    /// From what a scout found: every node is taken to have what the scout has.
    pub(crate) fn new(found: &Found, endpoints: &Endpoints) -> Self {
        let by_type = TYPES.map(|kind| {
            let wanted = |name: &str| kind != ResourceType::Endpoints || endpoints.wants(name);
            Entries::pairs(HELD, found.of(kind).filter(|(name, _)| wanted(name)))
        });
        Self { by_type }
    }

    /// The versions that the node with this index has of a type.
    pub(crate) fn of(&self, kind: ResourceType, catalogue: &Catalogue, node: usize) -> Option<(&Entries, Window)> {
        let entries = &self.by_type[position(kind)?];
        let window = match kind {
            ResourceType::Endpoints if !catalogue.follows() => catalogue.window(node),
            _ => entries.all(),
        };
        Some((entries, window))
    }
}
