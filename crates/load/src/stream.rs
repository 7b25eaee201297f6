//! The server's end of one load reporting stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use proto::pb::google::protobuf;

use crate::{Ask, ClusterReport, Clusters, Report};

/// A client that understands `send_all_clusters` says so with this feature.
const TAKES_ALL: &str = "envoy.lrs.supports_send_all_clusters";

/// One stream: the client says who it is and reports; the server says what to report, as often as that changes.
///
/// ```text
/// opened ──node──▶ known ──ask changes──▶ response ──▶ reports at the interval ──▶ ...
/// ```
#[derive(Debug)]
pub struct Stream {
    ask: Ask,
    node: Option<Arc<str>>,
    takes_all: bool,
    /// The clusters that the node has, for clients that must be told names.
    held: Option<BTreeSet<Arc<str>>>,
    sent: Option<LoadStatsResponse>,
}

/// Why a stream must be closed: INVALID_ARGUMENT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The first message names no node.
    #[error("the first request of a load reporting stream must hold a node with an id")]
    NoNode,
    /// A report came before anything was asked for. Envoy and gRPC never do that.
    #[error("a load report came before the server asked for one")]
    NotAsked,
}

impl Stream {
    /// A stream on which nothing was said yet.
    pub fn new(ask: Ask) -> Self {
        Self { ask, node: None, takes_all: false, held: None, sent: None }
    }

    /// Takes in a message from the client; the report in it, if it is one. A client that has none of the clusters that it
    /// was asked for sends reports without any.
    ///
    /// # Errors
    /// The stream must be closed with INVALID_ARGUMENT and the refusal's text.
    pub fn handle_request(&mut self, request: LoadStatsRequest) -> Result<Option<Report>, Refusal> {
        if self.node.is_none() {
            let node = request.node.filter(|node| !node.id.is_empty()).ok_or(Refusal::NoNode)?;
            self.takes_all = node.client_features.iter().any(|feature| feature == TAKES_ALL);
            self.node = Some(node.id.into());
        }
        if self.sent.is_none() {
            let is_empty = request.cluster_stats.is_empty();
            return if is_empty { Ok(None) } else { Err(Refusal::NotAsked) };
        }
        Ok(Some(Report { clusters: request.cluster_stats.into_iter().map(ClusterReport::from_message).collect() }))
    }

    /// Something else is asked for from now on.
    pub fn handle_ask(&mut self, ask: Ask) {
        self.ask = ask;
    }

    /// The clusters that the client has; see [`Stream::needs_held`].
    pub fn handle_held(&mut self, clusters: BTreeSet<Arc<str>>) {
        self.held = Some(clusters);
    }

    /// Whether the client must be told its own clusters by name, because it cannot be asked for all of them.
    pub fn needs_held(&self) -> bool {
        self.node.is_some() && !self.takes_all && self.ask.clusters == Clusters::All
    }

    /// Who the client is; `None` before its first message.
    pub fn node(&self) -> Option<&Arc<str>> {
        self.node.as_ref()
    }

    /// The next message for the client; `None` when it knows what to report. A client that was never asked anything
    /// is left waiting, as the protocol allows.
    pub fn poll_response(&mut self) -> Option<LoadStatsResponse> {
        self.node.as_ref()?;
        let names = |names: &BTreeSet<Arc<str>>| names.iter().map(ToString::to_string).collect();
        let (clusters, send_all_clusters) = match &self.ask.clusters {
            Clusters::None => (Vec::new(), false),
            Clusters::Named(wanted) => (names(wanted), false),
            Clusters::All if self.takes_all => (Vec::new(), true),
            Clusters::All => (names(self.held.as_ref()?), false),
        };
        let nothing = clusters.is_empty() && !send_all_clusters;
        if nothing && self.sent.is_none() {
            return None;
        }
        let response = LoadStatsResponse {
            clusters,
            send_all_clusters,
            load_reporting_interval: Some(protobuf::Duration {
                seconds: i64::try_from(self.ask.interval.as_secs()).unwrap_or(i64::MAX),
                nanos: self.ask.interval.subsec_nanos() as i32,
            }),
            report_endpoint_granularity: self.ask.endpoints,
        };
        if self.sent.as_ref() == Some(&response) {
            return None;
        }
        self.sent = Some(response.clone());
        Some(response)
    }
}
