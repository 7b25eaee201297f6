//! The indices of a world, kept in step with its objects one change at a time.

mod endpoints;
mod freezes;
pub(super) mod intents;
mod policies;
mod problems;
mod services;
mod workloads;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) use endpoints::entry_labels;

use crate::api::delivery::RolloutRun;
use crate::api::istio::VirtualService;
use crate::api::kube::EndpointSlice;
use crate::world::credentials;
use crate::{Few, Hostname, Key, Labels, Object, ObjectRef, PolicyKind, Service, Settings, Spec};

/// Label that names the Service of an EndpointSlice.
const SLICE_SERVICE: &str = "kubernetes.io/service-name";

pub(super) type Objects = HashMap<ObjectRef, Arc<Object>>;
type Name = Arc<str>;

#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    pub(super) services: BTreeMap<Hostname, Vec<Arc<Service>>>,
    /// Services by namespace, for "which of them serve this workload".
    services_in: HashMap<Name, BTreeMap<(Hostname, ObjectRef), Arc<Service>>>,
    /// Services with a selector, under one pair of it: a workload finds them by looking up its own pairs.
    selecting: HashMap<(Name, String, String), Few<(Hostname, ObjectRef)>>,
    /// Slices by namespace and name of their service.
    slices: HashMap<(Name, Name), Few<ObjectRef>>,
    /// Services that have an address in one of their slices: a pod's labels reach endpoints by its address.
    slice_addresses: HashMap<IpAddr, Few<Arc<Sliced>>>,
    /// Services one of whose slices names a pod, by the pod's namespace and name.
    slice_targets: HashMap<(Name, Name), Few<Arc<Sliced>>>,
    pods: HashMap<Name, Few<ObjectRef>>,
    pod_addresses: HashMap<IpAddr, Few<ObjectRef>>,
    workload_entries: HashMap<Name, Few<ObjectRef>>,
    pub(super) mesh_routes: BTreeMap<Hostname, Few<ObjectRef>>,
    pub(super) gateway_routes: HashMap<(Name, Name), Few<ObjectRef>>,
    /// VirtualServices with an http route to a host.
    leading: HashMap<Hostname, Few<ObjectRef>>,
    pub(super) rules: BTreeMap<Hostname, Few<ObjectRef>>,
    /// DestinationRules that name a Secret.
    pub(super) naming_secrets: BTreeSet<ObjectRef>,
    pub(super) gateways: BTreeSet<ObjectRef>,
    pub(super) xds_resources: HashMap<Name, Few<ObjectRef>>,
    policies: HashMap<(PolicyKind, Name), policies::OfNamespace>,
    pub(super) request_authentications: BTreeSet<ObjectRef>,
    pub(super) intents: BTreeSet<ObjectRef>,
    /// Runs that have an assignment, by the host of their service.
    pub(super) splits: BTreeMap<Hostname, Few<ObjectRef>>,
    /// What may be wrong, so that asking for it does not cost the mesh.
    suspects: Suspects,
    /// Label keys of clients that rules, routes and raw resources ask about, with how many objects do.
    pub(super) client_labels: BTreeMap<String, usize>,
}

/// Where problems between objects can be: everywhere else there are none.
#[derive(Clone, Debug, Default)]
struct Suspects {
    /// Hosts that several mesh VirtualServices name.
    routes: BTreeSet<Hostname>,
    /// Hosts that several objects define.
    services: BTreeSet<Hostname>,
    /// Hosts with several DestinationRules.
    rules: BTreeSet<Hostname>,
    /// Objects that say something odd by themselves.
    objects: BTreeSet<ObjectRef>,
}

/// A slice, and the service whose endpoints it lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sliced {
    namespace: Name,
    service: Name,
    slice: Name,
}

