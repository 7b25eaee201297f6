//! The picture itself: every object, and the indices that questions need.

mod credentials;
mod doubts;
mod exposure;
mod index;
mod peers;
mod trust;
mod workloads;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::api::istio::DestinationRule;
use crate::api::mesh_config::MeshConfig;
use crate::{
    Change, Endpoint, Fetched, Hostname, Key, KeySource, Kind, Labels, Object, ObjectRef, Policies, PolicyKind,
    Problem, Scope, SecretList, SecretState, Service, Spec,
};
pub use exposure::{Exposed, Place};
use index::{Index, entry_labels};
pub use peers::PeerPolicies;
pub use workloads::Workload;

/// The name of the ConfigMap with Istio's mesh configuration.
const MESH_CONFIG: &str = "istio";
/// How long fetching a key set may take where nobody says.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// What is the same for the whole life of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's DNS domain, `cluster.local`.
    pub domain: Arc<str>,
    /// The namespace whose rules hold for the whole mesh, `istio-system`.
    pub root_namespace: Arc<str>,
    /// Within which workloads have their names, `cluster.local`: the first part of their SPIFFE ids.
    pub trust_domain: Arc<str>,
    /// Trust domains whose names mean the same workloads as those of `trust_domain`, in the operator's order; neither
    /// the trust domain itself nor any of them twice.
    pub trust_domain_aliases: Vec<Arc<str>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
        }
    }
}

/// All objects and what follows from them directly. One owner applies changes; everyone else asks through a
/// [`crate::Reader`].
#[derive(Clone, Debug, Default)]
pub struct World {
    settings: Settings,
    objects: HashMap<ObjectRef, Arc<Object>>,
    /// How often objects whose source counts no generations said something new, for those that did more than once.
    generations: HashMap<ObjectRef, i64>,
    /// What fetching keys has led to, by where they are fetched.
    key_sets: BTreeMap<KeySource, Fetched>,
    /// `None` until somebody says.
    secrets: Option<SecretList>,
    index: Index,
    /// Endpoints that are gone, and that clusters keep for now.
    kept: BTreeMap<Place, Vec<Endpoint>>,
    /// What PeerAuthentications said before, as far as it still counts.
    former: peers::Former,
}

impl World {
    /// An empty world.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// The settings given at the start.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The object of this name, as it was last applied.
    pub fn object(&self, reference: &ObjectRef) -> Option<&Arc<Object>> {
        self.objects.get(reference)
    }

    /// The generation of what an object says: its source's where that counts, else the number of times that it has said
    /// something new here, from 1. 0 when there is no such object. Nothing that is built may depend on it.
    pub fn generation(&self, reference: &ObjectRef) -> i64 {
        match self.objects.get(reference).map(|object| object.meta.generation) {
            None => 0,
            Some(0) => self.generations.get(reference).copied().unwrap_or(1),
            Some(generation) => generation,
        }
    }

    /// All objects, in no particular order.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// Every host that has a service, in order.
    pub fn hosts(&self) -> impl Iterator<Item = &Hostname> {
        self.index.services.keys()
    }

    /// Every host or pattern that a mesh VirtualService names, in order.
    pub fn route_hosts(&self) -> impl Iterator<Item = &Hostname> {
        self.index.mesh_routes.keys()
    }

    /// Whether any service has this host.
    pub fn has_host(&self, host: &Hostname) -> bool {
        self.index.services.contains_key(host)
    }

    /// Whether any mesh VirtualService names this host or pattern.
    pub fn has_route_host(&self, host: &Hostname) -> bool {
        self.index.mesh_routes.contains_key(host)
    }

    /// The label keys of clients that any VirtualService (`sourceLabels`), DestinationRule (`workloadSelector`), XdsResource
    /// (`selector`) or RolloutRun (`attach.clients`, `sourceLabels`) asks about, in order: clients that differ only in other labels are compiled alike.
    pub fn client_label_keys(&self) -> impl Iterator<Item = &str> {
        self.index.client_labels.keys().map(String::as_str)
    }

