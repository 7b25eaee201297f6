//! One entry of `http[].match[]` as an encoded `RouteMatch`, after what is known here has been decided here: the port,
//! the gateway, and the client's namespace and labels.
//!
//! For gRPC clients more is known here: their method is always `POST`, they have no query, and the authority is the
//! name they asked for. gRPC's own matching looks at the path and at metadata only (gRFC A28).

use std::borrow::Cow;
use std::fmt;

use world::Problem;
use world::api::istio::{HttpMatch, StringMatch, claim_path, is_about_tokens};

use super::VirtualHostInput;
use super::claim;
use super::pattern::{Pattern, write_regex};
use super::rule::Rule;
use crate::{Proxy, flat};

/// Bytes that the conditions of most matches fit into.
const ROOM: usize = 96;

/// A match that requests of this audience can satisfy.
#[derive(Clone, Debug)]
pub(super) struct Matched<'t> {
    /// The conditions that remain for the client.
    pub(super) conditions: Conditions,
    /// The one on the path.
    pub(super) path: Path<'t>,
    /// Whether nothing is left to ask.
    pub(super) catch_all: bool,
    /// Whether that is so for every audience and port.
    pub(super) for_everyone: bool,
}

/// Encoded conditions: fields of `RouteMatch`.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    /// Those up to 7.
    pub(super) bytes: Vec<u8>,
    /// Where the one on the path ends.
    pub(super) path_end: usize,
    /// Where those on query parameters begin.
    pub(super) queries_at: usize,
    /// Those on what a token says: field 13.
    pub(super) claims: Vec<u8>,
}

/// What a path must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path<'t> {
    /// It begins with this.
    Prefix(&'t str),
    /// This.
    Exact(&'t str),
    /// The whole of it matches this expression.
    Regex(&'t str),
}

impl Path<'_> {
    const ANY: Path<'static> = Path::Prefix("/");

    /// Whether every path is like that.
    pub(super) fn is_any(&self) -> bool {
        match *self {
            Path::Prefix(prefix) => prefix == "/",
            Path::Exact(_) => false,
            Path::Regex(pattern) => matches!(pattern, ".*" | "/.*"),
        }
    }

    /// Writes `RouteMatch.path_specifier`: prefix 1, path 2, safe_regex 10.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Path::Prefix(prefix) => flat::bytes(out, 1, prefix.as_bytes()),
            Path::Exact(path) => flat::bytes(out, 2, path.as_bytes()),
            Path::Regex(pattern) => write_regex(out, 10, &[pattern]),
        }
    }
}

/// `mesh`, or `namespace/name` of the Gateway that `name` means in an object of `namespace`.
pub(crate) fn gateway_name<'a>(name: &'a str, namespace: &str) -> Cow<'a, str> {
    match name.split_once('/') {
        _ if name == "mesh" => Cow::Borrowed(name),
        Some((".", name)) => Cow::Owned(format!("{namespace}/{name}")),
        Some(_) => Cow::Borrowed(name),
        None => Cow::Owned(format!("{namespace}/{name}")),
    }
}

/// What matches everything.
pub(super) fn everything() -> Matched<'static> {
    let mut bytes = Vec::with_capacity(ROOM);
    Path::ANY.write(&mut bytes);
    let end = bytes.len();
    let conditions = Conditions { bytes, path_end: end, queries_at: end, claims: Vec::new() };
    Matched { conditions, path: Path::ANY, catch_all: true, for_everyone: true }
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
pub(super) fn translate<'t>(
    rule: &'t Rule<'_>,
    index: usize,
    input: &VirtualHostInput<'_>,
    problems: &mut Vec<Problem>,
) -> Result<Matched<'t>, NoMatch> {
    let text = rule.route.matches.get(index).ok_or(NoMatch::Elsewhere)?;
    if !concerns(text, rule, input) {
        return Err(NoMatch::Elsewhere);
    }
    let conditions = Conditions { bytes: Vec::with_capacity(ROOM), ..Conditions::default() };
    let mut translation =
        Translation { rule, index, input, problems, conditions, only_path: true, usable: true, possible: true };
    let path = translation.conditions(text);
    let catch_all = path.is_any() && translation.only_path;
    let for_everyone = catch_all && is_for_everyone(text);
    let matched = Matched { conditions: translation.conditions, path, catch_all, for_everyone };
    if translation.usable && translation.possible { Ok(matched) } else { Err(NoMatch::Never) }
}

