//! A reference client that behaves like Envoy: it warms clusters, derives its subscriptions from what it holds, keeps
//! the acknowledgement of clusters back while they warm, and says nothing where Envoy says nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message;
use proto::ResourceType::{self, Cluster, Endpoints, Listener, Route, VirtualHost};
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::pb::google::rpc::Status;
use xds::{Request, Variant};

use crate::hosts::Hosts;
use crate::mesh::{TYPES, is_wild, name_of, references};

/// How the client takes the next response of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nack {
    /// Applies nothing of it, as after a validation error.
    All,
    /// Applies all but the first resource, as after a semantic error, without telling which.
    First,
    /// The same with the first changed cluster or listener, and names it, as Envoy does.
    Named,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    version: String,
    value: String,
}

/// A response in a form that both variants share.
struct Received {
    kind: ResourceType,
    nonce: String,
    version: String,
    resources: BTreeMap<String, Held>,
    removed: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Ack {
    nonce: String,
    error: Option<Status>,
}

#[derive(Default)]
struct Kind {
    asked: bool,
    names: BTreeSet<String>,
    held: BTreeMap<String, Held>,
    /// State-of-the-world: the last accepted version, and the last nonce.
    version: String,
    nonce: String,
    /// Names that may come again unchanged, and how often.
    excused: BTreeMap<String, u32>,
    refused: BTreeMap<String, String>,
    refused_whole: Option<BTreeMap<String, Held>>,
    nack: Option<Nack>,
}

pub struct Client {
    variant: Variant,
    kinds: BTreeMap<ResourceType, Kind>,
    /// Clusters that were warm once: they serve, even while a new form of them warms.
    serving: BTreeSet<String>,
    warming: BTreeSet<String>,
    initialised: bool,
    withheld: Vec<Ack>,
    hosts: Hosts,
    /// Listeners that serve, with the form that does.
    active: BTreeMap<String, String>,
    first_message: bool,
    pub out: VecDeque<Request>,
    /// Set once the order can no longer be kept: a rejection, an expired wait, a return without versions.
    pub lenient: bool,
    /// Set once something was rejected, which is replaced only when it changes.
    pub rejected: bool,
}

impl Client {
    pub fn new(variant: Variant) -> Self {
        Self {
            variant,
            kinds: TYPES.into_iter().map(|kind| (kind, Kind::default())).collect(),
            serving: BTreeSet::new(),
            warming: BTreeSet::new(),
            initialised: false,
            withheld: Vec::new(),
            hosts: Hosts::default(),
            active: BTreeMap::new(),
            first_message: true,
            out: VecDeque::new(),
            lenient: false,
            rejected: false,
        }
    }

    fn kind(&mut self, kind: ResourceType) -> &mut Kind {
        self.kinds.get_mut(&kind).unwrap()
    }

    pub fn nack_next(&mut self, kind: ResourceType, nack: Nack) {
        self.kind(kind).nack = Some(nack);
    }

    pub fn never_nack(&mut self) {
        self.kinds.values_mut().for_each(|kind| kind.nack = None);
    }

    /// Opens a stream: a first one, or another after the last broke.
    pub fn connect(&mut self, endpoints_first: bool) {
        self.out.clear();
        self.withheld.clear();
        self.first_message = true;
        let returning = self.kinds[&Cluster].asked;
        self.lenient |= returning && self.variant == Variant::StateOfTheWorld;
        let mut order = TYPES;
        if endpoints_first {
            order.swap(0, 1);
            order.swap(3, 4);
        }
        for kind in order {
            let state = self.kind(kind);
            state.nonce.clear();
            state.excused.clear();
            state.refused.clear();
            state.refused_whole = None;
            let wanted = match kind {
                Cluster => true,
                Listener | VirtualHost => state.asked,
                _ => !state.names.is_empty(),
            };
            state.asked = wanted;
            if wanted {
                let names = state.names.clone();
                self.excuse_all(kind);
                self.ask(kind, &names, &BTreeSet::new(), true);
            }
        }
    }

