//! What is published: a small closed mesh that can be changed one step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proto::ResourceType;
use snapshot::{Cell, Edit, Layer, Part, Parts, Snapshot};

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
    /// The identities of a cluster's endpoints are these now.
    Accounts(u8, Vec<char>),
    Route(u8, Vec<u8>),
    RemoveRoute(u8),
    /// A virtual host of a route configuration, with clusters and the domains that it would like to have.
    Host(u8, u8, Vec<u8>, Vec<char>),
    RemoveHost(u8, u8),
    Listener(u8, u8, Option<u8>),
    RemoveListener(u8),
    /// Makes something that is there such that the client refuses it: of a route only this part.
    Spoil(usize, u8, usize),
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

/// Changes to a mesh whose endpoints come under one identity and another.
pub fn joining_mutation() -> impl Strategy<Value = Mutation> {
    let accounts = prop::sample::subsequence(vec!['a', 'b', 'c'], 1..=3);
    prop_oneof![
        3 => mutation(),
        2 => (0u8..5, accounts).prop_map(|(c, accounts)| Mutation::Accounts(c, accounts)),
    ]
}

/// Changes to a mesh in which some things are refused.
pub fn spoiling_mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        5 => mutation(),
        2 => (0..TYPES.len(), 0u8..5, 0usize..2).prop_map(|(kind, at, part)| Mutation::Spoil(kind, at, part)),
    ]
}

/// What a spoilt value holds.
const BAD: &str = "bad";

/// Whether the client refuses this.
pub fn is_bad(value: &str) -> bool {
    value.split(' ').any(|word| word == BAD)
}

/// The parts of a route: `h0 4 cds:c1`, ...
pub fn parts(value: &str) -> BTreeMap<String, String> {
    let mut parts: BTreeMap<String, String> = BTreeMap::new();
    let mut part = None;
    for word in value.split(' ').skip(1) {
        if word.starts_with('h') {
            part = Some(word.to_owned());
        }
        if let Some(part) = &part {
            let text = parts.entry(part.clone()).or_default();
            text.push(' ');
            text.push_str(word);
        }
    }
    parts
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
    /// Of each cluster's endpoints, if it is not `a` alone.
    accounts: BTreeMap<u8, Vec<char>>,
    /// A revision and a cluster for each part.
    routes: BTreeMap<u8, Vec<(u32, u8)>>,
    listeners: BTreeMap<u8, (u32, u8, Option<u8>)>,
    /// By route configuration and number.
    hosts: BTreeMap<(u8, u8), Host>,
    rest: u32,
    /// Whether route configurations have their virtual hosts apart.
    apart: bool,
    /// Revisions that are refused.
    bad: BTreeSet<u32>,
    layers: [Option<Arc<Layer>>; 2],
}

impl Mesh {
    pub fn new(apart: bool) -> Self {
        Self { apart, ..Self::default() }
    }

    pub fn apply(&mut self, mutation: &Mutation) {
        self.revision += 1;
        // Every change has two revisions: one for what is good, one for what is bad.
        let revision = 2 * self.revision;
        match mutation {
            Mutation::Cluster(c) => {
                self.clusters.insert(*c, revision);
                self.endpoints.entry(*c).or_insert(revision);
            }
            Mutation::RemoveCluster(c) => {
                self.clusters.remove(c);
                self.endpoints.remove(c);
                let parts = self.routes.values_mut().flatten().filter(|(_, used)| used == c).map(|(v, _)| v);
                let listeners = self.listeners.values_mut().filter(|(_, _, used)| *used == Some(*c)).map(|(v, _, _)| v);
                let hosts =
                    self.hosts.values_mut().filter(|host| host.clusters.contains(c)).map(|host| &mut host.revision);
                renew(&mut self.bad, revision, parts.chain(listeners).chain(hosts));
            }
            Mutation::Endpoints(c) => _ = self.endpoints.entry(*c).and_modify(|v| *v = revision),
            Mutation::Accounts(c, accounts) => {
                let before = self.accounts.insert(*c, accounts.clone());
                if self.clusters.contains_key(c) && before.as_deref().unwrap_or(&['a']) != accounts {
                    self.clusters.insert(*c, revision);
                    self.endpoints.insert(*c, revision);
                }
            }
            Mutation::Route(r, clusters) => {
                // Parts that stay the same keep their revision.
                let old = self.routes.remove(r).unwrap_or_default();
                let part = |(at, c): (usize, &u8)| match old.get(at) {
                    Some((v, same)) if same == c && clusters.len() > 1 && !(self.apart && *r < APART) => (*v, *c),
                    Some(_) | None => (revision, *c),
                };
                self.routes.insert(*r, clusters.iter().enumerate().map(part).collect());
            }
            Mutation::RemoveRoute(r) => {
                self.routes.remove(r);
                let listeners = self.listeners.values_mut().filter(|(_, used, _)| used == r).map(|(v, _, _)| v);
                renew(&mut self.bad, revision, listeners);
            }
            Mutation::Listener(l, r, c) => _ = self.listeners.insert(*l, (revision, *r, *c)),
            Mutation::RemoveListener(l) => _ = self.listeners.remove(l),
            Mutation::Host(r, h, clusters, domains) => {
                let host = Host { revision, clusters: clusters.clone(), domains: domains.clone() };
                self.hosts.insert((*r, *h), host);
            }
            Mutation::RemoveHost(r, h) => _ = self.hosts.remove(&(*r, *h)),
            Mutation::Spoil(kind, at, part) => {
                let spoilt = match TYPES[*kind] {
                    ResourceType::Cluster => self.clusters.get_mut(at),
                    ResourceType::Endpoints => self.endpoints.get_mut(at),
                    ResourceType::Listener => self.listeners.get_mut(at).map(|(v, _, _)| v),
                    ResourceType::VirtualHost => {
                        self.hosts.get_mut(&(at % APART, *part as u8)).map(|host| &mut host.revision)
                    }
                    _ => self.routes.get_mut(at).and_then(|parts| parts.get_mut(*part)).map(|(v, _)| v),
                };
                if let Some(spoilt) = spoilt {
                    *spoilt = revision + 1;
                    self.bad.insert(revision + 1);
                }
            }
        }
    }

