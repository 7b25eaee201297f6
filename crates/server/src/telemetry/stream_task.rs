//! The metrics service and the access log service, and the task of one stream of either.

use std::sync::Arc;
use std::time::Instant;

use evidence::{Channel, Client, Counters, Interest, LogStream, MetricStream, Pace, StreamId, Sums};
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::accesslog::v3::access_log_service_server::{AccessLogService, AccessLogServiceServer};
use proto::pb::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use proto::pb::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use proto::pb::envoy::service::metrics::v3::metrics_service_server::{self, MetricsServiceServer};
use proto::pb::envoy::service::metrics::v3::{StreamMetricsMessage, StreamMetricsResponse};
use proto::pb::google::protobuf::Struct;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use crate::discovery::Discovery;
use crate::trust::Caller;

/// The header by which a client says what its counters are: `deltas`, or `absolute` as without it. `pointsman bootstrap`
/// has Envoy send it.
const COUNTERS: &str = "pointsman-counters";

/// What a client may send in a second, in metrics or entries, and at once. A proxy with 5,000 clusters, 15 numbers of
/// each, that flushes every second stays below.
const PER_SECOND: u32 = 200_000;
const AT_ONCE: u32 = 1_000_000;
/// What a message costs beside what is in it.
const MESSAGE: usize = 1_000;

/// Serves `envoy.service.metrics.v3.MetricsService`.
#[derive(Clone, Debug)]
pub(crate) struct MetricsService {
    discovery: Arc<Discovery>,
}

/// Serves `envoy.service.accesslog.v3.AccessLogService`.
#[derive(Clone, Debug)]
pub(crate) struct LogService {
    discovery: Arc<Discovery>,
}

impl MetricsService {
    /// The service, ready to be routed to.
    pub(crate) fn new(discovery: Arc<Discovery>) -> MetricsServiceServer<Self> {
        let limit = discovery.config.limits.max_request_bytes;
        MetricsServiceServer::new(Self { discovery }).max_decoding_message_size(limit)
    }
}

impl LogService {
    /// The service, ready to be routed to.
    pub(crate) fn new(discovery: Arc<Discovery>) -> AccessLogServiceServer<Self> {
        let limit = discovery.config.limits.max_request_bytes;
        AccessLogServiceServer::new(Self { discovery }).max_decoding_message_size(limit)
    }
}

#[tonic::async_trait]
impl metrics_service_server::MetricsService for MetricsService {
    async fn stream_metrics(
        &self,
        request: Request<Streaming<StreamMetricsMessage>>,
    ) -> Result<Response<StreamMetricsResponse>, Status> {
        let counters = match request.metadata().get(COUNTERS).map(|value| value.as_bytes()) {
            None | Some(b"absolute") => Counters::Absolute,
            Some(b"deltas") => Counters::Deltas,
            Some(_) => {
                return Err(Status::invalid_argument(format!("the header {COUNTERS} is neither deltas nor absolute")));
            }
        };
        serve(&self.discovery, MetricStream::new(counters), request).await?;
        Ok(Response::new(StreamMetricsResponse {}))
    }
}

#[tonic::async_trait]
impl AccessLogService for LogService {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        serve(&self.discovery, LogStream::new(), request).await?;
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

/// What differs between the two.
trait Machine: Send + 'static {
    type Message: Send + 'static;
    const CHANNEL: Channel;
    /// As metrics call it.
    const KIND: &str;

    /// Who the client says it is, in a message that says so.
    fn said(message: &Self::Message) -> Option<&Node>;
    fn handle(&mut self, message: &Self::Message, interest: &Interest) -> Vec<(Arc<str>, Sums)>;
    /// Another stream of the same node counts.
    fn forget(&mut self);
    /// Metrics, or entries.
    fn amount(message: &Self::Message) -> usize;
}

impl Machine for MetricStream {
    type Message = StreamMetricsMessage;
    const CHANNEL: Channel = Channel::Metrics;
    const KIND: &str = "metrics";

    fn said(message: &Self::Message) -> Option<&Node> {
        message.identifier.as_ref()?.node.as_ref()
    }

    fn handle(&mut self, message: &Self::Message, interest: &Interest) -> Vec<(Arc<str>, Sums)> {
        self.handle(message, interest)
    }

    fn forget(&mut self) {
        self.forget();
    }

    fn amount(message: &Self::Message) -> usize {
        message.envoy_metrics.iter().map(|family| family.metric.len().max(1)).sum()
    }
}

impl Machine for LogStream {
    type Message = StreamAccessLogsMessage;
    const CHANNEL: Channel = Channel::Logs;
    const KIND: &str = "access_logs";

    fn said(message: &Self::Message) -> Option<&Node> {
        message.identifier.as_ref()?.node.as_ref()
    }

