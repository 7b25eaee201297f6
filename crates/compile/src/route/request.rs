//! `match[]` of a rollout: conditions that come on top of those of a route.

use regex_syntax::escape;
use world::api::delivery::{FieldMatch, RequestMatch};

use super::matching::{Conditions, Matched, Path};
use super::regex;
use crate::{Audience, flat};

/// Encoded conditions to add to a route's.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    /// `RouteMatch.headers`.
    headers: Vec<u8>,
    /// `RouteMatch.query_parameters`.
    queries: Vec<u8>,
    /// `RouteMatch.path_specifier`, for clients that look at the path nowhere else.
    path: Option<Vec<u8>>,
}

/// How a value is compared.
enum Comparison {
    Text(u32, String),
    Regex(String),
    Present(bool),
}

impl Request {
    /// Reads one entry. `None` when no request of this client can be like that.
    ///
    /// # Errors
    /// Says why the entry cannot be used.
    pub(super) fn read(text: &RequestMatch, audience: &Audience, most: u32) -> Result<Option<Self>, String> {
        let mut request = Self::default();
        let grpc = audience.is_grpc();
        if let Some(method) = text.method.as_ref().filter(|_| !grpc) {
            request.header(":method", &Comparison::Text(1, method.clone()));
        } else if text.method.as_ref().is_some_and(|method| method != "POST") {
            return Ok(None);
        }
        if let Some(path) = &text.path {
            request.path(path, grpc, most)?;
        }
        if let Some(header) = &text.header {
            request.header(&name_of(header)?.to_ascii_lowercase(), &comparison(header, most)?);
        }
        if let Some(cookie) = &text.cookie {
            let (pattern, there) = cookie_pattern(cookie)?;
            regex::check(&pattern, most)?;
            request.write_header("cookie", &Comparison::Regex(pattern), !there);
        }
        if let Some(query) = &text.query {
            // gRPC requests have no query.
            match (grpc, query.present) {
                (true, Some(false)) => {}
                (true, _) => return Ok(None),
                (false, _) => request.query(query, most)?,
            }
        }
        Ok(Some(request))
    }

    /// The conditions of a route together with these; `None` where they cannot be had together.
    pub(super) fn added_to(&self, matched: &Matched<'_>) -> Option<Vec<u8>> {
        let Conditions { bytes, path_end, queries_at, claims: _ } = &matched.conditions;
        let (path, rest) = bytes.split_at(*path_end);
        let (headers, queries) = rest.split_at(queries_at - path_end);
        let path = match &self.path {
            Some(own) if matched.path.is_any() => own,
            Some(_) => return None,
            None => path,
        };
        Some([path, headers, &self.headers, queries, &self.queries].concat())
    }

    /// Both; `None` where they cannot be had together.
    pub(super) fn and(&self, other: &Self) -> Option<Self> {
        let path = match (&self.path, &other.path) {
            (Some(_), Some(_)) => return None,
            (path, None) | (None, path) => path.clone(),
        };
        let headers = [&self.headers[..], &other.headers].concat();
        Some(Self { headers, queries: [&self.queries[..], &other.queries].concat(), path })
    }

    /// The path without the query. Envoy's route keeps its own condition on the path, by which paths are rewritten, so
    /// this one becomes one on the pseudo header, which has the query as well.
    fn path(&mut self, path: &FieldMatch, grpc: bool, most: u32) -> Result<(), String> {
        let pattern = match comparison(path, most)? {
            Comparison::Text(EXACT, text) if grpc => return self.set_path(&Path::Exact(&text)),
            Comparison::Text(PREFIX, text) if grpc => return self.set_path(&Path::Prefix(&text)),
            Comparison::Text(PREFIX, text) => {
                self.header(":path", &Comparison::Text(PREFIX, text));
                return Ok(());
            }
            Comparison::Text(SUFFIX, text) => format!("[^?]*{}", escape(&text)),
            Comparison::Text(_, text) => escape(&text),
            Comparison::Regex(pattern) => pattern,
            Comparison::Present(_) => return Err("every request has a path".to_owned()),
        };
        if grpc {
            return self.set_path(&Path::Regex(&pattern));
        }
        let pattern = format!("(?:{pattern})(?:\\?.*)?");
        regex::check(&pattern, most)?;
        self.header(":path", &Comparison::Regex(pattern));
        Ok(())
    }

    fn set_path(&mut self, path: &Path<'_>) -> Result<(), String> {
        path.write(self.path.insert(Vec::new()));
        Ok(())
    }

