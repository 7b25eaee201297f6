//! The routes of one virtual host.

mod resting;
mod route;
mod template;
mod variants;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use world::{Object, ObjectRef, Problem, Service};

use super::action::{Action, Forwarding};
use super::delegate::{self, FindDelegate};
use super::encoded_host::EncodedHost;
use super::forward::{self, Destinations};
use super::headers::Operations;
use super::matching::{self, Conditions, Matched, NoMatch};
use super::rule::{Part, Rule, virtual_service};
use super::{answer, retry};
use crate::{Audience, Built, Options, Resolve, Target, flat, names};
use route::Route;
use template::{Template, Way, only};

/// Bytes that the routes of most hosts fit into.
const ROOM: usize = 768;
/// The name of the route that a service has by itself.
const DEFAULT: &str = "default";
/// `TlsRequirementType.ALL`.
const TLS_FOR_ALL: u64 = 2;
/// All that a virtual host is made of.
pub struct VirtualHostInput<'a> {
    /// For whom.
    pub audience: &'a Audience,
    /// What `match.gateways` may name: `mesh`, or the `namespace/name` of each Gateway whose servers lead here.
    pub gateways: &'a [&'a str],
    /// The listener's port.
    pub port: u16,
    /// Name of the virtual host.
    pub name: &'a str,
    /// Its domains; at least one.
    pub domains: Vec<String>,
    /// The VirtualServices in force, oldest first: at most one in the mesh, any number at a gateway.
    pub virtual_services: &'a [&'a Arc<Object>],
    /// Finds delegates by namespace and name.
    pub delegate: &'a FindDelegate<'a>,
    /// Where requests go that no VirtualService speaks about; `None` where that is nowhere, as at a gateway.
    pub default: Option<Target>,
    /// Follows destinations.
    pub resolve: &'a Resolve<'a>,
    /// The operator's choices.
    pub options: &'a Options,
    /// The service behind the default, for provenance.
    pub service: Option<&'a Service>,
    /// Whether plaintext requests are redirected to https (`tls.httpsRedirect` of a Gateway's server).
    pub https_redirect: bool,
}

impl VirtualHostInput<'_> {
    /// The bound on regular expressions; gRPC has none.
    pub(super) fn most_regex_instructions(&self) -> u32 {
        if self.audience.is_grpc() { u32::MAX } else { self.options.max_regex_instructions }
    }
}

/// Builds a virtual host. Requests that no entry matches are answered 404, as are all when nothing speaks about it.
///
/// A VirtualService without an entry for this audience and port counts as none: the default target is used.
pub fn virtual_host(input: &VirtualHostInput<'_>) -> Built<EncodedHost> {
    let mut builder = Builder {
        input,
        built: Built::new(()),
        routes: Vec::with_capacity(ROOM),
        last: Vec::new(),
        last_of: None,
        concerned: false,
        resting: BTreeSet::new(),
    };
    for object in input.virtual_services {
        builder.virtual_service(object);
    }
    if !builder.concerned {
        builder.default_route();
    }
    let Builder { mut built, routes: mut rest, last, resting, .. } = builder;
    rest.extend_from_slice(&last);
    let resting: Vec<_> = resting.difference(&built.clusters).cloned().collect();
    if !resting.is_empty() {
        resting::write(&mut rest, &resting);
        built.clusters.extend(resting);
    }
    let has_routes = !rest.is_empty();
    // `VirtualHost`: routes 3, require_tls 4, include_request_attempt_count 14.
    if input.https_redirect {
        flat::number(&mut rest, 4, TLS_FOR_ALL);
    }
    flat::flag(&mut rest, 14, !input.audience.is_grpc());
    built.origins.extend(input.service.map(|service| service.origin.clone()));
    let host = EncodedHost { name: input.name.to_owned(), domains: input.domains.clone(), has_routes, rest };
    built.map(|()| host)
}

struct Builder<'b> {
    input: &'b VirtualHostInput<'b>,
    built: Built<()>,
    /// Encoded `VirtualHost.routes`.
    routes: Vec<u8>,
    /// The routes that leave nothing to those after them.
    last: Vec<u8>,
    /// Whose they are.
    last_of: Option<ObjectRef>,
    /// Whether an entry of a VirtualService is about this audience and port.
    concerned: bool,
    /// Clusters without weight, for gRPC clients.
    resting: BTreeSet<Arc<str>>,
}

