//! What is in force instead of a policy that has a mistake, when no good version of it is known.
//!
//! To leave such an object out could let in whom it was to keep out. So as much of it is in force as can be understood,
//! and of the rest that which lets nobody in:
//! - An AuthorizationPolicy keeps its good rules. Another one refuses everything if the policy denies, and allows nothing if
//!   it allows. One whose action nobody understands denies.
//! - A PeerAuthentication is STRICT.
//! - A RequestAuthentication keeps its good rules. By another one no token of its issuer holds.
//! - A mesh configuration keeps its good providers. Another one is not asked, and what its policies match is refused. Paths
//!   that it is not clear how to normalize are normalized as far as they can be.
//! - A RateLimitPolicy keeps its good limits. It keeps nobody out for good, and to limit what nobody meant would: so another
//!   one limits nothing.
//!
//! A policy is for the workloads that its selector names, and for its whole namespace if that is not understood.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use world::api::istio::{
    Action, AuthorizationPolicy, ClaimToHeader, JwtHeader, JwtRule, PeerAuthentication, PeerMtls, PeerMtlsMode,
    RequestAuthentication, Rule, WorkloadSelector,
};
use world::api::mesh_config::{ExtensionProvider, MeshConfig, Normalization, PathNormalization};
use world::api::policy::{RateLimit, RateLimitPolicy};
use world::{Kind, Spec};

use super::decode::decode;
use super::node::{Node, Value};
use crate::validate::rate_limit_policy::is_good_limit;
use crate::validate::request_authentication::{is_header, is_sound};

/// Whether an object of this kind keeps somebody out, so that its last good version is worth more than anything that
/// can be made of a bad one.
pub(super) fn is_guard(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::PeerAuthentication
            | Kind::RequestAuthentication
            | Kind::AuthorizationPolicy
            | Kind::RateLimitPolicy
            | Kind::ConfigMap
    )
}

/// Whether an object in which a field is not known is still better than none. Without a DestinationRule its
/// destination would be spoken to in the clear.
pub(super) fn is_better_than_nothing(spec: &Spec) -> bool {
    matches!(spec, Spec::DestinationRule(_))
}

/// What is in force instead of the object `node` of this kind; `None` if that would be nothing.
pub(super) fn of(node: &Node, kind: &Kind) -> Option<Spec> {
    const KINDS: [Kind; 4] =
        [Kind::AuthorizationPolicy, Kind::PeerAuthentication, Kind::RequestAuthentication, Kind::RateLimitPolicy];
    if !KINDS.contains(kind) {
        return None;
    }
    let nothing = Node { line: node.line, column: node.column, value: Value::Null };
    let spec = given(node, "spec").unwrap_or(&nothing);
    match kind {
        Kind::AuthorizationPolicy => authorization_policy(spec).map(Spec::AuthorizationPolicy),
        Kind::PeerAuthentication => {
            let mtls = Some(PeerMtls { mode: PeerMtlsMode::Strict });
            let selector = selector(spec, &["selector", "mtls", "portLevelMtls"]).ok().flatten();
            Some(Spec::PeerAuthentication(PeerAuthentication { selector, mtls, ..PeerAuthentication::default() }))
        }
        Kind::RateLimitPolicy => rate_limit_policy(spec).map(Spec::RateLimitPolicy),
        _ => request_authentication(spec).map(Spec::RequestAuthentication),
    }
}

/// What is done with a RateLimitPolicy of which nothing can be understood.
pub(super) const UNLIMITED: &str = "the object is not applied; the last good version, if there is one, stays in force, and \
                                    without one it limits nothing";