    fn excuse_all(&mut self, kind: ResourceType) {
        // A delta client names what it holds, so only endpoints may come again.
        let sotw = self.variant == Variant::StateOfTheWorld;
        let all = sotw || kind == Endpoints;
        let state = self.kind(kind);
        if all {
            let names: Vec<_> = state.held.keys().chain(&state.names).cloned().collect();
            // Endpoints that were asked for before the clusters come once more after them, where it is not known which
            // clusters changed (rule P-51).
            let times = if kind == Endpoints && sotw { 2 } else { 1 };
            names.into_iter().for_each(|name| _ = state.excused.insert(name, times));
        }
    }

    /// Takes in one encoded response. An error is a broken promise of the server.
    pub fn receive(&mut self, kind: ResourceType, bytes: &[u8]) -> Result<(), String> {
        let message = self.decode(kind, bytes)?;
        self.check_news(&message)?;
        let mut nack = self.kind(kind).nack.take().filter(|_| !message.resources.is_empty());
        let full = self.variant == Variant::StateOfTheWorld && kind.has_wildcard();
        match kind {
            Cluster => self.excuse_endpoints(&message),
            Route => self.excuse_hosts(&message),
            _ => {}
        }
        let mut applied = message.resources.clone();
        let mut words = "refused by the model".to_owned();
        match nack {
            None => {}
            Some(Nack::All) => applied.clear(),
            Some(Nack::First) => _ = applied.pop_first(),
            Some(Nack::Named) => match self.first_changed(&message) {
                None => nack = None,
                Some(name) => {
                    applied.remove(&name);
                    words = format!("Error adding/updating {}(s) {name}: {words}", kind.short());
                    // A cluster that was never there cannot serve; everything else goes on as it was.
                    self.lenient |= kind == Cluster && !self.serving.contains(&name);
                }
            },
        }
        self.lenient |= matches!(nack, Some(Nack::All | Nack::First));
        self.rejected |= nack.is_some();
        if nack.is_some() {
            let state = self.kind(kind);
            state.refused_whole = full.then(|| message.resources.clone());
            for (name, held) in message.resources.iter().filter(|(name, _)| !applied.contains_key(*name)) {
                state.refused.insert(name.clone(), held.value.clone());
            }
        }
        if nack != Some(Nack::All) {
            self.apply(&message, applied, full);
        }
        self.kind(kind).nonce = message.nonce.clone();
        let error = nack.map(|_| Status { code: 13, message: words, details: Vec::new() });
        if error.is_none() {
            self.kind(kind).refused_whole = None;
            self.kind(kind).version = message.version.clone();
        }
        self.acknowledge(kind, Ack { nonce: message.nonce, error });
        self.after(kind);
        Ok(())
    }

    /// The first resource that is new to the client.
    fn first_changed(&self, message: &Received) -> Option<String> {
        let held = &self.kinds[&message.kind].held;
        let new = |(name, new): &(&String, &Held)| held.get(*name).is_none_or(|old| old.value != new.value);
        message.resources.iter().find(new).map(|(name, _)| name.clone())
    }

    fn decode(&self, kind: ResourceType, bytes: &[u8]) -> Result<Received, String> {
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let mut resources = BTreeMap::new();
        let mut count = 0;
        let (nonce, version, removed): (String, String, BTreeSet<String>) = match self.variant {
            Variant::StateOfTheWorld => {
                let response = DiscoveryResponse::decode(bytes).map_err(|e| e.to_string())?;
                for any in response.resources {
                    let value = text(&any.value);
                    count += 1;
                    resources.insert(name_of(&value).to_owned(), Held { version: String::new(), value });
                }
                (response.nonce, response.version_info, BTreeSet::new())
            }
            Variant::Delta => {
                let response = DeltaDiscoveryResponse::decode(bytes).map_err(|e| e.to_string())?;
                for resource in response.resources {
                    let value = text(&resource.resource.ok_or("a resource without body")?.value);
                    count += 1;
                    if resource.name != name_of(&value) {
                        return Err(format!("{} is called {}", name_of(&value), resource.name));
                    }
                    resources.insert(resource.name, Held { version: resource.version, value });
                }
                let removed: BTreeSet<String> = response.removed_resources.into_iter().collect();
                (response.nonce, response.system_version_info, removed)
            }
        };
        if count != resources.len() || removed.iter().any(|name| resources.contains_key(name)) {
            return Err(format!("{kind} names a resource twice"));
        }
        Ok(Received { kind, nonce, version, resources, removed })
    }

