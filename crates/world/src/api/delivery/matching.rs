//! Which requests are meant.

use serde::{Deserialize, Serialize};

use crate::Labels;

/// One entry of `match[]`: all that it gives must hold; of several entries one suffices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
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
    pub method: Option<String>,
    /// The path; it has no name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<FieldMatch>,
    /// Labels of the client.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub source_labels: Labels,
}

/// One value and how it is compared: exactly one of `exact`, `prefix`, `suffix`, `regex` and `present`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldMatch {
    /// Whose value: in lower case.
    #[serde(skip_serializing_if = "String::is_empty")]
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
