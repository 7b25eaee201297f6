//! One entry of `http[].match[]` as Envoy's `RouteMatch`, after what is known here has been decided here: the port,
//! the gateway, and the client's namespace and labels.
//!
//! For gRPC clients more is known here: their method is always `POST`, they have no query, and the authority is the
//! name they asked for. gRPC's own matching looks at the path and at metadata only (gRFC A28).

use std::borrow::Cow;

use proto::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use proto::pb::envoy::config::route::v3::route_match::PathSpecifier;
use proto::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use world::Problem;
use world::api::istio::{HttpMatch, StringMatch};

use super::VirtualHostInput;
use super::pattern::{Pattern, regex_matcher};
use super::rule::Rule;
use crate::pack;

/// A match that requests of this audience can satisfy.
#[derive(Clone, Debug)]
pub(super) struct Matched {
    /// The conditions that remain for the client.
    pub(super) conditions: RouteMatch,
    /// Whether nothing is left to ask.
    pub(super) catch_all: bool,
    /// Whether that is so for every audience and port.
    pub(super) for_everyone: bool,
}

/// `mesh`, or `namespace/name` of the Gateway that `name` means in an object of `namespace`.
pub(super) fn gateway_name<'a>(name: &'a str, namespace: &str) -> Cow<'a, str> {
    match name.split_once('/') {
        _ if name == "mesh" => Cow::Borrowed(name),
        Some((".", name)) => Cow::Owned(format!("{namespace}/{name}")),
        Some(_) => Cow::Borrowed(name),
        None => Cow::Owned(format!("{namespace}/{name}")),
    }
}

/// What matches everything.
pub(super) fn everything() -> Matched {
    Matched { conditions: conditions(PathSpecifier::Prefix("/".to_owned())), catch_all: true, for_everyone: true }
}

/// Why a match has no routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoMatch {
    /// It is about other clients, ports or gateways.
    Elsewhere,
    /// No request satisfies it: it cannot be used, which then is among the problems, or this kind of client cannot.
    Never,
}

/// Translates match `index` of `rule`.
///
/// # Errors
/// Why there is nothing to match.
pub(super) fn translate(
    rule: &Rule<'_>,
    index: usize,
    input: &VirtualHostInput<'_>,
    problems: &mut Vec<Problem>,
) -> Result<Matched, NoMatch> {
    let text = rule.route.matches.get(index).ok_or(NoMatch::Elsewhere)?;
    if !concerns(text, rule, input) {
        return Err(NoMatch::Elsewhere);
    }
    let mut translation = Translation { rule, index, input, problems, usable: true, possible: true };
    let matched = translation.conditions(text);
    if translation.usable && translation.possible { Ok(matched) } else { Err(NoMatch::Never) }
}

/// Whether the conditions that hold or fail for the whole audience hold.
fn concerns(text: &HttpMatch, rule: &Rule<'_>, input: &VirtualHostInput<'_>) -> bool {
    let namespace = rule.place.namespace();
    let via = |name: &String| input.gateways.contains(&&*gateway_name(name, namespace));
    text.port.is_none_or(|port| port == input.port)
        && (text.gateways.is_empty() || text.gateways.iter().any(via))
        && (text.source_namespace.is_empty() || *text.source_namespace == *input.audience.namespace)
        && text.source_labels.iter().all(|(key, value)| input.audience.labels.get(key) == Some(value))
}

fn is_for_everyone(text: &HttpMatch) -> bool {
    text.port.is_none() && text.gateways.is_empty() && text.source_namespace.is_empty() && text.source_labels.is_empty()
}

fn conditions(path: PathSpecifier) -> RouteMatch {
    RouteMatch { path_specifier: Some(path), ..RouteMatch::default() }
}

struct Translation<'t, 'r> {
    rule: &'t Rule<'r>,
    index: usize,
    input: &'t VirtualHostInput<'t>,
    problems: &'t mut Vec<Problem>,
    /// Every condition could be read.
    usable: bool,
    /// No condition is known to fail.
    possible: bool,
}

impl Translation<'_, '_> {
    fn conditions(&mut self, text: &HttpMatch) -> Matched {
        let mut wanted = conditions(self.path(text));
        if text.ignore_uri_case && !matches!(wanted.path_specifier, Some(PathSpecifier::SafeRegex(_))) {
            wanted.case_sensitive = Some(pack::boolean(false));
        }
        for (name, of) in PSEUDO_HEADERS {
            if let Some(value) = of(text) {
                let field = format!(".{}", name.trim_start_matches(':'));
                let has = |m: &HttpMatch| of(m).is_some();
                if let Some(pattern) = self.pattern(Some(value), &field, has) {
                    wanted.headers.extend(self.header(name, &pattern, false));
                }
            }
        }
        for (name, value) in &text.headers {
            let has = |m: &HttpMatch| m.headers.contains_key(name);
            if let Some(pattern) = self.named_pattern("headers", name, value.as_ref(), has) {
                wanted.headers.extend(self.header(name, &pattern, false));
            }
        }
        for (name, value) in &text.without_headers {
            let has = |m: &HttpMatch| m.without_headers.contains_key(name);
            if let Some(pattern) = self.named_pattern("withoutHeaders", name, value.as_ref(), has) {
                wanted.headers.extend(self.header(name, &pattern, true));
            }
        }
        for (name, value) in &text.query_params {
            let has = |m: &HttpMatch| m.query_params.contains_key(name);
            if let Some(pattern) = self.named_pattern("queryParams", name, value.as_ref(), has) {
                wanted.query_parameters.push(query_parameter(name, &pattern));
                // gRPC requests have no query.
                self.possible &= !self.input.audience.is_grpc();
            }
        }
        let any_path = match &wanted.path_specifier {
            Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
            Some(PathSpecifier::SafeRegex(all)) => matches!(all.regex.as_str(), ".*" | "/.*"),
            _ => false,
        };
        let catch_all = any_path && wanted.headers.is_empty() && wanted.query_parameters.is_empty();
        Matched { conditions: wanted, catch_all, for_everyone: catch_all && is_for_everyone(text) }
    }

