//! `strategy.ab`: variants side by side.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::delivery::{RequestMatch, Weight};
use crate::api::schema::{LINE, REVISION, TIME, rule};

/// `strategy.ab`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.variants.all(v, self.variants.exists_one(w, w.name == v.name))",
            "names of variants are unique",
        ),
        rule(
            "self.variants.exists(v, v.revision != self.variants[0].revision)",
            "not all variants have the same revision",
        ),
        rule(
            "self.variants.filter(v, has(v.share)).map(v, v.share).sum() > 99.99995 && self.variants.filter(v, has(v.share)).map(v, v.share).sum() < 100.00005",
            "the shares add up to 100",
        ),
    ]))]
pub struct AbTest {
    /// Two to eight.
    #[schemars(length(min = 2, max = 8))]
    pub variants: Vec<Variant>,
    /// When it ends, as RFC 3339 in UTC; with nobody's decision, stable takes everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TIME))]
    pub end_at: Option<String>,
    /// Who says which variant wins.
    pub winner: Winner,
}

/// `ab.variants[]`: reached by a share or by matching.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "has(self.share) || (has(self.match) && size(self.match) > 0)",
            "nothing leads to the variant: give it a share or a match",
        ),
    ]))]
pub struct Variant {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    #[schemars(regex(pattern = LINE))]
    pub name: String,
    /// The revision that serves it.
    #[schemars(length(min = 1, max = 253))]
    #[schemars(regex(pattern = REVISION))]
    pub revision: String,
    /// Its share of what no variant matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<Weight>,
    /// Requests that always get it.
    #[serde(rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<RequestMatch>,
}

/// `ab.winner`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Winner {
    /// Somebody, by promoting or aborting.
    #[default]
    Manual,
    /// The candidate, when the analysis passes at the end.
    BySignal,
}
