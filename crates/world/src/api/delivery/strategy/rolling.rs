//! `strategy.rolling`: endpoints that are exchanged in batches.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::delivery::span::Span;
use crate::api::delivery::{Amount, Weight};
use crate::api::schema::rule;

/// `strategy.rolling`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rolling {
    /// How many endpoints change at a time, of as many as stable has when the run begins.
    #[schemars(range(min = 1))]
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            "type(self) != string || !self.matches('^0*([.]0*)?%?$')",
            "a batch is at least one endpoint",
        ),
    ]))]
    pub batch: Amount,
    /// How many may be missing meanwhile.
    #[schemars(extend("x-kubernetes-validations" = [
        rule(
            "type(self) != string || !self.matches('^100([.]0*)?%$')",
            "not all endpoints may be missing",
        ),
    ]))]
    pub max_unavailable: Amount,
    /// Waits after each batch.
    #[serde(with = "Span")]
    pub settle: Duration,
}

impl Default for Rolling {
    fn default() -> Self {
        Self {
            batch: Amount::Share(Weight::from_ppm(250_000)),
            max_unavailable: Amount::Count(0),
            settle: Duration::from_secs(30),
        }
    }
}