    /// Gives everything a new version, as if every object had been edited.
    pub fn touch(&mut self) {
        self.revision += 1;
        let revision = 2 * self.revision;
        self.clusters.values_mut().chain(self.endpoints.values_mut()).for_each(|v| *v = revision);
        self.routes.values_mut().flatten().for_each(|(v, _)| *v = revision);
        self.listeners.values_mut().for_each(|(v, _, _)| *v = revision);
        self.hosts.values_mut().for_each(|host| host.revision = revision);
        self.rest = revision;
    }

    /// Spoils what is there where a bit is set.
    pub fn spoil(&mut self, mut bits: u32) {
        self.revision += 1;
        let revision = 2 * self.revision + 1;
        let listeners = self.listeners.values_mut().map(|(v, _, _)| v);
        let routes = self.routes.values_mut().flatten().map(|(v, _)| v);
        let hosts = self.hosts.values_mut().map(|host| &mut host.revision);
        let all =
            self.clusters.values_mut().chain(self.endpoints.values_mut()).chain(listeners).chain(routes).chain(hosts);
        for v in all {
            if bits & 1 == 1 {
                *v = revision;
            }
            bits >>= 1;
        }
        self.bad.insert(revision);
    }

    /// Whether anything was ever spoilt.
    pub fn is_spoilt(&self) -> bool {
        !self.bad.is_empty()
    }

    /// The closed snapshot, made by editing the one before.
    pub fn publish(&mut self) -> Snapshot {
        let mut lower = self.layers[0].get_or_insert_with(Layer::new).edit();
        let mut upper = self.layers[1].get_or_insert_with(Layer::new).edit();
        for c in 0..5 {
            let name = format!("c{c}");
            let accounts = self.accounts.get(&c).map_or(&['a'][..], Vec::as_slice);
            let meets: Vec<_> = accounts.iter().map(|account| format!("meets:{account}")).collect();
            let cluster =
                self.clusters.get(&c).map(|v| (self.text(*v), vec![(ResourceType::Endpoints, format!("c{c}"))]));
            put(&mut lower, ResourceType::Cluster, &name, &meets, cluster);
            let endpoints = self.endpoints.get(&c).map(|v| (self.text(*v), Vec::new()));
            put(&mut lower, ResourceType::Endpoints, &name, &meets, endpoints);
        }
        let there = |c: &u8| self.clusters.contains_key(c);
        let to_cluster = |c: &u8| (ResourceType::Cluster, format!("c{c}"));
        for r in 0..3 {
            let name = format!("r{r}");
            let Some(route) = self.routes.get(&r) else {
                upper.remove(ResourceType::Route, &name);
                self.publish_hosts(&mut upper, r, false);
                continue;
            };
            if self.apart && r < APART {
                let content = route.first().map(|(v, _)| (self.text(*v), Vec::new()));
                put(&mut upper, ResourceType::Route, &name, &["vhds".into()], content);
                self.publish_hosts(&mut upper, r, true);
                continue;
            }
            let mut parts = Parts::default();
            for (at, (v, c)) in route.iter().enumerate() {
                let to: Vec<_> = [c].into_iter().filter(|c| there(c)).map(to_cluster).collect();
                let text = text(&format!(" h{at}"), &self.text(*v), &[], &to);
                let to = to.into_iter().map(|(kind, name)| (kind, name.into()));
                parts.set(format!("h{at}").into(), Part::new(Bytes::from(text)).referring_to(to));
            }
            let head = Bytes::from(name.clone());
            upper.set(Cell::composite(ResourceType::Route, name.into(), head, parts));
        }
        for l in 0..3 {
            let listener = self.listeners.get(&l).filter(|(_, r, _)| self.routes.contains_key(r)).map(|(v, r, c)| {
                let mut to = vec![(ResourceType::Route, format!("r{r}"))];
                to.extend(c.iter().filter(|c| there(c)).map(to_cluster));
                (self.text(*v), to)
            });
            put(&mut upper, ResourceType::Listener, &format!("l{l}"), &[], listener);
        }
        let layers = [lower.finish(), upper.finish()];
        self.layers = layers.clone().map(Some);
        let snapshot = Snapshot::new(layers);
        assert!(snapshot.dangling().is_empty(), "the model publishes closed snapshots only");
        snapshot
    }

