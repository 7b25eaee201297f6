//! The same for gRPC servers without a proxy, which have a filter of their own for it (gRPC proposal A41; rule G-11).
//!
//! ```text
//!   of the mesh ─▶ DENY (and CUSTOM, which nobody can be asked about) ─▶ ALLOW
//! ```
//!
//! A server refuses a listener as a whole when one of its rules asks about something that it does not know. So such
//! conditions are in doubt here: they never let anything through. There are neither marks nor shadows.

use std::cell::RefCell;
use std::sync::Arc;

use proto::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, permission, principal};
use proto::pb::envoy::config::route::v3::HeaderMatcher;
use proto::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use world::api::istio::{Action, is_dry_run};
use world::{Object, Problem, Severity, Spec};

use super::rule::{self, Traffic};
use super::term::Term;
use super::text::string;
use super::{AuthorizationInput, HTTP_RBAC, Written, empty, never};
use crate::Built;
use crate::pack::http_filter;
use crate::security::JWT_FILTER;

/// The filters for a gRPC server that the policies select, in order.
pub(crate) fn authorization_of_grpc(input: &AuthorizationInput<'_>) -> Built<Vec<HttpFilter>> {
    let mut built = Built::new(Vec::new());
    let (mut deny, mut allow) = (Vec::new(), Vec::new());
    for object in input.policies {
        let Spec::AuthorizationPolicy(policy) = &object.spec else { continue };
        built.origins.insert(object.reference.clone());
        if is_dry_run(&object.meta.annotations).unwrap_or(false) {
            let message = "gRPC servers without a proxy try nothing";
            let problem = problem(object, "", message.to_owned(), "there nothing is counted, and nothing is refused");
            built.problems.push(Problem { severity: Severity::Warning, ..problem });
            continue;
        }
        let written = Written { object, policy, dry_run: false };
        match policy.action {
            Action::Allow => allow.push(written),
            Action::Deny => deny.push(written),
            Action::Audit => {
                let message = "gRPC servers without a proxy mark nothing";
                let problem = problem(object, "spec.action", message.to_owned(), "there it has no effect");
                built.problems.push(Problem { severity: Severity::Warning, ..problem });
            }
            Action::Custom => {
                let message = "gRPC servers without a proxy cannot ask a provider";
                let consequence = "there everything that its rules match is refused";
                built.problems.push(problem(object, "spec.provider", message.to_owned(), consequence));
                deny.push(written);
            }
        }
    }
    for (name, action, policies) in [("deny", Action::Deny, &deny), ("allow", Action::Allow, &allow)] {
        if policies.is_empty() {
            continue;
        }
        let mut rbac = empty(action);
        for written in policies {
            rbac.policies.extend(translated(input, written, &mut built.problems));
        }
        built.value.push(filter(name, rbac));
    }
    built
}

/// The filter that takes only workloads of these trust domains, by mutual TLS. The servers' own TLS takes everybody whom
/// an authority has signed, and none is used at all by an application that does not ask for it.
pub(crate) fn of_the_mesh(trust_domains: &[Arc<str>]) -> HttpFilter {
    let within = |domain: &Arc<str>| {
        let name = string(MatchPattern::Prefix(format!("spiffe://{domain}/")));
        let authenticated = principal::Authenticated { principal_name: Some(name) };
        Principal { identifier: Some(principal::Identifier::Authenticated(authenticated)) }
    };
    let principals = trust_domains.iter().map(within).collect();
    let mut rbac = empty(Action::Allow);
    rbac.policies.insert(
        "mutual-tls".to_owned(),
        Policy { permissions: vec![Permission::any()], principals, ..Policy::default() },
    );
    filter("mesh", rbac)
}

/// gRPC refuses two filters of one name.
fn filter(name: &str, rbac: Rbac) -> HttpFilter {
    http_filter(&format!("{HTTP_RBAC}.{name}"), &HttpRbac { rules: Some(rbac), ..HttpRbac::default() })
}