    fn handle(&mut self, message: &Self::Message, interest: &Interest) -> Vec<(Arc<str>, Sums)> {
        self.handle(message, interest)
    }

    fn forget(&mut self) {}

    fn amount(message: &Self::Message) -> usize {
        match &message.log_entries {
            Some(LogEntries::HttpLogs(logs)) => logs.log_entry.len(),
            Some(LogEntries::TcpLogs(logs)) => logs.log_entry.len(),
            None => 0,
        }
    }
}

/// Reads a stream to its end, in a task of its own: a large message must not hold up what else its connection does.
async fn serve<M: Machine>(
    discovery: &Arc<Discovery>,
    machine: M,
    request: Request<Streaming<M::Message>>,
) -> Result<(), Status> {
    if discovery.draining.is_cancelled() {
        return Err(Status::unavailable("shutting down"));
    }
    let (ended, end) = oneshot::channel();
    let now = Instant::now();
    let task = StreamTask {
        discovery: discovery.clone(),
        // Over TLS somebody has proved who it is.
        caller: request.extensions().get::<Caller>().cloned(),
        messages: request.into_inner(),
        machine,
        client: Client::default(),
        id: discovery.telemetry.enter(),
        opened: now,
        pace: Pace::new(now, PER_SECOND, AT_ONCE),
    };
    discovery.tasks.spawn(async move {
        // A client that has gone needs no answer.
        let _ = ended.send(task.run().await);
    });
    end.await.unwrap_or_else(|_| Err(Status::internal("the stream's task has ended")))
}

struct StreamTask<M: Machine> {
    discovery: Arc<Discovery>,
    caller: Option<Caller>,
    messages: Streaming<M::Message>,
    machine: M,
    client: Client,
    id: StreamId,
    opened: Instant,
    pace: Pace,
}

enum Event<T> {
    Message(Box<T>),
    Broken(Status),
    Gone,
    NoNode,
    Drain,
}

impl<M: Machine> StreamTask<M> {
    async fn run(mut self) -> Result<(), Status> {
        self.discovery.metrics.telemetry_opened(M::KIND);
        let end = loop {
            match self.next_event().await {
                Event::Message(message) => {
                    if let Err(status) = self.take_in(*message) {
                        break Err(status);
                    }
                }
                Event::Broken(status) => break Err(status),
                Event::Gone => break Ok(()),
                Event::NoNode => {
                    break Err(Status::deadline_exceeded("no node came within the time for a stream's first request"));
                }
                Event::Drain => break Err(Status::unavailable("shutting down")),
            }
        };
        if let Some(node) = self.client.node() {
            self.discovery.telemetry.ledger().end(node, M::CHANNEL, self.id);
        }
        self.discovery.metrics.telemetry_ended(M::KIND);
        if let Err(status) = &end {
            let node = self.client.node().map(|node| &**node);
            tracing::debug!(node, kind = M::KIND, %status, "telemetry ended");
        }
        end
    }

    async fn next_event(&mut self) -> Event<M::Message> {
        let deadline = self.opened + self.discovery.config.deadlines.first_request;
        let is_known = self.client.node().is_some();
        tokio::select! {
            message = self.messages.message() => match message {
                Ok(Some(message)) => Event::Message(Box::new(message)),
                Ok(None) => Event::Gone,
                Err(status) => Event::Broken(status),
            },
            () = tokio::time::sleep_until(deadline.into()), if !is_known => Event::NoNode,
            () = self.discovery.draining.cancelled() => Event::Drain,
        }
    }

    fn take_in(&mut self, message: M::Message) -> Result<(), Status> {
        let Discovery { telemetry, metrics, .. } = &*self.discovery;
        metrics.telemetry_came(M::KIND);
        if !self.pace.take(Instant::now(), M::amount(&message) + MESSAGE) {
            metrics.telemetry_cut(M::KIND);
            let node = self.client.node().map(|node| &**node);
            tracing::warn!(node, kind = M::KIND, "a stream is cut: it sends more than a client may");
            return Err(Status::resource_exhausted("more metrics or log entries than a client may send"));
        }
        let said = M::said(&message);
        if let (Some(caller), Some(node)) = (&self.caller, said) {
            caller.may_be(&node.id, node.metadata.as_ref().unwrap_or(&Struct::default()))?;
        }
        let node = self.client.identify(said).map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
        let interest = telemetry.ledger().hear(node, M::CHANNEL, self.id);
        match interest {
            Some(interest) => {
                let counted = self.machine.handle(&message, &interest);
                if !counted.is_empty() {
                    telemetry.ledger().add(M::CHANNEL, &counted);
                }
            }
            None => self.machine.forget(),
        }
        Ok(())
    }
}