impl Builder<'_> {
    fn default_route(&mut self) {
        let ways = match &self.input.default {
            None => return,
            Some(Target::Missing(why)) => only(self.refusal(&forward::describe(why)), Operations::default()),
            Some(Target::Cluster { name, hash, rollout, protocol: _ }) => {
                let audience = self.input.audience;
                let to = Destinations::one(name.clone(), rollout.as_ref(), hash.as_ref(), DEFAULT, audience);
                let retries = retry::Policy::default_for(audience);
                self.ways(&to, &Operations::default(), &Forwarding { retries, ..Forwarding::default() })
            }
        };
        let matched = matching::everything();
        let base = Base { name: DEFAULT, stat_prefix: "", origin: None };
        let ways: Vec<_> = ways.into_iter().map(|doing| Way::new(doing, &[])).collect();
        let mut out = std::mem::take(&mut self.routes);
        for way in &ways {
            self.write(&mut out, way, &matched, base.route(&matched, &way.action, &way.fields));
        }
        self.routes = out;
    }

    fn virtual_service(&mut self, object: &Arc<Object>) {
        let Some(spec) = virtual_service(object) else { return };
        if spec.http.is_empty() {
            return;
        }
        let mut origins = vec![object.reference.clone()];
        let note = |delegate: &Object| origins.push(delegate.reference.clone());
        let rules = delegate::rules(object, self.input.delegate, &mut self.built.problems, note);
        let before = std::mem::take(&mut self.concerned);
        for (at, rule) in rules.iter().enumerate() {
            let Some(finished) = self.rule(rule, object) else { continue };
            if let Finished::ForEveryone(next_match) = finished {
                self.warn_of_unreachable(&rules, at, next_match);
            }
            break;
        }
        if self.concerned {
            self.built.origins.extend(origins);
        }
        self.concerned |= before;
    }

    /// Emits the routes of a rule; whether it ended with one that takes everything.
    fn rule(&mut self, rule: &Rule<'_>, object: &Object) -> Option<Finished> {
        let matches = &rule.route.matches;
        let mut template: Option<Template<'_>> = None;
        for index in 0..matches.len().max(1) {
            let problems = &mut self.built.problems;
            let matched = match matches.is_empty() {
                true => Ok(matching::everything()),
                false => matching::translate(rule, index, self.input, problems),
            };
            self.concerned |= matched.as_ref().err() != Some(&NoMatch::Elsewhere);
            let Ok(matched) = matched else { continue };
            let template = template.get_or_insert_with(|| self.template(rule));
            let (name, stat_prefix) = match matches.get(index) {
                Some(text) => (route_name(&rule.route.name, &text.name), text.stat_prefix.as_str()),
                None => (Cow::Borrowed(rule.route.name.as_str()), ""),
            };
            let origin = (!self.input.audience.is_grpc()).then_some(&object.reference);
            let mut out = std::mem::take(if matched.catch_all { &mut self.last } else { &mut self.routes });
            let before = out.len();
            self.emit(&mut out, &Base { name: &name, stat_prefix, origin }, template, &matched, rule);
            let Matched { catch_all, for_everyone, .. } = matched;
            if !catch_all {
                self.routes = out;
                continue;
            }
            if let Some(owner) = self.last_of.clone() {
                out.truncate(before);
                let problem = rule
                    .place
                    .warning("", format!("{owner}, which is older, takes all requests of \"{}\"", self.input.name))
                    .consequence("this catch-all is never reached");
                self.built.problems.push(problem);
            } else {
                self.last_of = Some(object.reference.clone());
            }
            self.last = out;
            return Some(match for_everyone {
                true => Finished::ForEveryone(index + 1),
                false => Finished::ForThisAudience,
            });
        }
        None
    }

    fn warn_of_unreachable(&mut self, rules: &[Rule<'_>], at: usize, next_match: usize) {
        const CONSEQUENCE: &str = "it is never reached";
        let rule = &rules[at];
        let (place, field) = if next_match < rule.route.matches.len() {
            (&rule.place, format!(".match[{next_match}]"))
        } else if let Some(next) = rules.get(at + 1) {
            (&next.place, String::new())
        } else {
            return;
        };
        let earlier = format!("{} spec.http[{}]", rule.place.object.reference, rule.place.index);
        let problem = place
            .warning(&field, format!("{earlier}, which stands before it, matches every request"))
            .consequence(CONSEQUENCE)
            .hint("Put the entry without conditions last.");
        self.built.problems.push(problem);
    }

    /// Writes the routes for one match: where a share is refused, that comes first.
    fn emit(
        &mut self,
        out: &mut Vec<u8>,
        base: &Base<'_>,
        template: &Template<'_>,
        matched: &Matched<'_>,
        rule: &Rule<'_>,
    ) {
        if let (Some((share, reason)), [.., last]) = (&template.refused, &template.ways[..]) {
            let action = Action::answer(&answer::refusal(reason));
            let name = with_suffix(base.name, "missing");
            Route { name: &name, share: Some(share), ..base.route(matched, &action, &last.fields) }.write(out);
        }
        for way in &template.ways {
            let change = match (&way.action, &template.rewrite) {
                (Action::Forward { .. }, Some(rewrite)) => rewrite.after(&matched.path).map(Some),
                (Action::Forward { .. }, None) | (Action::Answer(_), _) => Ok(None),
            };
            match change {
                Ok(change) => {
                    self.write(out, way, matched, Route { change, ..base.route(matched, &way.action, &way.fields) })
                }
                Err(why) => {
                    let action = self.refuse(rule.place_of(Part::Rewrite).error(".rewrite.uri", why));
                    base.route(matched, &action, &way.fields).write(out);
                    return;
                }
            }
        }
    }

    /// Writes one of the routes of a match, once for each of its further conditions.
    fn write(&mut self, out: &mut Vec<u8>, way: &Way, matched: &Matched<'_>, route: Route<'_>) {
        if way.requests.is_empty() {
            route.write(out);
            return;
        }
        let name = with_suffix(route.name, &way.suffix);
        for request in &way.requests {
            if let Some(conditions) = request.added_to(matched) {
                Route { name: &name, conditions: &conditions, ..route }.write(out);
            }
        }
    }

    /// Reports why a rule cannot be carried out and answers its requests with that.
    fn refuse(&mut self, problem: Problem) -> Action {
        let object = problem.object.as_ref().map(ObjectRef::to_string).unwrap_or_default();
        let reason = format!("{object}: {}: {}", problem.field, problem.message);
        self.built.problems.push(problem.consequence("the rule's requests are answered 503"));
        self.refusal(&reason)
    }

    /// 503 with the reason; for gRPC clients a cluster without endpoints, see [`forward::forward`].
    fn refusal(&mut self, reason: &str) -> Action {
        if !self.input.audience.is_grpc() {
            return Action::answer(&answer::refusal(reason));
        }
        self.built.clusters.insert(names::BLACK_HOLE.into());
        Action::to(names::BLACK_HOLE)
    }
}