fn translated(
    input: &AuthorizationInput<'_>,
    written: &Written<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<(String, Policy)> {
    let mut rules = Vec::new();
    for (index, rule) in written.policy.rules.iter().enumerate() {
        let unknown = RefCell::default();
        // Tokens are asked about, so that they are found to be unknown.
        let policy = rule::policy(&written.input(input, rule, Traffic::Grpc, true, &unknown));
        rules.extend(policy.map(|policy| (written.id(index), policy)));
        let unknown: Vec<&str> = unknown.into_inner().into_iter().collect();
        if !unknown.is_empty() {
            let message = format!("gRPC servers without a proxy do not know {}", unknown.join(", "));
            let consequence = match written.policy.action {
                Action::Allow => "there the rule lets nothing through",
                Action::Deny | Action::Audit | Action::Custom => {
                    "there these conditions are taken to hold, so that the rule refuses more"
                }
            };
            problems.push(problem(written.object, &format!("spec.rules[{index}]"), message, consequence));
        }
    }
    if rules.is_empty() {
        // Seen where the server shows what it has, and a filter that allows refuses everything else.
        rules.push((written.id(0), never()));
    }
    rules
}

fn problem(object: &Object, field: &str, message: String, consequence: &str) -> Problem {
    Problem::error(&object.reference, field, message).consequence(consequence).at(object.meta.location.clone())
}

#[allow(deprecated)] // What is built here has none of the older forms.
pub(super) fn unknown_permission(permission: &Permission) -> Option<&'static str> {
    use permission::Rule;
    match permission.rule.as_ref()? {
        Rule::AndRules(set) | Rule::OrRules(set) => set.rules.iter().find_map(unknown_permission),
        Rule::NotRule(rule) => unknown_permission(rule),
        Rule::Header(header) => unknown_header(header),
        Rule::Any(_) | Rule::UrlPath(_) | Rule::DestinationIp(_) | Rule::DestinationPort(_) => None,
        Rule::RequestedServerName(_) => Some("the server name of TLS"),
        Rule::SourcedMetadata(_) | Rule::Metadata(_) => Some("what filters have noted"),
        Rule::UriTemplate(_) => Some("templates of paths as long as this"),
        Rule::DestinationPortRange(_) | Rule::Matcher(_) => Some("this form of a condition"),
    }
}

#[allow(deprecated)] // What is built here has none of the older forms.
pub(super) fn unknown_principal(principal: &Principal) -> Option<&'static str> {
    use principal::Identifier;
    match principal.identifier.as_ref()? {
        Identifier::AndIds(set) | Identifier::OrIds(set) => set.ids.iter().find_map(unknown_principal),
        Identifier::NotId(id) => unknown_principal(id),
        Identifier::Header(header) => unknown_header(header),
        Identifier::Any(_)
        | Identifier::Authenticated(_)
        | Identifier::SourceIp(_)
        | Identifier::DirectRemoteIp(_)
        | Identifier::UrlPath(_) => None,
        Identifier::RemoteIp(_) => Some("addresses of clients behind a proxy"),
        Identifier::SourcedMetadata(noted) => {
            let of_token = noted.metadata_matcher.as_ref().is_some_and(|matcher| matcher.filter == JWT_FILTER);
            Some(if of_token { "tokens" } else { "what filters have noted" })
        }
        Identifier::Metadata(_) => Some("what filters have noted"),
        Identifier::FilterState(_) | Identifier::Custom(_) => Some("this form of a condition"),
    }
}

/// It refuses the first two, does not see the third, and has the last in another form.
fn unknown_header(header: &HeaderMatcher) -> Option<&'static str> {
    let name = header.name.to_ascii_lowercase();
    let is_unknown = name == ":scheme" || name.starts_with("grpc-") || name == "te" || name.ends_with("-bin");
    is_unknown.then_some("headers of gRPC's own (:scheme, te, grpc-…, …-bin)")
}
