//! One discovery stream, as a part of its connection's task.
//!
//! ```text
//! first request ──▶ turn (admission) ──▶ attached to an audience ──▶ snapshots ──▶ end
//!        requests are taken in all the time; responses begin with the first snapshot
//! ```
//!
//! It decides nothing about the protocol: events go to [`xds::Stream`], and what that owes goes to the client, one
//! response at a time, made when there is room for it. So what waits to be written is one response at most, and the
//! next one is of the newest snapshot.

mod accounts;

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http2::StreamId;
use plane::NodeError;
use proto::ResourceType;
use snapshot::Snapshot;
use tonic::{Code, Status};
use xds::{Node, Outcome, Service, Variant, Wait};

use super::admission::Turn;
use super::call::has_room;
use super::documents::Documents;
use super::node::{distribution_version, host_delivery, plane_node};
use super::proof::{Admitted, Admitting, Proof};
use super::roster::{Inspection, Place};
use super::secrets::Secrets;
use super::{Connection, Discovery, witness};
use crate::Stopped;
use crate::grpc::{self, Requests};
use crate::metrics::StreamLabel;
use crate::plane_task::{Attachment, Interest, Published};
use crate::trust::{Caller, Tenure};

type Entering = Pin<Box<dyn Future<Output = Entered> + Send>>;
type Entered = (Turn, Result<Result<Attachment, NodeError>, Stopped>);

/// A stream, its client, and its part in an audience.
pub(super) struct StreamTask {
    discovery: Arc<Discovery>,
    connection: Arc<Connection>,
    service: Service,
    variant: Variant,
    label: StreamLabel,
    machine: xds::Stream,
    requests: Requests,
    place: Place,
    opened: Instant,
    node: Option<Arc<Node>>,
    /// What a client over TLS brings, until it says who it is.
    proof: Option<Box<Proof>>,
    /// While somebody else is asked who that is. What else the client has said waits for it.
    proving: Option<Box<(Arc<Node>, Admitting)>>,
    /// Who a client over TLS has proved to be.
    caller: Option<Arc<Caller>>,
    /// How long the proof holds, where that may be over before the connection is.
    tenure: Option<Box<Tenure>>,
    /// What only such a client gets.
    secrets: Option<Box<Secrets>>,
    /// On the way into an audience.
    entering: Option<Entering>,
    attachment: Option<Attachment>,
    /// The newest snapshot that the machine knows.
    target: Option<Published>,
    /// The stream's turn among first responses, given up when the first was taken, or when that takes too long.
    turn: Option<(Turn, Instant)>,
    /// The response that HTTP/2 has not taken all of yet.
    underway: Option<Underway>,
    /// The change that the client has not got all of yet.
    /// With when the change was seen; the first snapshot of a stream follows from none.
    converging: Option<Option<Instant>>,
    has_sent: bool,
    /// Any response was sent.
    has_responded: bool,
    /// The client has said that it asks nothing more.
    is_half_closed: bool,
    /// Something came in that may make a response due.
    has_news: bool,
    /// The assignments of endpoints that the plane was told that the client asks for.
    told_wants: Option<Option<[(usize, u64); 2]>>,
}

/// A response on its way into HTTP/2.
#[derive(Clone, Copy)]
struct Underway {
    resource_type: ResourceType,
    begun: Instant,
    made: Instant,
}

/// What a stream waits for beside requests.
enum Event {
    Proved(Arc<Node>, Result<Arc<Caller>, Status>),
    Entered(Entered),
    Published(Published),
    Inspected(Inspection),
}

/// Why a stream is over.
pub(super) enum End {
    /// The client left.
    Gone,
    /// This side ends it.
    Status(Status),
}

impl StreamTask {
    pub(super) fn new(
        discovery: Arc<Discovery>,
        connection: Arc<Connection>,
        service: Service,
        variant: Variant,
        proof: Option<Proof>,
    ) -> Self {
        let label = StreamLabel::of(service, variant);
        discovery.metrics.stream_opened(&label);
        let requests = Requests::new(discovery.config.limits.max_request_bytes);
        Self {
            machine: xds::Stream::new(variant, service, discovery.config.streams.clone()),
            place: discovery.roster.enter(connection.clone(), service, variant),
            discovery,
            connection,
            service,
            variant,
            label,
            requests,
            opened: Instant::now(),
            node: None,
            proof: proof.map(Box::new),
            proving: None,
            caller: None,
            tenure: None,
            secrets: None,
            entering: None,
            attachment: None,
            target: None,
            turn: None,
            underway: None,
            converging: None,
            has_sent: false,
            has_responded: false,
            is_half_closed: false,
            has_news: false,
            told_wants: None,
        }
    }

