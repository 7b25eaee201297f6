//! `AuthorizationPolicy` as filters of Envoy's role-based access control (RBAC).
//!
//! ```text
//!   policies of a workload ─┬─ CUSTOM ─▶ for each provider: RBAC in the shadow, ext_authz     ┐
//!                           ├─ AUDIT ──▶ RBAC that marks                                      │ in this order, and
//!                           ├─ DENY ───▶ RBAC that refuses what matches                       │ each only if there
//!                           └─ ALLOW ──▶ RBAC that refuses what does not match                ┘ are such policies
//! ```
//!
//! The rules of all policies with one action are one filter's; their ids are Istio's. Policies in a dry run are its shadow
//! rules, which count and refuse nothing.
//!
//! Invariant: what nobody can know (a field of requests where there are only connections, a value without a meaning, a
//! provider that does not exist) never lets anything through. A rule that allows does not match then, and one that
//! refuses does; see [`rule`].

mod custom;
mod grpc;
mod identity;
mod rule;
mod term;
#[cfg(test)]
mod tests;
mod text;
mod token;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use proto::pb::envoy::config::listener::v3::Filter;
use proto::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, rbac};
use proto::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use proto::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use world::api::istio::{Action, AuthorizationPolicy, Rule, is_dry_run};
use world::{Object, Problem, Spec};

use crate::Built;
use crate::pack::{http_filter, network_filter};
pub(crate) use custom::ResolvedProvider;
pub(crate) use grpc::{authorization_of_grpc, of_the_mesh};
use identity::Identities;
use rule::{Doubt, RuleInput, Traffic};
use term::Term;

const HTTP_RBAC: &str = "envoy.filters.http.rbac";
const HTTP_EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
const NETWORK_RBAC: &str = "envoy.filters.network.rbac";
const NETWORK_EXT_AUTHZ: &str = "envoy.filters.network.ext_authz";
const NETWORK_STAT_PREFIX: &str = "tcp.";

/// All that the filters depend on.
pub(crate) struct AuthorizationInput<'a> {
    /// The policies that select the workload, each once.
    pub(crate) policies: &'a [&'a Arc<Object>],
    /// The mesh's trust domain, then its aliases.
    pub(crate) trust_domains: &'a [Arc<str>],
    /// The provider of a name.
    ///
    /// # Errors
    /// Why it cannot be asked.
    pub(crate) provider: &'a dyn Fn(&str) -> Result<ResolvedProvider<'a>, String>,
    /// How many instructions a regular expression may compile to.
    pub(crate) most_regex_instructions: u32,
}

/// The filters, each list in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Authorization {
    /// Those that ask providers about requests, before tokens are checked.
    pub(crate) custom: Vec<HttpFilter>,
    /// Those that decide about requests themselves, after that.
    pub(crate) rules: Vec<HttpFilter>,
    /// All for connections.
    pub(crate) network: Vec<Filter>,
}

