//! Our own `policy.pointsman.dev` v1alpha1.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::istio::WorkloadSelector;
use super::schema;

/// `RateLimitPolicy.spec`: how often the workloads that are selected answer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitPolicy {
    /// Which workloads of the object's namespace, or of every namespace when it is in the root namespace; all of them
    /// without a selector. What is limited is what reaches them: a sidecar's inbound requests, a gateway's requests.
    pub selector: Option<WorkloadSelector>,
    /// Each counts for itself, and a request passes if all let it.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub limits: Vec<RateLimit>,
}

/// One limit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        schema::rule("has(self.per)", "it is not said in which time"),
        schema::rule(
            "!has(self.per) || self.scope != 'Global' || duration(self.per) >= duration('1s')",
            "a Global limit counts over 1s or more",
        ),
    ]))]
pub struct RateLimit {
    /// Its name, in this object only once.
    #[schemars(length(max = 63), regex(pattern = schema::LABEL))]
    pub name: String,
    /// How many requests in that time.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// In which time: from 50ms on for `Local`, and from 1s to 30 days for `Global`.
    #[serde(deserialize_with = "crate::text::duration")]
    #[schemars(schema_with = "per")]
    pub per: Option<Duration>,
    /// How many may come at once after a silence; `requests` without. `Local` only.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
    /// Who counts together.
    pub scope: LimitScope,
    /// Which requests; all of them without.
    #[serde(rename = "match")]
    pub matching: RequestFilter,
    /// What is counted apart: each client, each value of a header, each value of a claim. Everything together without.
    #[schemars(length(max = 4))]
    pub by: Vec<LimitKey>,
    /// What happens when nobody can say how many there were. `Global` only.
    pub on_error: OnLimitError,
    /// Count, but refuse nothing.
    pub dry_run: bool,
}

/// Who counts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum LimitScope {
    /// Each proxy for itself: exact, without a call, and as many times the rate as there are proxies.
    #[default]
    Local,
    /// All proxies: each request is asked about.
    Global,
}

/// What happens to a request that could not be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum OnLimitError {
    /// It passes.
    #[default]
    Allow,
    /// It is answered with 500.
    Deny,
}

/// Which requests: all that is given must hold, and of several values one. Values are exact, `prefix*`, `*suffix`, or
/// `*` for any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestFilter {
    /// Methods, in upper case.
    #[schemars(length(max = 16), inner(regex(pattern = "^[A-Z]+$")))]
    pub methods: Vec<String>,
    /// Paths, without their query.
    #[schemars(length(max = 16), inner(regex(pattern = r"^(/[^*?#]*|/[^*?#]*[*]|[*][^*?#]*)$")))]
    pub paths: Vec<String>,
    /// Hosts, without their port, in any case.
    #[schemars(length(max = 16), inner(regex(pattern = VALUE)))]
    pub hosts: Vec<String>,
    /// Headers, each with the values of which it has one.
    #[schemars(schema_with = "headers")]
    pub headers: BTreeMap<String, Vec<String>>,
}

/// What is counted apart: exactly one of these. Requests that have no such thing share one count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        schema::rule(
            "[has(self.client), has(self.header), has(self.claim)].filter(given, given).size() == 1",
            "exactly one of client, header and claim is given",
        ),
    ]))]
pub struct LimitKey {
    /// Each client.
    pub client: Option<ClientKey>,
    /// Each value of this header.
    #[schemars(length(max = 256), regex(pattern = HEADER))]
    pub header: Option<String>,
    /// Each value of this claim of a token that a RequestAuthentication has checked; only texts.
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,
}

/// How clients are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ClientKey {
    /// By the SPIFFE identity in their certificate; all that have none are one.
    Identity,
    /// By their IP address.
    Address,
}

/// Exact, `prefix*`, `*suffix` or `*`.
const VALUE: &str = "^([^*]+|[^*]+[*]|[*][^*]*)$";

/// A header in lower case, or a pseudo header; without quotes, because expressions name it.
const HEADER: &str = "^:?[a-z0-9!#$%&*+.^_|~-]+$";

/// Each with a value at least.
fn headers(_: &mut SchemaGenerator) -> Schema {
    let names = format!("self.all(name, name.matches('{HEADER}'))");
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "type": "array",
            "minItems": 1,
            "maxItems": 16,
            "items": {"type": "string", "maxLength": 1024, "pattern": VALUE},
        },
        "x-kubernetes-validations": [schema::rule(&names, "headers are named in lower case")],
    })
}

/// From the shortest that Envoy counts in to the longest that is kept.
fn per(_: &mut SchemaGenerator) -> Schema {
    let mut schema = schema::duration();
    let longest = schema::rule("duration(self) <= duration('720h')", "is at most 30 days (720h)");
    let rules: Vec<_> = schema::at_least("50ms").into_iter().chain([longest]).collect();
    schema.insert("x-kubernetes-validations".to_owned(), rules.into());
    schema
}

impl RateLimit {
    /// The shortest time of a `Local` limit: Envoy's `LocalRateLimit` refuses shorter ones.
    pub const SHORTEST_LOCAL: Duration = Duration::from_millis(50);
    /// The shortest time of a `Global` limit.
    pub const SHORTEST_GLOBAL: Duration = Duration::from_secs(1);
    /// The longest time.
    pub const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
}
