//! The discovery services on one connection, and the tasks of their streams.

mod admission;
mod connection;
mod method;
mod node;
mod roster;
mod stream_task;
mod witness;

pub(crate) use connection::serve_connection;
pub(crate) use method::service_names;
pub(crate) use roster::{Departed, Entry, Report, Roster};

use std::sync::Arc;

use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;

use crate::grpc::{self, Requests, Responses};
use crate::journal::Journal;
use crate::listen::{Lobby, Peer, Seat};
use crate::metrics::Metrics;
use crate::plane_task::PlaneHandle;
use crate::{Config, LoadReports, discovery::admission::Admission};
use stream_task::StreamTask;

/// What all xDS connections share.
#[derive(Debug)]
pub(crate) struct Discovery {
    pub(crate) config: Config,
    pub(crate) plane: PlaneHandle,
    pub(crate) roster: Arc<Roster>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) loads: Arc<LoadReports>,
    pub(crate) lobby: Arc<Lobby>,
    admission: Admission,
    /// Cancelled when the server begins to end: streams say goodbye.
    pub(crate) draining: CancellationToken,
    /// Owns connections, the streams of HTTP/2, and the tasks of discovery streams.
    pub(crate) tasks: TaskTracker,
}

/// One xDS connection, as its streams see it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    pub(crate) seat: Seat,
    pub(crate) opened: std::time::SystemTime,
}

impl Discovery {
    pub(crate) fn new(
        config: Config,
        plane: PlaneHandle,
        metrics: Arc<Metrics>,
        journal: Arc<Journal>,
        lobby: Arc<Lobby>,
        draining: CancellationToken,
    ) -> Self {
        let admission = Admission::new(config.limits.max_first_responses);
        let loads = LoadReports::new(config.load.clone());
        let (roster, tasks) = (Arc::default(), TaskTracker::new());
        Self { config, plane, roster, metrics, journal, loads, lobby, admission, draining, tasks }
    }

    /// Answers one call: a discovery stream gets a task of its own, everything else goes to `others`.
    async fn call<B>(
        self: Arc<Self>,
        connection: Arc<Connection>,
        others: Routes,
        request: Request<B>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        connection.seat.has_spoken();
        if let Err(response) = grpc::require_grpc(&request) {
            return *response;
        }
        let Some((service, variant)) = method::find(request.uri().path()) else {
            return match others.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
        };
        match self.refusal() {
            Some(status) => {
                tracing::debug!(peer = %connection.peer, message = status.message(), "stream refused");
                self.metrics.stream_refused(status.code());
                grpc::refusal(status)
            }
            None => {
                let (responses, body) = Responses::channel();
                let max_bytes = self.config.limits.max_request_bytes;
                let tasks = self.tasks.clone();
                match variant {
                    xds::Variant::StateOfTheWorld => {
                        let requests = Requests::new(request.into_body(), max_bytes);
                        let to_request = xds::Request::StateOfTheWorld;
                        let task = StreamTask::new(self, connection, service, variant, responses);
                        tasks.spawn(task.run(requests, to_request));
                    }
                    xds::Variant::Delta => {
                        let requests = Requests::new(request.into_body(), max_bytes);
                        let to_request = xds::Request::Delta;
                        let task = StreamTask::new(self, connection, service, variant, responses);
                        tasks.spawn(task.run(requests, to_request));
                    }
                }
                grpc::streaming(body)
            }
        }
    }

    /// Why no stream can begin now: emptiness must never be taken for the configuration (rule P-42).
    fn refusal(&self) -> Option<Status> {
        if self.draining.is_cancelled() {
            Some(Status::unavailable("shutting down"))
        } else if !self.plane.is_synced() {
            Some(Status::unavailable("not synchronised yet: the configuration is still being read"))
        } else {
            None
        }
    }
}
