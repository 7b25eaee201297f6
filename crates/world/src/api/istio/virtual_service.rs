//! `VirtualService`. Field meanings: istio.io reference; Envoy mapping: the compiler.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use crate::Labels;
use crate::text::duration;

/// `VirtualService.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct VirtualService {
    pub hosts: Box<[String]>,
    /// `mesh`, `<name>` or `<namespace>/<name>`; empty means `mesh`.
    pub gateways: Box<[String]>,
    pub http: Box<[HttpRoute]>,
    pub tls: Box<[TlsRoute]>,
    pub tcp: Box<[TcpRoute]>,
    pub export_to: Box<[String]>,
}

impl VirtualService {
    /// The keys of all `sourceLabels`.
    pub fn source_label_keys(&self) -> BTreeSet<&str> {
        let http = self.http.iter().flat_map(|r| &r.matches).map(|m| &m.source_labels);
        let tls = self.tls.iter().flat_map(|r| &r.matches).map(|m| &m.source_labels);
        let tcp = self.tcp.iter().flat_map(|r| &r.matches).map(|m| &m.source_labels);
        http.chain(tls).chain(tcp).flat_map(|labels| labels.keys().map(String::as_str)).collect()
    }
}

/// `http[]`: matches are tried in order, an empty list matches everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct HttpRoute {
    pub name: String,
    #[serde(rename = "match")]
    pub matches: Box<[HttpMatch]>,
    pub route: Box<[HttpDestination]>,
    pub redirect: Option<Box<Redirect>>,
    pub direct_response: Option<Box<DirectResponse>>,
    pub delegate: Option<Delegate>,
    pub rewrite: Option<Box<Rewrite>>,
    #[serde(deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    pub retries: Option<Box<Retry>>,
    pub fault: Option<Box<Fault>>,
    pub mirror: Option<Destination>,
    pub mirrors: Box<[Mirror]>,
    pub mirror_percentage: Option<Percent>,
    /// The older integer form of `mirrorPercentage`.
    pub mirror_percent: Option<u32>,
    pub cors_policy: Option<Box<CorsPolicy>>,
    pub headers: Option<Box<Headers>>,
}

/// `http[].match[]`: all given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct HttpMatch {
    pub name: String,
    pub uri: Option<StringMatch>,
    pub scheme: Option<StringMatch>,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    pub headers: BTreeMap<String, Option<StringMatch>>,
    pub without_headers: BTreeMap<String, Option<StringMatch>>,
    pub query_params: BTreeMap<String, Option<StringMatch>>,
    pub ignore_uri_case: bool,
    pub port: Option<u16>,
    pub source_labels: Labels,
    pub source_namespace: String,
    pub gateways: Vec<String>,
    pub stat_prefix: String,
}

/// `exact`, `prefix` or `regex` (RE2, whole value); none of them means "present".
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct StringMatch {
    pub exact: Option<String>,
    pub prefix: Option<String>,
    pub regex: Option<String>,
}

/// `http[].route[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct HttpDestination {
    pub destination: Destination,
    /// Relative to the sum of the route's weights, which need not be 100. Signed so that a negative weight is
    /// reported by the compiler with its field instead of failing the object.
    pub weight: Option<i64>,
    pub headers: Option<Box<Headers>>,
}

/// A service, or a subset of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Destination {
    pub host: String,
    pub subset: String,
    pub port: Option<PortSelector>,
}

/// `{number: 80}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PortSelector {
    pub number: u16,
}

/// `{value: 12.5}`, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Percent {
    pub value: f64,
}

/// `http[].redirect`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Redirect {
    pub uri: Option<String>,
    /// Replaces the matched prefix only; `uri`, which replaces the whole path, wins.
    pub prefix_rewrite: Option<String>,
    pub authority: Option<String>,
    pub port: Option<u16>,
    /// `FROM_PROTOCOL_DEFAULT` or `FROM_REQUEST_PORT`.
    pub derive_port: Option<String>,
    pub scheme: Option<String>,
    pub redirect_code: Option<u32>,
}

/// `http[].directResponse`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct DirectResponse {
    pub status: u32,
    pub body: Option<ResponseBody>,
}

/// `http[].directResponse.body`: text, or base64 of bytes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ResponseBody {
    pub string: Option<String>,
    pub bytes: Option<String>,
}

/// `http[].delegate`: another VirtualService without hosts that holds the rest of the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Delegate {
    pub name: String,
    pub namespace: String,
}

/// `http[].rewrite`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Rewrite {
    pub uri: Option<String>,
    pub authority: Option<String>,
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// RE2 `match` and a substitution with `\1` groups.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct RegexRewrite {
    #[serde(rename = "match")]
    pub pattern: String,
    pub rewrite: String,
}

/// `http[].retries`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Retry {
    /// 0 turns retries off.
    pub attempts: i32,
    #[serde(deserialize_with = "duration")]
    pub per_try_timeout: Option<Duration>,
    pub retry_on: Option<String>,
    pub retry_remote_localities: Option<bool>,
    pub retry_ignore_previous_hosts: Option<bool>,
    #[serde(deserialize_with = "duration")]
    pub backoff: Option<Duration>,
}

/// `http[].fault`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Fault {
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
}

/// `http[].fault.delay`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct FaultDelay {
    #[serde(deserialize_with = "duration")]
    pub fixed_delay: Option<Duration>,
    pub percentage: Option<Percent>,
    /// The older integer form of `percentage`.
    pub percent: Option<u32>,
}

/// `http[].fault.abort`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct FaultAbort {
    pub http_status: Option<u32>,
    /// A gRPC status name, such as `UNAVAILABLE`.
    pub grpc_status: Option<String>,
    pub percentage: Option<Percent>,
}

/// The names of gRPC's statuses, each at its number (`grpc/status.h`).
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// `http[].mirrors[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Mirror {
    pub destination: Destination,
    pub percentage: Option<Percent>,
}

/// `http[].corsPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct CorsPolicy {
    /// The older form: exact origins.
    pub allow_origin: Vec<String>,
    pub allow_origins: Vec<StringMatch>,
    pub allow_methods: Vec<String>,
    pub allow_headers: Vec<String>,
    pub expose_headers: Vec<String>,
    #[serde(deserialize_with = "duration")]
    pub max_age: Option<Duration>,
    pub allow_credentials: Option<bool>,
    /// `FORWARD` or `IGNORE`.
    pub unmatched_preflights: Option<String>,
}

/// Header operations on the request and on the response.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Headers {
    pub request: Option<HeaderOperations>,
    pub response: Option<HeaderOperations>,
}

/// `set` overwrites, `add` appends, `remove` removes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct HeaderOperations {
    pub set: BTreeMap<String, String>,
    pub add: BTreeMap<String, String>,
    pub remove: Vec<String>,
}

/// `tls[]`: routing of TLS that is not terminated, by SNI.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct TlsRoute {
    #[serde(rename = "match")]
    pub matches: Vec<L4Match>,
    pub route: Vec<L4Destination>,
}

/// `tcp[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct TcpRoute {
    #[serde(rename = "match")]
    pub matches: Vec<L4Match>,
    pub route: Vec<L4Destination>,
}

/// `tcp[].match[]` and `tls[].match[]`; `sniHosts` belongs to the latter only.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct L4Match {
    pub sni_hosts: Vec<String>,
    pub destination_subnets: Vec<String>,
    pub port: Option<u16>,
    pub source_labels: Labels,
    pub source_namespace: String,
    pub gateways: Vec<String>,
}

/// `tcp[].route[]` and `tls[].route[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct L4Destination {
    pub destination: Destination,
    pub weight: Option<i64>,
}
