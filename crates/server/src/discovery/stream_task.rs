//! The task of one discovery stream.
//!
//! ```text
//! first request ──▶ turn (admission) ──▶ attached to an audience ──▶ snapshots ──▶ end
//!        requests are taken in all the time; responses begin with the first snapshot
//! ```
//!
//! It decides nothing about the protocol: events go to [`xds::Stream`], and what that owes goes to the client, one
//! response at a time.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use plane::NodeError;
use prost::Message;
use proto::ResourceType;
use tonic::{Code, Status};
use xds::{Node, Outcome, Service, Variant, Wait};

use super::admission::Turn;
use super::node::{distribution_version, host_delivery, plane_node};
use super::roster::{Departed, Inspection, Place, Report};
use super::{Connection, Discovery, witness};
use crate::Stopped;
use crate::grpc::{Outgoing, Requests, Responses};
use crate::metrics::StreamLabel;
use crate::plane_task::{Attachment, Published};

type Entering = Pin<Box<dyn Future<Output = (Turn, Result<Result<Attachment, NodeError>, Stopped>)> + Send>>;

/// A stream, its client, and its part in an audience.
pub(super) struct StreamTask {
    discovery: Arc<Discovery>,
    connection: Arc<Connection>,
    service: Service,
    variant: Variant,
    label: StreamLabel,
    machine: xds::Stream,
    responses: Responses,
    place: Place,
    opened: Instant,
    node: Option<Arc<Node>>,
    /// On the way into an audience.
    entering: Option<Entering>,
    attachment: Option<Attachment>,
    /// The newest snapshot that the machine knows.
    target: Option<Published>,
    /// The stream's turn among first responses. Whoever comes first gives it up: the response when it was taken, or
    /// this task when that takes too long.
    turn: Arc<Mutex<Option<Turn>>>,
    turn_until: Option<Instant>,
    /// Since when a response waits for room.
    full_since: Option<Instant>,
    /// The change that the client has not got all of yet.
    /// With when the change was seen; the first snapshot of a stream follows from none.
    converging: Option<Option<Instant>>,
    has_sent: bool,
    /// The client has said that it asks nothing more.
    is_half_closed: bool,
}

enum Event {
    Request(Box<xds::Request>),
    HalfClosed,
    Broken(Status),
    Entered(Turn, Result<Result<Attachment, NodeError>, Stopped>),
    Published(Published),
    Inspected(Inspection),
    Room,
    Time,
    Gone,
    Drain,
}