    /// The virtual hosts of a route configuration that has them apart.
    fn publish_hosts(&self, upper: &mut Edit, r: u8, is_there: bool) {
        let name = format!("r{r}");
        let is_there = is_there && self.apart;
        let rest = is_there.then(|| (self.text(self.rest), Vec::new()));
        put(upper, ResourceType::VirtualHost, &format!("{name}/rest"), &["domain:*".into()], rest);
        let mut taken = BTreeSet::new();
        for h in 0..3 {
            let host = self.hosts.get(&(r, h)).filter(|_| is_there);
            let wanted = host.iter().flat_map(|host| &host.domains);
            let won: Vec<_> = wanted.filter(|domain| taken.insert(**domain)).collect();
            let words: Vec<_> =
                won.into_iter().map(|domain| format!("domain:{domain}")).chain([format!("domain:h{h}")]).collect();
            let there = |c: &&u8| self.clusters.contains_key(*c);
            let to = |c: &u8| (ResourceType::Cluster, format!("c{c}"));
            let host =
                host.map(|host| (self.text(host.revision), host.clusters.iter().filter(there).map(to).collect()));
            put(upper, ResourceType::VirtualHost, &format!("{name}/h{h}"), &words, host);
        }
    }

    fn text(&self, revision: u32) -> String {
        if self.bad.contains(&revision) { format!("{revision} {BAD}") } else { revision.to_string() }
    }
}

/// Gives what refers to something that goes another revision, so that it is not the same when that comes back. What
/// was bad stays bad.
fn renew<'m>(bad: &mut BTreeSet<u32>, revision: u32, all: impl Iterator<Item = &'m mut u32>) {
    for v in all {
        let is_bad = bad.contains(v);
        *v = revision + u32::from(is_bad);
        if is_bad {
            bad.insert(*v);
        }
    }
}

fn text(name: &str, content: &str, words: &[String], to: &[(ResourceType, String)]) -> String {
    let begin = words.iter().fold(format!("{name} {content}"), |text, word| format!("{text} {word}"));
    to.iter().fold(begin, |text, (kind, name)| format!("{text} {kind}:{name}"))
}

fn put(
    edit: &mut Edit,
    kind: ResourceType,
    name: &str,
    words: &[String],
    content: Option<(String, Vec<(ResourceType, String)>)>,
) {
    let Some((content, to)) = content else { return edit.remove(kind, name) };
    let value = text(name, &content, words, &to);
    let to = to.into_iter().map(|(kind, name)| (kind, name.into()));
    let aliases: Vec<_> = domains(&value).map(|domain| domain.into()).collect();
    let cell = Cell::new(kind, name.into(), value.as_bytes()).referring_to(to).also_known_as(aliases);
    edit.set(match kind {
        ResourceType::Cluster | ResourceType::Endpoints => cell.meeting(identities(&value).map(|who| who.into())),
        _ => cell,
    });
}

/// Whom a published cluster admits, or who the endpoints of an assignment are.
pub fn identities(value: &str) -> impl Iterator<Item = &str> {
    value.split(' ').filter_map(|word| word.strip_prefix("meets:"))
}

/// Whether a cluster admits all endpoints of an assignment, by their published values.
pub fn admits(cluster: &str, assignment: &str) -> bool {
    identities(assignment).all(|met| identities(cluster).any(|admitted| admitted == met))
}

/// The name that a published value begins with.
pub fn name_of(value: &str) -> &str {
    value.split(' ').next().unwrap_or_default()
}

/// The names that a published value refers to, of one type.
pub fn references(value: &str, kind: ResourceType) -> impl Iterator<Item = String> + '_ {
    value.split(' ').filter_map(move |word| word.strip_prefix(kind.short())?.strip_prefix(':').map(str::to_owned))
}
