//! What is published: a small closed mesh that can be changed one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proto::ResourceType;
use snapshot::{Cell, Edit, Layer, Snapshot};

use crate::hosts::domains;

pub const TYPES: [ResourceType; 5] = [
    ResourceType::Cluster,
    ResourceType::Endpoints,
    ResourceType::Listener,
    ResourceType::Route,
    ResourceType::VirtualHost,
];

/// The first so many route configurations have their virtual hosts apart, where that is asked for.
const APART: u8 = 2;

/// Whether the client asks for everything of a type at once.
pub fn is_wild(kind: ResourceType) -> bool {
    kind.has_wildcard() || kind == ResourceType::VirtualHost
}

/// One step of whoever owns the mesh.
#[derive(Clone, Debug)]
pub enum Mutation {
    Cluster(u8),
    RemoveCluster(u8),
    Endpoints(u8),
    Route(u8, Vec<u8>),
    RemoveRoute(u8),
    /// A virtual host of a route configuration, with clusters and the domains that it would like to have.
    Host(u8, u8, Vec<u8>, Vec<char>),
    RemoveHost(u8, u8),
    Listener(u8, u8, Option<u8>),
    RemoveListener(u8),
}

pub fn mutation() -> impl Strategy<Value = Mutation> {
    let clusters = || prop::collection::vec(0u8..5, 1..3);
    let domains = || prop::sample::subsequence(vec!['x', 'y'], 0..=2);
    prop_oneof![
        3 => (0u8..5).prop_map(Mutation::Cluster),
        2 => (0u8..5).prop_map(Mutation::RemoveCluster),
        2 => (0u8..5).prop_map(Mutation::Endpoints),
        4 => (0u8..3, clusters()).prop_map(|(r, c)| Mutation::Route(r, c)),
        1 => (0u8..3).prop_map(Mutation::RemoveRoute),
        3 => (0u8..3, 0u8..3, prop::option::of(0u8..5)).prop_map(|(l, r, c)| Mutation::Listener(l, r, c)),
        1 => (0u8..3).prop_map(Mutation::RemoveListener),
        4 => (0u8..APART, 0u8..3, clusters(), domains()).prop_map(|(r, h, c, d)| Mutation::Host(r, h, c, d)),
        2 => (0u8..APART, 0u8..3).prop_map(|(r, h)| Mutation::RemoveHost(r, h)),
    ]
}

struct Host {
    revision: u32,
    clusters: Vec<u8>,
    domains: Vec<char>,
}

/// The mesh as intended. What refers to something that is not there is left out when it is published.
#[derive(Default)]
pub struct Mesh {
    revision: u32,
    clusters: BTreeMap<u8, u32>,
    endpoints: BTreeMap<u8, u32>,
    routes: BTreeMap<u8, (u32, Vec<u8>)>,
    listeners: BTreeMap<u8, (u32, u8, Option<u8>)>,
    /// By route configuration and number.
    hosts: BTreeMap<(u8, u8), Host>,
    rest: u32,
    /// Whether route configurations have their virtual hosts apart.
    apart: bool,
    layers: [Option<Arc<Layer>>; 2],
}

impl Mesh {
    pub fn new(apart: bool) -> Self {
        Self { apart, ..Self::default() }
    }

    pub fn apply(&mut self, mutation: &Mutation) {
        self.revision += 1;
        let revision = self.revision;
        match mutation {
            Mutation::Cluster(c) => {
                self.clusters.insert(*c, revision);
                self.endpoints.entry(*c).or_insert(revision);
            }
            Mutation::RemoveCluster(c) => {
                self.clusters.remove(c);
                self.endpoints.remove(c);
            }
            Mutation::Endpoints(c) => _ = self.endpoints.entry(*c).and_modify(|v| *v = revision),
            Mutation::Route(r, clusters) => _ = self.routes.insert(*r, (revision, clusters.clone())),
            Mutation::RemoveRoute(r) => _ = self.routes.remove(r),
            Mutation::Listener(l, r, c) => _ = self.listeners.insert(*l, (revision, *r, *c)),
            Mutation::RemoveListener(l) => _ = self.listeners.remove(l),
            Mutation::Host(r, h, clusters, domains) => {
                let host = Host { revision, clusters: clusters.clone(), domains: domains.clone() };
                self.hosts.insert((*r, *h), host);
            }
            Mutation::RemoveHost(r, h) => _ = self.hosts.remove(&(*r, *h)),
        }
    }