    /// Nothing comes without a reason, and nothing that was refused comes again (rules P-14 and P-45).
    fn check_news(&mut self, message: &Received) -> Result<(), String> {
        let full = self.variant == Variant::StateOfTheWorld && message.kind.has_wildcard();
        let state = self.kind(message.kind);
        let mut news = !message.removed.is_empty();
        if full {
            news |= state.held.keys().any(|name| !message.resources.contains_key(name)) || state.held.is_empty();
            news |= state.refused_whole.is_some();
            if state.refused_whole.as_ref() == Some(&message.resources) {
                return Err(format!("{} answers a rejection with the same content", message.kind));
            }
        }
        state.refused.retain(|name, _| !message.removed.contains(name));
        for (name, held) in &message.resources {
            let same = state.held.get(name).is_some_and(|old| old.value == held.value);
            let refused = state.refused.get(name) == Some(&held.value);
            let excused = state.excused.get(name).is_some_and(|count| *count > 0);
            if !same {
                state
                    .refused
                    .remove(name)
                    .filter(|_| refused && !full && !excused)
                    .map_or(Ok(()), |_| Err(format!("{} {name} was refused and comes again", message.kind)))?;
                news = true;
            } else if state.refused.remove(name).is_some() || state.refused_whole.is_some() {
                // Back to what the client never left: the server cannot know that.
                news = true;
            } else if excused {
                *state.excused.entry(name.clone()).or_default() -= 1;
                news = true;
            } else if !full {
                return Err(format!("{} {name} comes again unchanged", message.kind));
            }
        }
        let empty_answer = message.resources.is_empty() && is_wild(message.kind) && state.nonce.is_empty();
        if news || empty_answer { Ok(()) } else { Err(format!("{} response without a change", message.kind)) }
    }

    /// The endpoints of a changed cluster come again, also when the client rejects it: the server cannot wait to know.
    fn excuse_endpoints(&mut self, message: &Received) {
        for (name, new) in &message.resources {
            if self.kinds[&Cluster].held.get(name).is_none_or(|old| old.value != new.value) {
                *self.kind(Endpoints).excused.entry(name.clone()).or_default() += 1;
            }
        }
    }

    /// With a route configuration that is new to the client all its virtual hosts come, also those that it refused once.
    /// After a rejection, and for what was changed while the client was away, the server cannot know that it is not new.
    fn excuse_hosts(&mut self, message: &Received) {
        let routes = &self.kinds[&Route];
        let unsure = self.rejected || routes.nonce.is_empty();
        let new = |name: &&String| unsure || !routes.held.contains_key(*name);
        let new: BTreeSet<String> = message.resources.keys().filter(new).cloned().collect();
        let Kind { held, refused, excused, .. } = self.kind(VirtualHost);
        let of_new = held.keys().chain(refused.keys()).filter(|name| new.contains(name.split('/').next().unwrap()));
        of_new.cloned().collect::<BTreeSet<_>>().into_iter().for_each(|name| *excused.entry(name).or_default() += 1);
    }

