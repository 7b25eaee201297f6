//! Endpoints that rollouts send requests to, and those that are gone and kept for the clients that do not know it yet.

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use crate::api::delivery::{Assignment, Revision, Split};
use crate::{Endpoint, Hostname, Key, ObjectRef, Protocol, Resolution, Service, Spec};

/// A revision of a service behind one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The service's host.
    pub host: Hostname,
    /// Its port.
    pub port: u16,
    /// The revision, which has a cluster of its own.
    pub revision: Revision,
}

/// What a rollout has to do with a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Exposed {
    /// The Service or ServiceEntry.
    pub service: ObjectRef,
    /// Whether the assignment in force sends requests there, or copies of some.
    pub is_reached: bool,
    /// What takes them: endpoints that take traffic, in order of address.
    pub endpoints: Vec<Endpoint>,
}

impl World {
    /// The revisions of a host that a rollout divides requests between by routes, each behind each port; none where there
    /// is no rollout, where connections are divided, or where clients find the endpoints themselves.
    pub fn exposed(&self, host: &Hostname) -> BTreeMap<Place, Exposed> {
        let mut exposed = BTreeMap::new();
        let service = self.index.services.get(host).and_then(|all| all.first());
        let Some(service) = service.filter(|service| service.resolution == Resolution::Static) else { return exposed };
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let Some(Spec::RolloutRun(run)) = self.split(host, port.number).map(|object| &object.spec) else {
                continue;
            };
            let Some(assignment) = run.assignment.as_ref().filter(|_| run.divides_requests(port.protocol)) else {
                continue;
            };
            let all = self.endpoints(service, port.number);
            for revision in named(assignment) {
                let of_revision = |endpoint: &&Endpoint| {
                    endpoint.labels.get(&run.label).is_some_and(|value| value == revision.as_str())
                };
                let place = Place { host: host.clone(), port: port.number, revision: revision.clone() };
                let endpoints = all.iter().filter(of_revision).cloned().collect();
                let is_reached = assignment.reaches(revision);
                exposed.insert(place, Exposed { service: service.origin.clone(), is_reached, endpoints });
            }
        }
        exposed
    }

    /// Keeps endpoints for the cluster of a revision although they are gone, for as long as it has no others: what routes
    /// do does not depend on them. Returns what to compile for.
    pub fn keep(&mut self, place: Place, endpoints: Vec<Endpoint>) -> Key {
        let key = Key::Endpoints(place.host.clone());
        self.kept.insert(place, endpoints);
        key
    }

    /// Keeps them no more. Returns what to compile for.
    pub fn let_go(&mut self, place: &Place) -> Key {
        self.kept.remove(place);
        Key::Endpoints(place.host.clone())
    }

    pub(crate) fn kept(&self, service: &Service, port: u16, revision: &Revision) -> &[Endpoint] {
        if self.kept.is_empty() {
            return &[];
        }
        let place = Place { host: service.host.clone(), port, revision: revision.clone() };
        self.kept.get(&place).map_or(&[], Vec::as_slice)
    }
}

/// Every revision that an assignment has a cluster for, or sends something to.
fn named(assignment: &Assignment) -> BTreeSet<&Revision> {
    let Split::Weights(shares) = &assignment.split else { return BTreeSet::new() };
    let directed = assignment.routes.iter().map(|route| &route.to);
    let mirrored = assignment.mirror.iter().map(|mirror| &mirror.to);
    shares.iter().map(|(revision, _)| revision).chain(directed).chain(mirrored).collect()
}
