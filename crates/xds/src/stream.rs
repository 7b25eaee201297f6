//! One discovery stream.

mod flight;
mod hosts;
mod interest;
mod isolation;
mod name_set;
mod order;
mod plan;
mod subscription;
mod substream;
mod view;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use proto::pb::envoy::config::core::v3 as core;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use proto::pb::google::rpc::Status;
use proto::{ResourceType, xdstp};
use snapshot::{Body, Cell, Name, Snapshot, Version};

pub(crate) use self::flight::Contents;
use self::flight::Flight;
use self::hosts::Scope;
pub(crate) use self::interest::Interest;
use self::isolation::Turn;
use self::order::{ORDER, Order, assignments};
use self::plan::{Plan, Planner};
use self::substream::{Applied, Substream};
use crate::response::Head;
use crate::{Holding, Node, Outcome, Refusal, Request, Response, Service, Settings, Standing, Summary, Variant};

type Substreams = [Option<Box<Substream>>; ResourceType::ALL.len()];

/// The server's end of one stream. Feed it with the `handle_` methods, then drain `poll_response` and `poll_outcome`
/// until both return `None`, and come back at `poll_timeout` at the latest.
#[derive(Debug)]
pub struct Stream {
    variant: Variant,
    service: Service,
    settings: Settings,
    node: Option<Arc<Node>>,
    snapshot: Option<Snapshot>,
    substreams: Substreams,
    /// Shared by all types, so that no nonce is used twice on the stream (rule P-11).
    last_nonce: u64,
    outcomes: VecDeque<Outcome>,
    /// Until when a client that came with resources from an earlier stream may still ask for the types it uses. Envoy
    /// asks for all of them at once.
    returning_until: Option<Instant>,
    /// Assignments that a returning client holds in their newest form together with the cluster they belong to.
    trusted_assignments: BTreeSet<Name>,
    /// Route configurations that a returning client was sent before it said which virtual hosts it holds.
    renewed_routes: BTreeSet<Name>,
}

enum Step {
    Sent(Response),
    /// Nothing to send, but other types may go on now.
    Moved,
    Idle,
}

impl Stream {
    /// A stream on which nothing was said yet.
    pub fn new(variant: Variant, service: Service, settings: Settings) -> Self {
        Self {
            variant,
            service,
            settings,
            node: None,
            snapshot: None,
            substreams: Substreams::default(),
            last_nonce: 0,
            outcomes: VecDeque::new(),
            returning_until: None,
            trusted_assignments: BTreeSet::new(),
            renewed_routes: BTreeSet::new(),
        }
    }

    /// Takes in a message from the client.
    ///
    /// # Errors
    /// The stream must be closed with the refusal's status: the first message says no node id (rule P-08), a type URL
    /// is missing or not this service's (rule P-02), or a limit is exceeded.
    pub fn handle_request(&mut self, now: Instant, request: Request) -> Result<(), Refusal> {
        match (self.variant, request) {
            (Variant::StateOfTheWorld, Request::StateOfTheWorld(request)) => self.handle_sotw(now, request),
            (Variant::Delta, Request::Delta(request)) => self.handle_delta(now, request),
            (Variant::StateOfTheWorld, Request::Delta(_)) | (Variant::Delta, Request::StateOfTheWorld(_)) => {
                Err(Refusal::invalid("the request belongs to the other variant of the protocol"))
            }
        }
    }

    /// Takes in what is published now. Until the first snapshot requests wait: what is not loaded yet must not look
    /// like nothing (rule P-42). A snapshot that was not delivered yet is skipped, and the order starts again with
    /// the clusters of the newest (rule P-61).
    pub fn handle_snapshot(&mut self, _now: Instant, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    /// Lets time pass. Resources whose waits are over are handed out by the next `poll_response`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut cold = false;
        for substream in self.substreams.iter_mut().flatten() {
            let resource_type = substream.resource_type();
            for flight in substream.flights.iter_mut().filter(|flight| !flight.overdue) {
                if now < flight.sent_at + self.settings.acknowledgement_wait {
                    continue;
                }
                flight.overdue = true;
                cold |= flight.first && resource_type == ResourceType::Cluster;
                self.outcomes.push_back(Outcome::Overdue { resource_type, nonce: flight.nonce.clone() });
            }
        }
        if cold {
            // A returning client that does not acknowledge its clusters has one that is not warm: the assignment that
            // it says it holds may be older than the cluster (rule P-50). So it gets all of them after all.
            let trusted = std::mem::take(&mut self.trusted_assignments);
            self.repeat_assignments(trusted.iter());
        }
    }

