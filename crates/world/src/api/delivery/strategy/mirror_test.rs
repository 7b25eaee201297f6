//! `strategy.mirror`: copies, whose answers nobody sees.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::delivery::span::Span;
use crate::api::delivery::{RequestMatch, Weight};
use crate::api::schema::at_least;

/// `strategy.mirror`: copies for a while, and a verdict. Nobody is ever answered by the candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MirrorTest {
    /// Of how many requests a copy is sent.
    #[schemars(range(min = 0.0001))]
    pub percent: Weight,
    /// Of which requests; of all when empty.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RequestMatch>,
    /// Copies of requests that change something are meant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_unsafe_methods: bool,
    /// For how long at least.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = at_least("1s")))]
    pub duration: Duration,
}

impl Default for MirrorTest {
    fn default() -> Self {
        Self {
            percent: Weight::FULL,
            matches: Vec::new(),
            allow_unsafe_methods: false,
            duration: Duration::from_secs(600),
        }
    }
}
