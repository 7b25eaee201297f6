//! `AuthorizationPolicy`.

mod address_range;
mod condition_key;
mod path_template;
mod value;

use serde::Deserialize;

use super::{PolicyTarget, WorkloadSelector};
pub use address_range::AddressRange;
pub use condition_key::ConditionKey;
pub use path_template::{PathTemplate, Segment};
pub use value::ValueMatch;
use value::texts;

/// Annotation of a policy that is only tried: with a true value its verdict is counted and not carried out.
const DRY_RUN: &str = "istio.io/dry-run";

/// `AuthorizationPolicy.spec`. A policy is never refused for a value that makes no sense, because to leave it out might
/// let through what it forbids: such a value is neither true nor false, see [`Rule::is_garbled`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct AuthorizationPolicy {
    pub selector: Option<WorkloadSelector>,
    pub target_refs: Vec<PolicyTarget>,
    /// A request matches the policy when it matches one of these; nothing matches a policy without rules.
    pub rules: Vec<Rule>,
    pub action: Action,
    /// Who decides, for [`Action::Custom`].
    pub provider: Option<Provider>,
}

/// What happens to requests that match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// They are let through; what matches no policy that allows is refused, as soon as there is one.
    #[default]
    Allow,
    /// They are refused.
    Deny,
    /// They are marked for whoever writes the log.
    Audit,
    /// A provider is asked.
    Custom,
}

/// `provider`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Provider {
    /// Its name in the mesh configuration's `extensionProviders`.
    pub name: String,
}

/// `rules[]`: one of `from`, one of `to` and all of `when` must match. What is left out matches everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Rule {
    pub from: Option<Vec<From>>,
    pub to: Option<Vec<To>>,
    pub when: Vec<Condition>,
    /// Whether it has a field that nobody understands, which is one more condition of which nobody knows whether it
    /// holds.
    #[serde(skip)]
    pub is_garbled: bool,
}

/// `from[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct From {
    pub source: Source,
}

/// `to[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct To {
    pub operation: Operation,
}

/// `from[].source`: every list that is not empty must have an entry that matches, and no entry of the `not` lists may.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Source {
    /// Identities of the peer's certificate without `spiffe://`.
    #[serde(deserialize_with = "texts")]
    pub principals: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_principals: Vec<String>,
    /// `<issuer>/<subject>` of the request's token.
    #[serde(deserialize_with = "texts")]
    pub request_principals: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_request_principals: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub namespaces: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_namespaces: Vec<String>,
    /// `<namespace>/<account>`, or an account of the policy's own namespace.
    #[serde(deserialize_with = "texts")]
    pub service_accounts: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_service_accounts: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub trust_domains: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_trust_domains: Vec<String>,
    /// Of the other end of the connection.
    #[serde(deserialize_with = "texts")]
    pub ip_blocks: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_ip_blocks: Vec<String>,
    /// Of the client, as `x-forwarded-for` or the PROXY protocol tell it to a gateway.
    #[serde(deserialize_with = "texts")]
    pub remote_ip_blocks: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_remote_ip_blocks: Vec<String>,
}

/// `to[].operation`: like [`Source`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Operation {
    #[serde(deserialize_with = "texts")]
    pub hosts: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_hosts: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub ports: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_ports: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub methods: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_methods: Vec<String>,
    /// Each a [`ValueMatch`], or a [`PathTemplate`].
    #[serde(deserialize_with = "texts")]
    pub paths: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_paths: Vec<String>,
}

/// `when[]`: a key of [`ConditionKey`], and values as in [`Source`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Condition {
    pub key: String,
    #[serde(deserialize_with = "texts")]
    pub values: Vec<String>,
    #[serde(deserialize_with = "texts")]
    pub not_values: Vec<String>,
}