    fn query(&mut self, query: &FieldMatch, most: u32) -> Result<(), String> {
        let name = name_of(query)?;
        let comparison = comparison(query, most)?;
        if matches!(comparison, Comparison::Present(false)) {
            // Envoy has no condition on a parameter's absence.
            let pattern = format!("[^?]*\\?(?:.*&)?{}(?:[=&].*)?", escape(name));
            regex::check(&pattern, most)?;
            self.write_header(":path", &Comparison::Regex(pattern), true);
            return Ok(());
        }
        // `QueryParameterMatcher`: name 1, string_match 5, present_match 6.
        flat::message(&mut self.queries, 7, |out| {
            flat::text(out, 1, name);
            match &comparison {
                Comparison::Present(_) => flat::flag(out, 6, true),
                Comparison::Text(..) | Comparison::Regex(_) => comparison.write(out, 5),
            }
        });
        Ok(())
    }

    fn header(&mut self, name: &str, comparison: &Comparison) {
        self.write_header(name, comparison, matches!(comparison, Comparison::Present(false)));
    }

    /// `HeaderMatcher`: name 1, present_match 7 or string_match 13, invert_match 8, treat_missing_header_as_empty 14: a
    /// header that is not there does not have the value.
    fn write_header(&mut self, name: &str, comparison: &Comparison, without: bool) {
        flat::message(&mut self.headers, 6, |out| {
            flat::text(out, 1, name);
            let by_value = match comparison {
                Comparison::Present(_) => {
                    flat::flag(out, 7, true);
                    false
                }
                Comparison::Text(..) | Comparison::Regex(_) => {
                    comparison.write(out, 13);
                    true
                }
            };
            flat::flag(out, 8, without);
            flat::flag(out, 14, without && by_value);
        });
    }
}

/// Numbers of the ways to compare in `StringMatcher`, whose safe_regex is 5 with its regex 2.
const EXACT: u32 = 1;
const PREFIX: u32 = 2;
const SUFFIX: u32 = 3;

impl Comparison {
    fn write(&self, out: &mut Vec<u8>, field: u32) {
        flat::message(out, field, |out| match self {
            Comparison::Text(how, text) => flat::bytes(out, *how, text.as_bytes()),
            Comparison::Regex(pattern) => {
                flat::message(out, 5, |out| flat::bytes(out, 2, pattern.as_bytes()));
            }
            Comparison::Present(_) => {}
        });
    }
}

fn name_of(field: &FieldMatch) -> Result<&str, String> {
    let name = &field.name;
    match name.is_empty() || name.len() > 1024 || name.contains(['\0', '\r', '\n']) {
        true => Err(format!("{name:?} is not a valid name")),
        false => Ok(name),
    }
}

/// The one way of comparing that is given. A prefix or suffix that is empty asks for presence.
fn comparison(field: &FieldMatch, most: u32) -> Result<Comparison, String> {
    let FieldMatch { name: _, exact, prefix, suffix, regex, present } = field;
    match (exact, prefix, suffix, regex, present) {
        (Some(text), None, None, None, None) => Ok(Comparison::Text(EXACT, text.clone())),
        (None, Some(text), None, None, None) | (None, None, Some(text), None, None) if text.is_empty() => {
            Ok(Comparison::Present(true))
        }
        (None, Some(text), None, None, None) => Ok(Comparison::Text(PREFIX, text.clone())),
        (None, None, Some(text), None, None) => Ok(Comparison::Text(SUFFIX, text.clone())),
        (None, None, None, Some(pattern), None) => {
            regex::check(pattern, most).map_err(|why| format!("invalid regular expression \"{pattern}\": {why}"))?;
            Ok(Comparison::Regex(pattern.clone()))
        }
        (None, None, None, None, Some(present)) => Ok(Comparison::Present(*present)),
        _ => Err("exactly one of exact, prefix, suffix, regex and present can be given".to_owned()),
    }
}

/// One cookie among those of the header, and whether it should be there like that.
fn cookie_pattern(cookie: &FieldMatch) -> Result<(String, bool), String> {
    let name = escape(name_of(cookie)?);
    let (value, there) = match comparison(cookie, u32::MAX)? {
        Comparison::Text(PREFIX, text) => (format!("{}[^;]*", escape(&text)), true),
        Comparison::Text(SUFFIX, text) => (format!("[^;]*{}", escape(&text)), true),
        Comparison::Text(_, text) => (escape(&text), true),
        Comparison::Regex(pattern) => (format!("(?:{pattern})"), true),
        Comparison::Present(there) => ("[^;]*".to_owned(), there),
    };
    Ok((format!("(?:.*; ?)?{name}={value}(?:;.*)?"), there))
}
