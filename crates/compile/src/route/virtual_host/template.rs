//! What a rule does with the requests that any of its matches takes.

use std::collections::HashMap;

use proto::pb::envoy::config::route::v3::route_action::HostRewriteSpecifier;
use proto::pb::envoy::config::route::v3::{Route, route};
use proto::pb::envoy::r#type::v3::FractionalPercent;
use proto::pb::google::protobuf::Any;

use super::Builder;
use crate::route::forward::{self, Clusters, Forward};
use crate::route::headers::{Operations, is_sendable};
use crate::route::rewrite::PathRewrite;
use crate::route::rule::{Part, Rule};
use crate::route::{answer, cors, fault, mirror, retry};
use crate::{Built, pack};

/// What all routes of a rule have in common.
#[derive(Clone)]
pub(super) struct Template {
    pub(super) filters: HashMap<String, Any>,
    pub(super) operations: Operations,
    pub(super) action: route::Action,
    pub(super) rewrite: Option<PathRewrite>,
    pub(super) refused: Option<(FractionalPercent, String)>,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            filters: HashMap::new(),
            operations: Operations::default(),
            action: answer::status(503),
            rewrite: None,
            refused: None,
        }
    }
}

impl Template {
    /// A route with what is the same for all, except its action.
    pub(super) fn dress(&self, head: Route) -> Route {
        Route {
            typed_per_filter_config: self.filters.clone(),
            request_headers_to_add: self.operations.request_add.clone(),
            request_headers_to_remove: self.operations.request_remove.clone(),
            response_headers_to_add: self.operations.response_add.clone(),
            response_headers_to_remove: self.operations.response_remove.clone(),
            ..head
        }
    }
}

impl Builder<'_> {
    /// What all routes of a rule have in common.
    pub(super) fn template(&mut self, rule: &Rule<'_>) -> Template {
        let grpc = self.input.audience.is_grpc();
        let text = &rule.route;
        let problems = &mut self.built.problems;
        let mut template = Template::default();
        let mut rule_operations =
            Operations::read(text.headers.as_ref(), rule.place_of(Part::Headers), ".headers", problems);
        if grpc && (!rule_operations.is_empty() || text.route.iter().any(|d| d.headers.is_some())) {
            let place = rule.place_of(Part::Headers);
            problems.push(place.warning(".headers", "gRPC clients cannot change headers").consequence("they do not"));
            rule_operations = Operations::default();
        }
        if let Some(text) = &text.fault
            && let Some(faults) = fault::fault(text, rule.place_of(Part::Fault), problems)
        {
            template.filters.insert(fault::FILTER.to_owned(), pack::any(&faults));
        }
        if let Some(text) = &text.cors_policy
            && !grpc
        {
            let policy = cors::policy(text, rule.place_of(Part::Cors), self.input.most_regex_instructions(), problems);
            template.filters.insert(cors::FILTER.to_owned(), pack::any(&policy));
        }
        template.action = self.action(rule, rule_operations, &mut template);
        template
    }

    fn action(&mut self, rule: &Rule<'_>, operations: Operations, template: &mut Template) -> route::Action {
        if let Some(reason) = &rule.refusal {
            return self.refusal(reason);
        }
        let text = &rule.route;
        let answers = [
            text.redirect.as_ref().map(|t| (".redirect", Part::Redirect, answer::redirect(t, self.input.port))),
            text.direct_response.as_ref().map(|t| (".directResponse", Part::DirectResponse, answer::direct(t))),
        ];
        if let Some((field, part, answer)) = answers.into_iter().flatten().next() {
            return match answer {
                Ok(_) if self.input.audience.is_grpc() => {
                    let problem = rule
                        .place_of(part)
                        .warning(field, "gRPC clients cannot be answered this way")
                        .consequence("their calls fail as UNAVAILABLE");
                    self.built.problems.push(problem);
                    self.refusal("")
                }
                Ok(action) => {
                    template.operations = operations;
                    action
                }
                Err((field, why)) => self.refuse(rule.place_of(part).error(field, why)),
            };
        }
        if text.route.is_empty() {
            let problem = rule
                .place
                .error("", "says neither where its requests go nor how they are answered")
                .hint("Give it a route, a redirect, a directResponse or a delegate.");
            return self.refuse(problem);
        }
        let Built { clusters, problems, .. } = &mut self.built;
        match forward::forward(rule, self.input, clusters, problems) {
            Forward::Nowhere(reason) => self.refusal(&reason),
            Forward::To(clusters) => self.forward(rule, operations, clusters, template),
        }
    }

    fn forward(
        &mut self,
        rule: &Rule<'_>,
        operations: Operations,
        to: Box<Clusters>,
        template: &mut Template,
    ) -> route::Action {
        let text = &rule.route;
        let mut action = self.timeouts(text.timeout);
        action.cluster_specifier = Some(to.specifier);
        action.hash_policy = to.hash;
        template.refused = to.refused;
        let Built { clusters, problems, .. } = &mut self.built;
        let audience = self.input.audience;
        action.retry_policy = retry::policy(text.retries.as_ref(), rule.place_of(Part::Retries), audience, problems);
        action.request_mirror_policies = mirror::policies(rule, self.input, clusters, problems);
        if audience.is_grpc() {
            if text.rewrite.is_some() {
                let place = rule.place_of(Part::Rewrite);
                let problem = place.warning(".rewrite", "gRPC clients cannot rewrite").consequence("they do not");
                problems.push(problem);
            }
            return route::Action::Route(action);
        }
        let mut operations = to.operations.followed_by(operations);
        let mut host = operations.host.take();
        if let Some(rewrite) = &text.rewrite {
            let place = rule.place_of(Part::Rewrite);
            match PathRewrite::read(rewrite, self.input.most_regex_instructions()) {
                Ok(rewrite) => template.rewrite = rewrite,
                Err((field, why)) => {
                    let problem = place.error(field, why);
                    return self.refuse(problem);
                }
            }
            match rewrite.authority.as_ref().filter(|authority| !authority.is_empty()) {
                Some(authority) if is_sendable(authority) => host = host.or_else(|| Some(authority.clone())),
                Some(_) => return self.refuse(place.error(".rewrite.authority", "not a valid header value")),
                None => {}
            }
        }
        action.host_rewrite_specifier = host.map(HostRewriteSpecifier::HostRewriteLiteral);
        template.operations = operations;
        route::Action::Route(action)
    }
}
