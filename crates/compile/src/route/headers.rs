//! Header operations.

use std::borrow::Cow;
use std::fmt;

use world::Problem;
use world::api::istio::{HeaderOperations, Headers};

use super::percent_format;
use super::rule::Place;
use crate::flat;

/// Envoy's bounds: options per message, bytes per name and value (`config/core/v3/base.proto`, `route_components.proto`).
const MOST_OPTIONS: usize = 1000;
const MAX_BYTES: usize = 16 * 1024;

/// What to do with headers, in Envoy's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Operations<'a> {
    request_add: Vec<Addition<'a>>,
    request_remove: Vec<&'a str>,
    response_add: Vec<Addition<'a>>,
    response_remove: Vec<&'a str>,
    /// The request's authority, which Envoy does not treat as a header.
    pub(super) host: Option<&'a str>,
}

/// A header with its value.
#[derive(Clone, Debug, PartialEq)]
struct Addition<'a> {
    name: &'a str,
    value: Cow<'a, str>,
    action: Action,
}

/// What becomes of values that are there; by their numbers in `HeaderValueOption.HeaderAppendAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Append = 0,
    Overwrite = 2,
}

/// The numbers that the four lists of operations have in a message, in ascending order in all messages that have them.
pub(super) struct Fields {
    pub(super) request_add: u32,
    pub(super) response_add: u32,
    pub(super) response_remove: u32,
    pub(super) request_remove: u32,
}