    /// Gives everything a new version, as if every object had been edited.
    pub fn touch(&mut self) {
        self.revision += 1;
        let revision = self.revision;
        self.clusters.values_mut().chain(self.endpoints.values_mut()).for_each(|v| *v = revision);
        self.routes.values_mut().for_each(|(v, _)| *v = revision);
        self.listeners.values_mut().for_each(|(v, _, _)| *v = revision);
        self.hosts.values_mut().for_each(|host| host.revision = revision);
        self.rest = revision;
    }

    /// The closed snapshot, made by editing the one before.
    pub fn publish(&mut self) -> Snapshot {
        let mut lower = self.layers[0].get_or_insert_with(Layer::new).edit();
        let mut upper = self.layers[1].get_or_insert_with(Layer::new).edit();
        for c in 0..5 {
            let name = format!("c{c}");
            let cluster = self.clusters.get(&c).map(|v| (*v, vec![(ResourceType::Endpoints, format!("c{c}"))]));
            put(&mut lower, ResourceType::Cluster, &name, &[], cluster);
            put(&mut lower, ResourceType::Endpoints, &name, &[], self.endpoints.get(&c).map(|v| (*v, Vec::new())));
        }
        let there = |c: &u8| self.clusters.contains_key(c);
        let to_cluster = |c: &u8| (ResourceType::Cluster, format!("c{c}"));
        for r in 0..3 {
            let name = format!("r{r}");
            let route = self.routes.get(&r);
            if !self.apart || r >= APART {
                let to = |clusters: &[u8]| clusters.iter().filter(|c| there(c)).map(to_cluster).collect();
                put(&mut upper, ResourceType::Route, &name, &[], route.map(|(v, clusters)| (*v, to(clusters))));
                continue;
            }
            put(&mut upper, ResourceType::Route, &name, &["vhds".into()], route.map(|(v, _)| (*v, Vec::new())));
            let rest = route.map(|_| (self.rest, Vec::new()));
            put(&mut upper, ResourceType::VirtualHost, &format!("{name}/rest"), &["domain:*".into()], rest);
            let mut taken = BTreeSet::new();
            for h in 0..3 {
                let host = route.and(self.hosts.get(&(r, h)));
                let wanted = host.iter().flat_map(|host| &host.domains);
                let won: Vec<_> = wanted.filter(|domain| taken.insert(**domain)).collect();
                let words: Vec<_> =
                    won.into_iter().map(|domain| format!("domain:{domain}")).chain([format!("domain:h{h}")]).collect();
                let host = host
                    .map(|host| (host.revision, host.clusters.iter().filter(|c| there(c)).map(to_cluster).collect()));
                put(&mut upper, ResourceType::VirtualHost, &format!("{name}/h{h}"), &words, host);
            }
        }
        for l in 0..3 {
            let listener = self.listeners.get(&l).filter(|(_, r, _)| self.routes.contains_key(r)).map(|(v, r, c)| {
                let mut to = vec![(ResourceType::Route, format!("r{r}"))];
                to.extend(c.iter().filter(|c| there(c)).map(to_cluster));
                (*v, to)
            });
            put(&mut upper, ResourceType::Listener, &format!("l{l}"), &[], listener);
        }
        let layers = [lower.finish(), upper.finish()];
        self.layers = layers.clone().map(Some);
        let snapshot = Snapshot::new(layers);
        assert!(snapshot.dangling().is_empty(), "the model publishes closed snapshots only");
        snapshot
    }
}

fn put(
    edit: &mut Edit,
    kind: ResourceType,
    name: &str,
    words: &[String],
    content: Option<(u32, Vec<(ResourceType, String)>)>,
) {
    let Some((revision, to)) = content else { return edit.remove(kind, name) };
    let begin = words.iter().fold(format!("{name} {revision}"), |text, word| format!("{text} {word}"));
    let value = to.iter().fold(begin, |text, (kind, name)| format!("{text} {kind}:{name}"));
    let to = to.into_iter().map(|(kind, name)| (kind, name.into()));
    let aliases: Vec<_> = domains(&value).map(|domain| domain.into()).collect();
    edit.set(Cell::new(kind, name.into(), value.as_bytes()).referring_to(to).also_known_as(aliases));
}

/// The name that a published value begins with.
pub fn name_of(value: &str) -> &str {
    value.split(' ').next().unwrap_or_default()
}

/// The names that a published value refers to, of one type.
pub fn references(value: &str, kind: ResourceType) -> impl Iterator<Item = String> + '_ {
    value.split(' ').filter_map(move |word| word.strip_prefix(kind.short())?.strip_prefix(':').map(str::to_owned))
}
