//! One rule of a policy as one policy of RBAC.
//!
//! ```text
//!   to[]:   one of (hosts, ports, methods, paths, and the conditions on the destination)   ─▶ permissions
//!   from[]: one of (identities, addresses, tokens, and all other conditions)               ─▶ principals
//! ```

use std::cell::RefCell;
use std::collections::BTreeSet;

use proto::pb::envoy::config::core::v3::TypedExtensionConfig;
use proto::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, permission, principal};
use proto::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use proto::pb::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};
use world::api::istio::{Condition, ConditionKey, Operation, PathTemplate, Rule, Segment, Source, ValueMatch};

use super::identity::Identities;
use super::term::Term;
use super::text::{Case, has, header, is, noted, range, regex, value};
use super::token;
use crate::pack::any;
use crate::route::regex as syntax;

/// What is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Requests.
    Http,
    /// Connections, of which nobody knows paths, methods, headers or tokens.
    Tcp,
    /// Requests to a gRPC server without a proxy, which knows less of them than Envoy.
    Grpc,
}

/// What becomes of a condition of which nobody can know whether it holds: it is about requests and there are only
/// connections, or it makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The rule never matches: so it is where a match lets something through.
    NeverMatches,
    /// The condition holds: so it is where a match keeps something out.
    Holds,
}

/// All that a rule's translation depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleInput<'a> {
    /// The rule.
    pub(super) rule: &'a Rule,
    /// The policy's namespace.
    pub(super) namespace: &'a str,
    /// What it is to guard.
    pub(super) traffic: Traffic,
    /// Whether tokens have been checked when it is asked.
    pub(super) knows_tokens: bool,
    /// What becomes of doubts.
    pub(super) doubt: Doubt,
    /// Whom principals are compared with.
    pub(super) identities: Identities<'a>,
    /// Takes down what the traffic does not know of all that the rule asks about; of gRPC's only.
    pub(super) unknown: &'a RefCell<BTreeSet<&'static str>>,
}

/// The rule never matches.
struct Never;

/// The policy of RBAC; `None` when the rule never matches.
pub(super) fn policy(input: &RuleInput<'_>) -> Option<Policy> {
    translate(input).ok()
}

fn translate(input: &RuleInput<'_>) -> Result<Policy, Never> {
    let rule = input.rule;
    if rule.is_garbled {
        input.in_doubt()?;
    }
    let (mut conditions, mut about_peer) = (Vec::new(), Vec::new());
    for condition in &rule.when {
        input.condition(condition, &mut conditions, &mut about_peer)?;
    }
    // A list without entries makes no sense.
    if rule.to.as_ref().is_some_and(Vec::is_empty) || rule.from.as_ref().is_some_and(Vec::is_empty) {
        input.in_doubt()?;
    }
    let own: Vec<_> = rule.to.iter().flatten().map(|to| input.operation(&to.operation)).collect::<Result<_, _>>()?;
    let permissions = alternatives(own, &conditions);
    let own: Vec<_> = rule.from.iter().flatten().map(|from| input.source(&from.source)).collect::<Result<_, _>>()?;
    let principals = alternatives(own, &about_peer);
    Ok(Policy { permissions, principals, ..Policy::default() })
}

/// Entries of which one must match, each with what all of them ask; only that when there are none.
fn alternatives<T: Term + Clone>(entries: Vec<Vec<T>>, common: &[T]) -> Vec<T> {
    let with_common = |own: Vec<T>| T::all(own.into_iter().chain(common.iter().cloned()).collect());
    match entries.is_empty() {
        true => vec![with_common(Vec::new())],
        false => entries.into_iter().map(with_common).collect(),
    }
}

