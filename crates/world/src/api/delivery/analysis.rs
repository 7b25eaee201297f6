//! `spec.analysis` of an intent: how sure to be, and what to do when nothing can be known.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::span::Span;
use crate::api::schema::{URL, at_least, rule};

/// `spec.analysis`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.source != 'Prometheus' || has(self.prometheusUrl)",
            "source Prometheus needs prometheusUrl",
        ),
    ]))]
pub struct AnalysisPolicy {
    /// AnalysisProfiles of the intent's namespace, or of the root namespace; `envoy-default` is built in.
    pub profiles: Vec<String>,
    /// Where counts come from.
    pub source: EvidenceSource,
    /// The Prometheus that `source: Prometheus` asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = URL))]
    pub prometheus_url: Option<String>,
    /// The chance of rolling back a healthy candidate, over the whole run and all metrics.
    #[schemars(range(min = 0.000001, max = 0.2))]
    pub alpha: f64,
    /// The chance of passing a candidate that is as bad as the SLO allows at most.
    #[schemars(range(min = 0.000001, max = 0.2))]
    pub beta: f64,
    /// A step passes after at least this many requests to the candidate.
    pub min_requests: u64,
    /// What is counted this long after a change of weights says nothing.
    #[serde(with = "Span")]
    pub warmup: Duration,
    /// When the candidate fails.
    pub on_failure: OnFailure,
    /// When a step has no verdict after `maxStepDuration`.
    pub on_inconclusive: OnAbsence,
    /// How long a step waits for a verdict.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = at_least("1s")))]
    pub max_step_duration: Duration,
    /// When proxies report and the candidate gets no request.
    pub on_no_traffic: OnAbsence,
    /// For so long that is no concern.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = at_least("1s")))]
    pub no_traffic_timeout: Duration,
    /// When no proxy reports.
    pub on_telemetry_loss: OnTelemetryLoss,
    /// For so long that is no concern.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = at_least("1s")))]
    pub telemetry_timeout: Duration,
    /// When stable breaks the SLO, too.
    pub shared_incident: SharedIncident,
}

impl Default for AnalysisPolicy {
    fn default() -> Self {
        Self {
            profiles: vec![super::DEFAULT_PROFILE.to_owned()],
            source: EvidenceSource::Auto,
            prometheus_url: None,
            alpha: 0.01,
            beta: 0.05,
            min_requests: 100,
            warmup: Duration::from_secs(5),
            on_failure: OnFailure::Rollback,
            on_inconclusive: OnAbsence::Hold,
            max_step_duration: Duration::from_secs(30 * 60),
            on_no_traffic: OnAbsence::Hold,
            no_traffic_timeout: Duration::from_secs(10 * 60),
            on_telemetry_loss: OnTelemetryLoss::Hold,
            telemetry_timeout: Duration::from_secs(60),
            shared_incident: SharedIncident::Hold,
        }
    }
}

/// Who counts requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum EvidenceSource {
    /// The best that the proxies offer.
    #[default]
    Auto,
    MetricsService,
    #[serde(rename = "LRS")]
    Lrs,
    AccessLog,
    Prometheus,
}

/// After a verdict against the candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Stable takes everything at once.
    #[default]
    Rollback,
    /// Weights stay, and somebody decides.
    Hold,
}

/// While there is no verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnAbsence {
    /// Weights stay.
    #[default]
    Hold,
    /// The step counts as passed.
    Advance,
    /// Stable takes everything.
    Rollback,
}

/// While nobody reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnTelemetryLoss {
    /// Weights stay.
    #[default]
    Hold,
    /// Weights go back to those before, once.
    StepBack,
    /// Stable takes everything.
    Rollback,
}

/// While both revisions break the SLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SharedIncident {
    /// Weights stay: it is not the candidate's doing.
    #[default]
    Hold,
    /// Only the comparison with stable counts.
    Ignore,
    /// Stable takes everything all the same.
    Rollback,
}
