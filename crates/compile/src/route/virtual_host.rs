//! The routes of one virtual host.

mod template;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proto::pb::envoy::config::core::v3::{Metadata, RuntimeFractionalPercent};
use proto::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use proto::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use proto::pb::envoy::config::route::v3::{Route, RouteAction, RouteMatch, VirtualHost, route};
use proto::pb::google::protobuf::{Struct, Value, value};
use world::{Object, ObjectRef, Problem, Service};

use super::delegate::{self, FindDelegate};
use super::forward;
use super::matching::{self, Matched, NoMatch};
use super::rule::{Part, Rule, virtual_service};
use super::{answer, hash, retry};
use crate::{Audience, Built, Options, Resolve, Target, names, pack};
use template::Template;

/// Runtime key of the share of requests whose destination is missing; nobody sets it, the default value counts.
const MISSING_RUNTIME_KEY: &str = "pointsman.missing";

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
pub fn virtual_host(input: &VirtualHostInput<'_>) -> Built<VirtualHost> {
    let mut builder =
        Builder { input, built: Built::new(()), routes: Vec::new(), last: Vec::new(), last_of: None, concerned: false };
    for object in input.virtual_services {
        builder.virtual_service(object);
    }
    if !builder.concerned {
        builder.default_route();
    }
    let Builder { mut built, mut routes, last, .. } = builder;
    if routes.is_empty() {
        routes = last;
    } else {
        routes.extend(last);
    }
    built.origins.extend(input.service.map(|service| service.origin.clone()));
    let require_tls = if input.https_redirect { TlsRequirementType::All } else { TlsRequirementType::None };
    let host = VirtualHost {
        name: input.name.to_owned(),
        domains: input.domains.clone(),
        routes,
        require_tls: require_tls.into(),
        include_request_attempt_count: !input.audience.is_grpc(),
        ..VirtualHost::default()
    };
    built.map(|()| host)
}

struct Builder<'b> {
    input: &'b VirtualHostInput<'b>,
    built: Built<()>,
    routes: Vec<Route>,
    /// The routes that leave nothing to those after them.
    last: Vec<Route>,
    /// Whose they are.
    last_of: Option<ObjectRef>,
    /// Whether an entry of a VirtualService is about this audience and port.
    concerned: bool,
}