enum Finished {
    /// By a match that takes everything for every audience; what would come next in the same rule.
    ForEveryone(usize),
    /// By one that takes everything for this audience.
    ForThisAudience,
}

/// What the routes of one match have in common.
struct Base<'b> {
    name: &'b str,
    stat_prefix: &'b str,
    origin: Option<&'b ObjectRef>,
}

impl Base<'_> {
    fn route<'r>(&'r self, matched: &'r Matched<'_>, action: &'r Action, fields: &'r [u8]) -> Route<'r> {
        let Base { name, stat_prefix, origin } = *self;
        let Conditions { bytes: conditions, claims, .. } = &matched.conditions;
        Route { name, conditions, claims, share: None, action, change: None, origin, fields, stat_prefix }
    }
}

/// `name~suffix`, or the one that is given.
fn with_suffix<'a>(name: &'a str, suffix: &'a str) -> Cow<'a, str> {
    match (name, suffix) {
        (name, "") | ("", name) => Cow::Borrowed(name),
        (name, suffix) => Cow::Owned(format!("{name}~{suffix}")),
    }
}

/// `rule.match`, or the one that is given.
fn route_name<'a>(rule: &'a str, of_match: &'a str) -> Cow<'a, str> {
    match (rule, of_match) {
        (name, "") | ("", name) => Cow::Borrowed(name),
        (rule, of_match) => Cow::Owned(format!("{rule}.{of_match}")),
    }
}
