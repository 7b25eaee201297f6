//! `spec.strategy` of an intent.

mod ab_test;
mod blue_green;
mod canary;
mod mirror_test;
mod rolling;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use ab_test::{AbTest, Variant, Winner};
pub use blue_green::{BlueGreen, Preview, Switch};
pub use canary::{
    Canary, GateStep, HeaderRoute, MirrorStep, PauseStep, Promotion, RequireEndpoints, Step, StepAnalysis,
};
pub use mirror_test::MirrorTest;
pub use rolling::Rolling;

use crate::api::schema::rule;

/// `spec.strategy`: a type and the block of that type, which may be left out where its defaults do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.type == 'Canary' || !has(self.canary)",
            "the block canary is for type: Canary",
        ),
        rule(
            "self.type == 'BlueGreen' || !has(self.blueGreen)",
            "the block blueGreen is for type: BlueGreen",
        ),
        rule(
            "self.type == 'Rolling' || !has(self.rolling)",
            "the block rolling is for type: Rolling",
        ),
        rule(
            "(self.type == 'AB') == has(self.ab)",
            "the block ab is for type: AB, which needs it",
        ),
        rule(
            "self.type == 'Mirror' || !has(self.mirror)",
            "the block mirror is for type: Mirror",
        ),
    ]))]
pub struct Strategy {
    /// Which.
    #[serde(rename = "type")]
    pub kind: StrategyType,
    /// For `Canary`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// For `BlueGreen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreen>,
    /// For `Rolling`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Rolling>,
    /// For `AB`, which needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ab: Option<AbTest>,
    /// For `Mirror`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorTest>,
}

/// `strategy.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StrategyType {
    /// Weights rise step by step.
    #[default]
    Canary,
    /// All at once, after a look.
    BlueGreen,
    /// Endpoints are exchanged in batches.
    Rolling,
    /// Several variants side by side, for their users' sake.
    #[serde(rename = "AB")]
    Ab,
    /// Copies of requests; answers are thrown away.
    Mirror,
}

impl StrategyType {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            StrategyType::Canary => "Canary",
            StrategyType::BlueGreen => "BlueGreen",
            StrategyType::Rolling => "Rolling",
            StrategyType::Ab => "AB",
            StrategyType::Mirror => "Mirror",
        }
    }
}