/// What is done with an object when this stands in for it.
pub(super) fn consequence(spec: &Spec) -> &'static str {
    match spec {
        Spec::AuthorizationPolicy(policy) if policy.action == Action::Allow => {
            "the object is not applied; the last good version, if there is one, stays in force, and without one only its \
             good rules allow anything"
        }
        Spec::AuthorizationPolicy(_) => {
            "the object is not applied; the last good version, if there is one, stays in force, and without one its bad \
             rules match everything"
        }
        Spec::PeerAuthentication(_) => {
            "the object is not applied; the last good version, if there is one, stays in force, and without one the mode \
             is STRICT"
        }
        Spec::RequestAuthentication(_) => {
            "the object is not applied; the last good version, if there is one, stays in force, and without one no token \
             of an issuer with a mistake holds"
        }
        Spec::RateLimitPolicy(policy) if policy.limits.is_empty() => UNLIMITED,
        Spec::RateLimitPolicy(_) => {
            "the object is not applied; the last good version, if there is one, stays in force, and without one only its \
             good limits hold"
        }
        Spec::MeshConfig(_) => {
            "the object is not applied; the last good version, if there is one, stays in force, and without one \
             everything that policies with a bad provider match is refused"
        }
        _ => {
            "the object is not applied; the last good version, if there is one, stays in force, and without one the rest \
             of this is"
        }
    }
}

fn authorization_policy(spec: &Node) -> Option<AuthorizationPolicy> {
    const KNOWN: &[&str] = &["selector", "targetRefs", "rules", "action", "provider"];
    let selector = selector(spec, KNOWN);
    let everything = || Rule { is_garbled: true, ..Rule::default() };
    let action = match given(spec, "action") {
        Some(action) => flawless(action),
        None if !matches!(spec.value, Value::Map(_)) => None,
        None => (!has_other(spec, KNOWN, |value| matches!(value, Value::String(_)))).then_some(Action::Allow),
    };
    let mut rules = match given(spec, "rules").map(|rules| &rules.value) {
        Some(Value::List(rules)) => rules.iter().map(rule).collect(),
        Some(_) => vec![everything()],
        None if has_other(spec, KNOWN, |value| matches!(value, Value::List(_))) => vec![everything()],
        None => Vec::new(),
    };
    match action {
        Some(Action::Audit) => return None,
        // To others than those that it selects it must not allow anything.
        Some(Action::Allow) if selector.is_err() => rules.clear(),
        Some(Action::Allow | Action::Deny | Action::Custom) => {}
        None => rules = vec![everything()],
    }
    let selector = selector.ok().flatten();
    if selector.is_none() && given(spec, "targetRefs").is_some() {
        return None;
    }
    Some(AuthorizationPolicy {
        selector,
        rules,
        action: action.unwrap_or(Action::Deny),
        provider: given(spec, "provider").and_then(flawless),
        ..AuthorizationPolicy::default()
    })
}

fn rule(node: &Node) -> Rule {
    let (rule, unknown) = decode::<Rule>(node, "", &[]);
    let is_garbled = rule.is_err() || !unknown.is_empty();
    Rule { is_garbled, ..rule.unwrap_or_default() }
}

fn request_authentication(spec: &Node) -> Option<RequestAuthentication> {
    const KNOWN: &[&str] = &["selector", "targetRefs", "jwtRules"];
    let selector = selector(spec, KNOWN).ok().flatten();
    if selector.is_none() && given(spec, "targetRefs").is_some() {
        return None;
    }
    let jwt_rules = match given(spec, "jwtRules").map(|rules| &rules.value) {
        Some(Value::List(rules)) => rules.iter().map(jwt_rule).collect(),
        None if !has_other(spec, KNOWN, |value| matches!(value, Value::List(_))) => Vec::new(),
        Some(_) | None => vec![JwtRule { is_garbled: true, ..JwtRule::default() }],
    };
    Some(RequestAuthentication { selector, jwt_rules, ..RequestAuthentication::default() })
}

/// The good limits; nothing if nobody can know for whom they are.
fn rate_limit_policy(spec: &Node) -> Option<RateLimitPolicy> {
    let selector = selector(spec, &["selector", "limits"]).ok()?;
    let limits: Vec<RateLimit> = items(spec, "limits");
    let mut names = BTreeSet::new();
    let limits = limits.into_iter().filter(|limit| is_good_limit(limit) && names.insert(limit.name.clone())).collect();
    Some(RateLimitPolicy { selector, limits })
}

