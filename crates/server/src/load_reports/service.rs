//! The service, and the task of one reporting stream.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evidence::Channel;
use load::{Policy, StreamId};
use proto::ResourceType;
use proto::pb::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use proto::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use proto::pb::google::protobuf::Struct;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::discovery::{Discovery, Roster};
use crate::trust::Caller;

/// How often a client that must be told its clusters by name is looked up again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Serves `envoy.service.load_stats.v3.LoadReportingService`.
#[derive(Clone, Debug)]
pub(crate) struct LoadService {
    discovery: Arc<Discovery>,
}

impl LoadService {
    /// The service, ready to be routed to.
    pub(crate) fn new(discovery: Arc<Discovery>) -> LoadReportingServiceServer<Self> {
        let limit = discovery.config.limits.max_request_bytes;
        LoadReportingServiceServer::new(Self { discovery }).max_decoding_message_size(limit)
    }
}

#[tonic::async_trait]
impl LoadReportingService for LoadService {
    type StreamLoadStatsStream = ReceiverStream<Result<LoadStatsResponse, Status>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        if self.discovery.draining.is_cancelled() {
            return Err(Status::unavailable("shutting down"));
        }
        // One response waits at most: the next one is made when there is room.
        let (responses, received) = mpsc::channel(1);
        // Over TLS somebody has proved who it is.
        let caller = request.extensions().get::<Caller>().cloned();
        let task = StreamTask::new(self.discovery.clone(), request.into_inner(), responses, caller);
        self.discovery.tasks.spawn(task.run());
        Ok(Response::new(ReceiverStream::new(received)))
    }
}

struct StreamTask {
    discovery: Arc<Discovery>,
    requests: Streaming<LoadStatsRequest>,
    responses: mpsc::Sender<Result<LoadStatsResponse, Status>>,
    caller: Option<Caller>,
    policy: watch::Receiver<Policy>,
    machine: load::Stream,
    id: StreamId,
    opened: Instant,
    /// When the client's clusters were last looked up.
    looked_up: Option<Instant>,
}

enum Event {
    Request(Box<LoadStatsRequest>),
    PolicyChanged,
    Room,
    Time,
    Broken(Status),
    Gone,
    Drain,
}

impl StreamTask {
    fn new(
        discovery: Arc<Discovery>,
        requests: Streaming<LoadStatsRequest>,
        responses: mpsc::Sender<Result<LoadStatsResponse, Status>>,
        caller: Option<Caller>,
    ) -> Self {
        let mut policy = discovery.loads.policy.subscribe();
        let machine = load::Stream::new(policy.borrow_and_update().ask());
        let id = discovery.loads.enter();
        discovery.metrics.load_stream_opened();
        Self { discovery, requests, responses, caller, policy, machine, id, opened: Instant::now(), looked_up: None }
    }

    async fn run(mut self) {
        let mut waiting = None;
        let end = loop {
            let event = self.next_event(waiting.is_some()).await;
            if let ControlFlow::Break(end) = self.take_in(event) {
                break end;
            }
            if self.is_lookup_due() {
                self.look_up().await;
            }
            waiting = waiting.or_else(|| self.machine.poll_response());
            if let Some(response) = waiting.take()
                && let Err(mpsc::error::TrySendError::Full(Ok(back))) = self.responses.try_send(Ok(response))
            {
                waiting = Some(back);
            }
        };
        let Self { discovery, responses, machine, id, .. } = self;
        discovery.loads.table().end(Instant::now(), id);
        if let Some(node) = machine.node() {
            discovery.telemetry.ledger().end(node, Channel::Loads, evidence::StreamId(id.0));
        }
        discovery.metrics.load_stream_ended();
        if let Some(status) = end {
            tracing::debug!(node = machine.node().map(|node| &**node), %status, "load reporting ended");
            // A response that is still on its way goes first. A client that has gone needs no status, one that takes
            // nothing gets none.
            let patience = discovery.config.deadlines.drain;
            let _ = tokio::time::timeout(patience, responses.send(Err(status))).await;
        }
    }

