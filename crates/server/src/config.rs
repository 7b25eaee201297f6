//! What the operator decides about the server.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use compile::HostDelivery;

use crate::{AdminAccess, JwksSettings, QuotaStore, TlsSettings};

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket. Its file gets mode 0660: owner and group may connect.
    Unix(PathBuf),
}

/// Why a text is not a place to listen at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither an address such as 0.0.0.0:15010 nor unix:/path/to/socket")]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ListenError(text.to_owned())),
            Some(path) => Ok(Listen::Unix(path.into())),
            None => text.parse().map(Listen::Tcp).map_err(|_| ListenError(text.to_owned())),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Everything that can be chosen when a server is bound.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where xDS, health, reflection and the admin API in gRPC form are served, without TLS.
    pub xds_listen: Vec<Listen>,
    /// Where xDS and the certificate service are served over TLS, and to whom; `None` for nowhere.
    pub tls: Option<TlsSettings>,
    /// Where the admin API, over HTTP and gRPC, and the metrics are served; `None` for nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Who may call the admin API.
    pub admin_access: AdminAccess,
    /// How clients that can take virtual hosts separately get them.
    pub virtual_hosts: HostDelivery,
    /// How streams name this replica and how long they wait for clients.
    pub streams: xds::Settings,
    /// What clients that report load are asked for at the start; it can be changed while the server runs.
    pub load: load::Policy,
    /// Where rollouts keep what they must not forget; `None` to forget it at the end.
    pub state: Option<PathBuf>,
    /// How the key sets of token issuers are fetched.
    pub jwks: JwksSettings,
    /// Where what all proxies may let through together is counted.
    pub quotas: QuotaStore,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// How long things may take.
    pub deadlines: Deadlines,
}

impl Default for Config {
    /// Nothing is listened at; everything else has its default.
    fn default() -> Self {
        Self {
            xds_listen: Vec::new(),
            tls: None,
            admin_listen: None,
            admin_access: AdminAccess::default(),
            virtual_hosts: HostDelivery::default(),
            streams: xds::Settings::default(),
            load: load::Policy::default(),
            state: None,
            jwks: JwksSettings::default(),
            quotas: QuotaStore::default(),
            limits: Limits::default(),
            deadlines: Deadlines::default(),
        }
    }
}

/// Bounds on what clients may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of one request message. A larger one ends its stream with RESOURCE_EXHAUSTED and nothing else. Large
    /// requests are honest ones when a client reconnects with 100,000 resources (rule P-77), so the default is 16 MiB.
    pub max_request_bytes: usize,
    /// Open connections, over all listeners. `None` takes what the limit on file descriptors leaves. When it is
    /// reached, the connection that has been silent for longest makes room; when none is silent, new ones are closed.
    pub max_connections: Option<usize>,
    /// Concurrent streams of one connection (rule P-76).
    pub max_streams_per_connection: u32,
    /// Streams that may be at their first response at one time; others wait their turn in order of arrival
    /// (rule P-79). Later responses never wait.
    pub max_first_responses: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            max_request_bytes: 16 * 1024 * 1024,
            max_connections: None,
            max_streams_per_connection: 100_000,
            // The figure is istiod's default for new streams in a second; here it bounds how many are at it at once.
            max_first_responses: 15 + 5 * cores,
        }
    }
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the opening of a connection to its first stream, and from the opening of a stream to its first request.
    pub first_request: Duration,
    /// How often an HTTP/2 ping asks a connection whether it is alive (rule P-75).
    pub keepalive_interval: Duration,
    /// How long the answer to a ping may take before the connection is closed.
    pub keepalive_timeout: Duration,
    /// How long a client may take no byte of a response that is waiting, before its connection is closed (rule P-80).
    pub send: Duration,
    /// How long a connection lives before its client is asked to connect again, which may be to another replica
    /// (rule P-78); up to a tenth less or more, so that those who came together do not leave together. `None` for as
    /// long as the client likes.
    pub connection_age: Option<Duration>,
    /// How long a stream keeps its place among the first responses when its client does not take the response.
    pub first_response: Duration,
    /// How long the admin API waits for a stream to say what it holds.
    pub inspect: Duration,
    /// How long the end of the server may take; what is still open then is cut off.
    pub drain: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            first_request: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            send: Duration::from_secs(300),
            connection_age: None,
            first_response: Duration::from_secs(1),
            inspect: Duration::from_secs(1),
            drain: Duration::from_secs(10),
        }
    }
}
