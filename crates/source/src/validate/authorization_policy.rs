//! Istio's `AuthorizationPolicy`.
//!
//! Its errors refuse nothing, but for those of its selector: to leave a policy out might let through what it forbids. What
//! makes no sense in it is taken to hold where that keeps requests out, and not to hold where it would let them in.

use std::fmt::Display;
use std::net::IpAddr;

use world::Object;
use world::api::istio::{
    Action, AddressRange, AuthorizationPolicy, Condition, ConditionKey, PathTemplate, Rule, is_dry_run,
};

use super::Findings;
use super::peer_authentication::workload_selector;

pub(super) fn authorization_policy(spec: &AuthorizationPolicy, object: &Object, findings: &mut Findings) {
    if let Some(selector) = &spec.selector {
        workload_selector(selector, findings);
    }
    if !spec.target_refs.is_empty() {
        let is_for_some = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
        let consequence = match is_for_some {
            true => "the policy is in force for the workloads that its selector names",
            false => "the policy concerns no workload",
        };
        let message = "policies cannot be attached to objects of the Gateway API yet";
        let hint = "Select the workloads by their labels in selector.matchLabels.";
        findings.in_force("spec.targetRefs", message, consequence).hint(hint);
    }
    let has_provider = spec.provider.as_ref().is_some_and(|provider| !provider.name.is_empty());
    if spec.action == Action::Custom && !has_provider {
        let refused = "everything that its rules match is refused";
        findings.in_force("spec.provider.name", "action CUSTOM needs a provider", refused);
    } else if spec.action != Action::Custom && spec.provider.is_some() {
        findings.warning("spec.provider", "only action CUSTOM has a provider", "the field has no effect");
    }
    if spec.rules.is_empty() && spec.action != Action::Allow {
        let hint = "Write `rules: [{}]` to match everything.";
        findings.warning("spec.rules", "there is no rule", "the policy never matches").hint(hint);
    }
    match is_dry_run(&object.meta.annotations) {
        Ok(true) if matches!(spec.action, Action::Audit | Action::Custom) => {
            let message = "only policies that allow or deny have a dry run";
            findings.warning("metadata.annotations.istio.io/dry-run", message, "the policy does nothing");
        }
        Ok(_) => {}
        Err(other) => {
            let message = format!("\"{other}\" is neither true nor false");
            findings.in_force("metadata.annotations.istio.io/dry-run", message, "the policy is in force");
        }
    }
    for (at, rule) in spec.rules.iter().enumerate() {
        Checked { action: spec.action, findings }.rule(&format!("spec.rules[{at}]"), rule);
    }
}

/// What becomes of a rule with something in it that makes no sense.
pub(crate) fn doubtful(action: Action) -> &'static str {
    match action {
        Action::Allow => "the rule allows nothing",
        Action::Deny => "the rule refuses whatever the rest of it matches",
        Action::Audit => "the rule marks whatever the rest of it matches",
        Action::Custom => "the provider is asked about whatever the rest of the rule matches",
    }
}

/// The check of the rules of one policy.
struct Checked<'f> {
    action: Action,
    findings: &'f mut Findings,
}