impl RuleInput<'_> {
    fn in_doubt(&self) -> Result<(), Never> {
        match self.doubt {
            Doubt::Holds => Ok(()),
            Doubt::NeverMatches => Err(Never),
        }
    }

    /// Adds what `values` and `not` ask: one of the former, and none of the latter. A value without a term is in doubt.
    fn lists<T: Term>(
        &self,
        terms: &mut Vec<T>,
        values: &[String],
        not: &[String],
        term: impl Fn(&str) -> Option<T>,
    ) -> Result<(), Never> {
        let term = |value: &str| term(value).filter(|term| self.is_known(term));
        if !values.is_empty() {
            match values.iter().map(|value| term(value)).collect::<Option<Vec<T>>>() {
                Some(any) => terms.push(T::one_of(any)),
                // The whole list holds if the value in doubt does.
                None => self.in_doubt()?,
            }
        }
        if !not.is_empty() {
            let known: Vec<T> = not.iter().filter_map(|value| term(value)).collect();
            if known.len() < not.len() {
                self.in_doubt()?;
            }
            if !known.is_empty() {
                terms.push(T::one_of(known).negated());
            }
        }
        Ok(())
    }

    fn is_known<T: Term>(&self, term: &T) -> bool {
        let unknown = match self.traffic {
            Traffic::Http | Traffic::Tcp => None,
            Traffic::Grpc => term.unknown_to_grpc(),
        };
        self.unknown.borrow_mut().extend(unknown);
        unknown.is_none()
    }

    /// A term that only requests have.
    fn of_requests<T>(&self, term: impl FnOnce() -> Option<T>) -> Option<T> {
        match self.traffic {
            Traffic::Http | Traffic::Grpc => term(),
            Traffic::Tcp => None,
        }
    }

    /// A term that only checked tokens have.
    fn of_tokens<T>(&self, term: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.knows_tokens { self.of_requests(term) } else { None }
    }

    fn operation(&self, operation: &Operation) -> Result<Vec<Permission>, Never> {
        let mut terms = Vec::new();
        if operation.fields().iter().all(|(_, values)| values.is_empty()) {
            self.in_doubt()?;
        }
        self.lists(&mut terms, &operation.hosts, &operation.not_hosts, |value| {
            self.of_requests(|| permission_header(":authority", value, Case::Ignored))
        })?;
        self.lists(&mut terms, &operation.methods, &operation.not_methods, |value| {
            self.of_requests(|| permission_header(":method", value, Case::Sensitive))
        })?;
        self.lists(&mut terms, &operation.paths, &operation.not_paths, |value| {
            self.of_requests(|| path(value, self.identities.most_regex_instructions))
        })?;
        self.lists(&mut terms, &operation.ports, &operation.not_ports, port)?;
        Ok(terms)
    }

    fn source(&self, source: &Source) -> Result<Vec<Principal>, Never> {
        let mut terms = Vec::new();
        if source.fields().iter().all(|(_, values)| values.is_empty()) {
            self.in_doubt()?;
        }
        let identities = &self.identities;
        let all = &mut terms;
        self.lists(all, &source.principals, &source.not_principals, |value| identities.principal(value))?;
        self.lists(all, &source.request_principals, &source.not_request_principals, |value| {
            self.of_tokens(|| token::request_principal(value))
        })?;
        self.lists(all, &source.namespaces, &source.not_namespaces, |value| identities.namespace(value))?;
        self.lists(all, &source.service_accounts, &source.not_service_accounts, |value| {
            identities.service_account(value, self.namespace)
        })?;
        self.lists(all, &source.trust_domains, &source.not_trust_domains, |value| identities.trust_domain(value))?;
        self.lists(all, &source.ip_blocks, &source.not_ip_blocks, source_ip)?;
        self.lists(all, &source.remote_ip_blocks, &source.not_remote_ip_blocks, remote_ip)?;
        Ok(terms)
    }

    fn condition(
        &self,
        condition: &Condition,
        about_destination: &mut Vec<Permission>,
        about_peer: &mut Vec<Principal>,
    ) -> Result<(), Never> {
        let Condition { key, values, not_values: not } = condition;
        if values.is_empty() && not.is_empty() {
            self.in_doubt()?;
        }
        let Ok(key) = ConditionKey::parse(key) else { return self.in_doubt() };
        let identities = &self.identities;
        match &key {
            ConditionKey::DestinationIp => self.lists(about_destination, values, not, destination_ip),
            ConditionKey::DestinationPort => self.lists(about_destination, values, not, port),
            ConditionKey::ConnectionSni => self.lists(about_destination, values, not, server_name),
            ConditionKey::FilterMetadata { filter, key } => {
                self.lists(about_destination, values, not, |value| filter_metadata(filter, key, value))
            }
            ConditionKey::RequestHeader(name) => self.lists(about_peer, values, not, |value| {
                self.of_requests(|| {
                    let header = header(name, value, Case::Sensitive)?;
                    Some(Principal { identifier: Some(principal::Identifier::Header(header)) })
                })
            }),
            ConditionKey::SourceIp => self.lists(about_peer, values, not, source_ip),
            ConditionKey::RemoteIp => self.lists(about_peer, values, not, remote_ip),
            ConditionKey::SourceNamespace => self.lists(about_peer, values, not, |value| identities.namespace(value)),
            ConditionKey::SourcePrincipal => self.lists(about_peer, values, not, |value| identities.principal(value)),
            ConditionKey::SourceServiceAccount => {
                self.lists(about_peer, values, not, |value| identities.service_account(value, self.namespace))
            }
            ConditionKey::SourceTrustDomain => {
                self.lists(about_peer, values, not, |value| identities.trust_domain(value))
            }
            ConditionKey::RequestPrincipal => {
                self.lists(about_peer, values, not, |value| self.of_tokens(|| token::request_principal(value)))
            }
            ConditionKey::RequestAudiences => {
                self.lists(about_peer, values, not, |value| self.of_tokens(|| token::claim(&["aud"], value)))
            }
            ConditionKey::RequestPresenter => {
                self.lists(about_peer, values, not, |value| self.of_tokens(|| token::claim(&["azp"], value)))
            }
            ConditionKey::RequestClaims(path) => {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                self.lists(about_peer, values, not, |value| self.of_tokens(|| token::claim(&path, value)))
            }
        }
    }
}