    /// Takes in one change and returns the keys whose answers may now differ; none when the object says the same as
    /// before, even if from another place of its file.
    pub fn apply(&mut self, change: Change) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        let (reference, next) = match change {
            Change::Apply(object) => (object.reference.clone(), Some(object)),
            Change::Remove(reference) => (reference, None),
        };
        let previous = self.objects.get(&reference).cloned();
        match (&previous, &next) {
            (None, None) => return touched,
            (Some(previous), Some(next)) if says_the_same(previous, next) => {
                self.objects.insert(reference, next.clone());
                return touched;
            }
            (Some(_), _) | (None, Some(_)) => {}
        }
        let asked_labels: Vec<String> = self.index.client_labels.keys().cloned().collect();
        let runs = previous.iter().chain(&next).filter_map(|object| match &object.spec {
            Spec::RolloutRun(run) => Some(index::divided_host(run, &object.reference.namespace, &self.settings)),
            _ => None,
        });
        let divided_before: Vec<_> =
            runs.map(|host| (self.is_divided(&host), self.logged_ports(&host), host)).collect();
        if let Some(previous) = &previous {
            self.index.remove(previous, &self.settings, &mut touched);
        }
        match next {
            Some(next) => {
                if previous.is_some() && next.meta.generation == 0 {
                    *self.generations.entry(reference.clone()).or_insert(1) += 1;
                }
                self.index.insert(&next, &self.settings, &mut touched);
                self.objects.insert(reference, next);
            }
            None => {
                self.generations.remove(&reference);
                self.objects.remove(&reference);
            }
        }
        for (was_divided, logged, host) in divided_before {
            if self.is_divided(&host) != was_divided || self.logged_ports(&host) != logged {
                touched.insert(Key::Service(host));
            }
        }
        // Looked at as a whole: an object that asks for the same labels as before leaves and comes back in between.
        if !asked_labels.iter().eq(self.index.client_labels.keys()) {
            touched.insert(Key::ClientLabels);
        }
        touched
    }

    /// Takes in what fetching a key set has led to, or that it is no longer fetched, and returns the keys whose answers may
    /// now differ.
    pub fn set_key_set(&mut self, source: KeySource, fetched: Option<Fetched>) -> BTreeSet<Key> {
        let is_new = self.key_sets.get(&source) != fetched.as_ref();
        match fetched {
            Some(fetched) => _ = self.key_sets.insert(source.clone(), fetched),
            None => _ = self.key_sets.remove(&source),
        }
        is_new.then_some(Key::KeySet(source)).into_iter().collect()
    }

    /// What fetching a key set has led to; `None` while it was never tried.
    pub fn key_set(&self, source: &KeySource) -> Option<&Fetched> {
        self.key_sets.get(source)
    }

    /// Takes in which secrets there are for proxies, in place of what was known before, and returns the keys whose answers may
    /// now differ.
    pub fn set_secrets(&mut self, secrets: SecretList) -> BTreeSet<Key> {
        let key = |(namespace, name): &(Arc<str>, Arc<str>)| Key::Secret(namespace.clone(), name.clone());
        let before = self.secrets.replace(secrets);
        let now = self.secrets.iter().flatten();
        let Some(before) = before else {
            // All answers are others now, those about secrets that are not there, too.
            return std::iter::once(Key::Secrets).collect();
        };
        let changed = now.filter(|(name, parts)| before.get(*name) != Some(parts)).map(|(name, _)| key(name));
        let gone = before.keys().filter(|name| self.secret(&name.0, &name.1) == SecretState::Missing).map(key);
        changed.chain(gone).collect()
    }

    /// What is known of a secret for proxies.
    pub fn secret(&self, namespace: &Arc<str>, name: &Arc<str>) -> SecretState {
        match &self.secrets {
            None => SecretState::Untold,
            Some(all) => match all.get(&(namespace.clone(), name.clone())) {
                None => SecretState::Missing,
                Some(parts) => SecretState::There(*parts),
            },
        }
    }

    /// The key sets that RequestAuthentications want to be fetched, with how long that may take: the longest time that
    /// one of them allows, 5 s where they say nothing, as in Istio.
    pub fn wanted_key_sets(&self) -> BTreeMap<KeySource, Duration> {
        let mut wanted: BTreeMap<KeySource, Duration> = BTreeMap::new();
        for object in self.index.request_authentications.iter().map(|reference| &self.objects[reference]) {
            let Spec::RequestAuthentication(spec) = &object.spec else { continue };
            for rule in &spec.jwt_rules {
                if let Some(source) = rule.key_source() {
                    let longest = wanted.entry(source).or_default();
                    *longest = rule.timeout.unwrap_or(FETCH_TIMEOUT).max(*longest);
                }
            }
        }
        wanted
    }

    /// What is wrong between objects, independent of any client: hosts claimed twice, addresses that do not parse.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.index.problems(&self.objects, &self.settings);
        problems.extend(self.trust_problems());
        problems.sort();
        problems
    }

    /// Every DeploymentIntent, in order.
    pub fn intents(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.index.intents.iter().map(|reference| &self.objects[reference])
    }

    /// Every RolloutRun that divides traffic, once for each.
    pub fn runs(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.index.splits.values().flatten().map(|reference| &self.objects[reference])
    }

    /// Intents that cannot be carried out, because of an error that [`World::problems`] tells of.
    pub fn refused_intents(&self) -> BTreeSet<ObjectRef> {
        let mut problems = Vec::new();
        self.index.intents(&self.objects, &self.settings, &mut problems);
        let errors = problems.into_iter().filter(|problem| problem.severity == crate::Severity::Error);
        errors.filter_map(|problem| problem.object).collect()
    }

    /// The service of this name, as intents name it: a Kubernetes Service, or what a ServiceEntry of this name defines
    /// first; or, as runs name it, the first service with this host.
    pub fn service_named(&self, namespace: &str, name: &str) -> Option<Service> {
        let named = index::intents::service_named(&self.objects, &self.settings, namespace, name);
        named.or_else(|| Some((**self.index.services.get(&Hostname::new(name))?.first()?).clone()))
    }

    /// How many endpoints of `service` that take traffic have each value of `label`, behind the port that has the
    /// fewest: of `ports`, or of all when there are none. Ports that nobody serves do not count.
    pub fn revisions(&self, service: &Service, ports: &[u16], label: &str) -> BTreeMap<String, u32> {
        let mut least: BTreeMap<String, u32> = BTreeMap::new();
        let mut is_first = true;
        for port in service.ports.iter().filter(|port| ports.is_empty() || ports.contains(&port.number)) {
            let mut counts: BTreeMap<String, u32> = BTreeMap::new();
            let endpoints = self.endpoints(service, port.number);
            for revision in endpoints.iter().filter_map(|endpoint| endpoint.labels.get(label)) {
                *counts.entry(revision.clone()).or_default() += 1;
            }
            if endpoints.is_empty() {
                continue;
            }
            if std::mem::take(&mut is_first) {
                least = counts;
                continue;
            }
            least.retain(|revision, count| {
                *count = (*count).min(counts.get(revision).copied().unwrap_or(0));
                *count > 0
            });
        }
        least
    }

    /// The same with those that do not take traffic yet, or at the moment.
    pub fn deployed(&self, service: &Service, ports: &[u16], label: &str) -> BTreeMap<String, u32> {
        self.revisions(&Service { publish_not_ready: true, ..service.clone() }, ports, label)
    }

    pub(crate) fn service(&self, host: &Hostname, scope: &Scope) -> Option<&Arc<Service>> {
        let candidates = self.index.services.get(host)?;
        let visible = candidates.iter().filter(|s| s.export.is_visible_to(&scope.namespace));
        visible.min_by_key(|s| (s.namespace != scope.namespace, !s.kubernetes, s.created.clone(), s.origin.clone()))
    }

    pub(crate) fn endpoints(&self, service: &Service, port: u16) -> Vec<Endpoint> {
        self.index.endpoints(service, port, &self.objects)
    }

    pub(crate) fn endpoint_objects(&self, service: &Service) -> Vec<ObjectRef> {
        self.index.endpoint_objects(service, &self.objects)
    }

    pub(crate) fn mesh_routes_at(&self, pattern: &Hostname, scope: &Scope) -> Option<&Arc<Object>> {
        let candidates = self.index.mesh_routes.get(pattern)?;
        candidates.iter().map(|r| &self.objects[r]).filter(|o| is_exported(o, scope)).min_by_key(|o| age(o))
    }

    pub(crate) fn gateway_routes(&self, gateway: &ObjectRef) -> Vec<&Arc<Object>> {
        let key = (gateway.namespace.clone(), gateway.name.clone());
        let bound = self.index.gateway_routes.get(&key).into_iter().flatten();
        let mut found: Vec<_> = bound.map(|r| &self.objects[r]).collect();
        found.sort_by_key(|o| age(o));
        found
    }

    pub(crate) fn split(&self, host: &Hostname, port: u16) -> Option<&Arc<Object>> {
        let runs = self.index.splits.get(host)?;
        let governs = |object: &&Arc<Object>| match &object.spec {
            Spec::RolloutRun(run) => run.service.ports.is_empty() || run.service.ports.contains(&port),
            _ => false,
        };
        // An intent that takes a service over is in force before the one before it is not any more. Of several of one age the
        // first by name counts.
        let objects = runs.iter().map(|reference| &self.objects[reference]);
        let newer = |kept: &Arc<Object>, next: &Arc<Object>| next.meta.generation > kept.meta.generation;
        objects.filter(governs).reduce(|kept, next| if newer(kept, next) { next } else { kept })
    }

    /// Whether any rollout has an assignment for this host.
    pub(crate) fn is_divided(&self, host: &Hostname) -> bool {
        self.index.splits.contains_key(host)
    }

    /// Whether a rollout is judged by logs of the requests to this port.
    pub(crate) fn is_logged(&self, host: &Hostname, port: u16) -> bool {
        self.logged_ports(host).iter().any(|ports| ports.is_empty() || ports.contains(&port))
    }

    /// Of each rollout of this host that is judged by logs the ports that it is about; an empty list stands for all.
    fn logged_ports(&self, host: &Hostname) -> Vec<Vec<u16>> {
        let runs = self.index.splits.get(host).into_iter().flatten().map(|reference| &self.objects[reference]);
        let logged = runs.filter_map(|object| match &object.spec {
            Spec::RolloutRun(run) if run.access_log => Some(run.service.ports.clone()),
            _ => None,
        });
        logged.collect()
    }

    pub(crate) fn virtual_service(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.objects.get(&ObjectRef::new(Kind::VirtualService, namespace, name))
    }

    pub(crate) fn rules_at(
        &self,
        pattern: &Hostname,
        namespace: &str,
        scope: &Scope,
        client: &Labels,
    ) -> Vec<&Arc<Object>> {
        let named = self.index.rules.get(pattern).into_iter().flatten();
        let applies = |object: &&Arc<Object>| match &object.spec {
            Spec::DestinationRule(rule) => {
                &*object.reference.namespace == namespace
                    && is_exported(object, scope)
                    && selects(rule, namespace, scope, client)
            }
            _ => false,
        };
        let mut found: Vec<_> = named.map(|r| &self.objects[r]).filter(applies).collect();
        found.sort_by_key(|o| age(o));
        found
    }

    pub(crate) fn gateways(&self, labels: &Labels) -> Vec<&Arc<Object>> {
        let matching = |object: &&Arc<Object>| match &object.spec {
            Spec::Gateway(gateway) => gateway.selector.iter().all(|(k, v)| labels.get(k) == Some(v)),
            _ => false,
        };
        let mut found: Vec<_> = self.index.gateways.iter().map(|r| &self.objects[r]).filter(matching).collect();
        found.sort_by_key(|o| age(o));
        found
    }

    pub(crate) fn xds_resources(&self, namespace: &str, labels: &Labels) -> Vec<&Arc<Object>> {
        let matching = |object: &&Arc<Object>| match &object.spec {
            Spec::XdsResource(spec) => {
                spec.selector.iter().flat_map(|s| &s.match_labels).all(|(k, v)| labels.get(k) == Some(v))
            }
            _ => false,
        };
        let in_namespace = self.index.xds_resources.get(namespace).into_iter().flatten();
        let mut found: Vec<_> = in_namespace.map(|r| &self.objects[r]).filter(matching).collect();
        found.sort_by_key(|o| age(o));
        found
    }

    pub(crate) fn policies(&self, kind: PolicyKind, namespace: &Arc<str>, labels: &Labels) -> Policies<'_> {
        let root = &self.settings.root_namespace;
        let sorted = |mut found: Vec<_>| {
            found.sort_by_key(|object: &&Arc<Object>| age(object));
            found
        };
        let for_all = |namespace| sorted(self.index.policies_for_all(kind, namespace, &self.objects));
        let selecting = |namespace| sorted(self.index.policies_selecting(kind, namespace, labels, &self.objects));
        let own = (namespace != root).then_some(namespace);
        Policies {
            mesh: for_all(root),
            mesh_selected: selecting(root),
            namespace: own.map(for_all).unwrap_or_default(),
            workload: own.map(selecting).unwrap_or_default(),
        }
    }

    /// That of the ConfigMap `istio` in the root namespace.
    pub(crate) fn mesh_config(&self) -> Option<(&MeshConfig, &Arc<Object>)> {
        let object = self.objects.get(&ObjectRef::new(Kind::ConfigMap, &self.settings.root_namespace, MESH_CONFIG))?;
        match &object.spec {
            Spec::MeshConfig(config) => Some((config, object)),
            _ => None,
        }
    }

    pub(crate) fn served_by(
        &self,
        namespace: &str,
        labels: &Labels,
        addresses: &[IpAddr],
    ) -> Vec<(Arc<Service>, u16, u16)> {
        self.index.served_by(namespace, labels, addresses, &self.objects)
    }

    /// Whether a workload of this service account can be one of the mesh's gateways, as far as is known: not when pods or
    /// workload entries name the account, and no Gateway selects any of them. Looks at every object.
    pub fn may_be_gateway(&self, namespace: &str, account: &str) -> bool {
        let mut is_known = false;
        for object in self.objects().filter(|object| &*object.reference.namespace == namespace) {
            let (named, labels) = match &object.spec {
                Spec::Pod(pod) => (pod.spec.service_account_name.as_deref(), Cow::Borrowed(&*object.meta.labels)),
                Spec::WorkloadEntry(entry) => {
                    (entry.service_account.as_deref(), Cow::Owned(entry_labels(object, entry)))
                }
                _ => continue,
            };
            if named == Some(account) {
                is_known = true;
                if !self.gateways(&labels).is_empty() {
                    return true;
                }
            }
        }
        !is_known
    }

    pub(crate) fn workload_labels(
        &self,
        namespace: &str,
        name: &str,
        addresses: &[IpAddr],
    ) -> Option<BTreeMap<String, String>> {
        self.index.workload_labels(namespace, name, addresses, &self.objects)
    }
}

/// Equal but for the place where they were read.
fn says_the_same(a: &Object, b: &Object) -> bool {
    let meta = |o: &Object| (o.meta.labels.clone(), o.meta.created.clone(), o.meta.generation);
    a.spec == b.spec && a.meta.annotations == b.meta.annotations && meta(a) == meta(b)
}

/// Oldest first; objects without a time stamp tie and go by namespace and name.
fn age(object: &Object) -> (&Arc<str>, &ObjectRef) {
    (&object.meta.created, &object.reference)
}

fn is_exported(object: &Object, scope: &Scope) -> bool {
    let entries: &[String] = match &object.spec {
        Spec::VirtualService(spec) => &spec.export_to,
        Spec::DestinationRule(spec) => &spec.export_to,
        _ => return true,
    };
    crate::Export::parse(entries, &object.reference.namespace).is_visible_to(&scope.namespace)
}

/// A rule with a workload selector holds only for matching clients of its own namespace.
fn selects(rule: &DestinationRule, namespace: &str, scope: &Scope, client: &Labels) -> bool {
    match &rule.workload_selector {
        None => true,
        Some(selector) => {
            namespace == &*scope.namespace && selector.match_labels.iter().all(|(k, v)| client.get(k) == Some(v))
        }
    }
}