/// The filters for what the policies select. Refers to the clusters of providers, and comes from all the policies and, if
/// a provider is asked, from the mesh configuration.
pub(crate) fn authorization(input: &AuthorizationInput<'_>) -> Built<Authorization> {
    let mut built = Built::new(Authorization::default());
    let mut sorted = Sorted::default();
    for object in input.policies {
        let Spec::AuthorizationPolicy(policy) = &object.spec else { continue };
        built.origins.insert(object.reference.clone());
        // A value that is neither true nor false is told where the policy is read; the policy is in force.
        let dry_run = is_dry_run(&object.meta.annotations).unwrap_or(false);
        let written = Written { object, policy, dry_run };
        match (policy.action, dry_run) {
            (Action::Allow, _) => sorted.allow.push(written),
            (Action::Deny, _) => sorted.deny.push(written),
            // A shadow of what refuses nothing would only cost time.
            (Action::Audit | Action::Custom, true) => {}
            (Action::Audit, false) => sorted.audit.push(written),
            (Action::Custom, false) => {
                let provider = policy.provider.as_ref().map_or("", |provider| &provider.name);
                sorted.custom.entry(provider).or_default().push(written);
            }
        }
    }
    for (provider, policies) in &sorted.custom {
        ask(input, provider, policies, &mut built);
    }
    for (action, policies) in
        [(Action::Audit, &sorted.audit), (Action::Deny, &sorted.deny), (Action::Allow, &sorted.allow)]
    {
        if policies.is_empty() {
            continue;
        }
        let rules = |traffic, dry_run| rules(input, action, policies, traffic, dry_run);
        built.value.rules.push(http_filter(
            HTTP_RBAC,
            &HttpRbac {
                rules: rules(Traffic::Http, false),
                shadow_rules: rules(Traffic::Http, true),
                shadow_rules_stat_prefix: shadow_prefix(action, policies),
                ..HttpRbac::default()
            },
        ));
        built.value.network.push(network_filter(
            NETWORK_RBAC,
            &NetworkRbac {
                rules: rules(Traffic::Tcp, false),
                shadow_rules: rules(Traffic::Tcp, true),
                shadow_rules_stat_prefix: shadow_prefix(action, policies),
                stat_prefix: NETWORK_STAT_PREFIX.to_owned(),
                ..NetworkRbac::default()
            },
        ));
    }
    built
}

/// A policy and where it was written.
struct Written<'a> {
    object: &'a Object,
    policy: &'a AuthorizationPolicy,
    dry_run: bool,
}

impl Written<'_> {
    /// The id of a rule.
    fn id(&self, index: usize) -> String {
        let reference = &self.object.reference;
        format!("ns[{}]-policy[{}]-rule[{index}]", reference.namespace, reference.name)
    }

    /// All that the translation of a rule depends on.
    fn input<'a>(
        &'a self,
        input: &'a AuthorizationInput<'_>,
        rule: &'a Rule,
        traffic: Traffic,
        knows_tokens: bool,
        unknown: &'a RefCell<BTreeSet<&'static str>>,
    ) -> RuleInput<'a> {
        let doubt = match self.policy.action {
            Action::Allow => Doubt::NeverMatches,
            Action::Deny | Action::Audit | Action::Custom => Doubt::Holds,
        };
        let identities =
            Identities { trust_domains: input.trust_domains, most_regex_instructions: input.most_regex_instructions };
        let namespace = &*self.object.reference.namespace;
        RuleInput { rule, namespace, traffic, knows_tokens, doubt, identities, unknown }
    }
}

/// The policies by what they do.
#[derive(Default)]
struct Sorted<'a> {
    custom: BTreeMap<&'a str, Vec<Written<'a>>>,
    audit: Vec<Written<'a>>,
    deny: Vec<Written<'a>>,
    allow: Vec<Written<'a>>,
}

