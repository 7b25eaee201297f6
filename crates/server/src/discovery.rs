//! The connections of the xDS listeners: discovery streams, and calls of whatever else is served there.

mod admission;
mod call;
mod connection;
mod documents;
mod follow;
mod method;
mod node;
mod proof;
mod roster;
mod secrets;
mod stream_task;
mod tolerance;
mod witness;
mod woken;

pub(crate) use connection::serve_connection;
pub(crate) use method::service_names;
pub(crate) use roster::{Departed, Entry, Report, Roster};

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::journal::Journal;
use crate::listen::{Lobby, Peer, Seat};
use crate::metrics::Metrics;
use crate::plane_task::PlaneHandle;
use crate::trust::{Channel, Issuer};
use crate::{Config, GatewaySecrets, LoadReports, Telemetry, discovery::admission::Admission};

/// What all xDS connections share.
#[derive(Debug)]
pub(crate) struct Discovery {
    pub(crate) config: Config,
    pub(crate) plane: PlaneHandle,
    pub(crate) roster: Arc<Roster>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) loads: Arc<LoadReports>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) lobby: Arc<Lobby>,
    /// Signs certificates; only where there are TLS listeners.
    pub(crate) issuer: Option<Arc<Issuer>>,
    /// Certificates and keys of gateways.
    pub(crate) gateway_secrets: GatewaySecrets,
    admission: Admission,
    /// Cancelled when the server begins to end: streams say goodbye.
    pub(crate) draining: CancellationToken,
    /// Owns the connections.
    pub(crate) tasks: TaskTracker,
}

/// One xDS connection, as its streams see it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    pub(crate) seat: Seat,
    pub(crate) opened: std::time::SystemTime,
    /// What TLS shows of the client; `None` without TLS, where nobody is asked who they are.
    pub(crate) channel: Option<Channel>,
}

impl Discovery {
    pub(crate) fn new(
        config: Config,
        plane: PlaneHandle,
        metrics: Arc<Metrics>,
        journal: Arc<Journal>,
        lobby: Arc<Lobby>,
        issuer: Option<Arc<Issuer>>,
        draining: CancellationToken,
    ) -> Self {
        let admission = Admission::new(config.limits.max_first_responses);
        let loads = LoadReports::new(config.load.clone());
        let (roster, tasks) = (Arc::default(), TaskTracker::new());
        let telemetry = Telemetry::new(loads.clone(), draining.clone(), tasks.clone());
        Self {
            config,
            plane,
            roster,
            metrics,
            journal,
            loads,
            telemetry,
            lobby,
            issuer,
            gateway_secrets: GatewaySecrets::default(),
            admission,
            draining,
            tasks,
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