/// Whether an object enters the index or leaves it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl Index {
    pub(super) fn insert(&mut self, object: &Arc<Object>, settings: &Settings, touched: &mut BTreeSet<Key>) {
        self.shift(object, settings, touched, Way::In);
    }

    pub(super) fn remove(&mut self, object: &Arc<Object>, settings: &Settings, touched: &mut BTreeSet<Key>) {
        self.shift(object, settings, touched, Way::Out);
    }

    fn shift(&mut self, object: &Arc<Object>, settings: &Settings, touched: &mut BTreeSet<Key>, way: Way) {
        let namespace = &object.reference.namespace;
        match &object.spec {
            Spec::Service(_) | Spec::ServiceEntry(_) => {
                for service in services::of(object, settings) {
                    self.shift_service(Arc::new(service), touched, way);
                }
                self.suspect(object, way);
            }
            Spec::EndpointSlice(slice) => self.shift_slice(object, slice, settings, touched, way),
            Spec::Pod(pod) => {
                shift(&mut self.pods, namespace.clone(), &object.reference, way);
                let target = (namespace.clone(), object.reference.name.clone());
                for sliced in self.slice_targets.get(&target).into_iter().flatten() {
                    touched.insert(Key::Endpoints(kubernetes_host(&sliced.service, &sliced.namespace, settings)));
                }
                if let Some(address) = pod.status.pod_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()) {
                    shift(&mut self.pod_addresses, address, &object.reference, way);
                    for sliced in self.slice_addresses.get(&address).into_iter().flatten() {
                        touched.insert(Key::Endpoints(kubernetes_host(&sliced.service, &sliced.namespace, settings)));
                    }
                }
                self.touch_selecting(namespace, &object.meta.labels, touched);
                touched.insert(Key::Workloads(namespace.clone()));
            }
            Spec::WorkloadEntry(entry) => {
                shift(&mut self.workload_entries, namespace.clone(), &object.reference, way);
                self.touch_selecting(namespace, &object.meta.labels, touched);
                self.touch_selecting(namespace, &entry.labels, touched);
                touched.insert(Key::Workloads(namespace.clone()));
            }
            Spec::VirtualService(routes) => {
                self.shift_client_labels(routes.source_label_keys(), way);
                self.shift_routes(object, routes, settings, touched, way);
            }
            Spec::DestinationRule(rule) => {
                let asked = rule.workload_selector.iter().flat_map(|s| s.match_labels.keys());
                self.shift_client_labels(asked.map(String::as_str).collect(), way);
                let host = Hostname::qualified(&rule.host, namespace, &settings.domain);
                shift(&mut self.rules, host.clone(), &object.reference, way);
                let has_several = self.rules.get(&host).is_some_and(|all| all.len() > 1);
                mark(&mut self.suspects.rules, &host, has_several);
                let names_secret = way == Way::In && credentials::is_named_by(rule);
                mark(&mut self.naming_secrets, &object.reference, names_secret);
                self.suspect(object, way);
                touched.insert(Key::Rules(host));
            }
            Spec::Gateway(_) => {
                match way {
                    Way::In => self.gateways.insert(object.reference.clone()),
                    Way::Out => self.gateways.remove(&object.reference),
                };
                touched.insert(Key::Gateways);
            }
            Spec::PeerAuthentication(_)
            | Spec::RequestAuthentication(_)
            | Spec::AuthorizationPolicy(_)
            | Spec::RateLimitPolicy(_) => {
                self.shift_policy(object, touched, way);
            }
            Spec::XdsResource(spec) => {
                let asked = spec.selector.iter().flat_map(|s| s.match_labels.keys());
                self.shift_client_labels(asked.map(String::as_str).collect(), way);
                shift(&mut self.xds_resources, namespace.clone(), &object.reference, way);
                touched.insert(Key::XdsResources(namespace.clone()));
            }
            Spec::DeploymentIntent(_) => {
                match way {
                    Way::In => self.intents.insert(object.reference.clone()),
                    Way::Out => self.intents.remove(&object.reference),
                };
            }
            Spec::RolloutRun(run) => {
                if let Some(assignment) = &run.assignment {
                    let selector = run.attach.clients.iter().flat_map(|clients| clients.match_labels.keys());
                    let directed = assignment.routes.iter().flat_map(|route| &route.matches);
                    let mirrored = assignment.mirror.iter().flat_map(|mirror| &mirror.matches);
                    let asked = directed.chain(mirrored).flat_map(|condition| condition.source_labels.keys());
                    self.shift_client_labels(selector.chain(asked).map(String::as_str).collect(), way);
                    let host = divided_host(run, namespace, settings);
                    shift(&mut self.splits, host.clone(), &object.reference, way);
                    touched.insert(Key::Splits(host));
                }
            }
            Spec::MeshConfig(_) => _ = touched.insert(Key::MeshConfig),
            Spec::Freeze(_) => self.suspect(object, way),
            Spec::Namespace(_) | Spec::AnalysisProfile(_) => {}
        }
    }

    fn shift_service(&mut self, service: Arc<Service>, touched: &mut BTreeSet<Key>, way: Way) {
        let host = service.host.clone();
        let slot = (host.clone(), service.origin.clone());
        let in_namespace = self.services_in.entry(service.namespace.clone()).or_default();
        if let Some((key, value)) = service.selector.first_key_value() {
            let pair = (service.namespace.clone(), key.clone(), value.clone());
            shift(&mut self.selecting, pair, &slot, way);
        }
        touched.insert(Key::Service(host.clone()));
        touched.insert(Key::Endpoints(host.clone()));
        touched.insert(Key::Workloads(service.namespace.clone()));
        let same_host = self.services.entry(host.clone()).or_default();
        match way {
            Way::In => {
                in_namespace.insert(slot, service.clone());
                same_host.push(service);
            }
            Way::Out => {
                in_namespace.remove(&slot);
                same_host.retain(|s| s.origin != service.origin);
                if same_host.is_empty() {
                    self.services.remove(&host);
                }
            }
        }
        let has_several = self.services.get(&host).is_some_and(|all| all.len() > 1);
        mark(&mut self.suspects.services, &host, has_several);
    }

    fn shift_slice(
        &mut self,
        object: &Object,
        slice: &EndpointSlice,
        settings: &Settings,
        touched: &mut BTreeSet<Key>,
        way: Way,
    ) {
        let Some(name) = object.meta.labels.get(SLICE_SERVICE) else { return };
        let namespace = &object.reference.namespace;
        let service: (Name, Name) = (namespace.clone(), name.as_str().into());
        let slice_name = object.reference.name.clone();
        let sliced = Arc::new(Sliced { namespace: namespace.clone(), service: service.1.clone(), slice: slice_name });
        let addresses = slice.endpoints.iter().flat_map(|e| &e.addresses).filter_map(|a| a.parse::<IpAddr>().ok());
        for address in addresses {
            shift(&mut self.slice_addresses, address, &sliced, way);
        }
        for pod in slice.endpoints.iter().filter_map(|e| endpoints::target_pod(e, namespace)) {
            shift(&mut self.slice_targets, (pod.namespace, pod.name), &sliced, way);
        }
        let host = kubernetes_host(name, namespace, settings);
        let selects_nothing = self.services.get(&host).is_none_or(|all| all.iter().any(|s| s.selector.is_empty()));
        if selects_nothing {
            touched.insert(Key::Workloads(namespace.clone()));
        }
        touched.insert(Key::Endpoints(host));
        shift(&mut self.slices, service, &object.reference, way);
    }

    fn shift_routes(
        &mut self,
        object: &Object,
        routes: &VirtualService,
        settings: &Settings,
        touched: &mut BTreeSet<Key>,
        way: Way,
    ) {
        let ObjectRef { namespace, name, .. } = &object.reference;
        touched.insert(Key::VirtualService(namespace.clone(), name.clone()));
        let destinations = routes.http.iter().flat_map(|rule| &rule.route).map(|to| &to.destination.host);
        let hosts: BTreeSet<_> =
            destinations.map(|host| Hostname::qualified(host, namespace, &settings.domain)).collect();
        for host in hosts {
            shift(&mut self.leading, host, &object.reference, way);
        }
        let mesh = routes.gateways.is_empty() || routes.gateways.iter().any(|g| g == "mesh");
        if mesh {
            for host in &routes.hosts {
                let host = Hostname::qualified(host, namespace, &settings.domain);
                shift(&mut self.mesh_routes, host.clone(), &object.reference, way);
                let has_several = self.mesh_routes.get(&host).is_some_and(|all| all.len() > 1);
                mark(&mut self.suspects.routes, &host, has_several);
                touched.insert(Key::Routes(host));
            }
        }
        for gateway in routes.gateways.iter().filter(|g| *g != "mesh") {
            let (gateway_namespace, gateway_name) = gateway.split_once('/').unwrap_or((namespace, gateway));
            let key: (Name, Name) = (gateway_namespace.into(), gateway_name.into());
            shift(&mut self.gateway_routes, key.clone(), &object.reference, way);
            touched.insert(Key::GatewayRoutes(key.0, key.1));
        }
    }

    /// Notes an object that says something odd by itself.
    fn suspect(&mut self, object: &Object, way: Way) {
        mark(&mut self.suspects.objects, &object.reference, way == Way::In && problems::is_odd(object));
    }

    fn shift_client_labels(&mut self, keys: BTreeSet<&str>, way: Way) {
        for key in keys {
            let users = self.client_labels.entry(key.to_owned()).or_default();
            match way {
                Way::In => *users += 1,
                Way::Out => *users -= 1,
            }
            if *users == 0 {
                self.client_labels.remove(key);
            }
        }
    }

    /// Touches the endpoints of every service whose selector matches.
    fn touch_selecting(&self, namespace: &Name, labels: &Labels, touched: &mut BTreeSet<Key>) {
        for (key, value) in labels {
            let pair = (namespace.clone(), key.clone(), value.clone());
            let services = self.selecting.get(&pair).into_iter().flatten();
            touched.extend(services.map(|(host, _)| Key::Endpoints(host.clone())));
        }
    }
}

