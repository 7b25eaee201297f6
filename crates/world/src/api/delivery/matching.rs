//! Which requests are meant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Labels;
use crate::api::schema::rule;

/// One entry of `match[]`: all that it gives must hold; of several entries one suffices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "has(self.header) || has(self.cookie) || has(self.query) || has(self.method) || has(self.path) || (has(self.sourceLabels) && size(self.sourceLabels) > 0)",
            "the match is empty, and would take every request",
        ),
        rule(
            "!has(self.header) || (has(self.header.name) && self.header.name.matches('^:?[a-z0-9!#$%&\\'*+.^_`|~-]+$'))",
            "a header is named, in lower case",
        ),
        rule(
            "!has(self.cookie) || (has(self.cookie.name) && self.cookie.name.matches('^[A-Za-z0-9!#$%&\\'*+.^_`|~-]+$'))",
            "a cookie is named by a token",
        ),
        rule(
            "!has(self.cookie) || (!has(self.cookie.prefix) && !has(self.cookie.suffix) && !has(self.cookie.present))",
            "a cookie is compared by exact or regex",
        ),
        rule(
            "!has(self.query) || (has(self.query.name) && size(self.query.name) > 0)",
            "the query parameter has no name",
        ),
        rule(
            "!has(self.path) || !has(self.path.name) || size(self.path.name) == 0",
            "a path has no name",
        ),
    ]))]
pub struct RequestMatch {
    /// A header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<FieldMatch>,
    /// A cookie: exact or regex only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<FieldMatch>,
    /// A query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<FieldMatch>,
    /// The method, in upper case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[A-Z]+$"))]
    pub method: Option<String>,
    /// The path; it has no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<FieldMatch>,
    /// Labels of the client.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub source_labels: Labels,
}

/// One value and how it is compared: exactly one of `exact`, `prefix`, `suffix`, `regex` and `present`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "[has(self.exact), has(self.prefix), has(self.suffix), has(self.regex), has(self.present)].filter(given, given).size() == 1",
            "exactly one of exact, prefix, suffix, regex and present is given",
        ),
    ]))]
pub struct FieldMatch {
    /// Whose value: in lower case.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub name: String,
    /// Equal to this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Begins with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Ends with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// Matches as a whole, in RE2's dialect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub regex: Option<String>,
    /// There at all, or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

impl FieldMatch {
    /// How many ways of comparing are given.
    pub fn matchers(&self) -> usize {
        let text = [&self.exact, &self.prefix, &self.suffix, &self.regex];
        text.iter().filter(|given| given.is_some()).count() + usize::from(self.present.is_some())
    }
}