impl Builder<'_> {
    fn default_route(&mut self) {
        let (action, hash) = match &self.input.default {
            None => return,
            Some(Target::Missing(why)) => (self.refusal(&forward::describe(why)), None),
            Some(Target::Cluster { name, hash }) => {
                self.built.clusters.insert(name.clone());
                let retries = retry::default_policy(self.input.audience);
                let action = RouteAction {
                    cluster_specifier: Some(ClusterSpecifier::Cluster(name.to_string())),
                    retry_policy: retries,
                    ..self.timeouts(None)
                };
                (route::Action::Route(action), hash.as_ref())
            }
        };
        let action = match (action, hash.and_then(|h| hash::policy(h, self.input.audience))) {
            (route::Action::Route(mut action), Some(policy)) => {
                action.hash_policy.push(policy);
                route::Action::Route(action)
            }
            (action, _) => action,
        };
        let conditions = matching::everything().conditions;
        let name = "default".to_owned();
        self.routes.push(Route { name, r#match: Some(conditions), action: Some(action), ..Route::default() });
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
        let mut template = None;
        let count = matches.len().max(1);
        for index in 0..count {
            let problems = &mut self.built.problems;
            let matched = match matches.is_empty() {
                true => Ok(matching::everything()),
                false => matching::translate(rule, index, self.input, problems),
            };
            self.concerned |= matched.as_ref().err() != Some(&NoMatch::Elsewhere);
            let Ok(matched) = matched else { continue };
            // The last route takes the template over, which spares most rules a copy.
            let own = template.take().unwrap_or_else(|| self.template(rule));
            if !matched.catch_all && index + 1 < count {
                template = Some(own.clone());
            }
            let (name, stat_prefix) = match matches.get(index) {
                Some(text) => (route_name(&rule.route.name, &text.name), text.stat_prefix.clone()),
                None => (rule.route.name.clone(), String::new()),
            };
            let metadata = (!self.input.audience.is_grpc()).then(|| provenance(&object.reference));
            let head = Route { name, stat_prefix, metadata, ..Route::default() };
            let Matched { conditions, catch_all, for_everyone } = matched;
            let emitted = self.emit(own, conditions, head, rule);
            if !catch_all {
                self.routes.extend(emitted);
                continue;
            }
            if let Some(owner) = self.last_of.clone() {
                let problem = rule
                    .place
                    .warning("", format!("{owner}, which is older, takes all requests of \"{}\"", self.input.name))
                    .consequence("this catch-all is never reached");
                self.built.problems.push(problem);
            } else {
                self.last.extend(emitted);
                self.last_of = Some(object.reference.clone());
            }
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

    /// No timeout unless one is given; and then it bounds the one that a gRPC request brings along.
    ///
    /// For Envoy the bound is the older field, as in Istio: any `max_stream_duration` makes Envoy ignore `timeout`
    /// (`FilterUtility::finalTimeout` in `source/common/router/router.cc` of 1.40), and its own bound ends requests with
    /// 408 instead of 504.
    #[allow(deprecated, reason = "see above")]
    fn timeouts(&self, timeout: Option<Duration>) -> RouteAction {
        let timeout = timeout.unwrap_or(Duration::ZERO);
        let mut action = RouteAction::default();
        if self.input.audience.is_grpc() {
            let limit = Some(pack::duration(timeout)).filter(|_| !timeout.is_zero());
            let limit = limit.map(|limit| MaxStreamDuration { max_stream_duration: Some(limit), ..Default::default() });
            action.max_stream_duration = limit;
        } else {
            action.timeout = Some(pack::duration(timeout));
            action.max_grpc_timeout = Some(pack::duration(timeout));
        }
        action
    }

    /// The routes for one match: where a share is refused, that comes first.
    fn emit(&mut self, template: Template, conditions: RouteMatch, head: Route, rule: &Rule<'_>) -> Vec<Route> {
        let mut routes = Vec::with_capacity(1 + usize::from(template.refused.is_some()));
        if let Some((share, reason)) = &template.refused {
            let mut conditions = conditions.clone();
            let runtime_key = MISSING_RUNTIME_KEY.to_owned();
            conditions.runtime_fraction = Some(RuntimeFractionalPercent { default_value: Some(*share), runtime_key });
            let name = if head.name.is_empty() { "missing".to_owned() } else { format!("{}~missing", head.name) };
            let mut refused = template.dress(Route { name, ..head.clone() });
            refused.r#match = Some(conditions);
            refused.action = Some(answer::refusal(reason));
            routes.push(refused);
        }
        let Template { filters, operations, mut action, rewrite, .. } = template;
        if let (route::Action::Route(forward), Some(rewrite)) = (&mut action, &rewrite)
            && let Err(why) = rewrite.apply(&conditions, forward)
        {
            action = self.refuse(rule.place_of(Part::Rewrite).error(".rewrite.uri", why));
        }
        routes.push(Route {
            r#match: Some(conditions),
            action: Some(action),
            typed_per_filter_config: filters,
            request_headers_to_add: operations.request_add,
            request_headers_to_remove: operations.request_remove,
            response_headers_to_add: operations.response_add,
            response_headers_to_remove: operations.response_remove,
            ..head
        });
        routes
    }

    /// Reports why a rule cannot be carried out and answers its requests with that.
    fn refuse(&mut self, problem: Problem) -> route::Action {
        let object = problem.object.as_ref().map(ObjectRef::to_string).unwrap_or_default();
        let reason = format!("{object}: {}: {}", problem.field, problem.message);
        self.built.problems.push(problem.consequence("the rule's requests are answered 503"));
        self.refusal(&reason)
    }

    /// 503 with the reason; for gRPC clients a cluster without endpoints, see [`forward::forward`].
    fn refusal(&mut self, reason: &str) -> route::Action {
        if !self.input.audience.is_grpc() {
            return answer::refusal(reason);
        }
        self.built.clusters.insert(names::BLACK_HOLE.into());
        let cluster_specifier = Some(ClusterSpecifier::Cluster(names::BLACK_HOLE.to_owned()));
        route::Action::Route(RouteAction { cluster_specifier, ..RouteAction::default() })
    }
}

enum Finished {
    /// By a match that takes everything for every audience; what would come next in the same rule.
    ForEveryone(usize),
    /// By one that takes everything for this audience.
    ForThisAudience,
}

/// `rule.match`, or the one that is given.
fn route_name(rule: &str, of_match: &str) -> String {
    match (rule, of_match) {
        (name, "") | ("", name) => name.to_owned(),
        (rule, of_match) => format!("{rule}.{of_match}"),
    }
}

/// Istio's `istio.config` metadata: the path of the object in the Kubernetes API.
fn provenance(object: &ObjectRef) -> Metadata {
    let (namespace, name) = (&object.namespace, &object.name);
    let path = format!("/apis/networking.istio.io/v1/namespaces/{namespace}/virtual-service/{name}");
    let value = Value { kind: Some(value::Kind::StringValue(path)) };
    let fields = Struct { fields: HashMap::from([("config".to_owned(), value)]) };
    Metadata { filter_metadata: HashMap::from([("istio".to_owned(), fields)]), ..Metadata::default() }
}
