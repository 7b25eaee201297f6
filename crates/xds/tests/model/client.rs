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
use snapshot::Snapshot;
use xds::{Request, Variant};

use crate::hosts::{Hosts, domains};
use crate::mesh::{TYPES, admits, is_bad, is_wild, name_of, parts, references};

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

/// How the client takes a response that holds something bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Of clusters and listeners it applies what is good and lists what is bad, as Envoy does. Of other types it applies
    /// nothing, and says nothing of use.
    Lists,
    /// The same, but the list is cut after the first. Of other types it applies nothing, and names the first that is bad.
    Cuts,
    /// It applies nothing, and names the first that is bad.
    Names,
    /// It applies nothing, and says nothing of use.
    Silent,
    /// Of assignments and routes it applies what comes before the first that is bad, of others nothing.
    InPart,
    /// It applies nothing, and names something good.
    Misleads,
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
    /// What was in refused responses: all, or all that was new if it was the whole set. It must not come again.
    refused: Vec<BTreeMap<String, String>>,
    /// Names that were in refused responses: the server cannot know what became of them, so it may tell them once more.
    doubtful: BTreeSet<String>,
    /// Names held in a form that came with a refused response, of which the server cannot know that it was applied.
    unsure: BTreeSet<String>,
    nack: Option<Nack>,
}

pub struct Client {
    variant: Variant,
    manner: Manner,
    /// Clusters whose assignments were refused, and those that were themselves: what leads to them need not be served.
    hopeless: BTreeSet<String>,
    refused_clusters: BTreeSet<String>,
    /// Routes that listeners do not wait for any more.
    empty_routes: BTreeSet<String>,
    kinds: BTreeMap<ResourceType, Kind>,
    /// Clusters that were warm once: they serve, even while a new form of them warms.
    serving: BTreeSet<String>,
    warming: BTreeSet<String>,
    /// Clusters in the form that serves.
    in_use: BTreeMap<String, String>,
    initialised: bool,
    withheld: Vec<Ack>,
    hosts: Hosts,
    /// Listeners that serve, with the form that does.
    active: BTreeMap<String, String>,
    first_message: bool,
    pub out: VecDeque<Request>,
    /// Set once the order can no longer be kept: a rejection, an expired wait, a return without versions.
    pub lenient: bool,
    /// Set once a stream broke.
    returned: bool,
    /// Set once anything was refused after that.
    pub refused_since: bool,
    /// Domains of virtual hosts that came with a response that was refused, and with none that was taken since: whom they
    /// belong to is for the server to find out, which takes them apart.
    pub contested: BTreeSet<String>,
    /// Set once something was rejected, which is replaced only when it changes.
    pub rejected: bool,
}

impl Client {
    pub fn new(variant: Variant, manner: Manner) -> Self {
        Self {
            variant,
            manner,
            hopeless: BTreeSet::new(),
            refused_clusters: BTreeSet::new(),
            empty_routes: BTreeSet::new(),
            kinds: TYPES.into_iter().map(|kind| (kind, Kind::default())).collect(),
            serving: BTreeSet::new(),
            warming: BTreeSet::new(),
            in_use: BTreeMap::new(),
            initialised: false,
            withheld: Vec::new(),
            hosts: Hosts::default(),
            active: BTreeMap::new(),
            first_message: true,
            out: VecDeque::new(),
            lenient: false,
            returned: false,
            refused_since: false,
            contested: BTreeSet::new(),
            rejected: false,
        }
    }

    fn kind(&mut self, kind: ResourceType) -> &mut Kind {
        self.kinds.get_mut(&kind).unwrap()
    }

    pub fn nack_next(&mut self, kind: ResourceType, nack: Nack) {
        self.kind(kind).nack = Some(nack);
    }