    /// Takes in data of the client.
    pub(super) fn receive(&mut self, mut data: &[u8]) -> ControlFlow<End> {
        let now = Instant::now();
        loop {
            let request = match self.variant {
                Variant::StateOfTheWorld => {
                    self.requests.next(&mut data).map(|message| message.map(xds::Request::StateOfTheWorld))
                }
                Variant::Delta => self.requests.next(&mut data).map(|message| message.map(xds::Request::Delta)),
            };
            match request {
                Ok(Some(request)) => {
                    self.has_news = true;
                    if let Err(refusal) = self.machine.handle_request(now, request) {
                        return end_with(refusal.code as i32, refusal.message);
                    }
                }
                Ok(None) => return ControlFlow::Continue(()),
                Err(status) => return ControlFlow::Break(End::Status(status)),
            }
        }
    }

    /// The client has said that it asks nothing more.
    pub(super) fn half_close(&mut self) -> ControlFlow<End> {
        if self.requests.is_in_message() {
            return end_with(Code::InvalidArgument as i32, "the last request message is incomplete".to_owned());
        }
        (self.is_half_closed, self.has_news) = (true, true);
        ControlFlow::Continue(())
    }

    /// Bytes of a request that has come in part.
    pub(super) fn partial(&self) -> usize {
        self.requests.held_bytes()
    }