/// Names that dashboards and Istio's tools know.
fn shadow_prefix(action: Action, policies: &[Written<'_>]) -> String {
    let prefix = match action {
        _ if policies.iter().all(|policy| !policy.dry_run) => "",
        Action::Allow => "istio_dry_run_allow_",
        Action::Deny => "istio_dry_run_deny_",
        Action::Audit | Action::Custom => "",
    };
    prefix.to_owned()
}

/// The rules of those policies that are in a dry run, or of those that are not; `None` when there are none of them.
fn rules(
    input: &AuthorizationInput<'_>,
    action: Action,
    policies: &[Written<'_>],
    traffic: Traffic,
    dry_run: bool,
) -> Option<Rbac> {
    let mut rbac = empty(action);
    let mut any = false;
    for written in policies.iter().filter(|written| written.dry_run == dry_run) {
        any = true;
        rbac.policies.extend(translated(input, written, traffic, true));
    }
    any.then_some(rbac)
}

fn empty(action: Action) -> Rbac {
    let action = match action {
        Action::Allow => rbac::Action::Allow,
        // What a provider is asked about is noted as if it were refused.
        Action::Deny | Action::Custom => rbac::Action::Deny,
        Action::Audit => rbac::Action::Log,
    };
    Rbac { action: action.into(), policies: HashMap::new(), audit_logging_options: None }
}

/// The rules of one policy under their ids. One without rules has one that never matches, so that it is seen where the
/// client shows what it has.
fn translated(
    input: &AuthorizationInput<'_>,
    written: &Written<'_>,
    traffic: Traffic,
    knows_tokens: bool,
) -> Vec<(String, Policy)> {
    if written.policy.rules.is_empty() {
        return vec![(written.id(0), never())];
    }
    let unknown = RefCell::default();
    let rules = written.policy.rules.iter().enumerate().filter_map(|(index, rule)| {
        let policy = rule::policy(&written.input(input, rule, traffic, knows_tokens, &unknown))?;
        Some((written.id(index), policy))
    });
    rules.collect()
}

fn never() -> Policy {
    Policy {
        permissions: vec![Permission::any().negated()],
        principals: vec![Principal::any().negated()],
        ..Policy::default()
    }
}

/// Adds the filters that ask one provider, or refuse in its place.
fn ask(input: &AuthorizationInput<'_>, name: &str, policies: &[Written<'_>], built: &mut Built<Authorization>) {
    let noted = |traffic, prefix: &dyn Fn(String) -> String| {
        let mut rbac = empty(Action::Custom);
        for written in policies {
            let rules = translated(input, written, traffic, false);
            rbac.policies.extend(rules.into_iter().map(|(id, policy)| (prefix(id), policy)));
        }
        rbac
    };
    let as_asked = |id: String| custom::policy_id(name, &id);
    let as_written = |id: String| id;
    let refuse_requests = |built: &mut Built<Authorization>| {
        let rules = Some(noted(Traffic::Http, &as_written));
        built.value.custom.push(http_filter(HTTP_RBAC, &HttpRbac { rules, ..HttpRbac::default() }));
    };
    let refuse_connections = |built: &mut Built<Authorization>| {
        let rules = Some(noted(Traffic::Tcp, &as_written));
        let stat_prefix = NETWORK_STAT_PREFIX.to_owned();
        built
            .value
            .network
            .push(network_filter(NETWORK_RBAC, &NetworkRbac { rules, stat_prefix, ..NetworkRbac::default() }));
    };
    let provider = match (input.provider)(name) {
        Ok(provider) => provider,
        Err(why) => {
            refuse_requests(built);
            refuse_connections(built);
            built.problems.extend(policies.iter().map(|written| {
                Problem::error(&written.object.reference, "spec.provider.name", why.clone())
                    .consequence("everything that its rules match is refused")
                    .hint(
                        "Providers are defined by extensionProviders in the ConfigMap \"istio\" of the root namespace.",
                    )
                    .at(written.object.meta.location.clone())
            }));
            return;
        }
    };
    built.clusters.insert(provider.cluster.clone());
    built.origins.insert(provider.origin.clone());
    let shadow = HttpRbac {
        shadow_rules: Some(noted(Traffic::Http, &as_asked)),
        shadow_rules_stat_prefix: custom::SHADOW_PREFIX.to_owned(),
        ..HttpRbac::default()
    };
    built.value.custom.push(http_filter(HTTP_RBAC, &shadow));
    built.value.custom.push(http_filter(HTTP_EXT_AUTHZ, &provider.http(name, HTTP_RBAC)));
    match provider.network(name, NETWORK_RBAC) {
        Some(network) => {
            let shadow = NetworkRbac {
                shadow_rules: Some(noted(Traffic::Tcp, &as_asked)),
                shadow_rules_stat_prefix: custom::SHADOW_PREFIX.to_owned(),
                stat_prefix: NETWORK_STAT_PREFIX.to_owned(),
                ..NetworkRbac::default()
            };
            built.value.network.push(network_filter(NETWORK_RBAC, &shadow));
            built.value.network.push(network_filter(NETWORK_EXT_AUTHZ, &network));
        }
        // It cannot be asked about connections, which would be a way around it.
        None => refuse_connections(built),
    }
}