    fn apply(&mut self, message: &Received, applied: BTreeMap<String, Held>, full: bool) {
        let kind = message.kind;
        let named = !is_wild(kind);
        let gone: Vec<String> = if full {
            self.kinds[&kind].held.keys().filter(|name| !message.resources.contains_key(*name)).cloned().collect()
        } else {
            message.removed.iter().cloned().collect()
        };
        for (name, held) in applied {
            if named && !self.kinds[&kind].names.contains(&name) {
                continue;
            }
            let old = self.kind(kind).held.insert(name.clone(), held.clone());
            let changed = old.is_none_or(|old| old.value != held.value);
            match kind {
                Cluster if changed => {
                    self.warming.insert(name);
                }
                Endpoints if self.warming.remove(&name) => _ = self.serving.insert(name),
                Route => self.hosts.route(&name, &held.value),
                VirtualHost => self.hosts.set(&name, &held.value),
                _ => {}
            }
        }
        for name in gone {
            match kind {
                Cluster => {
                    self.serving.remove(&name);
                    self.warming.remove(&name);
                }
                Listener => _ = self.active.remove(&name),
                VirtualHost => self.hosts.remove(&name),
                // The removal of an assignment ends the warming; otherwise it waits for the cluster, like that of a
                // route for its listener (rule P-48).
                Endpoints if self.warming.remove(&name) => _ = self.serving.insert(name.clone()),
                _ => {}
            }
            if !named {
                self.kind(kind).held.remove(&name);
            }
        }
    }

    /// Follows what a change of one type means for the others.
    fn after(&mut self, kind: ResourceType) {
        if matches!(kind, Listener | Route | VirtualHost) {
            let Self { kinds, active, hosts, .. } = self;
            for (name, held) in &kinds[&Listener].held {
                if references(&held.value, Route)
                    .all(|route| kinds[&Route].held.contains_key(&route) && hosts.is_ready(&route))
                {
                    active.insert(name.clone(), held.value.clone());
                }
            }
        }
        match kind {
            Cluster => {
                let names = self.kinds[&Cluster].held.keys().cloned().collect();
                self.want(Endpoints, names);
            }
            Listener | Route | VirtualHost => {
                if self.hosts.are_wanted() && !std::mem::replace(&mut self.kind(VirtualHost).asked, true) {
                    self.ask(VirtualHost, &BTreeSet::new(), &BTreeSet::new(), true);
                }
                let held = self.kinds[&Listener].held.values().map(|held| &held.value);
                let names = held.chain(self.active.values()).flat_map(|value| references(value, Route)).collect();
                self.want(Route, names);
            }
            _ => {}
        }
        if self.warming.is_empty() {
            if self.kinds[&Cluster].asked && !self.initialised {
                self.initialised = true;
                self.kind(Listener).asked = true;
                self.ask(Listener, &BTreeSet::new(), &BTreeSet::new(), true);
            }
            for ack in std::mem::take(&mut self.withheld) {
                self.send_ack(Cluster, ack);
            }
        }
    }

    fn want(&mut self, kind: ResourceType, names: BTreeSet<String>) {
        let state = self.kind(kind);
        let added: BTreeSet<_> = names.difference(&state.names).cloned().collect();
        let dropped: BTreeSet<_> = state.names.difference(&names).cloned().collect();
        if added.is_empty() && dropped.is_empty() {
            return;
        }
        let first = !std::mem::replace(&mut state.asked, true);
        added.iter().for_each(|name| *state.excused.entry(name.clone()).or_default() += 1);
        dropped.iter().for_each(|name| _ = state.held.remove(name));
        state.names = names;
        if kind == Route {
            dropped.iter().for_each(|name| self.hosts.drop_route(name));
        }
        self.ask(kind, &added, &dropped, first);
    }

    fn acknowledge(&mut self, kind: ResourceType, ack: Ack) {
        // Rule P-18: from the second set of clusters on, their acknowledgement waits until they are warm.
        if kind == Cluster && self.initialised && !self.warming.is_empty() {
            if self.variant == Variant::StateOfTheWorld {
                // Only the newest response is acknowledged; a rejection that was kept back goes along with it.
                let error = self.withheld.pop().and_then(|older| older.error).or(ack.error);
                self.withheld.push(Ack { nonce: ack.nonce, error });
            } else {
                self.withheld.push(ack);
            }
            return;
        }
        // Rule P-17: nobody watches, nobody answers.
        if self.variant == Variant::StateOfTheWorld && !kind.has_wildcard() && self.kinds[&kind].names.is_empty() {
            return;
        }
        self.send_ack(kind, ack);
    }