    fn path(&mut self, text: &HttpMatch) -> PathSpecifier {
        let any = || PathSpecifier::Prefix("/".to_owned());
        let Some(uri) = &text.uri else { return any() };
        let has = |m: &HttpMatch| m.uri.is_some();
        // The pattern for any path at all is kept as it is written: a rewrite replaces what it matched.
        if let StringMatch { exact: None, prefix: None, regex: Some(all) } = uri
            && all == ".*"
        {
            return PathSpecifier::SafeRegex(regex_matcher(all));
        }
        let Some(pattern) = self.pattern(Some(uri), ".uri", has) else { return any() };
        if let Pattern::Exact(path) | Pattern::Prefix(path) = pattern {
            if !path.starts_with('/') && path != "*" {
                self.warn(".uri", format!("no path begins like \"{path}\": paths begin with \"/\""), has);
            } else if path.contains(['?', '#']) {
                self.warn(".uri", format!("\"{path}\" holds a query or fragment, which is not part of the path"), has);
            }
        }
        match pattern {
            Pattern::Present => any(),
            Pattern::Exact(path) => PathSpecifier::Path(path.to_owned()),
            Pattern::Prefix(path) => PathSpecifier::Prefix(path.to_owned()),
            Pattern::Regex(pattern) => PathSpecifier::SafeRegex(regex_matcher(pattern)),
        }
    }

    fn named_pattern<'v>(
        &mut self,
        map: &str,
        name: &str,
        value: Option<&'v StringMatch>,
        has: impl Fn(&HttpMatch) -> bool,
    ) -> Option<Pattern<'v>> {
        let field = format!(".{map}[\"{name}\"]");
        if name.is_empty() || name.len() > 1024 || name.contains(['\0', '\r', '\n']) {
            self.refuse(&field, "not a valid name".to_owned(), has);
            return None;
        }
        if name.starts_with("@request.auth.") {
            self.refuse(&field, "matching on claims of a token is not supported yet".to_owned(), has);
            return None;
        }
        self.pattern(value, &field, has)
    }

    fn pattern<'v>(
        &mut self,
        value: Option<&'v StringMatch>,
        field: &str,
        has: impl Fn(&HttpMatch) -> bool,
    ) -> Option<Pattern<'v>> {
        match Pattern::read(value, self.input.most_regex_instructions()) {
            Ok(pattern) => Some(pattern),
            Err(why) => {
                self.refuse(field, why, has);
                None
            }
        }
    }

    /// A condition on a header; none when its answer is already known, in which case it may have become impossible.
    fn header(&mut self, name: &str, pattern: &Pattern<'_>, without: bool) -> Option<HeaderMatcher> {
        if self.input.audience.is_grpc() && name.starts_with(':') {
            let holds = match name {
                ":method" => pattern.matches("POST"),
                ":scheme" => pattern.matches("http"),
                ":authority" => self.input.domains.iter().any(|domain| pattern.matches(domain)),
                _ => false,
            };
            self.possible &= holds != without;
            return None;
        }
        let specifier = match pattern.matcher() {
            None => HeaderMatchSpecifier::PresentMatch(true),
            Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        };
        Some(HeaderMatcher {
            name: name.to_ascii_lowercase(),
            invert_match: without,
            // A header that is not there does not have the value.
            treat_missing_header_as_empty: without && *pattern != Pattern::Present,
            header_match_specifier: Some(specifier),
        })
    }

    fn refuse(&mut self, field: &str, message: String, has: impl Fn(&HttpMatch) -> bool) {
        self.usable = false;
        let (place, path) = self.rule.place_of_match(self.index, has);
        self.problems.push(place.error(&format!("{path}{field}"), message).consequence("this match never holds"));
    }

    fn warn(&mut self, field: &str, message: String, has: impl Fn(&HttpMatch) -> bool) {
        let (place, path) = self.rule.place_of_match(self.index, has);
        self.problems.push(place.warning(&format!("{path}{field}"), message).consequence("this match never holds"));
    }
}

/// A pseudo header and the field of a match that asks about it.
type PseudoHeader = (&'static str, fn(&HttpMatch) -> Option<&StringMatch>);

const PSEUDO_HEADERS: [PseudoHeader; 3] =
    [(":method", |m| m.method.as_ref()), (":authority", |m| m.authority.as_ref()), (":scheme", |m| m.scheme.as_ref())];

fn query_parameter(name: &str, pattern: &Pattern<'_>) -> QueryParameterMatcher {
    let specifier = match pattern.matcher() {
        None => QueryParameterMatchSpecifier::PresentMatch(true),
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
    };
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}