impl Checked<'_> {
    fn doubt(&mut self, field: impl Display, message: impl Into<String>, hint: &str) {
        self.findings.in_force(field, message, doubtful(self.action)).hint(hint);
    }

    fn rule(&mut self, field: &str, rule: &Rule) {
        if rule.from.as_ref().is_some_and(Vec::is_empty) {
            self.doubt(format_args!("{field}.from"), "the list is empty", "Remove it to match every source.");
        }
        if rule.to.as_ref().is_some_and(Vec::is_empty) {
            self.doubt(format_args!("{field}.to"), "the list is empty", "Remove it to match every operation.");
        }
        for (at, from) in rule.from.iter().flatten().enumerate() {
            let field = format!("{field}.from[{at}].source");
            self.lists(&field, &from.source.fields());
        }
        for (at, to) in rule.to.iter().flatten().enumerate() {
            let field = format!("{field}.to[{at}].operation");
            self.lists(&field, &to.operation.fields());
        }
        for (at, condition) in rule.when.iter().enumerate() {
            self.condition(&format!("{field}.when[{at}]"), condition);
        }
    }

    fn lists(&mut self, field: &str, lists: &[(&'static str, &[String])]) {
        if lists.iter().all(|(_, values)| values.is_empty()) {
            self.doubt(field, "nothing is asked here", "Remove the entry, or say what is to match.");
        }
        for (name, values) in lists {
            if matches!(*name, "requestPrincipals" | "notRequestPrincipals") && !values.is_empty() {
                self.tokens(format_args!("{field}.{name}"));
            }
            for (at, value) in values.iter().enumerate() {
                self.value(&format!("{field}.{name}[{at}]"), Form::of(name), value);
            }
        }
    }

    /// Providers are asked before tokens are checked.
    fn tokens(&mut self, field: impl Display) {
        if self.action == Action::Custom {
            let hint = "Let the provider look at the token, or use another action.";
            self.doubt(field, "nothing is known of tokens when a provider is asked", hint);
        }
    }

    fn condition(&mut self, field: &str, condition: &Condition) {
        let key = match ConditionKey::parse(&condition.key) {
            Ok(key) => key,
            Err(why) => return self.doubt(format_args!("{field}.key"), why, ""),
        };
        if condition.values.is_empty() && condition.not_values.is_empty() {
            self.doubt(field, "there are no values", "Give values or notValues; * asks for presence.");
        }
        if key.is_of_token() {
            self.tokens(format_args!("{field}.key"));
        }
        let form = match key {
            ConditionKey::SourceIp | ConditionKey::RemoteIp | ConditionKey::DestinationIp => Form::Address,
            ConditionKey::DestinationPort => Form::Port,
            ConditionKey::SourcePrincipal => Form::Principal,
            ConditionKey::SourceServiceAccount => Form::ServiceAccount,
            ConditionKey::SourceTrustDomain => Form::TrustDomain,
            ConditionKey::RequestPrincipal => Form::RequestPrincipal,
            ConditionKey::RequestHeader(_)
            | ConditionKey::SourceNamespace
            | ConditionKey::RequestAudiences
            | ConditionKey::RequestPresenter
            | ConditionKey::RequestClaims(_)
            | ConditionKey::ConnectionSni => Form::Text,
            ConditionKey::FilterMetadata { .. } => Form::Metadata,
        };
        for (name, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
            for (at, value) in values.iter().enumerate() {
                self.value(&format!("{field}.{name}[{at}]"), form, value);
            }
        }
    }

    fn value(&mut self, field: &str, form: Form, value: &str) {
        if value.is_empty() {
            return self.doubt(field, "the value is empty", "Write * to ask for presence.");
        }
        match form {
            Form::Text => {}
            Form::Metadata => {
                if value == "[]" {
                    self.doubt(field, "a list is asked for nothing", "Write [value] for a list with that value in it.");
                }
            }
            Form::Method => {
                if value.bytes().any(|byte| byte.is_ascii_lowercase()) {
                    let message = format!("\"{value}\" has lower-case letters, and methods are compared as they are");
                    let hint = format!("Write {}.", value.to_ascii_uppercase());
                    self.findings.warning(field, message, "hardly any request matches").hint(hint);
                }
            }
            Form::Principal if value.starts_with("spiffe://") => {
                self.doubt(field, "a principal has no scheme", "Write it without spiffe://.");
            }
            Form::Principal => {}
            Form::RequestPrincipal if !value.contains(['/', '*']) => {
                self.doubt(field, format!("\"{value}\" has no subject"), "Write <issuer>/<subject>.");
            }
            Form::RequestPrincipal => {}
            Form::ServiceAccount => {
                let parts: Vec<&str> = value.split('/').collect();
                if parts.len() > 2 || parts.iter().any(|part| part.is_empty() || part.contains('*')) {
                    let message = format!("\"{value}\" is not a service account");
                    self.doubt(field, message, "Write <namespace>/<account>, without stars.");
                }
            }
            Form::TrustDomain if value.contains('/') => {
                self.doubt(field, format!("\"{value}\" is not a trust domain"), "Write the domain alone.");
            }
            Form::TrustDomain => {}
            Form::Address => {
                if let Err(why) = value.parse::<AddressRange>() {
                    self.doubt(field, why, "Write 10.1.2.3 or 10.1.0.0/16.");
                }
            }
            Form::Port => {
                if value.parse::<u16>().is_err() || value.starts_with('+') {
                    self.doubt(field, format!("\"{value}\" is not a port"), "Use a number up to 65535.");
                }
            }
            Form::Path if PathTemplate::is_meant(value) => {
                if let Err(why) = PathTemplate::parse(value) {
                    self.doubt(field, why, "");
                }
            }
            Form::Path => {
                let inner = value.strip_prefix('*').unwrap_or(value);
                if !value.starts_with(['/', '*']) {
                    let message = format!("\"{value}\" does not begin with /, as paths do");
                    self.findings.warning(field, message, "no request matches").hint(format!("Write /{value}."));
                }
                if inner.strip_suffix('*').unwrap_or(inner).contains('*') {
                    let message = "a star within a path is that character";
                    self.findings
                        .warning(field, message, "only paths with a star there match")
                        .hint("Write {*} for one part of a path, {**} for any number of them.");
                }
            }
            Form::Host => {
                if value.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
                    let message = "an IPv6 address stands in brackets in a request";
                    self.findings.warning(field, message, "no request matches").hint(format!("Write [{value}]."));
                }
            }
        }
    }
}

/// What a value must look like.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Metadata,
    Method,
    Principal,
    RequestPrincipal,
    ServiceAccount,
    TrustDomain,
    Address,
    Port,
    Path,
    Host,
}

impl Form {
    /// Of the values of a field of sources and operations.
    fn of(field: &str) -> Self {
        match field {
            "principals" | "notPrincipals" => Form::Principal,
            "requestPrincipals" | "notRequestPrincipals" => Form::RequestPrincipal,
            "serviceAccounts" | "notServiceAccounts" => Form::ServiceAccount,
            "trustDomains" | "notTrustDomains" => Form::TrustDomain,
            "ipBlocks" | "notIpBlocks" | "remoteIpBlocks" | "notRemoteIpBlocks" => Form::Address,
            "ports" | "notPorts" => Form::Port,
            "methods" | "notMethods" => Form::Method,
            "paths" | "notPaths" => Form::Path,
            "hosts" | "notHosts" => Form::Host,
            _ => Form::Text,
        }
    }
}
