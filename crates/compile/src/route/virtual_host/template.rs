//! What a rule does with the requests that any of its matches takes.

use proto::pb::envoy::r#type::v3::FractionalPercent;
use proto::pb::google::protobuf::Any;
use proto::{Extension, Extensions};

use super::Builder;
use crate::route::action::{Action, Forwarding};
use crate::route::forward::{self, Clusters};
use crate::route::headers::{Fields, Operations, is_sendable};
use crate::route::rewrite::PathRewrite;
use crate::route::rule::{Part, Place, Rule};
use crate::route::{answer, cors, fault, mirror, retry};
use crate::{Built, flat, pack};
use world::Problem;

/// What all routes of a rule have in common.
pub(super) struct Template<'a> {
    pub(super) action: Action,
    /// Fields 9 to 13 of `Route`: operations on headers, and the settings of filters.
    pub(super) fields: Vec<u8>,
    pub(super) rewrite: Option<PathRewrite<'a>>,
    /// The share of requests that is refused, and why.
    pub(super) refused: Option<(FractionalPercent, String)>,
}

/// What a rule does, while it is found out.
#[derive(Default)]
struct Findings<'a> {
    operations: Operations<'a>,
    rewrite: Option<PathRewrite<'a>>,
    refused: Option<(FractionalPercent, String)>,
}

impl Builder<'_> {
    /// What all routes of a rule have in common.
    pub(super) fn template<'a>(&mut self, rule: &'a Rule<'_>) -> Template<'a> {
        let grpc = self.input.audience.is_grpc();
        let text = &rule.route;
        let problems = &mut self.built.problems;
        let mut operations = {
            let place = rule.place_of(Part::Headers);
            Operations::read(text.headers.as_deref(), place, format_args!(".headers"), problems)
        };
        if grpc && (!operations.is_empty() || text.route.iter().any(|d| d.headers.is_some())) {
            let place = rule.place_of(Part::Headers);
            problems.push(place.warning(".headers", "gRPC clients cannot change headers").consequence("they do not"));
            operations = Operations::default();
        }
        let lacks = self.input.audience.lacks;
        let faults = text.fault.as_ref().and_then(|text| fault::fault(text, rule.place_of(Part::Fault), problems));
        let faults =
            faults.filter(|_| is_known(lacks, Extension::Fault, (rule.place_of(Part::Fault), ".fault"), problems));
        let cors = text
            .cors_policy
            .as_ref()
            .filter(|_| !grpc && is_known(lacks, Extension::Cors, (rule.place_of(Part::Cors), ".corsPolicy"), problems))
            .map(|text| cors::policy(text, rule.place_of(Part::Cors), self.input.most_regex_instructions(), problems));
        let mut findings = Findings::default();
        let action = self.action(rule, operations, &mut findings);
        let mut fields = Vec::new();
        findings.operations.write(&mut fields, &HEADERS);
        // In order of the filters' names.
        if let Some(policy) = cors {
            write_settings(&mut fields, cors::FILTER, &Any { type_url: cors::TYPE_URL.to_owned(), value: policy });
        }
        if let Some(faults) = faults {
            write_settings(&mut fields, fault::FILTER, &pack::any(&faults));
        }
        let Findings { rewrite, refused, .. } = findings;
        Template { action, fields, rewrite, refused }
    }

    fn action<'a>(&mut self, rule: &'a Rule<'_>, operations: Operations<'a>, findings: &mut Findings<'a>) -> Action {
        if let Some(reason) = &rule.refusal {
            return self.refusal(reason);
        }
        let text = &rule.route;
        let answer = match (&text.redirect, &text.direct_response) {
            (Some(text), _) => Some((".redirect", Part::Redirect, answer::redirect(text, self.input.port))),
            (None, Some(text)) => Some((".directResponse", Part::DirectResponse, answer::direct(text))),
            (None, None) => None,
        };
        if let Some((field, part, answer)) = answer {
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
                    findings.operations = operations;
                    Action::answer(&action)
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
            Err(reason) => self.refusal(&reason),
            Ok(to) => self.forward(rule, operations, to, findings),
        }
    }

    fn forward<'a>(
        &mut self,
        rule: &'a Rule<'_>,
        operations: Operations<'a>,
        mut to: Clusters<'a>,
        findings: &mut Findings<'a>,
    ) -> Action {
        let text = &rule.route;
        let audience = self.input.audience;
        let grpc = audience.is_grpc();
        findings.refused = to.refused.take();
        let Built { clusters, problems, .. } = &mut self.built;
        let retries = retry::Policy::read(text.retries.as_deref(), rule.place_of(Part::Retries), audience, problems);
        let mirrors = mirror::policies(rule, self.input, clusters, problems);
        let mut operations = to.take_operations().followed_by(operations);
        let mut host = operations.host.take();
        if let Some(rewrite) = &text.rewrite {
            let place = rule.place_of(Part::Rewrite);
            if grpc {
                let problem = place.warning(".rewrite", "gRPC clients cannot rewrite").consequence("they do not");
                problems.push(problem);
            } else {
                match PathRewrite::read(rewrite, self.input.most_regex_instructions()) {
                    Ok(rewrite) => findings.rewrite = rewrite,
                    Err((field, why)) => return self.refuse(place.error(field, why)),
                }
                match rewrite.authority.as_ref().filter(|authority| !authority.is_empty()) {
                    Some(authority) if is_sendable(authority) => host = host.or(Some(authority)),
                    Some(_) => return self.refuse(place.error(".rewrite.authority", "not a valid header value")),
                    None => {}
                }
            }
        }
        if grpc {
            host = None;
        } else {
            findings.operations = operations;
        }
        let timeout = text.timeout;
        let parts = Forwarding { host, timeout, retries, hash: &to.hash, mirrors: &mirrors, grpc };
        Action::forward(&parts, |out| to.write(out, grpc))
    }
}

/// Where a route has its operations on headers.
const HEADERS: Fields = Fields { request_add: 9, response_add: 10, response_remove: 11, request_remove: 12 };

/// An entry of `Route.typed_per_filter_config`.
fn write_settings(out: &mut Vec<u8>, filter: &str, settings: &Any) {
    flat::message(out, 13, |out| {
        flat::text(out, 1, filter);
        flat::built(out, 2, settings);
    });
}

/// Whether the client has the filter that a setting is for; says so if not.
fn is_known(
    lacks: Extensions,
    extension: Extension,
    (place, field): (&Place, &str),
    problems: &mut Vec<Problem>,
) -> bool {
    let known = !lacks.contains(extension);
    if !known {
        let message = format!("some clients are built without the extension \"{}\"", extension.name());
        problems.push(place.warning(field, message).consequence("it is left out for them"));
    }
    known
}
