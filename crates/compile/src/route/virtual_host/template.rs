//! What a rule does with the requests that any of its matches takes.

use proto::pb::envoy::r#type::v3::FractionalPercent;
use proto::pb::google::protobuf::Any;
use proto::{Extension, Extensions};

use super::Builder;
use super::variants::{self, Variant};
use crate::route::action::{Action, Forwarding};
use crate::route::forward::{self, Destinations};
use crate::route::headers::{Fields, Operations, is_sendable};
use crate::route::request::Request;
use crate::route::rewrite::PathRewrite;
use crate::route::rule::{Part, Place, Rule};
use crate::route::{answer, cors, fault, mirror, retry};
use crate::{Built, flat, pack};
use world::Problem;

/// What all routes of a rule have in common.
pub(super) struct Template<'a> {
    /// The routes that each of its matches becomes: at least one.
    pub(super) ways: Vec<Way>,
    pub(super) rewrite: Option<PathRewrite<'a>>,
    /// The share of requests that is refused, and why.
    pub(super) refused: Option<(FractionalPercent, String)>,
}

/// One of the routes of a match.
pub(super) struct Way {
    /// What is added to the route's name, after `~`.
    pub(super) suffix: String,
    /// One route for each of these; one without further conditions when there are none.
    pub(super) requests: Vec<Request>,
    pub(super) action: Action,
    /// Fields 9 to 13 of `Route`: operations on headers, and the settings of filters.
    pub(super) fields: Vec<u8>,
}

/// What a rule does, while it is found out.
#[derive(Default)]
struct Findings<'a> {
    rewrite: Option<PathRewrite<'a>>,
    refused: Option<(FractionalPercent, String)>,
}

/// The name's suffix, conditions and action of a route, with what is done to headers.
type Doing<'a> = (String, Vec<Request>, Action, Operations<'a>);

impl Way {
    /// With the encoded settings of filters.
    pub(super) fn new((suffix, requests, action, operations): Doing<'_>, settings: &[u8]) -> Self {
        let mut fields = Vec::new();
        operations.write(&mut fields, &HEADERS);
        fields.extend_from_slice(settings);
        Self { suffix, requests, action, fields }
    }
}

pub(super) fn only<'a>(action: Action, operations: Operations<'a>) -> Vec<Doing<'a>> {
    vec![(String::new(), Vec::new(), action, operations)]
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
        let ways = self.actions(rule, operations, &mut findings);
        let mut settings = Vec::new();
        // In order of the filters' names.
        if let Some(policy) = cors {
            write_settings(&mut settings, cors::FILTER, &Any { type_url: cors::TYPE_URL.to_owned(), value: policy });
        }
        if let Some(faults) = faults {
            write_settings(&mut settings, fault::FILTER, &pack::any(&faults));
        }
        let Findings { rewrite, refused } = findings;
        Template { ways: ways.into_iter().map(|doing| Way::new(doing, &settings)).collect(), rewrite, refused }
    }

    fn actions<'a>(
        &mut self,
        rule: &'a Rule<'_>,
        operations: Operations<'a>,
        findings: &mut Findings<'a>,
    ) -> Vec<Doing<'a>> {
        let refused = |action| only(action, Operations::default());
        if let Some(reason) = &rule.refusal {
            return refused(self.refusal(reason));
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
                    refused(self.refusal(""))
                }
                Ok(action) => only(Action::answer(&action), operations),
                Err((field, why)) => refused(self.refuse(rule.place_of(part).error(field, why))),
            };
        }
        if text.route.is_empty() {
            let problem = rule
                .place
                .error("", "says neither where its requests go nor how they are answered")
                .hint("Give it a route, a redirect, a directResponse or a delegate.");
            return refused(self.refuse(problem));
        }
        match forward::forward(rule, self.input, &mut self.built.problems) {
            Err(reason) => refused(self.refusal(&reason)),
            Ok(to) => self.forward(rule, &operations, &to, findings).unwrap_or_else(refused),
        }
    }

    /// # Errors
    /// The action that takes the place of all others, where it cannot be done.
    fn forward<'a>(
        &mut self,
        rule: &'a Rule<'_>,
        operations: &Operations<'a>,
        to: &Destinations<'a>,
        findings: &mut Findings<'a>,
    ) -> Result<Vec<Doing<'a>>, Action> {
        let text = &rule.route;
        let audience = self.input.audience;
        let grpc = audience.is_grpc();
        findings.refused = to.refused();
        let Built { clusters, problems, .. } = &mut self.built;
        let retries = retry::Policy::read(text.retries.as_deref(), rule.place_of(Part::Retries), audience, problems);
        let mirrors = mirror::policies(rule, self.input, clusters, problems);
        let mut authority = None;
        if let Some(rewrite) = &text.rewrite {
            let place = rule.place_of(Part::Rewrite);
            if grpc {
                let problem = place.warning(".rewrite", "gRPC clients cannot rewrite").consequence("they do not");
                problems.push(problem);
            } else {
                match PathRewrite::read(rewrite, self.input.most_regex_instructions()) {
                    Ok(rewrite) => findings.rewrite = rewrite,
                    Err((field, why)) => return Err(self.refuse(place.error(field, why))),
                }
                match rewrite.authority.as_ref().filter(|authority| !authority.is_empty()) {
                    Some(text) if is_sendable(text) => authority = Some(text.as_str()),
                    Some(_) => return Err(self.refuse(place.error(".rewrite.authority", "not a valid header value"))),
                    None => {}
                }
            }
        }
        let common =
            Forwarding { host: authority, timeout: text.timeout, retries, mirrors: &mirrors, ..Forwarding::default() };
        Ok(self.ways(to, operations, &common))
    }

    /// The actions of all variants of a route, each with `common` and its own.
    pub(super) fn ways<'a>(
        &mut self,
        to: &Destinations<'a>,
        operations: &Operations<'a>,
        common: &Forwarding<'_>,
    ) -> Vec<Doing<'a>> {
        let audience = self.input.audience;
        let grpc = audience.is_grpc();
        for (division, _) in to.divisions() {
            self.built.origins.insert(division.run.clone());
            self.built.problems.extend(division.problems.iter().cloned());
        }
        let mut retries = common.retries.clone();
        if variants::falls_back(to, audience) {
            retries = retries.map(retry::Policy::falling_back);
        }
        if grpc {
            self.resting.extend(to.resting().cloned());
        }
        let mut ways = Vec::new();
        for variant in variants::variants(to, self.input, &mut self.built.problems) {
            let Variant { suffix, requests, clusters: mut to, hash, mirrors, cookie } = variant;
            self.built.clusters.extend(to.names().cloned());
            self.built.clusters.extend(mirrors.iter().map(|mirror| mirror.cluster.as_str().into()));
            let mut operations = to.take_operations().followed_by(operations.clone());
            if let Some(cookie) = cookie {
                operations.set_cookie(cookie);
            }
            let host = operations.host.take().or(common.host).filter(|_| !grpc);
            let mirrors = [common.mirrors, &mirrors].concat();
            let retries = retries.clone();
            let parts = Forwarding { host, timeout: common.timeout, retries, hash: &hash, mirrors: &mirrors, grpc };
            let action = Action::forward(&parts, |out| to.write(out, grpc));
            ways.push((suffix, requests, action, if grpc { Operations::default() } else { operations }));
        }
        ways
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