impl<'a> Operations<'a> {
    /// Translates the operations at `field` below the entry; what Envoy would refuse is left out and reported.
    pub(super) fn read(
        headers: Option<&'a Headers>,
        place: &Place,
        field: fmt::Arguments<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut operations = Self::default();
        let Some(headers) = headers else { return operations };
        if let Some(request) = &headers.request {
            let mut reading = Reading { place, problems, field, part: "request" };
            operations.host = reading.host(request);
            operations.request_add = reading.additions(request);
            operations.request_remove = reading.removals(request);
        }
        if let Some(response) = &headers.response {
            let mut reading = Reading { place, problems, field, part: "response" };
            operations.response_add = reading.additions(response);
            operations.response_remove = reading.removals(response);
        }
        operations
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These operations of a single destination followed by those of its route, as one list. Envoy removes before it
    /// adds within a list, and would do the destination's first: so what the route removes is not added before.
    pub(super) fn followed_by(mut self, route: Operations<'a>) -> Operations<'a> {
        let join = |own: &mut Vec<Addition<'a>>, next: Vec<Addition<'a>>, removed: &[&str]| {
            own.retain(|addition| !removed.iter().any(|r| r.eq_ignore_ascii_case(addition.name)));
            own.extend(next);
        };
        join(&mut self.request_add, route.request_add, &route.request_remove);
        join(&mut self.response_add, route.response_add, &route.response_remove);
        self.request_remove.extend(route.request_remove);
        self.response_remove.extend(route.response_remove);
        self.host = self.host.or(route.host);
        self
    }

    /// Has the response set a cookie; `cookie` is a format that Envoy knows.
    pub(super) fn set_cookie(&mut self, cookie: String) {
        let (name, value, action) = ("set-cookie", Cow::Owned(cookie), Action::Append);
        self.response_add.push(Addition { name, value, action });
    }

    /// Writes all but the authority.
    pub(super) fn write(&self, out: &mut Vec<u8>, fields: &Fields) {
        for addition in &self.request_add {
            addition.write(out, fields.request_add);
        }
        for addition in &self.response_add {
            addition.write(out, fields.response_add);
        }
        for name in &self.response_remove {
            flat::bytes(out, fields.response_remove, name.as_bytes());
        }
        for name in &self.request_remove {
            flat::bytes(out, fields.request_remove, name.as_bytes());
        }
    }
}

impl Addition<'_> {
    /// `HeaderValueOption`: header 1 (key 1, value 2), append_action 3.
    fn write(&self, out: &mut Vec<u8>, field: u32) {
        flat::message(out, field, |out| {
            flat::message(out, 1, |out| {
                flat::text(out, 1, self.name);
                flat::text(out, 2, &self.value);
            });
            if self.action != Action::Append {
                flat::number(out, 3, self.action as u64);
            }
        });
    }
}

struct Reading<'r, 'f> {
    place: &'r Place,
    problems: &'r mut Vec<Problem>,
    /// Where the operations stand below the entry.
    field: fmt::Arguments<'f>,
    /// `request` or `response`.
    part: &'static str,
}

impl Reading<'_, '_> {
    /// `set` of `Host` or `:authority`.
    fn host<'a>(&mut self, operations: &'a HeaderOperations) -> Option<&'a str> {
        let (name, value) = operations.set.iter().find(|(name, _)| is_host(name))?;
        if is_sendable(value) {
            return Some(value);
        }
        self.refuse(format_args!("set[\"{name}\"]"), format_args!("not a valid header value"));
        None
    }

    fn additions<'a>(&mut self, operations: &'a HeaderOperations) -> Vec<Addition<'a>> {
        let set = operations.set.iter().map(|pair| (pair, "set", Action::Overwrite));
        let add = operations.add.iter().map(|pair| (pair, "add", Action::Append));
        let mut additions = Vec::with_capacity(operations.set.len() + operations.add.len());
        for ((name, value), operation, action) in set.chain(add) {
            if self.part == "request" && operation == "set" && is_host(name) {
                continue;
            }
            let field = format_args!("{operation}[\"{name}\"]");
            if !self.is_allowed(name, field) {
                continue;
            }
            if !is_sendable(value) {
                self.refuse(field, format_args!("not a valid header value"));
                continue;
            }
            if additions.len() == MOST_OPTIONS {
                self.refuse(field, format_args!("more than {MOST_OPTIONS} headers"));
                break;
            }
            let value = if percent_format::is_valid(value) {
                Cow::Borrowed(value.as_str())
            } else {
                let message = format!("\"{value}\" is not a format that Envoy knows");
                let problem = self
                    .place
                    .warning(&self.path(field), message)
                    .consequence("the value is sent as it is written")
                    .hint("Write %% for a percent sign that is meant to be one.");
                self.problems.push(problem);
                Cow::Owned(percent_format::literal(value))
            };
            additions.push(Addition { name, value, action });
        }
        additions
    }

    fn removals<'a>(&mut self, operations: &'a HeaderOperations) -> Vec<&'a str> {
        let mut removals = Vec::with_capacity(operations.remove.len());
        for (index, name) in operations.remove.iter().enumerate() {
            if self.is_allowed(name, format_args!("remove[{index}]")) {
                removals.push(name.as_str());
            }
        }
        removals
    }

    /// Envoy refuses to touch pseudo headers and `Host` this way (`HeaderUtility::isModifiableHeader`).
    fn is_allowed(&mut self, name: &str, field: fmt::Arguments<'_>) -> bool {
        let message = if name.is_empty() || !is_sendable(name) {
            "not a valid header name"
        } else if name.starts_with(':') || is_host(name) {
            "pseudo headers and Host can only be set, and only Host and :authority of the request"
        } else {
            return true;
        };
        self.refuse(field, format_args!("{message}"));
        false
    }

    fn refuse(&mut self, field: fmt::Arguments<'_>, message: fmt::Arguments<'_>) {
        let problem = self.place.error(&self.path(field), message.to_string());
        self.problems.push(problem.consequence("this operation is left out"));
    }

    fn path(&self, field: fmt::Arguments<'_>) -> String {
        format!("{}.{}.{field}", self.field, self.part)
    }
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// Whether Envoy takes the text as a header name or value.
pub(super) fn is_sendable(text: &str) -> bool {
    text.len() <= MAX_BYTES && !text.contains(['\0', '\r', '\n'])
}