    /// Envoy waits no longer for assignments (`initial_fetch_timeout`).
    pub fn end_warming(&mut self) {
        self.hopeless.extend(std::mem::take(&mut self.warming));
        self.after(Cluster);
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
        self.returned |= returning;
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
            state.doubtful.clear();
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
    pub fn receive(&mut self, kind: ResourceType, bytes: &[u8], published: &Snapshot) -> Result<(), String> {
        let message = self.decode(kind, bytes)?;
        self.check_met(&message, published)?;
        match kind {
            Cluster => self.excuse_endpoints(&message),
            Route => self.excuse_hosts(&message),
            _ => {}
        }
        self.check_news(&message)?;
        let mut nack = self.kind(kind).nack.take().filter(|_| !message.resources.is_empty());
        let full = self.variant == Variant::StateOfTheWorld && kind.has_wildcard();
        let mut applied = message.resources.clone();
        let mut words = "refused by the model".to_owned();
        let mut takes_rest = true;
        let bad = message.resources.iter().find(|(_, held)| is_bad(&held.value)).map(|(name, _)| name.clone());
        if let Some(bad) = &bad {
            nack = None;
            takes_rest = self.take_bad(&message, bad, &mut applied, &mut words);
        }
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
        let is_refused = nack.is_some() || bad.is_some();
        self.refused_since |= is_refused && self.returned;
        if kind == VirtualHost {
            for (name, resource) in &message.resources {
                let route = name.split('/').next().unwrap_or_default();
                for domain in domains(&resource.value) {
                    let domain = format!("{route} {domain}");
                    if is_refused {
                        self.contested.insert(domain);
                    } else {
                        self.contested.remove(&domain);
                    }
                }
            }
        }
        if is_refused {
            let brought = self.brought(&message);
            let state = self.kind(kind);
            state.doubtful.extend(message.resources.keys().chain(&message.removed).cloned());
            if full {
                // What the whole set leaves out is taken away like what delta names as removed.
                let gone = state.held.keys().filter(|name| !message.resources.contains_key(*name));
                state.doubtful.extend(gone.cloned());
            }
            state.refused.push(brought);
        }
        if kind == Endpoints && bad.is_some() {
            // Envoy ends the warming of all that wait for assignments (`EdsClusterImpl::onConfigUpdateFailed`).
            self.hopeless.extend(std::mem::take(&mut self.warming));
        }
        if kind == Route && bad.is_some() {
            // The same with listeners (`RdsRouteConfigSubscription::onConfigUpdateFailed`).
            self.active = self.held(Listener);
            self.empty_routes.extend(self.kinds[&Route].names.iter().cloned());
        }
        if takes_rest && nack != Some(Nack::All) {
            self.check_spared(&message, &applied)?;
            let is_unsure = is_refused && !words.starts_with("Error adding/updating");
            let unsure = &mut self.kind(kind).unsure;
            for name in applied.keys() {
                if is_unsure {
                    unsure.insert(name.clone())
                } else {
                    unsure.remove(name)
                };
            }
            self.apply(&message, applied, full);
        }
        self.kind(kind).nonce = message.nonce.clone();
        let error = is_refused.then(|| Status { code: 13, message: words, details: Vec::new() });
        if error.is_none() {
            self.kind(kind).version = message.version.clone();
        }
        self.acknowledge(kind, Ack { nonce: message.nonce, error });
        self.after(kind);
        Ok(())
    }

    /// Decides what to apply of a response that holds something bad, and what to say. False if nothing is applied, not
    /// even removals.
    fn take_bad(
        &mut self,
        message: &Received,
        first: &str,
        applied: &mut BTreeMap<String, Held>,
        words: &mut String,
    ) -> bool {
        let kind = message.kind;
        let all: Vec<_> =
            message.resources.iter().filter(|(_, held)| is_bad(&held.value)).map(|(name, _)| name.clone()).collect();
        if kind == Cluster {
            self.refused_clusters.extend(all.iter().cloned());
        }
        let is_listed = matches!(kind, Cluster | Listener);
        match self.manner {
            Manner::Lists | Manner::Cuts if is_listed => {
                applied.retain(|_, held| !is_bad(&held.value));
                let list: Vec<_> = all.iter().map(|name| format!("{name}: bad for c0 or so")).collect();
                *words = format!("Error adding/updating {}(s) {}", kind.short(), list.join(", "));
                if self.manner == Manner::Cuts {
                    *words = format!("Error adding/updating {}(s) {first}: bad, ...(truncated)", kind.short());
                }
                return true;
            }
            Manner::InPart if matches!(kind, Endpoints | Route) => {
                applied.retain(|name, _| &**name < first);
                return true;
            }
            Manner::Cuts | Manner::Names => *words = format!("no such thing as {first}"),
            Manner::Misleads => {
                let good = message.resources.iter().find(|(_, held)| !is_bad(&held.value));
                *words = format!("no such thing as {}", good.map_or(first, |(name, _)| name));
            }
            Manner::Lists | Manner::Silent | Manner::InPart => {}
        }
        false
    }

    /// What a response says: of a whole set only what is new.
    fn brought(&self, message: &Received) -> BTreeMap<String, String> {
        let full = self.variant == Variant::StateOfTheWorld && message.kind.has_wildcard();
        let held = &self.kinds[&message.kind].held;
        let is_new = |name: &String, new: &Held| held.get(name).is_none_or(|old| old.value != new.value);
        let brought = message.resources.iter().filter(|(name, new)| !full || is_new(name, new));
        brought.map(|(name, new)| (name.clone(), new.value.clone())).collect()
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
        let brought = self.brought(message);
        // What is sent again because an answer is overdue can cross with the refusal.
        let lenient = self.lenient;
        let state = self.kind(message.kind);
        let mut news = !message.removed.is_empty();
        if !lenient && !brought.is_empty() && state.refused.contains(&brought) {
            return Err(format!("{} answers a rejection with the same content: {brought:?}", message.kind));
        }
        if full {
            news |= state.held.keys().any(|name| !message.resources.contains_key(name)) || state.held.is_empty();
            let doubtful = state.doubtful.len();
            state.doubtful.retain(|name| message.resources.contains_key(name));
            news |= state.doubtful.len() < doubtful;
        }
        state.doubtful.retain(|name| !message.removed.contains(name));
        for (name, held) in &message.resources {
            let same = state.held.get(name).is_some_and(|old| old.value == held.value);
            let excused = state.excused.get(name).is_some_and(|count| *count > 0);
            if !same {
                news = true;
            } else if state.doubtful.remove(name) {
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
        if news || empty_answer || lenient {
            Ok(())
        } else {
            Err(format!("{} response without a change", message.kind))
        }
    }

    /// What led somewhere is not replaced by what leads to a new cluster that was refused. After a rejection without a
    /// reason, or a return, the server cannot know what there was.
    fn check_spared(&self, message: &Received, applied: &BTreeMap<String, Held>) -> Result<(), String> {
        let state = &self.kinds[&message.kind];
        if !matches!(message.kind, Route | VirtualHost) || self.lenient || self.rejected || self.returned {
            return Ok(());
        }
        let clusters = &self.kinds[&Cluster].held;
        let is_lost = |text: &str| {
            references(text, Cluster).any(|to| self.refused_clusters.contains(&to) && !clusters.contains_key(&to))
        };
        let before = self.held(message.kind);
        for (name, new) in applied.iter().filter(|(name, _)| !state.doubtful.contains(*name)) {
            let Some(old) = before.get(name) else { continue };
            let (old, new) = match message.kind {
                Route => (parts(old), parts(&new.value)),
                _ => ([(name.clone(), old.clone())].into(), [(name.clone(), new.value.clone())].into()),
            };
            let lost = old.iter().find(|(part, old)| !is_lost(old) && new.get(*part).is_some_and(|new| is_lost(new)));
            if let Some((part, old)) = lost {
                return Err(format!(
                    "{part} of {} {name} was {old:?} and leads to a refused cluster now",
                    message.kind
                ));
            }
        }
        Ok(())
    }

    /// Nobody is met who is not admitted, as far as the order can help it. Before there are listeners nobody is met at all;
    /// after a rejection, or a return, the server cannot know who is admitted.
    fn check_met(&self, message: &Received, published: &Snapshot) -> Result<(), String> {
        let has_refused = [Cluster, Endpoints].iter().any(|kind| !self.kinds[kind].refused.is_empty());
        if !self.initialised || self.lenient || self.rejected || self.returned || has_refused {
            return Ok(());
        }
        for (name, new) in &message.resources {
            let Some(had) = self.kinds[&Endpoints].held.get(name) else { continue };
            let Some(cluster) = self.kinds[&Cluster].held.get(name) else { continue };
            let is_wrong = match message.kind {
                // Where the newest cluster does not admit what is there, it is taken into use together with what comes.
                Endpoints => {
                    let used = self.in_use.get(name).unwrap_or(&cluster.value);
                    let loses = |cluster| admits(cluster, &had.value) && !admits(cluster, &new.value);
                    admits(&cluster.value, &had.value) && (loses(used) || loses(&cluster.value))
                }
                // What is published for it would have been admitted by the cluster that is there.
                Cluster => published.get(Endpoints, name).is_some_and(|assignment| {
                    let assignment = String::from_utf8_lossy(&assignment.value()).into_owned();
                    !admits(&new.value, &had.value)
                        && admits(&cluster.value, &assignment)
                        && admits(&new.value, &assignment)
                }),
                _ => false,
            };
            if is_wrong {
                return Err(format!("{} {new:?} meets whom {cluster:?} and {had:?} do not know", message.kind));
            }
        }
        Ok(())
    }

    /// The endpoints of a changed cluster come again, also when the client rejects it: the server cannot wait to know.
    fn excuse_endpoints(&mut self, message: &Received) {
        for (name, new) in &message.resources {
            let clusters = &self.kinds[&Cluster];
            let is_new = clusters.held.get(name).is_none_or(|old| old.value != new.value);
            if is_new || clusters.doubtful.contains(name) {
                *self.kind(Endpoints).excused.entry(name.clone()).or_default() += 1;
            }
        }
    }

    /// With a route configuration that is new to the client all its virtual hosts come, also those that it refused once.
    /// After a rejection, and for what was changed while the client was away, the server cannot know that it is not new.
    fn excuse_hosts(&mut self, message: &Received) {
        let routes = &self.kinds[&Route];
        let unsure = self.rejected || routes.nonce.is_empty();
        let new = |name: &&String| unsure || !routes.held.contains_key(*name) || routes.doubtful.contains(*name);
        let new: BTreeSet<String> = message.resources.keys().filter(new).cloned().collect();
        let Kind { held, doubtful, excused, refused, .. } = self.kind(VirtualHost);
        let is_of_new = |host: &String| new.contains(host.split('/').next().unwrap());
        refused.retain(|brought| !brought.keys().any(is_of_new));
        let of_new = held.keys().chain(&*doubtful).filter(|name| is_of_new(name));
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
            if kind == Cluster && self.refused_clusters.remove(&name) && !self.serving.contains(&name) {
                self.hopeless.insert(name.clone());
            }
            match kind {
                Cluster if changed => {
                    self.warming.insert(name);
                }
                Endpoints => {
                    let is_new = self.warming.remove(&name) | self.hopeless.remove(&name);
                    if let Some(cluster) = self.kinds[&Cluster].held.get(&name).filter(|_| is_new) {
                        self.in_use.insert(name.clone(), cluster.value.clone());
                    }
                    if is_new && self.kinds[&Cluster].held.contains_key(&name) {
                        self.serving.insert(name);
                    }
                }
                Route => self.hosts.route(&name, &held.value),
                VirtualHost => self.hosts.set(&name, &held.value),
                _ => {}
            }
        }
        for name in gone {
            match kind {
                Cluster => {
                    self.serving.remove(&name);
                    self.in_use.remove(&name);
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
            let Self { kinds, active, empty_routes, hosts, .. } = self;
            empty_routes.retain(|route| kinds[&Route].names.contains(route));
            let is_there = |route: String| {
                kinds[&Route].held.contains_key(&route) && hosts.is_ready(&route) || empty_routes.contains(&route)
            };
            for (name, held) in &kinds[&Listener].held {
                if references(&held.value, Route).all(is_there) {
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
        state.refused.retain(|brought| added.iter().all(|name| !brought.contains_key(name)));
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
                let older = self.withheld.pop().and_then(|older| older.error);
                let error = ack.error.or(older);
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
        let is_broken = |(_, cluster): &(String, String)| {
            let serves = self.serving.contains(cluster);
            !serves && !self.hopeless.contains(cluster) && !self.refused_clusters.contains(cluster)
        };
        for (listener, value) in &self.active {
            let inline = references(value, Cluster).map(|cluster| (listener.clone(), cluster));
            let routes = references(value, Route).filter_map(|route| self.kinds[&Route].held.get(&route));
            let routed = routes.flat_map(|held| {
                references(&held.value, Cluster).map(|cluster| (name_of(&held.value).to_owned(), cluster))
            });
            let hosted = references(value, Route)
                .flat_map(|route| self.hosts.of(&route))
                .flat_map(|host| references(host, Cluster).map(|cluster| (name_of(host).to_owned(), cluster)));
            let broken = inline.chain(routed).chain(hosted).find(is_broken);
            if let Some((from, cluster)) = broken {
                return Some(format!("{from} of {listener} leads to {cluster}, which does not serve"));
            }
        }
        None
    }

    /// Whether it has the route configuration of a virtual host.
    pub fn has_route(&self, host: &str) -> bool {
        self.kinds[&Route].held.contains_key(host.split('/').next().unwrap())
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

    /// Whether the server cannot know which form it holds.
    pub fn is_unsure(&self, kind: ResourceType, name: &str) -> bool {
        self.kinds[&kind].unsure.contains(name)
    }

    pub fn names(&self, kind: ResourceType) -> Option<&BTreeSet<String>> {
        (!is_wild(kind)).then(|| &self.kinds[&kind].names)
    }

    /// Whether nothing warms, but listeners that are bad in their newer form, or whose route is.
    pub fn is_warm(&self, is_bad: impl Fn(ResourceType, &str) -> bool) -> bool {
        let is_ready = |(name, held): (&String, &Held)| {
            let is_hopeless = || references(&held.value, Route).any(|route| is_bad(Route, &route));
            self.active.get(name) == Some(&held.value) || is_bad(Listener, name) || is_hopeless()
        };
        self.warming.is_empty() && self.kinds[&Listener].held.iter().all(is_ready)
    }
}
