//! `AnalysisProfile`: metrics that more than one intent can refer to.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::span::Span;
use crate::api::schema::{LINE, between, rule};

/// `AnalysisProfile.spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AnalysisProfile {
    /// What is measured; any of them can end a run.
    #[schemars(length(min = 1, max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub metrics: Vec<MetricSpec>,
}

impl AnalysisProfile {
    /// `envoy-default`: the candidate's share of failed requests beside that of stable, from the proxies' own reports.
    pub fn envoy_default() -> Self {
        Self { metrics: vec![MetricSpec { name: "error-rate".to_owned(), ..MetricSpec::default() }] }
    }
}

/// `metrics[]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.kind != 'LatencyFraction' || has(self.latencyMs)",
            "a metric of kind LatencyFraction needs latencyMs",
        ),
        rule(
            "self.kind != 'Threshold' || has(self.range)",
            "a metric of kind Threshold needs range",
        ),
        rule(
            "!(self.kind in ['PromQuery', 'Web']) || has(self.range) || has(self.slo)",
            "a metric of kind PromQuery or Web needs range, or slo if it counts",
        ),
        rule(
            "self.kind != 'PromQuery' || has(self.range) || !has(self.query) || self.query.matches('[{][{] *revision *[}][}]')",
            "what counts is asked of both revisions: {{revision}} has to be in it",
        ),
        rule(
            "self.kind != 'Web' || has(self.range) || !has(self.url) || self.url.matches('[{][{] *revision *[}][}]')",
            "what counts is asked of both revisions: {{revision}} has to be in it",
        ),
        rule(
            "!(self.kind in ['PromQuery', 'Web']) || has(self.range) || self.onError != 'Fail'",
            "without a value there is nothing to be counted",
        ),
        rule(
            "!(self.kind in ['ErrorRate', 'LatencyFraction']) || !has(self.range)",
            "requests are counted, not compared with a range: use slo",
        ),
        rule(
            "!(self.kind in ['Threshold', 'PromQuery']) || has(self.query)",
            "a metric of kind Threshold or PromQuery needs query",
        ),
        rule(
            "self.kind != 'Web' || has(self.url)",
            "a metric of kind Web needs url",
        ),
        rule(
            "self.kind != 'Threshold' || !has(self.query) || self.query in ['error-rate', 'request-rate', 'slow-fraction']",
            "proxies report error-rate, request-rate and slow-fraction",
        ),
        rule(
            "self.kind != 'ErrorRate' || self.classify in ['http5xx', 'grpcServerError'] || self.classify.matches('^ *[0-9]{1,5} *(, *[0-9]{1,5} *)*$')",
            "classify is http5xx, grpcServerError, or codes such as \"500,503\"",
        ),
        rule(
            "self.kind != 'LatencyFraction' || has(self.slo) || !has(self.quantile) || self.quantile > 0.5",
            "half of all requests may be bad",
        ),
    ]))]
pub struct MetricSpec {
    /// Unique within the profile.
    #[schemars(length(min = 1, max = 256))]
    #[schemars(regex(pattern = LINE))]
    pub name: String,
    /// Which question is asked.
    pub kind: MetricKind,
    /// How much worse than stable is still as good.
    pub tolerance: Tolerance,
    /// The largest share of bad requests that is acceptable in itself, of 1: `0.01`. No absolute test without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 0.5))]
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self > 0.0 && self < 0.5",
            "is between 0 and 0.5: one percent is 0.01",
        ),
    ]))]
    pub slo: Option<f64>,
    /// A request slower than this is slow. For `LatencyFraction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// `p99 <= latencyMs` is a share of at most 1 - 0.99 of slow requests. For `LatencyFraction`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self > 0.0 && self < 1.0",
            "is between 0 and 1: the 99th percentile is 0.99",
        ),
    ]))]
    pub quantile: Option<f64>,
    /// The query of `PromQuery`, with `{{revision}}` and `{{service}}` filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub query: Option<String>,
    /// Where `Web` asks, with the same filled in, or the Prometheus of `PromQuery`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[schemars(regex(pattern = "^https?://.+"))]
    pub url: Option<String>,
    /// Where the number stands in the answer of `Web`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json_path: Option<String>,
    /// Which values are good, for `Threshold`, `PromQuery` and `Web`. Without it, and with `slo`, the last two count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<Bounds>,
    /// How often a value is asked for: each second at most, and once a day at least.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = between("1s", "24h")))]
    pub interval: Duration,
    /// So many bad values are forgiven.
    pub failure_limit: u32,
    /// Only bad values one after the other count.
    pub consecutive: bool,
    /// Whether a failure ends the run and missing data holds it. What is not critical only keeps it from advancing
    /// while it fails.
    pub critical: bool,
    /// Judged and shown, without consequence.
    pub dry_run: bool,
    /// What an error of the provider means. It is never a failure of the candidate unless this says so.
    pub on_error: OnMetricError,
    /// What makes a request bad: `http5xx`, `grpcServerError`, or a list of codes (`"500,503"`). For `ErrorRate`.
    #[schemars(length(max = 256))]
    pub classify: String,
}

