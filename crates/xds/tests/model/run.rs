//! Client and stream, joined by two pipes whose messages move when the run says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proto::ResourceType;
use snapshot::Snapshot;
use xds::{Outcome, Request, Service, Settings, Stream, Variant};

use crate::client::{Client, Manner, Nack};
use crate::hosts::domains;
use crate::mesh::{
    Mesh, Mutation, TYPES, is_bad, is_wild, joining_mutation, mutation, parts, references, spoiling_mutation,
};

/// What may happen next.
#[derive(Clone, Debug)]
pub enum Action {
    /// The owner changes the mesh and publishes it.
    Publish(Vec<Mutation>),
    /// The stream is asked for one response.
    Serve,
    /// The client gets the oldest response on its way.
    Deliver,
    /// The stream gets the oldest request on its way.
    Ask,
    /// Everything moves for a few rounds.
    Flow(u8),
    Sleep(u8),
    Nack(usize, Nack),
    Reconnect(bool),
}

/// Actions under which no path may break.
pub fn calm_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => prop::collection::vec(mutation(), 1..4).prop_map(Action::Publish),
        4 => Just(Action::Serve),
        4 => Just(Action::Deliver),
        4 => Just(Action::Ask),
        3 => (1u8..8).prop_map(Action::Flow),
    ]
}

/// The same in a mesh whose endpoints come under one identity and another.
pub fn joining_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => prop::collection::vec(joining_mutation(), 1..4).prop_map(Action::Publish),
        15 => calm_action(),
    ]
}

/// Envoy refuses one cluster or listener and says which.
fn named_rejection() -> impl Strategy<Value = Action> {
    let kinds =
        [ResourceType::Cluster, ResourceType::Listener].map(|kind| TYPES.iter().position(|t| *t == kind).unwrap());
    prop::sample::select(kinds.to_vec()).prop_map(|at| Action::Nack(at, Nack::Named))
}

/// Actions under which no path may break but those to clusters that are refused.
pub fn picky_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => calm_action(),
        1 => named_rejection(),
    ]
}

/// Actions in a mesh where some things are bad.
pub fn spoiling_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => prop::collection::vec(spoiling_mutation(), 1..4).prop_map(Action::Publish),
        8 => calm_action(),
    ]
}

/// How a client takes what is bad.
pub fn manner() -> impl Strategy<Value = Manner> {
    prop::sample::select(vec![
        Manner::Lists,
        Manner::Cuts,
        Manner::Names,
        Manner::Silent,
        Manner::InPart,
        Manner::Misleads,
    ])
}

/// Anything.
pub fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        15 => calm_action(),
        2 => prop::collection::vec(spoiling_mutation(), 1..4).prop_map(Action::Publish),
        1 => prop_oneof![0u8..3, 5u8..20].prop_map(Action::Sleep),
        1 => (0usize..TYPES.len(), prop_oneof![Just(Nack::All), Just(Nack::First)]).prop_map(|(t, n)| Action::Nack(t, n)),
        1 => named_rejection(),
        1 => any::<bool>().prop_map(Action::Reconnect),
    ]
}

pub struct Run {
    variant: Variant,
    now: Instant,
    /// When the client came back, if it did.
    connected: Option<Instant>,
    mesh: Mesh,
    snapshot: Option<Snapshot>,
    stream: Stream,
    client: Client,
    /// With what was published when it was made.
    to_client: VecDeque<(ResourceType, Vec<u8>, Snapshot)>,
    to_stream: VecDeque<Request>,
    /// Responses without an answer, by type, as the stream can know it.
    unanswered: BTreeMap<ResourceType, BTreeSet<String>>,
    /// Names that the stream knows to be subscribed.
    known: BTreeMap<ResourceType, BTreeSet<String>>,
    story: Vec<String>,
}

impl Run {
    pub fn new(variant: Variant, manner: Manner) -> Self {
        let mut client = Client::new(variant, manner);
        client.connect(false);
        Self {
            variant,
            now: Instant::now(),
            connected: None,
            mesh: Mesh::new(variant == Variant::Delta),
            snapshot: None,
            stream: Stream::new(variant, Service::Aggregated, Settings::default()),
            client,
            to_client: VecDeque::new(),
            to_stream: VecDeque::new(),
            unanswered: BTreeMap::new(),
            known: BTreeMap::new(),
            story: Vec::new(),
        }
    }