    /// Takes in whatever has come for it, and sends what is owed while there is room.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        http2: &mut http2::Connection,
        stream: StreamId,
    ) -> ControlFlow<End> {
        loop {
            if let Some(status) = self.tenure.as_mut().and_then(|tenure| tenure.poll(cx, Instant::now())) {
                tracing::info!(node = self.id(), message = status.message(), "the proof of a client is over");
                return ControlFlow::Break(End::Status(status));
            }
            while let Poll::Ready(event) = self.poll_event(cx) {
                self.take_in(event)?;
            }
            if self.underway.is_some() && http2.is_sent(stream) {
                self.taken();
            }
            if self.awaits_secrets(cx) {
                return ControlFlow::Continue(());
            }
            if !self.has_news {
                return ControlFlow::Continue(());
            }
            self.carry_out(http2, stream)?;
            // A client that has just said who it is has set out for its audience, or is being asked about.
            if self.has_news || self.entering.is_none() && self.proving.is_none() {
                return ControlFlow::Continue(());
            }
        }
    }

    /// Whether something may be due that there was no room for.
    pub(super) fn wants_room(&self, http2: &http2::Connection, stream: StreamId) -> bool {
        self.underway.is_some() || self.has_news && !has_room(http2, stream)
    }

    /// When [`StreamTask::pass_time`] must be called even if nothing comes in.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let first_request = self.awaits_node().then(|| self.opened + self.discovery.config.deadlines.first_request);
        let turn = self.turn.as_ref().map(|(_, until)| *until);
        let secrets = self.secrets.as_deref().and_then(Secrets::deadline);
        let tenure = self.tenure.as_deref().map(Tenure::deadline);
        [self.machine.poll_timeout(), first_request, turn, secrets, tenure].into_iter().flatten().min()
    }

    /// What happens because of the time; then the stream must be polled.
    pub(super) fn pass_time(&mut self, now: Instant) -> ControlFlow<End> {
        let first_request = self.discovery.config.deadlines.first_request;
        if self.awaits_node() && now >= self.opened + first_request {
            let message = format!("no request came within {first_request:?} of the stream's beginning");
            return ControlFlow::Break(End::Status(Status::deadline_exceeded(message)));
        }
        self.turn.take_if(|(_, until)| now >= *until);
        self.machine.handle_timeout(now);
        self.has_news = true;
        ControlFlow::Continue(())
    }

    /// Whether the client has not said yet which node it is.
    fn awaits_node(&self) -> bool {
        self.node.is_none() && self.proving.is_none()
    }

    /// Whether the client has been sent something, and all of it (rule P-78).
    pub(super) fn has_been_served(&self) -> bool {
        self.has_responded && self.underway.is_none()
    }

    /// Has secrets signed that are due. True while nothing is to be sent, because the first ones are awaited.
    fn awaits_secrets(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(secrets) = &mut self.secrets else { return false };
        let now = Instant::now();
        let are_new = secrets.poll(cx, self.machine.wants(ResourceType::Secret), now);
        let is_first_awaited = secrets.is_first_awaited();
        if are_new && let Some(target) = &self.target {
            self.has_news = true;
            self.machine.handle_snapshot(now, secrets.over(&target.snapshot));
        }
        is_first_awaited
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(attachment) = &mut self.attachment
            && let Poll::Ready(published) = attachment.poll_next(cx)
        {
            return Poll::Ready(Event::Published(published));
        }
        if let Some(proving) = &mut self.proving
            && let Poll::Ready(caller) = proving.1.as_mut().poll(cx)
        {
            let node = proving.0.clone();
            self.proving = None;
            return Poll::Ready(Event::Proved(node, caller));
        }
        if let Some(entering) = &mut self.entering
            && let Poll::Ready(entered) = entering.as_mut().poll(cx)
        {
            return Poll::Ready(Event::Entered(entered));
        }
        self.place.inspections.poll(cx).map(Event::Inspected)
    }

    fn take_in(&mut self, event: Event) -> ControlFlow<End> {
        let now = Instant::now();
        match event {
            Event::Proved(node, Ok(caller)) => {
                self.has_news = true;
                self.admit(caller);
                return self.act_on(Outcome::Identified(node));
            }
            Event::Proved(_, Err(status)) => return ControlFlow::Break(End::Status(status)),
            Event::Entered((turn, Ok(Ok(attachment)))) => {
                tracing::debug!(node = self.id(), "attached");
                self.entering = None;
                if let (Some(secrets), Some(caller)) = (&mut self.secrets, &self.caller)
                    && attachment.may_have_gateway_secrets()
                {
                    let namespace = caller.id.workload.namespace();
                    secrets.add_documents(Documents::new(&self.discovery.gateway_secrets, namespace));
                }
                self.attachment = Some(attachment);
                self.turn = Some((turn, now + self.discovery.config.deadlines.first_response));
            }
            Event::Entered((_, Ok(Err(error)))) => {
                return ControlFlow::Break(End::Status(Status::invalid_argument(error.to_string())));
            }
            Event::Entered((_, Err(Stopped))) => {
                return ControlFlow::Break(End::Status(Status::unavailable("shutting down")));
            }
            Event::Published(published) => {
                self.has_news = true;
                self.machine.handle_snapshot(now, self.with_secrets(&published.snapshot));
                if self.converging.is_none() {
                    self.has_sent = false;
                    self.converging = Some(published.seen);
                }
                self.target = Some(published);
            }
            Event::Inspected(inspection) => self.report(inspection),
        }
        ControlFlow::Continue(())
    }

    /// Sends what is owed while there is room, and acts on what the machine reports.
    fn carry_out(&mut self, http2: &mut http2::Connection, stream: StreamId) -> ControlFlow<End> {
        let mut is_all_sent = false;
        while has_room(http2, stream) {
            let begun = Instant::now();
            let Some(response) = self.machine.poll_response(begun) else {
                is_all_sent = true;
                break;
            };
            if let Err(status) = self.send(&response, begun, http2, stream) {
                return ControlFlow::Break(End::Status(status));
            }
        }
        // What there was no room for is still to come.
        self.has_news = !is_all_sent;
        while self.proving.is_none()
            && let Some(outcome) = self.machine.poll_outcome()
        {
            self.act_on(outcome)?;
        }
        if is_all_sent {
            self.tell_wants();
            self.observe_convergence();
            if self.is_half_closed && self.target.is_some() {
                return ControlFlow::Break(End::Status(Status::ok("")));
            }
        }
        if self.is_half_closed && self.awaits_node() {
            return ControlFlow::Break(End::Status(Status::invalid_argument("the stream ended without a request")));
        }
        ControlFlow::Continue(())
    }

    fn send(
        &mut self,
        response: &xds::Response,
        begun: Instant,
        http2: &mut http2::Connection,
        stream: StreamId,
    ) -> Result<(), Status> {
        grpc::message(&response.head, &response.body, |piece| http2.send(stream, piece))?;
        http2.pump();
        let resource_type = response.resource_type;
        self.underway = Some(Underway { resource_type, begun, made: Instant::now() });
        (self.has_sent, self.has_responded) = (true, true);
        if let Some(attachment) = &mut self.attachment {
            attachment.sent(begun);
        }
        self.discovery.metrics.sent(resource_type, response.len());
        if http2.is_sent(stream) {
            self.taken();
        }
        Ok(())
    }

    /// HTTP/2 has taken all of a response.
    fn taken(&mut self) {
        self.turn = None;
        if let Some(Underway { resource_type, begun, made }) = self.underway.take() {
            self.discovery.metrics.taken(resource_type, begun, made);
        }
    }

    /// Tells the plane when the client asks for other endpoints than before, so that it need not be woken for the rest.
    fn tell_wants(&mut self) {
        let Some(attachment) = &self.attachment else { return };
        let wants = self.machine.wants(ResourceType::Endpoints);
        let fingerprint = wants.fingerprint();
        if self.told_wants == Some(fingerprint) {
            return;
        }
        self.told_wants = Some(fingerprint);
        attachment.interested(match wants.names() {
            Some(names) => Interest::of(names.map(|name| &**name)),
            None => Interest::All,
        });
    }

    /// A change has arrived when everything that follows from it was sent and answered.
    fn observe_convergence(&mut self) {
        let (Some(seen), Some(attachment)) = (self.converging, &mut self.attachment) else { return };
        if !self.has_sent {
            // It did not concern what this client subscribes to.
            attachment.settled(false, false);
            self.converging = None;
            return;
        }
        if self.machine.is_at_rest() {
            attachment.settled(true, self.machine.is_refused());
            self.converging = None;
            seen.inspect(|seen| self.discovery.metrics.converged(*seen));
        }
    }

    /// The client is this caller, who may be this node.
    fn admit(&mut self, caller: Arc<Caller>) {
        let Discovery { issuer, metrics, .. } = &*self.discovery;
        let peer = self.connection.peer;
        self.secrets =
            issuer.clone().map(|issuer| Box::new(Secrets::new(issuer, metrics.clone(), caller.clone(), peer)));
        self.tenure = Tenure::of(&caller);
        self.caller = Some(caller);
    }

    fn act_on(&mut self, outcome: Outcome) -> ControlFlow<End> {
        if let Outcome::Identified(node) = &outcome
            && let Some(proof) = self.proof.take()
        {
            // Before anybody is told of the node: it may be nobody's.
            match proof.admit(node) {
                Admitted::Known(Ok(caller)) => self.admit(caller),
                Admitted::Known(Err(status)) => return ControlFlow::Break(End::Status(status)),
                Admitted::Awaited(admitting) => {
                    self.proving = Some(Box::new((node.clone(), admitting)));
                    return ControlFlow::Continue(());
                }
            }
        }
        let newest = self.target.as_ref().map(|target| (&target.snapshot, target.generation));
        let node = match &outcome {
            Outcome::Identified(node) => Some(node),
            _ => self.node.as_ref(),
        };
        witness::tell(&self.discovery.journal, node, newest, &outcome);
        let metrics = self.discovery.metrics.clone();
        match outcome {
            Outcome::Identified(node) => self.identified(node),
            Outcome::ParametersChanged(node) => {
                tracing::debug!(node = node.id, "context parameters changed");
                self.place.identify(&node);
                self.node = Some(node);
            }
            Outcome::Subscribed { resource_type, wildcard, names } => {
                tracing::debug!(node = self.id(), r#type = resource_type.short(), wildcard, names, "subscribed");
            }
            Outcome::UnknownType { type_url } => {
                metrics.unknown_type();
                tracing::debug!(node = self.id(), type_url, "a type was asked for that is not known here");
            }
            Outcome::Sent { resource_type, nonce, version, changed, removed, bytes } => {
                let r#type = resource_type.short();
                tracing::debug!(node = self.id(), r#type, nonce, %version, changed, removed, bytes, "sent");
            }
            Outcome::Accepted { resource_type, nonce, version, after } => {
                metrics.accepted(resource_type, after);
                let r#type = resource_type.short();
                tracing::debug!(node = self.id(), r#type, nonce, %version, micros = after.as_micros(), "accepted");
            }
            Outcome::Rejected(rejection) => {
                metrics.rejected(rejection.resource_type);
                tracing::warn!(
                    node = self.id(),
                    r#type = rejection.resource_type.short(),
                    nonce = rejection.nonce,
                    version = %rejection.version,
                    code = rejection.code,
                    suspects = ?rejection.suspects,
                    message = &*rejection.message,
                    "rejected by the node"
                );
            }
            Outcome::Isolated(held) => {
                metrics.isolated(held.resource_type);
                let (r#type, name, part) = (held.resource_type.short(), &*held.name, held.part.as_deref());
                let objects: Vec<_> = held.origins.iter().map(|origin| &*origin.object).collect();
                let message = &*held.message;
                tracing::warn!(
                    node = self.id(),
                    r#type,
                    name,
                    part,
                    ?objects,
                    message,
                    "refused by the node: held back"
                );
            }
            Outcome::Cleared(held) => {
                metrics.cleared(held.resource_type);
                let (r#type, name, part) = (held.resource_type.short(), &*held.name, held.part.as_deref());
                tracing::info!(node = self.id(), r#type, name, part, "changed since the node refused it: sent again");
            }
            Outcome::SearchGivenUp { resource_type, untried } => {
                let r#type = resource_type.short();
                tracing::warn!(
                    node = self.id(),
                    r#type,
                    untried,
                    "the node refuses nearly everything: not tried further"
                );
            }
            Outcome::Waiting { resource_type, count, wait } => {
                metrics.waiting(reason(&wait), count);
                let r#type = resource_type.short();
                tracing::debug!(node = self.id(), r#type, count, reason = reason(&wait), "waiting");
            }
            Outcome::WaitExpired { resource_type, count, wait } => {
                metrics.wait_expired(reason(&wait), count);
                let r#type = resource_type.short();
                tracing::warn!(node = self.id(), r#type, count, reason = reason(&wait), "waited as long as allowed");
            }
            Outcome::Overdue { resource_type, nonce } => {
                tracing::debug!(node = self.id(), r#type = resource_type.short(), nonce, "not acknowledged in time");
            }
        }
        ControlFlow::Continue(())
    }

    fn identified(&mut self, node: Arc<Node>) {
        tracing::info!(
            node = node.id,
            cluster = node.cluster,
            peer = %self.connection.peer,
            stream = self.place.number(),
            service = self.label.service,
            variant = self.label.variant,
            agent = node.user_agent_name,
            agent_version = node.user_agent_version,
            identity = self.caller.as_ref().map(|caller| caller.id.to_string()),
            "node connected"
        );
        self.discovery.metrics.node_identified(distribution_version(&node));
        self.place.identify(&node);
        let hosts = host_delivery(&node, self.service, self.variant, self.discovery.config.virtual_hosts);
        let proved = self.caller.as_ref().map(|caller| &caller.id.workload);
        let (discovery, wanted) = (self.discovery.clone(), plane_node(&node, hosts, proved));
        self.node = Some(node);
        self.entering = Some(Box::pin(async move {
            let turn = discovery.admission.turn(&discovery.metrics).await;
            (turn, discovery.plane.attach(wanted).await)
        }));
    }

    fn with_secrets(&self, snapshot: &Snapshot) -> Snapshot {
        self.secrets.as_ref().map_or_else(|| snapshot.clone(), |secrets| secrets.over(snapshot))
    }

    fn id(&self) -> &str {
        self.node.as_ref().map_or("", |node| &node.id)
    }
}

fn end_with(code: i32, message: String) -> ControlFlow<End> {
    ControlFlow::Break(End::Status(Status::new(Code::from_i32(code), message)))
}

/// The kind of a wait, for metrics and logs.
fn reason(wait: &Wait) -> &'static str {
    match wait {
        Wait::ClusterNotSent { .. } => "cluster_not_sent",
        Wait::ClusterNotAccepted { .. } => "cluster_not_accepted",
        Wait::ClusterRefused { .. } => "cluster_refused",
        Wait::PeersNotAdmitted { .. } => "peers_not_admitted",
        Wait::AssignmentNotSent { .. } => "assignment_not_sent",
        Wait::StillReferred { .. } => "still_referred",
        Wait::KeptByHeldBack { .. } => "kept_by_held_back",
        Wait::NotYetAsked { .. } => "not_yet_asked",
    }
}