impl Default for MetricSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: MetricKind::ErrorRate,
            tolerance: Tolerance::default(),
            slo: None,
            latency_ms: None,
            quantile: None,
            query: None,
            url: None,
            json_path: None,
            range: None,
            interval: Duration::from_secs(60),
            failure_limit: 0,
            consecutive: false,
            critical: true,
            dry_run: false,
            on_error: OnMetricError::Hold,
            classify: "http5xx".to_owned(),
        }
    }
}

impl MetricSpec {
    /// What queries and URLs may name as `{{name}}`.
    pub const VARIABLES: [&str; 5] = ["candidate", "interval", "revision", "service", "stable"];

    /// Whether it compares counts of requests; the others judge one number after the other.
    pub fn is_counted(&self) -> bool {
        match self.kind {
            MetricKind::ErrorRate | MetricKind::LatencyFraction => true,
            MetricKind::PromQuery | MetricKind::Web => self.range.is_none() && self.slo.is_some(),
            MetricKind::Threshold => false,
        }
    }

    /// Whether somebody else than the proxies answers it.
    pub fn is_of_others(&self) -> bool {
        matches!(self.kind, MetricKind::PromQuery | MetricKind::Web)
    }

    /// The acceptable share of bad requests, if one is said: `slo`, or what `quantile` leaves.
    pub fn acceptable(&self) -> Option<f64> {
        self.slo.or_else(|| self.quantile.filter(|_| self.kind == MetricKind::LatencyFraction).map(|q| 1.0 - q))
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MetricKind {
    /// The share of requests that failed.
    #[default]
    ErrorRate,
    /// The share of requests that were slow.
    LatencyFraction,
    /// A number that must lie in a range, from the proxies' reports.
    Threshold,
    /// The same from Prometheus.
    PromQuery,
    /// The same from a URL.
    Web,
}

/// How far the candidate may be from stable and count as equal: a difference has to exceed both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tolerance {
    /// Candidate over stable, at least 1.
    #[schemars(range(min = 1, max = 1000000))]
    pub ratio: f64,
    /// Candidate minus stable, as a share of 1.
    #[schemars(range(min = 0))]
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self < 1.0",
            "is a share of 1: half a percent is 0.005",
        ),
    ]))]
    pub delta: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { ratio: 1.0, delta: 0.005 }
    }
}

/// The good values; either end may be open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "has(self.min) || has(self.max)",
            "every value is good: give min or max",
        ),
        rule(
            "!has(self.min) || !has(self.max) || self.min <= self.max",
            "no value lies between min and max",
        ),
    ]))]
pub struct Bounds {
    /// The smallest good one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The largest good one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

impl Bounds {
    /// Whether `value` is a good one; what is not a number is not.
    pub fn contain(&self, value: f64) -> bool {
        value.is_finite() && self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }
}

/// What an error of a provider means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnMetricError {
    /// Nothing is known: the run does not advance.
    #[default]
    Hold,
    /// It counts as a bad value.
    Fail,
}
