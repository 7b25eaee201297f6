//! The only way the compiler looks at a [`World`]: each question notes the [`Key`] that its answer depends on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::delivery::Revision;
use crate::api::mesh_config::MeshConfig;
use crate::{
    EffectiveRule, Endpoint, Fetched, Hostname, KeySource, Labels, Object, ObjectRef, Policies, PolicyKind,
    SecretState, Service, World,
};

/// Something in a world that an answer can depend on, and that a change can touch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The service(s) under this host: ports, addresses, visibility, existence; whether any rollout divides them, and
    /// whether one is judged by logs.
    Service(Hostname),
    /// The endpoints of the service(s) under this host.
    Endpoints(Hostname),
    /// The mesh VirtualServices that name exactly this host or pattern.
    Routes(Hostname),
    /// The rollouts that divide the traffic of the service(s) under this host, where there is one.
    Splits(Hostname),
    /// The VirtualServices bound to this Gateway (`namespace`, `name`).
    GatewayRoutes(Arc<str>, Arc<str>),
    /// The DestinationRules that name exactly this host or pattern.
    Rules(Hostname),
    /// One VirtualService by namespace and name, for delegation.
    VirtualService(Arc<str>, Arc<str>),
    /// The set of all Gateways.
    Gateways,
    /// The XdsResources of a namespace.
    XdsResources(Arc<str>),
    /// The policies of this kind without a selector in this namespace.
    Policies(PolicyKind, Arc<str>),
    /// All policies of this kind in this namespace.
    PoliciesIn(PolicyKind, Arc<str>),
    /// The policies of security in this namespace, of any kind, whose selector begins with this label, `name=value`: all that
    /// a workload has to look at, because a selector that matches it begins with one of its labels.
    SelectingPolicies(Arc<str>, Arc<str>),
    /// What fetching this key set has led to.
    KeySet(KeySource),
    /// What is known of this secret for proxies (`namespace`, `name`).
    Secret(Arc<str>, Arc<str>),
    /// Whether it is known which secrets there are.
    Secrets,
    /// The set of all pods and workload entries of a namespace, and the services that select them: what a proxy there serves.
    Workloads(Arc<str>),
    /// The mesh configuration.
    MeshConfig,
    /// The set of label keys of clients that any object asks about, see [`World::client_label_keys`].
    ClientLabels,
}

/// Who asks: what is visible and which rule applies depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// The client's namespace.
    pub namespace: Arc<str>,
}

/// A tracked view of a world.
pub struct Reader<'w> {
    world: &'w World,
    reads: RefCell<BTreeSet<Key>>,
}

impl<'w> Reader<'w> {
    /// Begins to read `world` with nothing noted.
    pub fn new(world: &'w World) -> Self {
        Self { world, reads: RefCell::default() }
    }

    /// What was read, in order.
    pub fn into_reads(self) -> BTreeSet<Key> {
        self.reads.into_inner()
    }

