//! `strategy.canary`: weights that rise step by step.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::delivery::span::OptionalSpan;
use crate::api::delivery::{RequestMatch, Weight};
use crate::api::schema::{LINE, URL, rule};

/// `strategy.canary`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "(has(self.allowDecrease) && self.allowDecrease) || self.steps.filter(s, has(s.setWeight)).map(s, s.setWeight).isSorted()",
            "weights do not fall, but with allowDecrease: true",
        ),
        rule(
            "(has(self.allowDecrease) && self.allowDecrease) || self.steps.filter(s, has(s.setWeight)).map(s, s.setWeight).all(w, w <= self.maxStep + 0.00001 || self.steps.filter(s, has(s.setWeight)).map(s, s.setWeight).exists(v, v < w && w - v <= self.maxStep + 0.00001))",
            "no weight rises by more than maxStep",
        ),
        rule(
            "self.promote == 'Manual' || (self.steps.filter(s, has(s.setWeight)).size() > 0 && self.steps.filter(s, has(s.setWeight))[self.steps.filter(s, has(s.setWeight)).size() - 1].setWeight == 100.0)",
            "the last weight is 100, or promote is Manual",
        ),
    ]))]
pub struct Canary {
    /// What is done, in order.
    #[schemars(length(min = 1, max = 64))]
    pub steps: Vec<Step>,
    /// Weights may fall between steps.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_decrease: bool,
    /// The largest single rise.
    #[schemars(range(min = 0.0001))]
    pub max_step: Weight,
    /// Whether the candidate becomes stable by itself after the last step.
    pub promote: Promotion,
}

impl Default for Canary {
    /// 1, 5, 10, 25, 50 and 100 percent, each judged.
    fn default() -> Self {
        let ppm = [10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];
        let steps = ppm.into_iter().flat_map(|ppm| {
            let rise = Step { set_weight: Some(Weight::from_ppm(ppm)), ..Step::default() };
            [rise, Step { analysis: Some(StepAnalysis::default()), ..Step::default() }]
        });
        Self { steps: steps.collect(), allow_decrease: false, max_step: Weight::FULL, promote: Promotion::Auto }
    }
}

/// Who promotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Promotion {
    /// The run itself.
    #[default]
    Auto,
    /// Somebody, by the action `promote`.
    Manual,
}

/// One step: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "[has(self.setWeight), has(self.pause), has(self.analysis), has(self.headerRoute), has(self.mirror), has(self.requireEndpoints), has(self.gate)].filter(given, given).size() == 1",
            "a step is exactly one of setWeight, pause, analysis, headerRoute, mirror, requireEndpoints and gate",
        ),
    ]))]
pub struct Step {
    /// The candidate's share from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_weight: Option<Weight>,
    /// Waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseStep>,
    /// Waits for a verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<StepAnalysis>,
    /// Sends matching requests to the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_route: Option<HeaderRoute>,
    /// Sends copies to the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorStep>,
    /// Waits for endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_endpoints: Option<RequireEndpoints>,
    /// Waits for a yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateStep>,
}

impl Step {
    /// The names of the fields that are given, in order.
    pub fn given(&self) -> Vec<&'static str> {
        let fields = [
            ("setWeight", self.set_weight.is_some()),
            ("pause", self.pause.is_some()),
            ("analysis", self.analysis.is_some()),
            ("headerRoute", self.header_route.is_some()),
            ("mirror", self.mirror.is_some()),
            ("requireEndpoints", self.require_endpoints.is_some()),
            ("gate", self.gate.is_some()),
        ];
        fields.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

/// `pause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "!has(self.duration) || duration(self.duration) >= duration('1s')",
            "a pause is at least 1s; without a duration it waits for somebody",
        ),
    ]))]
pub struct PauseStep {
    /// How long; until somebody promotes without.
    #[serde(with = "OptionalSpan", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// `analysis` of a step: what is left out is said by `spec.analysis`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "!has(self.minDuration) || !has(self.maxDuration) || duration(self.minDuration) <= duration(self.maxDuration)",
            "minDuration is not longer than maxDuration",
        ),
    ]))]
pub struct StepAnalysis {
    /// Judges by this profile as well, from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_ref: Option<String>,
    /// Never passes sooner.
    #[serde(with = "OptionalSpan", skip_serializing_if = "Option::is_none")]
    pub min_duration: Option<Duration>,
    /// Is inconclusive afterwards.
    #[serde(with = "OptionalSpan", skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
    /// Never passes with fewer requests to the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u64>,
}

/// `headerRoute`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "!self.enabled || (has(self.match) && size(self.match) > 0)",
            "there is no match: say which requests are meant",
        ),
    ]))]
pub struct HeaderRoute {
    /// By which a later step finds it again.
    #[schemars(length(min = 1, max = 256))]
    #[schemars(regex(pattern = LINE))]
    pub name: String,
    /// Which requests.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RequestMatch>,
    /// False takes the route of this name away.
    pub enabled: bool,
}

impl Default for HeaderRoute {
    fn default() -> Self {
        Self { name: String::new(), matches: Vec::new(), enabled: true }
    }
}

/// `mirror` of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "!self.enabled || self.percent > 0.0",
            "nothing is mirrored: enabled: false ends mirroring",
        ),
    ]))]
pub struct MirrorStep {
    /// Of how many requests a copy is sent.
    pub percent: Weight,
    /// Of which requests; of all when empty.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RequestMatch>,
    /// Copies of requests that change something are meant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_unsafe_methods: bool,
    /// False ends mirroring.
    pub enabled: bool,
}

impl Default for MirrorStep {
    fn default() -> Self {
        Self { percent: Weight::FULL, matches: Vec::new(), allow_unsafe_methods: false, enabled: true }
    }
}

/// `requireEndpoints`: at least one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "has(self.absolute) || has(self.percentOfStable)",
            "give absolute or percentOfStable",
        ),
    ]))]
pub struct RequireEndpoints {
    /// So many healthy ones of the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub absolute: Option<u32>,
    /// In percent of stable's healthy ones; may be above 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub percent_of_stable: Option<u32>,
}

/// `gate` of a step: a webhook, or somebody's `promote`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "has(self.webhook) != (has(self.manual) && self.manual)",
            "give webhook or manual: true, and not both",
        ),
    ]))]
pub struct GateStep {
    /// The URL that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[schemars(regex(pattern = URL))]
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.startsWith('https://')",
            "is an https URL",
        ),
    ]))]
    pub webhook: Option<String>,
    /// Waits for the action `promote`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
}