/// Whether the conditions that hold or fail for the whole audience hold.
fn concerns(text: &HttpMatch, rule: &Rule<'_>, input: &VirtualHostInput<'_>) -> bool {
    let namespace = rule.place.namespace();
    let via = |name: &String| input.gateways.contains(&&*gateway_name(name, namespace));
    text.port.is_none_or(|port| port == input.port)
        && (text.gateways.is_empty() || text.gateways.iter().any(via))
        && (text.source_namespace.is_empty() || *text.source_namespace == *input.audience.namespace)
        && input.audience.has_labels(&text.source_labels)
}

fn is_for_everyone(text: &HttpMatch) -> bool {
    text.port.is_none() && text.gateways.is_empty() && text.source_namespace.is_empty() && text.source_labels.is_empty()
}

struct Translation<'t, 'r> {
    rule: &'t Rule<'r>,
    index: usize,
    input: &'t VirtualHostInput<'t>,
    problems: &'t mut Vec<Problem>,
    /// What is written so far.
    conditions: Conditions,
    /// There is no condition but the one on the path.
    only_path: bool,
    /// Every condition could be read.
    usable: bool,
    /// No condition is known to fail.
    possible: bool,
}

impl Translation<'_, '_> {
    /// Writes `RouteMatch`: the path, case_sensitive 4, headers 6, query_parameters 7.
    fn conditions<'v>(&mut self, text: &'v HttpMatch) -> Path<'v> {
        let path = self.path(text);
        path.write(&mut self.conditions.bytes);
        self.conditions.path_end = self.conditions.bytes.len();
        if text.ignore_uri_case && !matches!(path, Path::Regex(_)) {
            flat::wrapped(&mut self.conditions.bytes, 4, 0);
        }
        for (name, of) in PSEUDO_HEADERS {
            if let Some(value) = of(text) {
                let has = |m: &HttpMatch| of(m).is_some();
                let field = format_args!(".{}", name.trim_start_matches(':'));
                if let Some(pattern) = self.pattern(Some(value), field, has) {
                    self.header(name, &pattern, false);
                }
            }
        }
        for (name, value) in &text.headers {
            let has = |m: &HttpMatch| m.headers.contains_key(name);
            if let Some(pattern) = self.named_pattern("headers", name, value.as_ref(), has) {
                self.header_or_claim("headers", name, &pattern, has);
            }
        }
        for (name, value) in &text.without_headers {
            let has = |m: &HttpMatch| m.without_headers.contains_key(name);
            if let Some(pattern) = self.named_pattern("withoutHeaders", name, value.as_ref(), has) {
                self.header_or_claim("withoutHeaders", name, &pattern, has);
            }
        }
        self.conditions.queries_at = self.conditions.bytes.len();
        for (name, value) in &text.query_params {
            let has = |m: &HttpMatch| m.query_params.contains_key(name);
            if let Some(pattern) = self.named_pattern("queryParams", name, value.as_ref(), has) {
                self.only_path = false;
                write_query_parameter(&mut self.conditions.bytes, 7, name, &pattern);
                // gRPC requests have no query.
                self.possible &= !self.input.audience.is_grpc();
            }
        }
        path
    }

    fn path<'v>(&mut self, text: &'v HttpMatch) -> Path<'v> {
        let Some(uri) = &text.uri else { return Path::ANY };
        let has = |m: &HttpMatch| m.uri.is_some();
        // The pattern for any path at all is kept as it is written: a rewrite replaces what it matched.
        if let StringMatch { exact: None, prefix: None, regex: Some(all) } = uri
            && all == ".*"
        {
            return Path::Regex(all);
        }
        let Some(pattern) = self.pattern(Some(uri), format_args!(".uri"), has) else { return Path::ANY };
        if let Pattern::Exact(path) | Pattern::Prefix(path) = pattern {
            if !path.starts_with('/') && path != "*" {
                self.warn(".uri", format!("no path begins like \"{path}\": paths begin with \"/\""), has);
            } else if path.contains(['?', '#']) {
                self.warn(".uri", format!("\"{path}\" holds a query or fragment, which is not part of the path"), has);
            }
        }
        match pattern {
            Pattern::Present => Path::ANY,
            Pattern::Exact(path) => Path::Exact(path),
            Pattern::Prefix(path) => Path::Prefix(path),
            Pattern::Regex(pattern) => Path::Regex(pattern),
        }
    }

    fn named_pattern<'v>(
        &mut self,
        map: &str,
        name: &str,
        value: Option<&'v StringMatch>,
        has: impl Fn(&HttpMatch) -> bool,
    ) -> Option<Pattern<'v>> {
        let field = format_args!(".{map}[\"{name}\"]");
        if name.is_empty() || name.len() > 1024 || name.contains(['\0', '\r', '\n']) {
            self.refuse(field, "not a valid name".to_owned(), has);
            return None;
        }
        self.pattern(value, field, has)
    }

    fn pattern<'v>(
        &mut self,
        value: Option<&'v StringMatch>,
        field: fmt::Arguments<'_>,
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

    /// Writes a condition of `headers` or `withoutHeaders`. What a token says is known at gateways only: routes of a
    /// sidecar are for what its workload calls.
    fn header_or_claim(&mut self, map: &str, name: &str, pattern: &Pattern<'_>, has: impl Fn(&HttpMatch) -> bool) {
        let without = map == "withoutHeaders";
        if !is_about_tokens(name) {
            return self.header(name, pattern, without);
        }
        let field = format_args!(".{map}[\"{name}\"]");
        let is_gateway = self.input.audience.proxy == Proxy::Gateway;
        match claim_path(name) {
            Some(path) if is_gateway => {
                self.only_path = false;
                claim::write(&mut self.conditions.claims, &path, pattern, without);
            }
            Some(_) => self.refuse(field, "what a token says is known at gateways only".to_owned(), has),
            None => {
                let form = "write @request.auth.claims.NAME, or @request.auth.claims[NAME][INNER]";
                self.refuse(field, format!("\"{name}\" names no claim of a token: {form}"), has);
            }
        }
    }

    /// Writes a condition on a header; none when its answer is already known, in which case it may have become
    /// impossible.
    fn header(&mut self, name: &str, pattern: &Pattern<'_>, without: bool) {
        if self.input.audience.is_grpc() && name.starts_with(':') {
            let holds = match name {
                ":method" => pattern.matches("POST"),
                ":scheme" => pattern.matches("http"),
                ":authority" => self.input.domains.iter().any(|domain| pattern.matches(domain)),
                _ => false,
            };
            self.possible &= holds != without;
            return;
        }
        self.only_path = false;
        write_header(&mut self.conditions.bytes, 6, name, pattern, without);
    }

    fn refuse(&mut self, field: fmt::Arguments<'_>, message: String, has: impl Fn(&HttpMatch) -> bool) {
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

/// `HeaderMatcher`: name 1, present_match 7 or string_match 13, invert_match 8, treat_missing_header_as_empty 14.
fn write_header(out: &mut Vec<u8>, field: u32, name: &str, pattern: &Pattern<'_>, without: bool) {
    flat::message(out, field, |out| {
        flat::text(out, 1, name);
        let end = out.len();
        out[end - name.len()..].make_ascii_lowercase();
        match pattern {
            Pattern::Present => flat::flag(out, 7, true),
            Pattern::Exact(_) | Pattern::Prefix(_) | Pattern::Regex(_) => pattern.write(out, 13),
        }
        flat::flag(out, 8, without);
        // A header that is not there does not have the value.
        flat::flag(out, 14, without && *pattern != Pattern::Present);
    });
}

/// `QueryParameterMatcher`: name 1, string_match 5 or present_match 6.
fn write_query_parameter(out: &mut Vec<u8>, field: u32, name: &str, pattern: &Pattern<'_>) {
    flat::message(out, field, |out| {
        flat::text(out, 1, name);
        match pattern {
            Pattern::Present => flat::flag(out, 6, true),
            Pattern::Exact(_) | Pattern::Prefix(_) | Pattern::Regex(_) => pattern.write(out, 5),
        }
    });
}