/// Why a stream is over.
enum End {
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
        responses: Responses,
    ) -> Self {
        let label = stream_label(service, variant);
        discovery.metrics.stream_opened(&label);
        Self {
            machine: xds::Stream::new(variant, service, discovery.config.streams.clone()),
            place: discovery.roster.enter(connection.clone(), service, variant),
            discovery,
            connection,
            service,
            variant,
            label,
            responses,
            opened: Instant::now(),
            node: None,
            entering: None,
            attachment: None,
            target: None,
            turn: Arc::default(),
            turn_until: None,
            full_since: None,
            converging: None,
            has_sent: false,
            is_half_closed: false,
        }
    }

    /// Serves the stream to its end.
    pub(super) async fn run<B, M>(mut self, mut requests: Requests<B, M>, to_request: fn(M) -> xds::Request)
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
        M: Message + Default,
    {
        let end = loop {
            let event = self.next_event(&mut requests, to_request).await;
            let next = match self.take_in(event) {
                ControlFlow::Continue(()) => self.carry_out(),
                end @ ControlFlow::Break(_) => end,
            };
            if let ControlFlow::Break(end) = next {
                break end;
            }
        };
        self.finish(end);
    }

    async fn next_event<B, M>(&mut self, requests: &mut Requests<B, M>, to_request: fn(M) -> xds::Request) -> Event
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
        M: Message + Default,
    {
        let deadline = self.deadline();
        let Self { discovery, responses, place, entering, attachment, is_half_closed, .. } = self;
        tokio::select! {
            request = requests.next(), if !*is_half_closed => match request {
                Ok(Some(message)) => Event::Request(Box::new(to_request(message))),
                Ok(None) => Event::HalfClosed,
                Err(status) => Event::Broken(status),
            },
            published = next_published(attachment) => Event::Published(published),
            (turn, attached) = entered(entering) => Event::Entered(turn, attached),
            () = responses.room(), if !responses.has_room() => Event::Room,
            () = sleep_until(deadline) => Event::Time,
            Some(inspection) = place.inspections.recv() => Event::Inspected(inspection),
            () = responses.gone() => Event::Gone,
            () = discovery.draining.cancelled() => Event::Drain,
        }
    }

    /// When something must happen even if nothing comes in.
    fn deadline(&self) -> Option<Instant> {
        let deadlines = &self.discovery.config.deadlines;
        let first_request = self.node.is_none().then(|| self.opened + deadlines.first_request);
        let send = self.full_since.map(|since| since + deadlines.send);
        [self.machine.poll_timeout(), first_request, send, self.turn_until].into_iter().flatten().min()
    }

    fn take_in(&mut self, event: Event) -> ControlFlow<End> {
        let now = Instant::now();
        match event {
            Event::Request(request) => {
                if let Err(refusal) = self.machine.handle_request(now, *request) {
                    return end_with(refusal.code as i32, refusal.message);
                }
            }
            Event::HalfClosed => self.is_half_closed = true,
            Event::Broken(status) if status.code() == Code::Cancelled => return ControlFlow::Break(End::Gone),
            Event::Broken(status) => return ControlFlow::Break(End::Status(status)),
            Event::Entered(turn, Ok(Ok(attachment))) => {
                tracing::debug!(node = self.id(), "attached");
                self.entering = None;
                self.attachment = Some(attachment);
                *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
                self.turn_until = Some(now + self.discovery.config.deadlines.first_response);
            }
            Event::Entered(_, Ok(Err(error))) => {
                return ControlFlow::Break(End::Status(Status::invalid_argument(error.to_string())));
            }
            Event::Entered(_, Err(Stopped)) | Event::Drain => {
                return ControlFlow::Break(End::Status(Status::unavailable("shutting down")));
            }
            Event::Published(published) => {
                self.machine.handle_snapshot(now, published.snapshot.clone());
                if self.converging.is_none() {
                    self.has_sent = false;
                    self.converging = Some(published.seen);
                }
                self.target = Some(published);
            }
            Event::Inspected(inspection) => self.report(inspection),
            Event::Room => self.full_since = None,
            Event::Time => return self.pass_time(now),
            Event::Gone => return ControlFlow::Break(End::Gone),
        }
        ControlFlow::Continue(())
    }

    fn pass_time(&mut self, now: Instant) -> ControlFlow<End> {
        let deadlines = &self.discovery.config.deadlines;
        if self.node.is_none() && now >= self.opened + deadlines.first_request {
            let message = format!("no request came within {:?} of the stream's beginning", deadlines.first_request);
            return ControlFlow::Break(End::Status(Status::deadline_exceeded(message)));
        }
        if self.full_since.is_some_and(|since| now >= since + deadlines.send) {
            // A status would have to wait behind what the client does not take, so the connection goes.
            tracing::warn!(
                node = self.id(),
                peer = %self.connection.peer,
                seconds = deadlines.send.as_secs(),
                "closing the connection of a client that takes no responses"
            );
            self.connection.seat.cut_off().cancel();
            return ControlFlow::Break(End::Gone);
        }
        if self.turn_until.is_some_and(|until| now >= until) {
            self.turn_until = None;
            self.turn.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        self.machine.handle_timeout(now);
        ControlFlow::Continue(())
    }

    /// Sends what is owed while there is room, and acts on what the machine reports.
    fn carry_out(&mut self) -> ControlFlow<End> {
        let mut is_all_sent = false;
        while self.responses.has_room() {
            let begun = Instant::now();
            let Some(response) = self.machine.poll_response(begun) else {
                is_all_sent = true;
                break;
            };
            if let Err(status) = self.send(&response, begun) {
                return ControlFlow::Break(End::Status(status));
            }
        }
        if !self.responses.has_room() {
            self.full_since.get_or_insert_with(Instant::now);
        }
        while let Some(outcome) = self.machine.poll_outcome() {
            self.act_on(outcome);
        }
        if is_all_sent {
            self.observe_convergence();
            if self.is_half_closed && self.target.is_some() {
                return ControlFlow::Break(End::Status(Status::ok("")));
            }
        }
        if self.is_half_closed && self.node.is_none() {
            return ControlFlow::Break(End::Status(Status::invalid_argument("the stream ended without a request")));
        }
        ControlFlow::Continue(())
    }

    fn send(&mut self, response: &xds::Response, begun: Instant) -> Result<(), Status> {
        let resource_type = response.resource_type;
        let made = Instant::now();
        let metrics = self.discovery.metrics.clone();
        let turn = self.turn.clone();
        let when_taken = move || {
            metrics.taken(resource_type, begun, made);
            turn.lock().unwrap_or_else(PoisonError::into_inner).take();
        };
        self.responses.give(Outgoing::new(&response.head, &response.body, when_taken)?);
        self.has_sent = true;
        if let Some(attachment) = &mut self.attachment {
            attachment.sent(begun);
        }
        self.discovery.metrics.sent(resource_type, response.len());
        Ok(())
    }

    /// A change has arrived when everything that follows from it was sent and answered.
    fn observe_convergence(&mut self) {
        let (Some(seen), Some(attachment)) = (self.converging, &mut self.attachment) else { return };
        let is_done = |summary: &xds::Summary| summary.unacknowledged == 0 && summary.waiting.is_empty();
        if !self.has_sent {
            // It did not concern what this client subscribes to.
            attachment.settled(false, false);
            self.converging = None;
            return;
        }
        let summaries = self.machine.summary();
        if summaries.iter().all(is_done) {
            attachment.settled(true, summaries.iter().any(|summary| summary.refused > 0));
            self.converging = None;
            seen.inspect(|seen| self.discovery.metrics.converged(*seen));
        }
    }

    fn act_on(&mut self, outcome: Outcome) {
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
            "node connected"
        );
        self.discovery.metrics.node_identified(distribution_version(&node));
        self.place.identify(&node);
        let hosts = host_delivery(&node, self.service, self.variant, self.discovery.config.virtual_hosts);
        let (discovery, wanted) = (self.discovery.clone(), plane_node(&node, hosts));
        self.node = Some(node);
        self.entering = Some(Box::pin(async move {
            let turn = discovery.admission.turn(&discovery.metrics).await;
            (turn, discovery.plane.attach(wanted).await)
        }));
    }

    fn report(&self, inspection: Inspection) {
        let newest = self.attachment.as_ref().map(Attachment::newest);
        let report = Report {
            summaries: self.machine.summary(),
            standings: self.machine.standings(),
            holdings: if inspection.with_holdings { self.machine.holdings() } else { Vec::new() },
            missing: if inspection.with_holdings { self.machine.missing() } else { Vec::new() },
            generation: newest.as_ref().map_or(0, |newest| newest.generation),
            settled: self.attachment.as_ref().and_then(Attachment::settled_generation),
            target: newest.map(|newest| newest.snapshot),
            now: (Instant::now(), SystemTime::now()),
        };
        // Whoever asked may have lost patience.
        let _ = inspection.reply.send(report);
    }

    /// How it stood in the end, without what would keep snapshots alive.
    fn depart(&self, node: &Arc<Node>, reason: &str) {
        let now = (Instant::now(), SystemTime::now());
        let generation = self.target.as_ref().map_or(0, |target| target.generation);
        let report = Report {
            summaries: self.machine.summary(),
            standings: Vec::new(),
            holdings: Vec::new(),
            missing: Vec::new(),
            target: None,
            generation,
            settled: self.attachment.as_ref().and_then(Attachment::settled_generation),
            now,
        };
        self.place.depart(Departed {
            node: node.clone(),
            address: self.connection.peer.to_string(),
            opened: self.connection.opened,
            ended: now,
            reason: reason.to_owned(),
            service: self.service,
            variant: self.variant,
            report,
        });
        witness::tell_end(&self.discovery.journal, node, generation, reason);
    }

    fn finish(self, end: End) {
        let code = match &end {
            End::Gone => None,
            End::Status(status) => Some(status.code()),
        };
        let message = match &end {
            End::Gone => "the client left",
            End::Status(status) => status.message(),
        };
        let (stream, seconds) = (self.place.number(), self.opened.elapsed().as_secs_f64());
        match &self.node {
            Some(node) => {
                tracing::info!(node = node.id, peer = %self.connection.peer, stream, seconds, ?code, message, "node disconnected");
                self.discovery.metrics.node_gone(distribution_version(node));
                // A stream that its client closes in good order ends with a status that says nothing.
                self.depart(node, if message.is_empty() { "the client left" } else { message });
            }
            None => {
                tracing::debug!(peer = %self.connection.peer, stream, ?code, message, "stream ended without a node")
            }
        }
        self.discovery.metrics.stream_ended(&self.label, code);
        if let End::Status(status) = end {
            self.responses.end(status);
        }
    }

    fn id(&self) -> &str {
        self.node.as_ref().map_or("", |node| &node.id)
    }
}