/// Puts a value into a set, or takes it out.
fn mark<T: Ord + Clone>(set: &mut BTreeSet<T>, value: &T, is_in: bool) {
    if is_in {
        set.insert(value.clone());
    } else {
        set.remove(value);
    }
}

/// `<name>.<namespace>.svc.<domain>`.
pub(super) fn kubernetes_host(name: &str, namespace: &str, settings: &Settings) -> Hostname {
    Hostname::new(&format!("{name}.{namespace}.svc.{}", settings.domain))
}

/// A map from keys to sets, none of which is empty.
trait Sets<K, V> {
    /// The set of a key, made if it is not there.
    fn set(&mut self, key: K) -> &mut Few<V>;
    /// Drops the set of a key.
    fn drop_set(&mut self, key: &K);
}

impl<K: Hash + Eq, V> Sets<K, V> for HashMap<K, Few<V>> {
    fn set(&mut self, key: K) -> &mut Few<V> {
        self.entry(key).or_default()
    }

    fn drop_set(&mut self, key: &K) {
        self.remove(key);
    }
}

impl<K: Ord, V> Sets<K, V> for BTreeMap<K, Few<V>> {
    fn set(&mut self, key: K) -> &mut Few<V> {
        self.entry(key).or_default()
    }

    fn drop_set(&mut self, key: &K) {
        self.remove(key);
    }
}

/// The host of the service that a run of `namespace` is about.
pub(super) fn divided_host(run: &RolloutRun, namespace: &str, settings: &Settings) -> Hostname {
    let of = run.service.namespace.as_deref().unwrap_or(namespace);
    Hostname::qualified(&run.service.name, of, &settings.domain)
}

fn shift<K: Clone, V: Ord + Clone>(map: &mut impl Sets<K, V>, key: K, value: &V, way: Way) {
    let set = map.set(key.clone());
    match way {
        Way::In => {
            set.insert(value.clone());
        }
        Way::Out => {
            set.remove(value);
            if set.is_empty() {
                map.drop_set(&key);
            }
        }
    }
}