fn permission_header(name: &str, value: &str, case: Case) -> Option<Permission> {
    Some(Permission { rule: Some(permission::Rule::Header(header(name, value, case)?)) })
}

/// A path or a template. Envoy's own templates have a gap: their open parts do not match all characters that a path may
/// have, `=` and `"` among them, so that a policy that refuses `/admin/{*}` would let `/admin/a=b` through. They are for
/// templates that are too long for an expression.
fn path(text: &str, most_regex_instructions: u32) -> Option<Permission> {
    if PathTemplate::is_meant(text) {
        let template = PathTemplate::parse(text).ok()?;
        let pattern = expression(&template);
        if syntax::check(&pattern, most_regex_instructions).is_ok() {
            let matcher = PathMatcher { rule: Some(path_matcher::Rule::Path(regex(pattern))) };
            return Some(Permission { rule: Some(permission::Rule::UrlPath(matcher)) });
        }
        let config = UriTemplateMatchConfig { path_template: template.to_envoy() };
        let matcher = TypedExtensionConfig {
            name: "envoy.path.match.uri_template.uri_template_matcher".to_owned(),
            typed_config: Some(any(&config)),
        };
        return Some(Permission { rule: Some(permission::Rule::UriTemplate(matcher)) });
    }
    if ValueMatch::new(text) == ValueMatch::Present {
        return permission_header(":path", text, Case::Sensitive);
    }
    let matcher = PathMatcher { rule: Some(path_matcher::Rule::Path(value(text)?)) };
    Some(Permission { rule: Some(permission::Rule::UrlPath(matcher)) })
}

fn expression(template: &PathTemplate) -> String {
    let part = |segment: &Segment| match segment {
        Segment::Literal(text) => format!("/{}", ::regex::escape(text)),
        Segment::One => "/[^/]+".to_owned(),
        Segment::Any => "/.*".to_owned(),
    };
    let mut pattern: String = template.segments.iter().map(part).collect();
    pattern.push_str(&::regex::escape(&template.suffix));
    pattern
}

fn port(text: &str) -> Option<Permission> {
    let number: u16 = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))?;
    Some(Permission { rule: Some(permission::Rule::DestinationPort(number.into())) })
}

fn destination_ip(text: &str) -> Option<Permission> {
    Some(Permission { rule: Some(permission::Rule::DestinationIp(range(text)?)) })
}

fn server_name(text: &str) -> Option<Permission> {
    Some(Permission { rule: Some(permission::Rule::RequestedServerName(value(text)?)) })
}

/// `[a]` asks for a list with `a` in it.
fn filter_metadata(filter: &str, key: &str, text: &str) -> Option<Permission> {
    let matcher = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(entry) => has(value(entry)?),
        None => is(value(text)?),
    };
    Some(Permission { rule: Some(permission::Rule::SourcedMetadata(noted(filter, &[key], vec![matcher]))) })
}

fn source_ip(text: &str) -> Option<Principal> {
    Some(Principal { identifier: Some(principal::Identifier::DirectRemoteIp(range(text)?)) })
}

fn remote_ip(text: &str) -> Option<Principal> {
    Some(Principal { identifier: Some(principal::Identifier::RemoteIp(range(text)?)) })
}