fn end_with(code: i32, message: String) -> ControlFlow<End> {
    ControlFlow::Break(End::Status(Status::new(Code::from_i32(code), message)))
}

/// The next snapshot; never, before there is an attachment.
async fn next_published(attachment: &mut Option<Attachment>) -> Published {
    match attachment {
        Some(attachment) => attachment.next().await,
        None => std::future::pending().await,
    }
}

/// The end of `entering`; never, when the stream is not on the way into an audience.
async fn entered(entering: &mut Option<Entering>) -> (Turn, Result<Result<Attachment, NodeError>, Stopped>) {
    match entering {
        Some(entering) => entering.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn stream_label(service: Service, variant: Variant) -> StreamLabel {
    StreamLabel {
        service: match service {
            Service::Aggregated => "ads",
            Service::Only(resource_type) => ResourceType::short(resource_type),
        },
        variant: match variant {
            Variant::StateOfTheWorld => "sotw",
            Variant::Delta => "delta",
        },
    }
}

/// The kind of a wait, for metrics and logs.
fn reason(wait: &Wait) -> &'static str {
    match wait {
        Wait::ClusterNotSent { .. } => "cluster_not_sent",
        Wait::ClusterNotAccepted { .. } => "cluster_not_accepted",
        Wait::StillReferred { .. } => "still_referred",
        Wait::NotYetAsked { .. } => "not_yet_asked",
    }
}