/// The good providers of the document `mesh`, and the names of the others; of paths what merges the most.
pub(super) fn mesh_config(mesh: &Node) -> MeshConfig {
    let provider = |node: &Node| match flawless(node) {
        Some(provider) => provider,
        None => {
            let name = given(node, "name").and_then(Node::as_str).unwrap_or_default().to_owned();
            ExtensionProvider { name, ..ExtensionProvider::default() }
        }
    };
    let extension_providers = match given(mesh, "extensionProviders").map(|providers| &providers.value) {
        Some(Value::List(providers)) => providers.iter().map(provider).collect(),
        Some(_) | None => Vec::new(),
    };
    let decoded = given(mesh, "pathNormalization").map(flawless);
    let strictest = PathNormalization { normalization: Normalization::DecodeAndMergeSlashes };
    let path_normalization = decoded.map_or_else(PathNormalization::default, |value| value.unwrap_or(strictest));
    // Without trusted proxies nobody is believed who the client is.
    let default_config = given(mesh, "defaultConfig").and_then(flawless).unwrap_or_default();
    let text = |field| given(mesh, field).and_then(flawless).unwrap_or_default();
    MeshConfig {
        extension_providers,
        path_normalization,
        default_config,
        trust_domain: text("trustDomain"),
        trust_domain_aliases: given(mesh, "trustDomainAliases").and_then(flawless).unwrap_or_default(),
    }
}

/// A rule, or what of it says whose tokens do not hold, where they are, and which headers nobody may send.
fn jwt_rule(node: &Node) -> JwtRule {
    if let Some(rule) = flawless::<JwtRule>(node).filter(is_sound) {
        return rule;
    }
    let text = |field| given(node, field).and_then(Node::as_str).unwrap_or_default().to_owned();
    let headers: Vec<JwtHeader> = items(node, "fromHeaders");
    let claims: Vec<ClaimToHeader> = items(node, "outputClaimToHeaders");
    // A claim that is always there: what it is does not matter, as it is never written.
    let any_claim = |to: ClaimToHeader| ClaimToHeader { claim: "iss".to_owned(), ..to };
    JwtRule {
        issuer: text("issuer"),
        from_headers: headers.into_iter().filter(|from| is_sound_place(&from.name, &from.prefix)).collect(),
        from_params: items(node, "fromParams").into_iter().filter(|name: &String| !name.is_empty()).collect(),
        from_cookies: items(node, "fromCookies").into_iter().filter(|name: &String| is_header(name)).collect(),
        output_payload_to_header: Some(text("outputPayloadToHeader"))
            .filter(|name| is_header(name))
            .unwrap_or_default(),
        output_claim_to_headers: claims.into_iter().filter(|to| is_header(&to.header)).map(any_claim).collect(),
        is_garbled: true,
        ..JwtRule::default()
    }
}

fn is_sound_place(header: &str, prefix: &str) -> bool {
    is_header(header) && !prefix.contains(['\0', '\r', '\n'])
}

/// The items of a list that are as they should be.
fn items<T: DeserializeOwned>(node: &Node, field: &str) -> Vec<T> {
    match given(node, field).map(|list| &list.value) {
        Some(Value::List(items)) => items.iter().filter_map(flawless).collect(),
        Some(_) | None => Vec::new(),
    }
}

/// Whom a policy is for; an error if nobody can know.
fn selector(spec: &Node, known: &[&str]) -> Result<Option<WorkloadSelector>, ()> {
    match given(spec, "selector") {
        Some(selector) => {
            let selector: WorkloadSelector = flawless(selector).ok_or(())?;
            let is_pattern = |(label, value): (&String, &String)| label.contains('*') || value.contains('*');
            if selector.match_labels.iter().any(is_pattern) { Err(()) } else { Ok(Some(selector)) }
        }
        None if has_other(spec, known, |value| matches!(value, Value::Map(_))) => Err(()),
        None => Ok(None),
    }
}

/// Whether there is a field of another name with such a value.
fn has_other(spec: &Node, known: &[&str], is_such: impl Fn(&Value) -> bool) -> bool {
    let Value::Map(entries) = &spec.value else { return false };
    entries.iter().any(|(key, node)| !known.contains(&&*key.text) && is_such(&node.value))
}

/// A field that is there and not null.
fn given<'n>(node: &'n Node, field: &str) -> Option<&'n Node> {
    node.get(field).filter(|node| node.value != Value::Null)
}

/// The value, if it fits and has no field that is not known.
fn flawless<T: DeserializeOwned>(node: &Node) -> Option<T> {
    let (value, unknown) = decode::<T>(node, "", &[]);
    value.ok().filter(|_| unknown.is_empty())
}
