//! `RequestAuthentication`.

use std::time::Duration;

use serde::Deserialize;

use super::{PolicyTarget, WorkloadSelector};
use crate::KeySource;
use crate::text::duration;

/// `RequestAuthentication.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct RequestAuthentication {
    pub selector: Option<WorkloadSelector>,
    pub target_refs: Vec<PolicyTarget>,
    pub jwt_rules: Vec<JwtRule>,
}

/// `jwtRules[]`: tokens of one issuer. Those of issuers that no rule names are refused.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct JwtRule {
    pub issuer: String,
    /// At least one of these is among the token's; any will do when there are none.
    pub audiences: Vec<String>,
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: String,
    /// The key set itself.
    pub jwks: String,
    /// Where tokens are, together with `fromParams` and `fromCookies`. Without any of the three: `Authorization: Bearer`,
    /// and the query parameter `access_token`.
    pub from_headers: Vec<JwtHeader>,
    pub from_params: Vec<String>,
    pub from_cookies: Vec<String>,
    /// The payload of a token that holds goes on in this header, in base64url.
    pub output_payload_to_header: String,
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Whether the token goes on, too.
    pub forward_original_token: bool,
    /// How long fetching the keys may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Option<Duration>,
    /// Claims, beside `scope` and `permission`, whose text is a list of words.
    pub space_delimited_claims: Vec<String>,
    /// Whether it is only what can be understood of a rule with a mistake: no token holds, whatever the keys. Without an
    /// issuer it is about the tokens of everybody whom no other rule names.
    #[serde(skip)]
    pub is_garbled: bool,
}

/// `fromHeaders[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct JwtHeader {
    pub name: String,
    /// What stands before the token, such as `Bearer `, with its space.
    pub prefix: String,
}

/// `outputClaimToHeaders[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ClaimToHeader {
    pub header: String,
    /// A claim, or a path to one inside of another with dots.
    pub claim: String,
}

impl JwtRule {
    /// Where the issuer's keys are fetched; `None` when they are written here, or are not asked for because no token
    /// holds.
    pub fn key_source(&self) -> Option<KeySource> {
        if self.is_garbled {
            return None;
        }
        match (self.jwks.is_empty(), self.jwks_uri.is_empty()) {
            (false, _) => None,
            (true, false) => Some(KeySource::Uri(self.jwks_uri.as_str().into())),
            (true, true) => Some(KeySource::Issuer(self.issuer.as_str().into())),
        }
    }
}
