//! What the admin API says about load.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/load`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loads {
    /// Clusters that had traffic, in order of name.
    pub clusters: Vec<ClusterLoad>,
    /// What clients are asked for.
    pub settings: LoadSettings,
}

/// `GET` and `PUT /api/v1/load/settings`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSettings {
    /// How often all clusters are reported, in seconds, at least 0.1; 0 for not at all.
    pub interval_seconds: f64,
    /// Whether clients break their numbers down to endpoints.
    #[serde(default)]
    pub endpoints: bool,
}

/// One cluster, as all clients together report it. Attempts are counted: a retry is a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterLoad {
    /// Its name.
    pub cluster: String,
    /// Requests per second that ended, by the newest report of each client.
    pub requests_per_second: f64,
    /// What of them ended badly, from 0 to 1; `null` when none ended.
    pub error_share: Option<f64>,
    /// Clients with a newest report that is not stale.
    pub reporting_nodes: usize,
    /// Requests that ended well, since the server's start.
    pub successful: u64,
    /// Requests that ended badly, since the server's start.
    pub errors: u64,
    /// Requests that clients gave up by themselves, since the server's start.
    pub dropped: u64,
    /// Requests going on, by the newest report of each client.
    pub in_progress: u64,
    /// By locality and priority, in order.
    pub places: Vec<PlaceLoad>,
    /// By endpoint, in order; empty unless that is asked for.
    pub endpoints: Vec<EndpointLoad>,
    /// By client, in order of id; only in `GET /api/v1/load/{cluster}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeLoad>,
}

/// One locality and priority of a cluster, since the server's start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlaceLoad {
    /// `region/zone/sub-zone`; empty when endpoints have no locality.
    pub locality: String,
    /// The priority of its endpoints.
    pub priority: u32,
    /// Requests that ended well.
    pub successful: u64,
    /// Requests that ended badly.
    pub errors: u64,
}

/// One endpoint of a cluster, since the server's start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointLoad {
    /// `10.0.0.7:8080`.
    pub address: String,
    /// Requests that ended well.
    pub successful: u64,
    /// Requests that ended badly.
    pub errors: u64,
}

/// What one client last reported of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// The client's id.
    pub node_id: String,
    /// Requests per second that ended.
    pub requests_per_second: f64,
    /// What of them ended badly, from 0 to 1; `null` when none ended.
    pub error_share: Option<f64>,
    /// Requests going on.
    pub in_progress: u64,
    /// How old the report is, in seconds.
    pub age_seconds: f64,
}

impl From<load::ClusterLoad> for ClusterLoad {
    fn from(load: load::ClusterLoad) -> Self {
        Self {
            cluster: load.cluster.to_string(),
            requests_per_second: load.per_second,
            error_share: load.error_share,
            reporting_nodes: load.reporting,
            successful: load.total.successful,
            errors: load.total.errors,
            dropped: load.dropped,
            in_progress: load.total.in_progress,
            places: load.places.into_iter().map(PlaceLoad::from).collect(),
            endpoints: load.endpoints.into_iter().map(EndpointLoad::from).collect(),
            nodes: Vec::new(),
        }
    }
}

impl From<load::PlaceLoad> for PlaceLoad {
    fn from(place: load::PlaceLoad) -> Self {
        let load::Locality { region, zone, sub_zone } = &place.locality;
        let text = format!("{region}/{zone}/{sub_zone}");
        Self {
            locality: text.trim_end_matches('/').to_owned(),
            priority: place.priority,
            successful: place.total.successful,
            errors: place.total.errors,
        }
    }
}

impl From<(std::sync::Arc<str>, load::Counts)> for EndpointLoad {
    fn from((address, counts): (std::sync::Arc<str>, load::Counts)) -> Self {
        Self { address: address.to_string(), successful: counts.successful, errors: counts.errors }
    }
}

impl From<load::NodeLoad> for NodeLoad {
    fn from(load: load::NodeLoad) -> Self {
        Self {
            node_id: load.node.to_string(),
            requests_per_second: load.per_second,
            error_share: load.error_share,
            in_progress: load.in_progress,
            age_seconds: load.age.as_secs_f64(),
        }
    }
}