    async fn next_event(&mut self, is_waiting: bool) -> Event {
        let deadline = self.deadline();
        let Self { discovery, requests, responses, policy, .. } = self;
        tokio::select! {
            biased;
            // First: runs end with the server, and what they then want no longer is nothing to ask a client for.
            () = discovery.draining.cancelled() => Event::Drain,
            () = responses.closed() => Event::Gone,
            Ok(()) = policy.changed() => Event::PolicyChanged,
            request = requests.message() => match request {
                Ok(Some(request)) => Event::Request(Box::new(request)),
                Ok(None) => Event::Gone,
                Err(status) => Event::Broken(status),
            },
            Ok(_) = responses.reserve(), if is_waiting => Event::Room,
            () = sleep_until(deadline) => Event::Time,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if self.machine.node().is_none() {
            return Some(self.opened + self.discovery.config.deadlines.first_request);
        }
        self.machine.needs_held().then(|| self.looked_up.map_or(self.opened, |at| at + LOOK_AGAIN))
    }

    /// Breaks with the status to end with; with `None` when nobody is there to take one.
    fn take_in(&mut self, event: Event) -> ControlFlow<Option<Status>> {
        if let Event::Request(request) = &event
            && let (Some(caller), Some(node)) = (&self.caller, &request.node)
            && let Err(status) = caller.may_be(&node.id, node.metadata.as_ref().unwrap_or(&Struct::default()))
        {
            return ControlFlow::Break(Some(status));
        }
        match event {
            Event::Request(request) => match self.machine.handle_request(*request) {
                Ok(None) => {}
                Ok(Some(report)) => {
                    let Some(node) = self.machine.node() else { return ControlFlow::Continue(()) };
                    let now = Instant::now();
                    self.discovery.metrics.load_reported(report.clusters.len());
                    let stream = evidence::StreamId(self.id.0);
                    self.discovery.telemetry.ledger().add_loads(now, node, stream, &report);
                    self.discovery.loads.table().add(now, self.id, node, report);
                }
                Err(refusal) => return ControlFlow::Break(Some(Status::invalid_argument(refusal.to_string()))),
            },
            Event::PolicyChanged => self.machine.handle_ask(self.policy.borrow_and_update().ask()),
            Event::Room => {}
            Event::Time if self.machine.node().is_none() => {
                let message = "no node came within the time for a stream's first request";
                return ControlFlow::Break(Some(Status::deadline_exceeded(message)));
            }
            Event::Time => {}
            Event::Broken(status) => {
                tracing::debug!(%status, "load reporting broke off");
                let is_ours = matches!(
                    status.code(),
                    tonic::Code::OutOfRange | tonic::Code::ResourceExhausted | tonic::Code::Internal
                );
                return ControlFlow::Break(is_ours.then_some(status));
            }
            Event::Gone => return ControlFlow::Break(None),
            Event::Drain => return ControlFlow::Break(Some(Status::unavailable("shutting down"))),
        }
        ControlFlow::Continue(())
    }

    fn is_lookup_due(&self) -> bool {
        self.machine.needs_held() && self.looked_up.is_none_or(|at| at.elapsed() >= LOOK_AGAIN)
    }

    /// Finds the clusters that the node's discovery streams were sent.
    async fn look_up(&mut self) {
        let Some(node) = self.machine.node().cloned() else { return };
        let mut entries = self.discovery.roster.identified();
        entries.retain(|entry| entry.id() == &*node);
        let patience = self.discovery.config.deadlines.inspect;
        let reports = Roster::inspect(entries, true, patience).await;
        let holdings = reports.into_iter().filter_map(|(_, report)| report).flat_map(|report| report.holdings);
        let clusters: BTreeSet<Arc<str>> = holdings
            .filter(|holding| holding.cell.resource_type() == ResourceType::Cluster)
            .map(|holding| holding.cell.name().clone())
            .collect();
        self.looked_up = Some(Instant::now());
        self.machine.handle_held(clusters);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
