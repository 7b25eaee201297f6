//! One report, as values.

use std::sync::Arc;
use std::time::Duration;

use proto::pb::envoy::config::core::v3::{Address, address, socket_address::PortSpecifier};
use proto::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamEndpointStats, UpstreamLocalityStats};

/// An interval is taken to be at most a day.
const LONGEST_SECONDS: u64 = 24 * 60 * 60;

/// What one client reports at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Clusters in the order of the message; one may come more than once, by its service names.
    pub clusters: Vec<ClusterReport>,
}

/// One cluster in a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterReport {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// The time that the numbers are from, by the client's clock; zero when it does not say.
    pub interval: Duration,
    /// Requests that the client gave up by itself: by drop overloads or circuit breakers.
    pub dropped: u64,
    /// By locality and priority; empty when there was no traffic.
    pub localities: Vec<LocalityReport>,
}

/// One locality of a cluster in a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalityReport {
    /// Where its endpoints are.
    pub locality: Locality,
    /// Their priority.
    pub priority: u32,
    /// Requests to them.
    pub counts: Counts,
    /// By endpoint, if that was asked for.
    pub endpoints: Vec<EndpointReport>,
}

/// One endpoint in a report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointReport {
    /// `10.0.0.7:8080`, a path or a name.
    pub address: Arc<str>,
    /// Requests to it.
    pub counts: Counts,
}

/// Region, zone and sub-zone; each may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone within the region.
    pub zone: Arc<str>,
    /// Sub-zone within the zone.
    pub sub_zone: Arc<str>,
}

/// Requests. Retries count one by one: these are attempts, not what the application saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ended well.
    pub successful: u64,
    /// Ended badly: a status of 500 or more, or no answer.
    pub errors: u64,
    /// Begun. A connection that fails is an error that was never begun.
    pub issued: u64,
    /// Going on at the end of the interval.
    pub in_progress: u64,
}

impl Counts {
    /// Requests that ended.
    pub fn ended(&self) -> u64 {
        self.successful.saturating_add(self.errors)
    }

    /// Whether nothing happened.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// What of the ended requests ended badly, from 0 to 1; `None` when none ended.
    pub fn error_share(&self) -> Option<f64> {
        (self.ended() > 0).then(|| self.errors as f64 / self.ended() as f64)
    }

    pub(crate) fn add(&mut self, other: &Counts) {
        self.successful = self.successful.saturating_add(other.successful);
        self.errors = self.errors.saturating_add(other.errors);
        self.issued = self.issued.saturating_add(other.issued);
        self.in_progress = self.in_progress.saturating_add(other.in_progress);
    }
}

impl ClusterReport {
    /// All its localities together.
    pub fn counts(&self) -> Counts {
        self.localities.iter().fold(Counts::default(), |mut sum, locality| {
            sum.add(&locality.counts);
            sum
        })
    }

    pub(crate) fn from_message(stats: ClusterStats) -> Self {
        let interval = stats.load_report_interval.unwrap_or_default();
        // A negative duration is nonsense that only a broken clock sends, and so is one of years.
        let seconds = u64::try_from(interval.seconds).unwrap_or(0).min(LONGEST_SECONDS);
        let nanos = u32::try_from(interval.nanos).unwrap_or(0).min(999_999_999);
        Self {
            cluster: stats.cluster_name.into(),
            interval: Duration::new(seconds, nanos),
            dropped: stats.total_dropped_requests,
            localities: stats.upstream_locality_stats.into_iter().map(locality).collect(),
        }
    }
}

fn locality(stats: UpstreamLocalityStats) -> LocalityReport {
    let at = stats.locality.unwrap_or_default();
    LocalityReport {
        locality: Locality { region: at.region.into(), zone: at.zone.into(), sub_zone: at.sub_zone.into() },
        priority: stats.priority,
        counts: Counts {
            successful: stats.total_successful_requests,
            errors: stats.total_error_requests,
            issued: stats.total_issued_requests,
            in_progress: stats.total_requests_in_progress,
        },
        endpoints: stats.upstream_endpoint_stats.into_iter().map(endpoint).collect(),
    }
}

fn endpoint(stats: UpstreamEndpointStats) -> EndpointReport {
    EndpointReport {
        address: stats.address.map(address_text).unwrap_or_default().into(),
        counts: Counts {
            successful: stats.total_successful_requests,
            errors: stats.total_error_requests,
            issued: stats.total_issued_requests,
            in_progress: stats.total_requests_in_progress,
        },
    }
}

fn address_text(address: Address) -> String {
    match address.address {
        Some(address::Address::SocketAddress(socket)) => {
            let host = if socket.address.contains(':') { format!("[{}]", socket.address) } else { socket.address };
            match socket.port_specifier {
                Some(PortSpecifier::PortValue(port)) => format!("{host}:{port}"),
                Some(PortSpecifier::NamedPort(port)) => format!("{host}:{port}"),
                None => host,
            }
        }
        Some(address::Address::Pipe(pipe)) => pipe.path,
        Some(address::Address::EnvoyInternalAddress(internal)) => internal.endpoint_id,
        None => String::new(),
    }
}