    fn send_ack(&mut self, kind: ResourceType, ack: Ack) {
        let request = match self.variant {
            Variant::StateOfTheWorld => {
                Request::StateOfTheWorld(DiscoveryRequest { error_detail: ack.error, ..self.sotw(kind, ack.nonce) })
            }
            Variant::Delta => Request::Delta(DeltaDiscoveryRequest {
                type_url: kind.type_url().into(),
                response_nonce: ack.nonce,
                error_detail: ack.error,
                ..DeltaDiscoveryRequest::default()
            }),
        };
        self.out.push_back(request);
    }

    fn ask(&mut self, kind: ResourceType, added: &BTreeSet<String>, dropped: &BTreeSet<String>, first: bool) {
        let node = std::mem::take(&mut self.first_message).then(|| Node { id: "model".into(), ..Node::default() });
        let request = match self.variant {
            Variant::StateOfTheWorld => {
                let nonce = self.kinds[&kind].nonce.clone();
                Request::StateOfTheWorld(DiscoveryRequest { node, ..self.sotw(kind, nonce) })
            }
            Variant::Delta => Request::Delta(DeltaDiscoveryRequest {
                node,
                type_url: kind.type_url().into(),
                resource_names_subscribe: added.iter().cloned().collect(),
                resource_names_unsubscribe: dropped.iter().cloned().collect(),
                initial_resource_versions: if first {
                    self.kinds[&kind].held.iter().map(|(name, held)| (name.clone(), held.version.clone())).collect()
                } else {
                    Default::default()
                },
                ..DeltaDiscoveryRequest::default()
            }),
        };
        self.out.push_back(request);
    }

    fn sotw(&self, kind: ResourceType, nonce: String) -> DiscoveryRequest {
        let state = &self.kinds[&kind];
        DiscoveryRequest {
            type_url: kind.type_url().into(),
            version_info: state.version.clone(),
            resource_names: state.names.iter().cloned().collect(),
            response_nonce: nonce,
            ..DiscoveryRequest::default()
        }
    }

    /// Whether a request could find no cluster to go to: a listener serves a route to one that was never warm, or is
    /// gone.
    pub fn broken_path(&self) -> Option<String> {
        for (listener, value) in &self.active {
            let inline = references(value, Cluster).map(|cluster| (listener.clone(), cluster));
            let routes = references(value, Route).filter_map(|route| self.kinds[&Route].held.get(&route));
            let routed = routes.flat_map(|held| {
                references(&held.value, Cluster).map(|cluster| (name_of(&held.value).to_owned(), cluster))
            });
            let hosted = references(value, Route)
                .flat_map(|route| self.hosts.of(&route))
                .flat_map(|host| references(host, Cluster).map(|cluster| (name_of(host).to_owned(), cluster)));
            let broken = inline.chain(routed).chain(hosted).find(|(_, cluster)| !self.serving.contains(cluster));
            if let Some((from, cluster)) = broken {
                return Some(format!("{from} of {listener} leads to {cluster}, which does not serve"));
            }
        }
        None
    }

    pub fn domains(&self) -> Result<BTreeSet<String>, String> {
        self.hosts.domains()
    }

    pub fn held(&self, kind: ResourceType) -> BTreeMap<String, String> {
        if kind == VirtualHost {
            return self.hosts.all();
        }
        self.kinds[&kind].held.iter().map(|(name, held)| (name.clone(), held.value.clone())).collect()
    }

    pub fn names(&self, kind: ResourceType) -> Option<&BTreeSet<String>> {
        (!is_wild(kind)).then(|| &self.kinds[&kind].names)
    }

    pub fn is_warm(&self) -> bool {
        self.warming.is_empty() && self.active == self.held(Listener)
    }
}
