//! `spec.stickiness` of an intent.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::span::Span;
use crate::api::schema::{COOKIE_DOMAIN, COOKIE_PATH, HEADER, TOKEN, at_least, rule};

/// `spec.stickiness`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.mode != 'Hash' || (has(self.key) && size(self.key) > 0)",
            "Hash needs a key: header, cookie, query or sourceIp",
        ),
    ]))]
pub struct Stickiness {
    /// How.
    pub mode: StickinessMode,
    /// What a client is known by, the first that it has; for `Hash`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub key: Vec<HashKey>,
    /// The cookie of `Cookie`.
    pub cookie: StickyCookie,
}

/// `stickiness.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StickinessMode {
    /// Every request is a new draw.
    #[default]
    None,
    /// By a hash of the client's key: who is on the candidate stays there as its weight rises.
    Hash,
    /// By a cookie that the answer sets.
    Cookie,
}

/// `stickiness.key[]`: exactly one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "[has(self.header), has(self.cookie), has(self.query), has(self.sourceIp) && self.sourceIp].filter(given, given).size() == 1",
            "exactly one of header, cookie, query and sourceIp is given",
        ),
    ]))]
pub struct HashKey {
    /// The value of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = HEADER))]
    pub header: Option<String>,
    /// The value of a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TOKEN))]
    pub cookie: Option<String>,
    /// The value of a query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The client's address.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub source_ip: bool,
}

/// `stickiness.cookie`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.sameSite != 'None' || self.secure",
            "browsers refuse sameSite: None without secure: true",
        ),
    ]))]
pub struct StickyCookie {
    /// A token of RFC 6265.
    #[schemars(regex(pattern = TOKEN))]
    pub name: String,
    /// `Max-Age`.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = at_least("1s")))]
    pub ttl: Duration,
    /// `Path`.
    #[schemars(regex(pattern = COOKIE_PATH))]
    pub path: String,
    /// `Domain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[schemars(regex(pattern = COOKIE_DOMAIN))]
    pub domain: Option<String>,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Secure`.
    pub secure: bool,
    /// `HttpOnly`.
    pub http_only: bool,
}

impl Default for StickyCookie {
    fn default() -> Self {
        Self {
            name: "pm-rev".to_owned(),
            ttl: Duration::from_secs(24 * 3600),
            path: "/".to_owned(),
            domain: None,
            same_site: SameSite::Lax,
            secure: true,
            http_only: true,
        }
    }
}

/// `cookie.sameSite`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum SameSite {
    Strict,
    #[default]
    Lax,
    None,
}