    /// The settings; they never change in a world's life, so reading them is not noted.
    pub fn settings(&self) -> &'w crate::Settings {
        self.world.settings()
    }

    fn note(&self, key: Key) {
        self.reads.borrow_mut().insert(key);
    }

    /// The service that `host` means to a client in `scope`: of several with one host the client's own namespace's,
    /// else a Kubernetes Service, else the oldest; only visible ones count. A wildcard ServiceEntry is found by its
    /// own host only, not by names that it covers.
    pub fn service(&self, host: &Hostname, scope: &Scope) -> Option<&'w Arc<Service>> {
        self.note(Key::Service(host.clone()));
        self.world.service(host, scope)
    }

    /// The endpoints of `service` behind its port `port`: ready ones (all when it publishes unready ones), in order
    /// of address, without duplicates. Empty for an unknown port.
    pub fn endpoints(&self, service: &Service, port: u16) -> Vec<Endpoint> {
        self.note(Key::Endpoints(service.host.clone()));
        self.world.endpoints(service, port)
    }

    /// Endpoints of a revision that are gone, and that its cluster is to have while there are no others; nearly always
    /// none.
    pub fn kept_endpoints(&self, service: &Service, port: u16, revision: &Revision) -> &'w [Endpoint] {
        self.note(Key::Endpoints(service.host.clone()));
        self.world.kept(service, port, revision)
    }

    /// The objects that endpoints of a service come from, in order: slices; without any, and for workload selectors of
    /// a ServiceEntry, the workloads that are selected. Endpoints inside of the service's own object name nothing here.
    pub fn endpoint_objects(&self, service: &Service) -> Vec<ObjectRef> {
        self.note(Key::Endpoints(service.host.clone()));
        self.world.endpoint_objects(service)
    }

    /// The VirtualService that governs mesh traffic of clients in `scope` to `host`: the one with the most specific
    /// matching host; of several the oldest, then the first by namespace and name.
    pub fn mesh_routes(&self, host: &Hostname, scope: &Scope) -> Option<&'w Arc<Object>> {
        for pattern in host.patterns() {
            self.note(Key::Routes(pattern.clone()));
            if let Some(found) = self.world.mesh_routes_at(&pattern, scope) {
                return Some(found);
            }
        }
        None
    }

    /// The RolloutRun whose assignment divides the traffic to port `port` of `host`, if any does: of several the first
    /// by namespace and name. Whether it concerns the client or the route that asks, its `attach` says.
    pub fn split(&self, host: &Hostname, port: u16) -> Option<&'w Arc<Object>> {
        // Nearly no service is divided, and whoever asks has read the service: a key of its own for each would be room
        // for nothing.
        let is_divided = self.world.is_divided(host);
        self.note(if is_divided { Key::Splits(host.clone()) } else { Key::Service(host.clone()) });
        self.world.split(host, port)
    }

    /// Whether clients are to log the requests that they send to port `port` of `host`, because a rollout is judged by that.
    pub fn is_logged(&self, host: &Hostname, port: u16) -> bool {
        self.note(Key::Service(host.clone()));
        self.world.is_logged(host, port)
    }

    /// The VirtualServices bound to a Gateway, oldest first, then by namespace and name.
    pub fn gateway_routes(&self, gateway: &ObjectRef) -> Vec<&'w Arc<Object>> {
        self.note(Key::GatewayRoutes(gateway.namespace.clone(), gateway.name.clone()));
        self.world.gateway_routes(gateway)
    }

    /// A VirtualService by name, for delegation.
    pub fn virtual_service(&self, namespace: &str, name: &str) -> Option<&'w Arc<Object>> {
        self.note(Key::VirtualService(namespace.into(), name.into()));
        self.world.virtual_service(namespace, name)
    }

    /// What DestinationRules say about `host` to clients in `scope`: the first of the client's namespace, the
    /// service's namespace and the root namespace that has a rule for the most specific pattern.
    pub fn rule(
        &self,
        host: &Hostname,
        service_namespace: &str,
        scope: &Scope,
        client_labels: &Labels,
    ) -> EffectiveRule {
        for namespace in [&*scope.namespace, service_namespace, &self.world.settings().root_namespace] {
            for pattern in host.patterns() {
                self.note(Key::Rules(pattern.clone()));
                let found = self.world.rules_at(&pattern, namespace, scope, client_labels);
                if !found.is_empty() {
                    return EffectiveRule::merge(found);
                }
            }
        }
        EffectiveRule::default()
    }

    /// The Gateways whose selector matches a proxy with these labels, oldest first, then by namespace and name.
    pub fn gateways(&self, labels: &Labels) -> Vec<&'w Arc<Object>> {
        self.note(Key::Gateways);
        self.world.gateways(labels)
    }

    /// The XdsResources for a client in `scope` with these labels: those of the root namespace, then those of its own,
    /// each oldest first, then by name.
    pub fn xds_resources(&self, scope: &Scope, labels: &Labels) -> Vec<&'w Arc<Object>> {
        let root = self.world.settings().root_namespace.clone();
        let own = (scope.namespace != root).then(|| scope.namespace.clone());
        let mut found = Vec::new();
        for namespace in [Some(root), own].into_iter().flatten() {
            found.extend(self.world.xds_resources(&namespace, labels));
            self.note(Key::XdsResources(namespace));
        }
        found
    }

    /// The policies of `kind` that select a workload of `namespace` with these labels, by level.
    pub fn policies(&self, kind: PolicyKind, namespace: &Arc<str>, labels: &Labels) -> Policies<'w> {
        let root = &self.world.settings().root_namespace;
        for namespace in [Some(root), (namespace != root).then_some(namespace)].into_iter().flatten() {
            self.note(Key::Policies(kind, namespace.clone()));
            for (label, value) in labels {
                self.note(Key::SelectingPolicies(namespace.clone(), format!("{label}={value}").into()));
            }
        }
        self.world.policies(kind, namespace, labels)
    }

    /// The PeerAuthentications for a workload: those that are obeyed because they were said before, oldest first, and last
    /// those of now, as [`Reader::policies`] has them.
    pub fn peer_policies(&self, namespace: &Arc<str>, labels: &Labels) -> Vec<Policies<'w>> {
        let now = self.policies(PolicyKind::PeerAuthentication, namespace, labels);
        self.world.formerly_taken(namespace, labels).chain([now]).collect()
    }

    /// The PeerAuthentications for a workload as clients are told of them; noted as by [`Reader::policies_nearby`].
    pub fn told_peer_policies(&self, namespace: &Arc<str>, labels: &Labels) -> Policies<'w> {
        let now = self.policies_nearby(PolicyKind::PeerAuthentication, namespace, labels);
        self.world.formerly_told(namespace, labels).unwrap_or(now)
    }

    /// The mesh configuration, and the object that it is of; `None` when nobody wrote one.
    pub fn mesh_config(&self) -> Option<(&'w MeshConfig, &'w Arc<Object>)> {
        self.note(Key::MeshConfig);
        self.world.mesh_config()
    }

    /// What fetching a key set has led to; `None` while it was never tried.
    pub fn key_set(&self, source: &KeySource) -> Option<&'w Fetched> {
        self.note(Key::KeySet(source.clone()));
        self.world.key_set(source)
    }

    /// What is known of a secret for proxies.
    pub fn secret(&self, namespace: &Arc<str>, name: &Arc<str>) -> SecretState {
        self.note(Key::Secrets);
        self.note(Key::Secret(namespace.clone(), name.clone()));
        self.world.secret(namespace, name)
    }

    /// The same for one of many workloads of a namespace: noted is the namespace, so that the notes are few and a change
    /// there asks about all of them again.
    pub fn policies_nearby(&self, kind: PolicyKind, namespace: &Arc<str>, labels: &Labels) -> Policies<'w> {
        let root = &self.world.settings().root_namespace;
        for namespace in [Some(root), (namespace != root).then_some(namespace)].into_iter().flatten() {
            self.note(Key::PoliciesIn(kind, namespace.clone()));
        }
        self.world.policies(kind, namespace, labels)
    }

    /// The services that select a workload of `namespace` with these labels, and the workload's port for each of
    /// their ports: `(service, service port, target port)` in order of target port, then age and name of the service.
    pub fn served_by(
        &self,
        namespace: &Arc<str>,
        labels: &Labels,
        addresses: &[std::net::IpAddr],
    ) -> Vec<(Arc<Service>, u16, u16)> {
        self.note(Key::Workloads(namespace.clone()));
        self.world.served_by(namespace, labels, addresses)
    }

    /// The labels that the world knows for a workload: of the pod with this name, else of the pod with this address.
    pub fn workload_labels(
        &self,
        namespace: &Arc<str>,
        name: &str,
        addresses: &[std::net::IpAddr],
    ) -> Option<BTreeMap<String, String>> {
        self.note(Key::Workloads(namespace.clone()));
        self.world.workload_labels(namespace, name, addresses)
    }
}
