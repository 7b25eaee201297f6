//! Sees what rollouts go by: intents, profiles, freezes, and how many endpoints each revision has.
//!
//! The picture is a latest value, changed in place: who looks later sees more at once, and nothing queues. It is made
//! again only when something was touched that it shows; the world is never gone over for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rollout::{Endpoints, Picture, Revision, Sight, Wish};
use tokio::sync::watch;
use world::api::delivery::{AnalysisProfile, DEFAULT_PROFILE, DeploymentIntent, MetricSpec};
use world::{Change, Hostname, Key, Kind, Object, ObjectRef, Spec, World};

/// Keeps the picture up to date.
#[derive(Debug)]
pub(super) struct Lookout {
    picture: watch::Sender<Picture>,
    /// The hosts of services that intents are about.
    hosts: BTreeSet<Hostname>,
    freezes: BTreeMap<ObjectRef, Arc<Object>>,
    /// Some intent names gateways, so Gateways matter.
    asks_for_gateways: bool,
}

impl Lookout {
    /// Has seen nothing.
    pub(super) fn new(world: &World) -> Self {
        let root_namespace = world.settings().root_namespace.clone();
        let picture = watch::Sender::new(Picture { root_namespace, ..Picture::default() });
        Self { picture, hosts: BTreeSet::new(), freezes: BTreeMap::new(), asks_for_gateways: false }
    }

    /// Where the picture is seen.
    pub(super) fn subscribe(&self) -> watch::Receiver<Picture> {
        self.picture.subscribe()
    }

    /// Notes a change that the world is about to take in; whether it is of a kind that the picture shows.
    pub(super) fn note(&mut self, change: &Change) -> bool {
        let reference = match change {
            Change::Apply(object) => &object.reference,
            Change::Remove(reference) => reference,
        };
        match (&reference.kind, change) {
            (Kind::Freeze, Change::Apply(object)) => _ = self.freezes.insert(reference.clone(), object.clone()),
            (Kind::Freeze, Change::Remove(_)) => _ = self.freezes.remove(reference),
            (Kind::DeploymentIntent | Kind::AnalysisProfile | Kind::RolloutRun, _) => {}
            // A new service may be the one that an intent waits for.
            (Kind::Service | Kind::ServiceEntry, _) => return self.is_used(),
            // What leads to a service may leave an intent nothing to divide, or no more.
            (Kind::VirtualService, _) => return self.is_used(),
            (Kind::Gateway, _) => return self.asks_for_gateways,
            _ => return false,
        }
        true
    }

    fn is_used(&self) -> bool {
        !self.picture.borrow().sights.is_empty()
    }

    /// Whether any of these keys is about something that the picture shows.
    pub(super) fn concerns(&self, touched: &BTreeSet<Key>) -> bool {
        self.hosts.iter().any(|host| touched.contains(&Key::Endpoints(host.clone())))
    }

    /// Looks again, and tells who waits if anything has changed. `refused` are intents that cannot be carried out.
    pub(super) fn look(&mut self, world: &World, refused: &BTreeSet<ObjectRef>) {
        let (mut intents, mut sights, mut held) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        self.hosts.clear();
        self.asks_for_gateways = false;
        for object in world.intents() {
            let Spec::DeploymentIntent(spec) = &object.spec else { continue };
            let reference = object.reference.clone();
            self.asks_for_gateways |= !spec.attach.gateways.is_empty();
            let namespace = spec.service.namespace.as_deref().unwrap_or(&reference.namespace);
            let sight = self.sight(world, namespace, &spec.service.name, &spec.service.ports, &spec.revisions.label);
            let profiles = profiles(world, &reference, spec);
            let is_refused = refused.contains(&reference);
            sights.insert(reference.clone(), sight);
            intents.insert(reference, Wish { spec: (**spec).clone(), profiles, is_refused });
        }
        for object in world.runs() {
            let Spec::RolloutRun(run) = &object.spec else { continue };
            let intent = ObjectRef::new(Kind::DeploymentIntent, &object.reference.namespace, &run.intent);
            let namespace = run.service.namespace.as_deref().unwrap_or(&object.reference.namespace);
            let (name, ports, label) = (run.service.name.as_str(), &run.service.ports, run.label.as_str());
            let is_same = |sight: &Sight| {
                let service = sight.service.as_ref().map(|(namespace, name)| (&**namespace, &**name));
                service == Some((namespace, name)) && sight.limited_to == *ports && sight.label == label
            };
            let asked = sights.get(&intent);
            if asked.is_some_and(is_same) {
                continue;
            }
            let place = if asked.is_some() { &mut held } else { &mut sights };
            place.insert(intent, self.sight(world, namespace, name, ports, label));
        }
        let freezes = self.freezes.iter().filter_map(|(reference, object)| match &object.spec {
            Spec::Freeze(freeze) => Some((reference.clone(), freeze.clone())),
            _ => None,
        });
        let freezes = freezes.collect();
        self.picture.send_if_modified(|picture| {
            let root_namespace = picture.root_namespace.clone();
            let now = Picture { intents, sights, held, freezes, root_namespace };
            let is_new = now != *picture;
            *picture = now;
            is_new
        });
    }

    fn sight(&mut self, world: &World, namespace: &str, name: &str, ports: &[u16], label: &str) -> Sight {
        // Runs name what is not a Kubernetes Service by its host.
        let asked = Sight { limited_to: ports.to_vec(), label: label.to_owned(), ..Sight::default() };
        let Some(service) = world.service_named(namespace, name) else { return asked };
        self.hosts.insert(service.host.clone());
        let named = if service.kubernetes { service.name.clone() } else { service.host.as_str().into() };
        let healthy = world.revisions(&service, ports, label);
        let counted = world.deployed(&service, ports, label).into_iter().map(|(name, total)| {
            let healthy = healthy.get(&name).copied().unwrap_or(0);
            (Revision::new(&name), Endpoints { healthy, total })
        });
        let is_meant = |port: &u16| ports.is_empty() || ports.contains(port);
        let carried = service.ports.iter().filter(|port| is_meant(&port.number));
        let ports = Some((service.host.clone(), carried.map(|port| (port.number, port.protocol)).collect()));
        Sight { service: Some((namespace.into(), named)), ports, endpoints: counted.collect(), ..asked }
    }
}

/// The metrics of the profiles that an intent names, as far as they exist.
fn profiles(world: &World, intent: &ObjectRef, spec: &DeploymentIntent) -> BTreeMap<String, Vec<MetricSpec>> {
    let steps = spec.strategy.canary.iter().flat_map(|canary| &canary.steps);
    let of_steps = steps.filter_map(|step| step.analysis.as_ref()?.profile_ref.as_ref());
    let names: BTreeSet<&String> = spec.analysis.profiles.iter().chain(of_steps).collect();
    let find = |name: &str| {
        let namespaces = [&*intent.namespace, &*world.settings().root_namespace];
        let found = namespaces.into_iter().find_map(|namespace| {
            world.object(&ObjectRef::new(Kind::AnalysisProfile, namespace, name)).map(|object| &object.spec)
        });
        match found {
            Some(Spec::AnalysisProfile(profile)) => Some(profile.metrics.clone()),
            _ if name == DEFAULT_PROFILE => Some(AnalysisProfile::envoy_default().metrics),
            _ => None,
        }
    };
    names.into_iter().filter_map(|name| Some((name.clone(), find(name)?))).collect()
}