    /// The next message for the client, computed from the newest snapshot; `None` when nothing is owed now.
    pub fn poll_response(&mut self, now: Instant) -> Option<Response> {
        let target = self.snapshot.clone()?;
        self.end_lingering(&target, now);
        if let Some(heartbeats) = self.heartbeats(now) {
            return Some(heartbeats);
        }
        loop {
            let mut moved = self.is_returning(now) && self.learn(&target);
            for resource_type in ORDER {
                match self.step(resource_type, &target, now) {
                    Step::Sent(response) => return Some(response),
                    Step::Moved => moved = true,
                    Step::Idle => {}
                }
            }
            if !moved {
                return None;
            }
        }
    }

    /// What happened since the last call, oldest first, one at a time.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// When `handle_timeout` and `poll_response` must be called again even if nothing comes in.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_types = self.substreams.iter().flatten().filter_map(|substream| substream.deadline(&self.settings));
        of_types.chain(self.hosts_wait_until()).min()
    }

    /// Who the client is; `None` before its first request.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// Exactly what the client was sent and still subscribes to, by type in the order of `ResourceType::ALL`.
    pub fn holdings(&self) -> Vec<Holding> {
        self.standings().iter().flat_map(Standing::holdings).collect()
    }

    /// The same in a form that costs little when the client is in step, in the same order.
    pub fn standings(&self) -> Vec<Standing> {
        let standing = |substream: &Substream| {
            let scope = Scope::new(substream.resource_type(), self.service, &self.substreams);
            substream.standing(scope, self.snapshot.as_ref())
        };
        self.substreams.iter().flatten().map(|substream| standing(substream)).collect()
    }

    /// Names that the client asks for and that do not exist, in the order of `ResourceType::ALL`, then of the name.
    pub fn missing(&self) -> Vec<(ResourceType, Name)> {
        let substreams = self.substreams.iter().flatten();
        substreams.flat_map(|s| s.missing().map(|name| (s.resource_type(), name.clone()))).collect()
    }

    /// Whether nothing is awaited: every response was answered, and no resource waits for another.
    pub fn is_at_rest(&self) -> bool {
        self.substreams.iter().flatten().all(|substream| substream.flights.is_empty() && substream.waits.is_empty())
    }

    /// Whether the client refuses anything of what it was sent.
    pub fn is_refused(&self) -> bool {
        self.substreams.iter().flatten().any(|substream| substream.refused() > 0)
    }

    /// How each type that was asked for stands, in the order of `ResourceType::ALL`.
    pub fn summary(&self) -> Vec<Summary> {
        self.substreams.iter().flatten().map(|substream| substream.summary()).collect()
    }

    fn handle_sotw(&mut self, now: Instant, request: DiscoveryRequest) -> Result<(), Refusal> {
        self.identify(request.node)?;
        let Some(resource_type) = self.resource_type(&request.type_url)? else { return Ok(()) };
        self.check_names(resource_type, &Interest::default(), request.resource_names.iter())?;
        let snapshot = self.snapshot.clone();
        let first = self.substreams[resource_type.index()].is_none();
        let substream = self.substream(resource_type);
        substream.returning |= first && !request.version_info.is_empty();
        let amendment = substream
            .subscription
            .replace(resource_type, &request.resource_names, |name| intern(&snapshot, resource_type, name));
        self.acknowledge(now, resource_type, &request.response_nonce, request.error_detail, &request.version_info);
        if let Some(amendment) = amendment {
            let substream = self.substream(resource_type);
            substream.follow(amendment, BTreeMap::new());
            self.report_subscription(resource_type);
        }
        Ok(())
    }

    fn handle_delta(&mut self, now: Instant, request: DeltaDiscoveryRequest) -> Result<(), Refusal> {
        self.identify(request.node)?;
        let Some(resource_type) = self.resource_type(&request.type_url)? else { return Ok(()) };
        let first = self.substreams[resource_type.index()].is_none();
        let subscribed = self.substreams[resource_type.index()].as_ref().map(|s| s.subscription.interest().clone());
        let claimed = if first { Some(request.initial_resource_versions.keys()) } else { None };
        let asked = request.resource_names_subscribe.iter().chain(claimed.into_iter().flatten());
        self.check_names(resource_type, &subscribed.unwrap_or_default(), asked)?;
        let snapshot = self.snapshot.clone();
        self.acknowledge(now, resource_type, &request.response_nonce, request.error_detail, "");
        let substream = self.substream(resource_type);
        let amendment = substream.subscription.amend(
            resource_type,
            first,
            &request.resource_names_subscribe,
            &request.resource_names_unsubscribe,
            |name| intern(&snapshot, resource_type, name),
        );
        // Rule P-49: versions from an earlier stream come with the first request of a type, and only then.
        let mut claims = BTreeMap::new();
        if first {
            for (name, version) in request.initial_resource_versions {
                let name = intern(&snapshot, resource_type, &xdstp::canonical(&name));
                if !substream.subscription.covers(&name) {
                    substream.subscription.insert(name.clone());
                }
                claims.insert(name, Version::parse(&version));
            }
        }
        if !claims.is_empty() && self.service == Service::Aggregated {
            self.returning_until.get_or_insert(now + self.settings.order_wait);
        }
        let substream = self.substream(resource_type);
        let changed = first || !amendment.is_empty(&substream.subscription);
        if changed {
            substream.follow(amendment, claims);
            self.report_subscription(resource_type);
        }
        Ok(())
    }

    /// Binds the stream to the node of its first message (rules P-07 to P-09).
    fn identify(&mut self, node: Option<core::Node>) -> Result<(), Refusal> {
        let node = node.filter(|node| !node.id.is_empty());
        match (&mut self.node, node) {
            (None, None) => Err(Refusal::invalid("the first request of a stream must hold a node with an id")),
            (None, Some(node)) => {
                let node = Arc::new(Node::from_message(node));
                self.node = Some(node.clone());
                self.outcomes.push_back(Outcome::Identified(node));
                Ok(())
            }
            (Some(known), Some(node)) => {
                let parameters = crate::node::parameters(&node);
                if known.dynamic_parameters != parameters {
                    Arc::make_mut(known).dynamic_parameters = parameters;
                    self.outcomes.push_back(Outcome::ParametersChanged(known.clone()));
                }
                Ok(())
            }
            (Some(_), None) => Ok(()),
        }
    }

    /// The type that a request is about; `None` when it is unknown, which must not hurt the other types (rule P-05).
    fn resource_type(&mut self, type_url: &str) -> Result<Option<ResourceType>, Refusal> {
        match (self.service, type_url) {
            (Service::Only(own), "") => Ok(Some(own)),
            (Service::Only(own), url) if url == own.type_url() => Ok(Some(own)),
            (Service::Only(own), url) => Err(Refusal::invalid(format!(
                "type URL \"{url}\" asked for on the service of \"{}\"; ask for it on its own or on the aggregated service",
                own.type_url()
            ))),
            (Service::Aggregated, "") => {
                Err(Refusal::invalid("a request on the aggregated service must hold a type URL"))
            }
            (Service::Aggregated, url) => {
                let known = ResourceType::from_type_url(url);
                if known.is_none() {
                    self.outcomes.push_back(Outcome::UnknownType { type_url: url.to_owned() });
                }
                Ok(known)
            }
        }
    }

    /// Whether the stream may have these names of a type, beside those that it keeps.
    fn check_names<'n>(
        &self,
        resource_type: ResourceType,
        kept: &Interest,
        asked: impl Iterator<Item = &'n String>,
    ) -> Result<(), Refusal> {
        let (mut count, mut bytes) = (kept.len(), kept.bytes());
        asked.for_each(|name| {
            count += 1;
            bytes += name.len();
        });
        let Settings { max_names, max_name_bytes, .. } = self.settings;
        if count > max_names {
            return Err(Refusal::exhausted(format!(
                "subscription to {count} names of one type; at most {max_names} are allowed"
            )));
        }
        let others = self.substreams.iter().flatten().filter(|other| other.resource_type() != resource_type);
        bytes += others.map(|other| other.subscription.interest().bytes()).sum::<usize>();
        if bytes > max_name_bytes {
            return Err(Refusal::exhausted(format!(
                "subscription to names of {bytes} bytes; at most {max_name_bytes} are allowed on a stream"
            )));
        }
        Ok(())
    }

    fn substream(&mut self, resource_type: ResourceType) -> &mut Substream {
        self.substreams[resource_type.index()].get_or_insert_with(|| Box::new(Substream::new(resource_type)))
    }

    /// Books an acceptance or a rejection. Only a nonce that is awaited means either (rules P-12, P-21, P-22), and
    /// only an error means rejection (rule P-13).
    fn acknowledge(
        &mut self,
        now: Instant,
        resource_type: ResourceType,
        nonce: &str,
        error: Option<Status>,
        version: &str,
    ) {
        let grpc = self.node.as_ref().is_some_and(|node| node.is_grpc());
        let substream = self.substream(resource_type);
        let Some(mut index) = substream.flights.iter().position(|flight| flight.nonce == nonce) else {
            if error.is_some() {
                substream.heartbeats_refused(nonce);
            }
            return;
        };
        if let Some(error) = error {
            // Envoy 1.40 was seen to keep a rejection of clusters to itself while one of them warms, and to attach it
            // to the acknowledgement of the next response, whose version it names as the accepted one.
            let belongs_to_older = index > 0 && substream.flights[index].version.to_string() == version;
            let refused = if belongs_to_older { index - 1 } else { index };
            let applied = Applied::by(&error.message, grpc);
            let is_superseded = belongs_to_older && substream.flights[index].full_state;
            let error = (error.code, &*error.message);
            let outcomes = substream.reject(refused, error, applied, is_superseded, now);
            self.outcomes.extend(outcomes);
            if !belongs_to_older {
                self.substream(resource_type).flights.drain(..refused);
                self.forget_trusted_assignments();
                return;
            }
            index -= 1;
        }
        let (flight, outcomes) = self.substream(resource_type).accept(index, now);
        self.forget_trusted_assignments();
        self.outcomes.push_back(Outcome::Accepted {
            resource_type,
            nonce: flight.nonce,
            version: flight.version,
            after: now.saturating_duration_since(flight.sent_at),
        });
        self.outcomes.extend(outcomes);
    }

    fn report_subscription(&mut self, resource_type: ResourceType) {
        let subscription = &self.substream(resource_type).subscription;
        let (wildcard, names) = (subscription.wildcard(), subscription.len());
        self.outcomes.push_back(Outcome::Subscribed { resource_type, wildcard, names });
    }

    /// Brings one type closer to `target`, if its last response does not keep it back.
    fn step(&mut self, resource_type: ResourceType, target: &Snapshot, now: Instant) -> Step {
        let Some(substream) = &mut self.substreams[resource_type.index()] else { return Step::Idle };
        if substream.is_in_step(target) || substream.subscription.is_empty() || substream.is_blocked() {
            return Step::Idle;
        }
        self.judge(resource_type, target);
        if resource_type == ResourceType::VirtualHost && self.hosts_must_wait(now) {
            return Step::Idle;
        }
        self.resolve_claims(resource_type, target, now);
        let substream = self.substream(resource_type);
        substream.resolve_collections(target);
        if !substream.must_answer && substream.view.matches(resource_type, target) {
            // The newest snapshot of equal content, so that an old one is not kept alive by a type that rests.
            substream.view.base = Some(target.clone());
            return Step::Idle;
        }
        let (mut rest, mut is_stuck) = (None, false);
        for turn in substream.turns() {
            let Some(substream) = self.substreams[resource_type.index()].as_deref() else { return Step::Idle };
            let planner = Planner {
                variant: self.variant,
                resource_type,
                substream,
                scope: Scope::new(resource_type, self.service, &self.substreams),
                order: Order::new(resource_type, self.is_returning(now), &self.substreams, target),
                target,
                settings: &self.settings,
                now,
                ttls: self.ttls(),
                tell_missing: self.node.as_ref().is_some_and(|node| node.is_grpc()),
                turn: *turn,
                tried_domains: OnceCell::new(),
            };
            let plan = planner.plan();
            let held_up = planner.is_first_full_state() && !plan.waits.is_empty();
            let must_answer = *turn == Turn::Ordinary && substream.must_answer && plan.waits.is_empty();
            if !held_up && (plan.is_news() || must_answer) {
                let full_state = planner.is_full_state();
                let (version, body, changed) = (plan.version(&planner), plan.body(&planner), plan.changed(&planner));
                let draft = Draft { turn: *turn, version, body, changed, full_state };
                return Step::Sent(self.send(resource_type, target, now, plan, draft));
            }
            match turn {
                Turn::Ordinary => rest = Some((plan, held_up)),
                Turn::Trial => is_stuck = true,
            }
        }
        let step = rest.map_or(Step::Idle, |(plan, held_up)| self.rest(resource_type, target, plan, held_up));
        if !is_stuck {
            return step;
        }
        let outcomes = self.substream(resource_type).skip_trial();
        self.outcomes.extend(outcomes);
        Step::Moved
    }

    /// Compares what the client refuses of a type with what is wanted now.
    fn judge(&mut self, resource_type: ResourceType, target: &Snapshot) {
        let Some(mut isolation) = self.substream(resource_type).isolation.take() else { return };
        let substream = self.substream(resource_type);
        let is_awaited = |nonce: &str| substream.flights.iter().any(|flight| flight.nonce == nonce && !flight.overdue);
        if isolation.trial().is_some_and(|nonce| !is_awaited(nonce)) {
            isolation.lose_trial();
        }
        let scope = Scope::new(resource_type, self.service, &self.substreams);
        let subscription = self.substreams[resource_type.index()].as_ref().map(|substream| &substream.subscription);
        let is_owed = |name: &str| scope.holds(name) && subscription.is_some_and(|asked| asked.covers(name));
        let outcomes = isolation.judge(resource_type, target, is_owed);
        self.outcomes.extend(outcomes);
        self.substream(resource_type).keep(isolation);
    }

    /// Whether the client knows of TTLs (rule P-63).
    fn ttls(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.knows_ttls(self.variant))
    }

    /// The next heartbeats that are due, of one type. They wait for no acknowledgement, because a client may keep one
    /// back for as long as it warms (rule P-18).
    fn heartbeats(&mut self, now: Instant) -> Option<Response> {
        for resource_type in ORDER {
            let Some(substream) = self.substreams[resource_type.index()].as_deref_mut() else { continue };
            if !substream.has_heartbeats() {
                continue;
            }
            let due = substream.take_due(self.variant, now);
            let body = Body::join(&due.iter().filter_map(|cell| cell.heartbeat_entry()).collect::<Vec<_>>());
            if body.is_empty() {
                continue;
            }
            let version = substream.sent_version();
            self.last_nonce += 1;
            let nonce = self.last_nonce.to_string();
            self.substream(resource_type).heartbeats_sent(nonce.clone(), &due);
            let head = Head {
                variant: self.variant,
                resource_type,
                version,
                nonce: &nonce,
                control_plane: &self.settings.control_plane,
                removed: &[],
                missing: &[],
            }
            .encode();
            let response = Response { resource_type, nonce: nonce.clone(), version, head, body };
            let bytes = response.len();
            self.outcomes.push_back(Outcome::Sent { resource_type, nonce, version, changed: 0, removed: 0, bytes });
            return Some(response);
        }
        None
    }

    fn is_returning(&self, now: Instant) -> bool {
        self.returning_until.is_some_and(|until| now < until)
    }

    /// Notes which types are up to date, so that nothing from an earlier stream is left in them. True for news.
    fn learn(&mut self, target: &Snapshot) -> bool {
        let up_to_date = |substream: &Substream| {
            let unknown = !substream.known && !substream.subscription.is_empty();
            unknown
                && substream.is_settled(target)
                // A listener from an earlier stream serves until its replacement does.
                && (substream.resource_type() != ResourceType::Listener
                    || target
                        .iter(ResourceType::Listener)
                        .filter(|cell| substream.subscription.covers(cell.name()))
                        .all(|cell| order::is_ready(&self.substreams, target, cell.name())))
        };
        let news: Vec<_> =
            self.substreams.iter().flatten().filter(|s| up_to_date(s)).map(|s| s.resource_type()).collect();
        for resource_type in &news {
            self.substream(*resource_type).known = true;
        }
        !news.is_empty()
    }

    /// Lets go of listeners that serve no more. Envoy acknowledges a changed listener at once, but goes on with the old
    /// one until the new one has its routes, filters and secrets.
    fn end_lingering(&mut self, target: &Snapshot, now: Instant) {
        let Some(listeners) = self.substreams[ResourceType::Listener.index()].as_deref() else { return };
        if listeners.lingering.is_empty() {
            return;
        }
        let serves = |(old, since): &(Arc<Cell>, Instant)| {
            now < *since + self.settings.order_wait && !order::is_ready(&self.substreams, target, old.name())
        };
        let kept = listeners.lingering.iter().filter(|lingering| serves(lingering)).cloned().collect();
        self.substream(ResourceType::Listener).lingering = kept;
    }

    /// Books a plan that says nothing.
    fn rest(&mut self, resource_type: ResourceType, target: &Snapshot, plan: Plan, held_up: bool) -> Step {
        self.report_waits(resource_type, &plan);
        let substream = self.substream(resource_type);
        substream.waits = plan.waits;
        if held_up {
            return Step::Idle;
        }
        // Whatever this type no longer owes may set others free.
        let moved = substream.view.exceptions.len() != plan.keep.len()
            || substream
                .view
                .base
                .as_ref()
                .is_none_or(|base| base.version(resource_type) != target.version(resource_type));
        substream.view.base = Some(target.clone());
        substream.view.exceptions = plan.keep;
        if moved { Step::Moved } else { Step::Idle }
    }

    fn send(
        &mut self,
        resource_type: ResourceType,
        target: &Snapshot,
        now: Instant,
        mut plan: Plan,
        draft: Draft,
    ) -> Response {
        self.last_nonce += 1;
        let nonce = self.last_nonce.to_string();
        let head = Head {
            variant: self.variant,
            resource_type,
            version: draft.version,
            nonce: &nonce,
            control_plane: &self.settings.control_plane,
            removed: if self.variant == Variant::Delta { &plan.remove } else { &[] },
            missing: &plan.missing,
        }
        .encode();
        let response = Response { resource_type, nonce: nonce.clone(), version: draft.version, head, body: draft.body };
        self.report_waits(resource_type, &plan);
        self.outcomes.push_back(Outcome::Sent {
            resource_type,
            nonce: nonce.clone(),
            version: draft.version,
            changed: draft.changed,
            removed: plan.remove.len(),
            bytes: response.len(),
        });
        match resource_type {
            ResourceType::Cluster => self.mark_assignments(&plan, target),
            ResourceType::Route => self.mark_hosts(&plan, target),
            _ => {}
        }
        let (contents, fresh) = plan.contents(target);
        let ttls = self.ttls();
        let substream = self.substream(resource_type);
        let number = substream.responses + 1;
        if ttls {
            substream.tell(contents.iter(resource_type), now);
        }
        let removed = plan.remove.into_iter().map(|name| (name.clone(), substream.view.held(resource_type, &name)));
        let removed = removed.collect();
        substream.view.base = Some(target.clone());
        substream.view.exceptions = plan.keep;
        substream.waits = plan.waits;
        let flight = Flight {
            nonce,
            number,
            version: draft.version,
            sent_at: now,
            contents,
            fresh,
            replaced: plan.replaced,
            doubtful: plan.doubtful,
            removed,
            overdue: false,
            full_state: draft.full_state,
            first: number == 1,
        };
        substream.depart(draft.turn, flight);
        response
    }

    /// Rule P-55: a cluster that changed waits for its assignment to come once more, after it, even if the endpoints
    /// stayed the same. Rule P-56 follows: what is marked now is only cleared by sending it from now on.
    fn mark_assignments(&mut self, plan: &Plan, target: &Snapshot) {
        if self.substreams[ResourceType::Endpoints.index()].is_none() {
            return;
        }
        let changed: Vec<Name> = if plan.is_whole() {
            target.iter(ResourceType::Cluster).flat_map(assignments).cloned().collect()
        } else {
            plan.send.iter().flat_map(assignments).cloned().collect()
        };
        self.repeat_assignments(changed.iter());
    }

    fn repeat_assignments<'a>(&mut self, names: impl Iterator<Item = &'a Name>) {
        if let Some(endpoints) = &mut self.substreams[ResourceType::Endpoints.index()] {
            for name in names.filter(|name| endpoints.subscription.covers(name)).cloned().collect::<Vec<_>>() {
                endpoints.repeat_name(name);
            }
        }
    }

    /// Compares what a returning client says it holds with the snapshot (rule P-49).
    ///
    /// An assignment of equal version is not sent again if the client came with the newest version of its cluster,
    /// too (rule P-50): then nothing of it changed while the client was away. What remains is a cluster that was
    /// replaced just before the connection broke and still waits for its assignment; Envoy shows it by not
    /// acknowledging its clusters, and `handle_timeout` acts on that.
    fn resolve_claims(&mut self, resource_type: ResourceType, target: &Snapshot, now: Instant) {
        let has_claims = self.substreams[resource_type.index()].as_ref().is_some_and(|s| s.has_claims());
        if !has_claims && self.trusted_assignments.is_empty() && self.renewed_routes.is_empty() {
            return;
        }
        let trusted = std::mem::take(&mut self.trusted_assignments);
        let renewed = if resource_type == ResourceType::VirtualHost {
            std::mem::take(&mut self.renewed_routes)
        } else {
            BTreeSet::new()
        };
        let is_trusted = |name: &str| match resource_type {
            ResourceType::Endpoints => trusted.contains(name),
            ResourceType::VirtualHost => !snapshot::parent(name).is_some_and(|route| renewed.contains(route)),
            _ => true,
        };
        let current = self.substream(resource_type).resolve_claims(target, is_trusted);
        self.trusted_assignments = trusted;
        if self.ttls() {
            self.substream(resource_type).tell_soon(&current, now);
        }
        match resource_type {
            // Assignments that were asked for earlier were not trusted.
            ResourceType::Cluster if !self.was_served(ResourceType::Endpoints) => {
                self.trusted_assignments.extend(current.iter().flat_map(assignments).cloned());
            }
            ResourceType::Endpoints => self.forget_trusted_assignments(),
            _ => {}
        }
    }

    /// Trust is of use until assignments were asked for, and until the first clusters are acknowledged.
    fn was_served(&self, resource_type: ResourceType) -> bool {
        self.substreams[resource_type.index()].as_ref().is_some_and(|substream| substream.view.base.is_some())
    }

    fn forget_trusted_assignments(&mut self) {
        let awaited = |clusters: &Substream| clusters.responses == 0 || clusters.flights.iter().any(|f| f.first);
        let clusters_awaited = self.substreams[ResourceType::Cluster.index()].as_deref().is_some_and(awaited);
        let asked = self.substreams[ResourceType::Endpoints.index()].is_some();
        if asked && !clusters_awaited && !self.trusted_assignments.is_empty() {
            self.trusted_assignments = BTreeSet::new();
        }
    }

    fn report_waits(&mut self, resource_type: ResourceType, plan: &Plan) {
        if let Some(wait) = plan.begun.first() {
            self.outcomes.push_back(Outcome::Waiting { resource_type, count: plan.begun.len(), wait: wait.clone() });
        }
        if let Some(wait) = plan.expired.first() {
            let count = plan.expired.len();
            self.outcomes.push_back(Outcome::WaitExpired { resource_type, count, wait: wait.clone() });
        }
    }
}

/// The parts of a response that are worked out while the stream is only looked at.
struct Draft {
    turn: Turn,
    version: Version,
    body: Body,
    changed: usize,
    full_state: bool,
}

/// The snapshot's own name where there is one, so that streams share it.
fn intern(snapshot: &Option<Snapshot>, resource_type: ResourceType, name: &str) -> Name {
    match snapshot.as_ref().and_then(|snapshot| snapshot.get(resource_type, name)) {
        Some(cell) => cell.name().clone(),
        None => name.into(),
    }
}
