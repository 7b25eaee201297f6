//! What a unit gives.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use proto::ResourceType;
use proto::pb::envoy::config::listener::v3::Listener;
use snapshot::{Cell, Name, Origin};
use world::{ObjectRef, Problem, World};

use super::encode;
use crate::Built;
use crate::listener::{Contribution, Served};
use crate::security::Peers;

/// Everything that one run of a unit built.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Whole resources that only this unit builds.
    pub(super) cells: Vec<Made>,
    /// Virtual hosts for route configurations that several units share.
    pub(super) hosts: Vec<HostPart>,
    /// Filter chains for listeners that several units share.
    pub(super) chains: Vec<Contribution>,
    /// The ports of the workload that services lead to, without those that are held.
    pub(super) served: Vec<Served>,
    /// What was wrong.
    pub(super) problems: Vec<Problem>,
}

impl Output {
    /// Encodes a resource and adds it; one that breaks Envoy's rules becomes a problem instead.
    pub(super) fn add<M: prost::Message>(
        &mut self,
        resource_type: ResourceType,
        name: Name,
        message: &M,
        references: impl IntoIterator<Item = (ResourceType, Name)>,
        origins: &BTreeSet<ObjectRef>,
    ) {
        self.add_encoded(resource_type, name, &message.encode_to_vec(), references, origins);
    }

    /// The same for an encoded message.
    pub(super) fn add_encoded(
        &mut self,
        resource_type: ResourceType,
        name: Name,
        bytes: &[u8],
        references: impl IntoIterator<Item = (ResourceType, Name)>,
        origins: &BTreeSet<ObjectRef>,
    ) {
        self.add_meeting(None, resource_type, name, bytes, references, origins);
    }

    /// The same, with whom clients meet by it: a cluster's peers, or the endpoints of an assignment.
    pub(super) fn add_meeting(
        &mut self,
        peers: Option<&Peers>,
        resource_type: ResourceType,
        name: Name,
        bytes: &[u8],
        references: impl IntoIterator<Item = (ResourceType, Name)>,
        origins: &BTreeSet<ObjectRef>,
    ) {
        match encode::cell(resource_type, name, bytes, references, peers, origins) {
            Ok(cell) => self.cells.push(Made { cell, origins: origins.iter().cloned().collect() }),
            Err(problem) => self.problems.push(*problem),
        }
    }

    /// Adds a listener with the findings of its builder, and the route configurations that it asks for.
    pub(super) fn add_listener(
        &mut self,
        built: Built<Listener>,
        routes: impl IntoIterator<Item = (ResourceType, Name)>,
    ) {
        let clusters = built.clusters.into_iter().map(|name| (ResourceType::Cluster, name)).chain(routes);
        let name: Name = built.value.name.as_str().into();
        self.problems.extend(built.problems);
        self.add(ResourceType::Listener, name, &built.value, clusters, &built.origins);
    }
}

/// One virtual host, encoded but for its name and domains, which are settled with the other hosts of its table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HostPart {
    /// The route configuration that it belongs to.
    pub(super) table: Name,
    /// Its name, unique in the table.
    pub(super) name: Name,
    /// Who keeps a domain that two hosts claim: the lower rank, then the lower name.
    pub(super) rank: Rank,
    /// The domains that it would like to have.
    pub(super) domains: Vec<Arc<str>>,
    /// The encoded `VirtualHost` without `name` and `domains`.
    pub(super) rest: Bytes,
    /// Clusters that its routes name.
    pub(super) references: Arc<[(ResourceType, Name)]>,
    /// Objects that it came from.
    pub(super) origins: Arc<[ObjectRef]>,
    /// Their generations, noted when the unit has run.
    pub(super) generations: Arc<[i64]>,
    /// The object to tell when it loses a domain.
    pub(super) owner: Option<ObjectRef>,
}

/// Precedence of virtual hosts of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// A service's.
    Service,
    /// A VirtualService's for a host that no service has.
    Routes,
    /// What takes everything else.
    CatchAll,
}

impl HostPart {
    /// Notes which generations of its objects it came from.
    pub(super) fn stamped(self, world: &World) -> Self {
        let generations = self.origins.iter().map(|origin| world.generation(origin)).collect();
        Self { generations, ..self }
    }

    /// The objects as resources carry them.
    pub(super) fn origins(&self) -> impl Iterator<Item = Origin> {
        let generations = self.generations.iter().copied();
        self.origins
            .iter()
            .zip(generations)
            .map(|(origin, generation)| Origin { object: origin.path().into(), generation })
    }
}

/// A resource, and the objects that it came from.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) cell: Cell,
    pub(super) origins: Box<[ObjectRef]>,
}

impl Made {
    /// The resource with its objects in their present generations.
    pub(super) fn stamped(self, world: &World) -> Cell {
        let origin = |origin: &ObjectRef| Origin { object: origin.path().into(), generation: world.generation(origin) };
        self.cell.from_objects(self.origins.iter().map(origin))
    }
}