impl AuthorizationPolicy {
    /// Marks the rules that have the unknown fields at `paths` (`spec.rules[0].to[0].operation.path`). Returns whether
    /// all of them are in rules: a policy with another one may not be what it seems.
    pub fn garble<'a>(&mut self, paths: impl IntoIterator<Item = &'a str>) -> bool {
        let mut all = true;
        for path in paths.into_iter().filter(|path| path.starts_with("spec.")) {
            let index = path.strip_prefix("spec.rules[").and_then(|rest| rest.split_once(']')?.0.parse::<usize>().ok());
            match index.and_then(|index| self.rules.get_mut(index)) {
                Some(rule) => rule.is_garbled = true,
                None => all = false,
            }
        }
        all
    }
}

impl Rule {
    /// Whether it asks about tokens of requests.
    pub fn asks_for_tokens(&self) -> bool {
        let of_token = |(name, values): &(&str, &[String])| is_of_token(name) && !values.is_empty();
        let key = |condition: &Condition| ConditionKey::parse(&condition.key).is_ok_and(|key| key.is_of_token());
        self.from.iter().flatten().any(|from| from.source.fields().iter().any(of_token)) || self.when.iter().any(key)
    }

    /// Whether it asks about nothing but what requests have, so that nobody can know whether a connection that carries none
    /// matches.
    pub fn asks_only_of_requests(&self) -> bool {
        let is_of_request = |name: &str| {
            is_of_token(name) || matches!(name, "hosts" | "notHosts" | "methods" | "notMethods" | "paths" | "notPaths")
        };
        let only = |fields: &[(&'static str, &[String])]| {
            fields.iter().all(|(name, values)| values.is_empty() || is_of_request(name))
        };
        let key = |condition: &Condition| ConditionKey::parse(&condition.key).is_ok_and(|key| key.is_of_requests());
        let asks = self.from.is_some() || self.to.is_some() || !self.when.is_empty();
        asks && self.from.as_ref().is_none_or(|from| from.iter().any(|from| only(&from.source.fields())))
            && self.to.as_ref().is_none_or(|to| to.iter().any(|to| only(&to.operation.fields())))
            && self.when.iter().all(key)
    }
}

/// Whether a field of a source is about the request's token.
fn is_of_token(field: &str) -> bool {
    matches!(field, "requestPrincipals" | "notRequestPrincipals")
}

/// What a policy's annotations say of a dry run.
///
/// # Errors
/// The value, when it is neither true nor false in any of Go's spellings. Istio carries such a policy out.
pub fn is_dry_run(annotations: &std::collections::BTreeMap<String, String>) -> Result<bool, &str> {
    match annotations.get(DRY_RUN).map(String::as_str) {
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
        None | Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
        Some(other) => Err(other),
    }
}

/// A list of lists with the name that its field has.
pub type Fields<'a, const N: usize> = [(&'static str, &'a [String]); N];

impl Source {
    /// Every list with its field's name, in the order of the reference.
    pub fn fields(&self) -> Fields<'_, 14> {
        [
            ("principals", &self.principals),
            ("notPrincipals", &self.not_principals),
            ("requestPrincipals", &self.request_principals),
            ("notRequestPrincipals", &self.not_request_principals),
            ("namespaces", &self.namespaces),
            ("notNamespaces", &self.not_namespaces),
            ("serviceAccounts", &self.service_accounts),
            ("notServiceAccounts", &self.not_service_accounts),
            ("trustDomains", &self.trust_domains),
            ("notTrustDomains", &self.not_trust_domains),
            ("ipBlocks", &self.ip_blocks),
            ("notIpBlocks", &self.not_ip_blocks),
            ("remoteIpBlocks", &self.remote_ip_blocks),
            ("notRemoteIpBlocks", &self.not_remote_ip_blocks),
        ]
    }
}

impl Operation {
    /// Every list with its field's name, in the order of the reference.
    pub fn fields(&self) -> Fields<'_, 8> {
        [
            ("hosts", &self.hosts),
            ("notHosts", &self.not_hosts),
            ("ports", &self.ports),
            ("notPorts", &self.not_ports),
            ("methods", &self.methods),
            ("notMethods", &self.not_methods),
            ("paths", &self.paths),
            ("notPaths", &self.not_paths),
        ]
    }
}