    pub fn story(&self) -> String {
        self.story.join("\n")
    }

    pub fn act(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Publish(mutations) => {
                mutations.iter().for_each(|mutation| self.mesh.apply(mutation));
                self.publish();
            }
            Action::Serve => _ = self.serve()?,
            Action::Deliver => _ = self.deliver()?,
            Action::Ask => _ = self.ask()?,
            Action::Flow(rounds) => {
                for _ in 0..*rounds {
                    let _ = self.ask()? | self.serve()? | self.deliver()?;
                }
            }
            Action::Sleep(seconds) => self.sleep(Duration::from_secs((*seconds).into())),
            Action::Nack(at, nack) => {
                self.story.push(format!("nack next {} {nack:?}", TYPES[*at]));
                self.client.nack_next(TYPES[*at], *nack);
            }
            Action::Reconnect(endpoints_first) => self.reconnect(*endpoints_first),
        }
        self.check()
    }

    /// Lets everything come to rest, and compares: what is bad is held back in the form that was good, what is not
    /// arrives. Then more is spoilt (a bit of `spoil` each), and in the end all is mended.
    pub fn finish(&mut self, spoil: u32) -> Result<(), String> {
        self.client.never_nack();
        if self.snapshot.is_none() {
            self.publish();
        }
        self.settle()?;
        let is_erratic = self.client.rejected || self.variant == Variant::StateOfTheWorld && self.connected.is_some();
        if !is_erratic {
            self.check_goods()?;
            let known = |kind: ResourceType| {
                let held = self.client.held(kind).into_iter();
                (kind, held.filter(|(name, _)| !self.client.is_unsure(kind, name)).collect())
            };
            let before: BTreeMap<_, _> = TYPES.into_iter().map(known).collect();
            self.mesh.spoil(spoil);
            self.publish();
            self.settle()?;
            self.check_goods()?;
            self.check_kept(&before)?;
        }
        if self.client.lenient || self.client.rejected || self.mesh.is_spoilt() {
            // What was rejected is only replaced when it changes.
            self.mesh.touch();
            self.publish();
            self.settle()?;
        }
        if let Some(summary) = self.stream.summary().into_iter().find(|summary| summary.refused > 0) {
            return Err(format!("at rest something good is held back: {summary:?}"));
        }
        let snapshot = self.snapshot.clone().unwrap();
        for kind in TYPES {
            let all = snapshot
                .iter(kind)
                .map(|cell| (cell.name().to_string(), String::from_utf8(cell.value().to_vec()).unwrap()));
            let names = self.client.names(kind);
            let routes = self.client.names(ResourceType::Route);
            let is_of_route = |name: &str| {
                kind != ResourceType::VirtualHost
                    || routes.is_some_and(|routes| routes.contains(name.split('/').next().unwrap()))
            };
            let wanted: BTreeMap<_, _> =
                all.filter(|(name, _)| names.is_none_or(|names| names.contains(name)) && is_of_route(name)).collect();
            let held = self.client.held(kind);
            if held != wanted {
                return Err(format!("at rest the client holds {kind} {held:?}, but published is {wanted:?}"));
            }
        }
        if !self.client.is_warm(|_, _| false) {
            return Err("at rest something still warms".into());
        }
        match self.client.broken_path() {
            Some(broken) => Err(format!("at rest {broken}")),
            None => Ok(()),
        }
    }

    /// Everything that is not bad has arrived, and there is nothing else but what something held back leads to.
    fn check_goods(&self) -> Result<(), String> {
        let snapshot = self.snapshot.as_ref().unwrap();
        for kind in TYPES {
            let held = self.client.held(kind);
            for cell in snapshot.iter(kind).filter(|cell| self.is_owed(kind, cell.name())) {
                let published = String::from_utf8(cell.value().to_vec()).unwrap();
                let held = held.get(&**cell.name());
                let is_right = match kind {
                    ResourceType::Route => {
                        let (want, have) = (parts(&published), held.map(|held| parts(held)).unwrap_or_default());
                        let is_right =
                            |(part, text): (&String, &String)| have.get(part) == Some(text) || self.may_be_older(text);
                        want.iter().all(is_right) && have.keys().all(|part| want.contains_key(part))
                    }
                    // It may have to wait for one that is bad, which keeps a domain that it is to get.
                    ResourceType::VirtualHost if self.has_bad_neighbour(cell.name()) => true,
                    ResourceType::VirtualHost => held == Some(&published) || self.may_be_older(&published),
                    _ => is_bad(&published) || held == Some(&published),
                };
                if !is_right {
                    return Err(format!("at rest the client holds {kind} {held:?}, but published is {published:?}"));
                }
            }
            let mut extra = held.keys().filter(|name| snapshot.get(kind, name).is_none());
            let is_in_use = |name: &&String| {
                TYPES.into_iter().any(|by| {
                    self.client.held(by).values().any(|value| references(value, kind).any(|used| used == **name))
                })
            };
            let is_kept = |name: &String| kind == ResourceType::VirtualHost && self.has_bad_neighbour(name);
            if let Some(name) = extra.find(|name| !is_in_use(name) && !is_kept(name)) {
                return Err(format!("at rest the client still holds {kind} {name}"));
            }
        }
        let is_bad = |kind: ResourceType, name: &str| {
            let cell = snapshot.get(kind, name);
            cell.is_some_and(|cell| is_bad(&String::from_utf8_lossy(&cell.value())))
        };
        if !self.client.is_warm(is_bad) {
            return Err("at rest something still warms".into());
        }
        Ok(())
    }

    /// Whether the client may be left with an older form: of what it refuses, and of what uses a new cluster that it
    /// refuses.
    fn may_be_older(&self, text: &str) -> bool {
        let clusters = self.client.held(ResourceType::Cluster);
        is_bad(text) || references(text, ResourceType::Cluster).any(|to| !clusters.contains_key(&to))
    }

    /// Whether the client has asked for this, and has what it belongs to.
    fn is_owed(&self, kind: ResourceType, name: &str) -> bool {
        let is_named = self.client.names(kind).is_none_or(|names| names.contains(name));
        is_named && (kind != ResourceType::VirtualHost || self.client.has_route(name))
    }

    fn has_bad_neighbour(&self, host: &str) -> bool {
        let route = host.split('/').next().unwrap();
        let hosts = self.snapshot.iter().flat_map(|snapshot| snapshot.under(ResourceType::VirtualHost, route));
        hosts.into_iter().any(|cell| self.may_be_older(&String::from_utf8_lossy(&cell.value())))
    }

    /// What is bad now is held in the form that the client had before, if it had one.
    fn check_kept(&self, before: &BTreeMap<ResourceType, BTreeMap<String, String>>) -> Result<(), String> {
        let snapshot = self.snapshot.as_ref().unwrap();
        for kind in TYPES {
            let (before, held) = (&before[&kind], self.client.held(kind));
            for cell in snapshot.iter(kind).filter(|cell| self.is_owed(kind, cell.name())) {
                let published = String::from_utf8(cell.value().to_vec()).unwrap();
                let (old, now) = (before.get(&**cell.name()), held.get(&**cell.name()));
                let is_kept = match (kind, old, now) {
                    (_, None, _) => true,
                    (ResourceType::Route, Some(old), Some(now)) => {
                        let (old, now) = (parts(old), parts(now));
                        let bad = parts(&published).into_iter().filter(|(_, text)| is_bad(text));
                        bad.into_iter().all(|(part, _)| old.get(&part) == now.get(&part))
                    }
                    (_, Some(old), Some(now)) => !is_bad(&published) || old == now,
                    (_, Some(_), None) => false,
                };
                if !is_kept {
                    return Err(format!("{kind} was {old:?}, became {published:?}, and the client holds {now:?}"));
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..2_000 {
            if self.ask()? | self.serve()? | self.deliver()? {
                self.check()?;
                continue;
            }
            match self.stream.poll_timeout() {
                None => return Ok(()),
                Some(at) if at <= self.now => return Err("a deadline passed and nothing came of it".into()),
                Some(at) => self.sleep(at - self.now),
            }
        }
        Err("client and stream do not come to rest".into())
    }

    fn publish(&mut self) {
        let snapshot = self.mesh.publish();
        self.story.push(format!("publish {}", describe(&snapshot)));
        self.stream.handle_snapshot(self.now, snapshot.clone());
        self.snapshot = Some(snapshot);
    }

    fn serve(&mut self) -> Result<bool, String> {
        let response = self.stream.poll_response(self.now);
        self.take_outcomes();
        let Some(response) = response else { return Ok(false) };
        let kind = response.resource_type;
        let mut bytes = response.head.to_vec();
        response.body.pieces().iter().for_each(|piece| bytes.extend_from_slice(piece));
        let unanswered = self.unanswered.entry(kind).or_default();
        if !unanswered.is_empty() {
            return Err(format!("{kind} has a second response out while {unanswered:?} is unanswered"));
        }
        unanswered.insert(response.nonce.clone());
        self.story.push(format!("serve {kind} #{} {}", response.nonce, String::from_utf8_lossy(&bytes).escape_debug()));
        self.check_subscribed(kind, &bytes)?;
        let published = self.snapshot.clone().ok_or("nothing was published")?;
        self.to_client.push_back((kind, bytes, published));
        Ok(true)
    }

    /// Rule P-36: after an unsubscription that the stream has read, the name is not sent any more.
    fn check_subscribed(&self, kind: ResourceType, bytes: &[u8]) -> Result<(), String> {
        use prost::Message;
        use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
        if kind == ResourceType::VirtualHost {
            return self.check_has_route(bytes);
        }
        if kind.has_wildcard() {
            return Ok(());
        }
        let names: Vec<String> = match self.variant {
            Variant::StateOfTheWorld => {
                let response = DiscoveryResponse::decode(bytes).unwrap();
                let name = |value: &[u8]| crate::mesh::name_of(std::str::from_utf8(value).unwrap()).to_owned();
                response.resources.iter().map(|any| name(&any.value)).collect()
            }
            Variant::Delta => {
                let response = DeltaDiscoveryResponse::decode(bytes).unwrap();
                response.resources.into_iter().map(|r| r.name).chain(response.removed_resources).collect()
            }
        };
        match names.iter().find(|name| !self.known.get(&kind).is_some_and(|known| known.contains(*name))) {
            Some(name) => Err(format!("{kind} {name} is sent without a subscription")),
            None => Ok(()),
        }
    }

    /// Rule P-66: a virtual host goes to those who asked for its route configuration.
    fn check_has_route(&self, bytes: &[u8]) -> Result<(), String> {
        use prost::Message;
        use proto::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
        let routes = self.known.get(&ResourceType::Route);
        for resource in DeltaDiscoveryResponse::decode(bytes).unwrap().resources {
            let route = resource.name.split('/').next().unwrap();
            if !routes.is_some_and(|routes| routes.contains(route)) {
                return Err(format!("{} is sent to a client without its route configuration", resource.name));
            }
        }
        Ok(())
    }

    fn published_domains(snapshot: &Snapshot) -> BTreeSet<String> {
        let cells = snapshot.iter(ResourceType::VirtualHost);
        let of = |cell: &std::sync::Arc<snapshot::Cell>| {
            let value = String::from_utf8(cell.value().to_vec()).unwrap();
            let route = cell.name().split('/').next().unwrap().to_owned();
            domains(&value).map(|domain| format!("{route} {domain}")).collect::<Vec<_>>()
        };
        cells.flat_map(of).collect()
    }

    fn deliver(&mut self) -> Result<bool, String> {
        let Some((kind, bytes, snapshot)) = self.to_client.pop_front() else { return Ok(false) };
        self.story.push(format!("deliver {kind}"));
        let published = Self::published_domains(&snapshot);
        // Which domains a client came back with is not known, so the parts of what it then refuses may not go together.
        let is_known = !(self.client.rejected && self.connected.is_some());
        let before = self.client.domains().or_else(|why| if is_known { Err(why) } else { Ok(BTreeSet::new()) })?;
        self.client.receive(kind, &bytes, &snapshot)?;
        if kind == ResourceType::VirtualHost && !self.client.lenient && !self.client.refused_since {
            let after = self.client.domains()?;
            let routes = self.client.names(ResourceType::Route).unwrap();
            let is_kept = |domain: &&String| routes.contains(domain.split(' ').next().unwrap());
            let is_settled = |domain: &&String| !self.client.contested.contains(*domain);
            let mut lost = before.difference(&after).filter(is_kept).filter(is_settled);
            if let Some(lost) = lost.find(|domain| published.contains(*domain)) {
                return Err(format!("the domain {lost} has no virtual host for a while"));
            }
        }
        self.to_stream.extend(self.client.out.drain(..));
        Ok(true)
    }

    fn ask(&mut self) -> Result<bool, String> {
        self.to_stream.extend(self.client.out.drain(..));
        let Some(request) = self.to_stream.pop_front() else { return Ok(false) };
        let (url, nonce) = match &request {
            Request::StateOfTheWorld(r) => (&r.type_url, &r.response_nonce),
            Request::Delta(r) => (&r.type_url, &r.response_nonce),
        };
        let kind = ResourceType::from_type_url(url).unwrap();
        self.unanswered.entry(kind).or_default().remove(nonce);
        let known = self.known.entry(kind).or_default();
        match &request {
            Request::StateOfTheWorld(r) => {
                self.story.push(format!(
                    "ask {kind} {:?} nonce {:?} error {}",
                    r.resource_names,
                    nonce,
                    r.error_detail.is_some()
                ));
                *known = r.resource_names.iter().cloned().collect();
                if known.is_empty() && !is_wild(kind) {
                    self.unanswered.entry(kind).or_default().clear();
                }
            }
            Request::Delta(r) => {
                self.story.push(format!(
                    "ask {kind} +{:?} -{:?} initial {:?} nonce {:?} error {}",
                    r.resource_names_subscribe,
                    r.resource_names_unsubscribe,
                    r.initial_resource_versions,
                    nonce,
                    r.error_detail.is_some()
                ));
                known.extend(r.resource_names_subscribe.iter().cloned());
                if !is_wild(kind) {
                    known.extend(r.initial_resource_versions.keys().cloned());
                }
                r.resource_names_unsubscribe.iter().for_each(|name| _ = known.remove(name));
                if known.is_empty() && !is_wild(kind) {
                    self.unanswered.entry(kind).or_default().clear();
                }
            }
        }
        self.stream.handle_request(self.now, request).map_err(|refusal| refusal.to_string())?;
        self.take_outcomes();
        Ok(true)
    }

    fn sleep(&mut self, time: Duration) {
        self.story.push(format!("sleep {time:?}"));
        self.now += time;
        if time >= Duration::from_secs(15) {
            self.client.end_warming();
        }
        // A returning client that takes longer to ask for all it holds is taken to hold nothing more.
        self.client.lenient |= self.connected.is_some_and(|at| self.now >= at + Settings::default().order_wait);
        self.stream.handle_timeout(self.now);
        self.take_outcomes();
    }

    fn reconnect(&mut self, endpoints_first: bool) {
        self.story.push("reconnect".into());
        self.connected = Some(self.now);
        self.to_client.clear();
        self.to_stream.clear();
        self.unanswered.clear();
        self.known.clear();
        self.stream = Stream::new(self.variant, Service::Aggregated, Settings::default());
        if let Some(snapshot) = &self.snapshot {
            self.stream.handle_snapshot(self.now, snapshot.clone());
        }
        self.client.connect(endpoints_first);
    }

    fn take_outcomes(&mut self) {
        while let Some(outcome) = self.stream.poll_outcome() {
            match outcome {
                Outcome::WaitExpired { .. } => self.client.lenient = true,
                Outcome::Overdue { resource_type, nonce } => {
                    self.client.lenient = true;
                    self.unanswered.entry(resource_type).or_default().remove(&nonce);
                }
                _ => {}
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        match self.client.broken_path() {
            Some(broken) if !self.client.lenient => Err(broken),
            _ => Ok(()),
        }
    }
}

fn describe(snapshot: &Snapshot) -> String {
    let cells = TYPES.into_iter().flat_map(|kind| snapshot.iter(kind).map(move |cell| (kind, cell)));
    cells
        .map(|(kind, cell)| format!("{kind}[{}]", String::from_utf8_lossy(&cell.value())))
        .collect::<Vec<_>>()
        .join(" ")
}
