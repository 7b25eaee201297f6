//! Header operations.

use proto::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use proto::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use world::Problem;
use world::api::istio::{HeaderOperations, Headers};

use super::percent_format;
use super::rule::Place;

/// Envoy's bounds: options per message, bytes per name and value (`config/core/v3/base.proto`, `route_components.proto`).
const MOST_OPTIONS: usize = 1000;
const MAX_BYTES: usize = 16 * 1024;

/// What to do with headers, in Envoy's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Operations {
    pub(super) request_add: Vec<HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
    /// The request's authority, which Envoy does not treat as a header.
    pub(super) host: Option<String>,
}

impl Operations {
    /// Translates the operations at `field` below the entry; what Envoy would refuse is left out and reported.
    pub(super) fn read(headers: Option<&Headers>, place: &Place, field: &str, problems: &mut Vec<Problem>) -> Self {
        let mut operations = Self::default();
        let Some(headers) = headers else { return operations };
        let mut reading = Reading { place, problems };
        if let Some(request) = &headers.request {
            let field = format!("{field}.request");
            operations.host = reading.host(request, &field);
            operations.request_add = reading.additions(request, &field);
            operations.request_remove = reading.removals(request, &field);
        }
        if let Some(response) = &headers.response {
            let field = format!("{field}.response");
            operations.response_add = reading.additions(response, &field);
            operations.response_remove = reading.removals(response, &field);
        }
        operations
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These operations of a single destination followed by those of its route, as one list. Envoy removes before it
    /// adds within a list, and would do the destination's first: so what the route removes is not added before.
    pub(super) fn followed_by(mut self, route: Operations) -> Operations {
        let join = |own: &mut Vec<HeaderValueOption>, next: Vec<HeaderValueOption>, removed: &[String]| {
            let name = |option: &HeaderValueOption| option.header.as_ref().map(|h| h.key.clone()).unwrap_or_default();
            own.retain(|option| !removed.iter().any(|r| r.eq_ignore_ascii_case(&name(option))));
            own.extend(next);
        };
        join(&mut self.request_add, route.request_add, &route.request_remove);
        join(&mut self.response_add, route.response_add, &route.response_remove);
        self.request_remove.extend(route.request_remove);
        self.response_remove.extend(route.response_remove);
        self.host = self.host.or(route.host);
        self
    }
}

struct Reading<'r> {
    place: &'r Place,
    problems: &'r mut Vec<Problem>,
}

impl Reading<'_> {
    /// `set` of `Host` or `:authority`.
    fn host(&mut self, operations: &HeaderOperations, field: &str) -> Option<String> {
        let (name, value) = operations.set.iter().find(|(name, _)| is_host(name))?;
        if is_sendable(value) {
            return Some(value.clone());
        }
        self.refuse(&format!("{field}.set[\"{name}\"]"), "not a valid header value");
        None
    }

    fn additions(&mut self, operations: &HeaderOperations, field: &str) -> Vec<HeaderValueOption> {
        let request = field.ends_with(".request");
        let set = operations.set.iter().map(|pair| (pair, "set", HeaderAppendAction::OverwriteIfExistsOrAdd));
        let add = operations.add.iter().map(|pair| (pair, "add", HeaderAppendAction::AppendIfExistsOrAdd));
        let mut options = Vec::new();
        for ((name, value), operation, action) in set.chain(add) {
            if request && operation == "set" && is_host(name) {
                continue;
            }
            let field = format!("{field}.{operation}[\"{name}\"]");
            if !self.is_allowed(name, &field) {
                continue;
            }
            if !is_sendable(value) {
                self.refuse(&field, "not a valid header value");
                continue;
            }
            if options.len() == MOST_OPTIONS {
                self.refuse(&field, &format!("more than {MOST_OPTIONS} headers"));
                break;
            }
            let value = if percent_format::is_valid(value) {
                value.clone()
            } else {
                let message = format!("\"{value}\" is not a format that Envoy knows");
                let problem = self
                    .place
                    .warning(&field, message)
                    .consequence("the value is sent as it is written")
                    .hint("Write %% for a percent sign that is meant to be one.");
                self.problems.push(problem);
                percent_format::literal(value)
            };
            options.push(HeaderValueOption {
                header: Some(HeaderValue { key: name.clone(), value, raw_value: Vec::new() }),
                append_action: action.into(),
                ..HeaderValueOption::default()
            });
        }
        options
    }

    fn removals(&mut self, operations: &HeaderOperations, field: &str) -> Vec<String> {
        let mut removals = Vec::new();
        for (index, name) in operations.remove.iter().enumerate() {
            if self.is_allowed(name, &format!("{field}.remove[{index}]")) {
                removals.push(name.clone());
            }
        }
        removals
    }

    /// Envoy refuses to touch pseudo headers and `Host` this way (`HeaderUtility::isModifiableHeader`).
    fn is_allowed(&mut self, name: &str, field: &str) -> bool {
        let message = if name.is_empty() || !is_sendable(name) {
            "not a valid header name"
        } else if name.starts_with(':') || is_host(name) {
            "pseudo headers and Host can only be set, and only Host and :authority of the request"
        } else {
            return true;
        };
        self.refuse(field, message);
        false
    }

    fn refuse(&mut self, field: &str, message: &str) {
        self.problems.push(self.place.error(field, message).consequence("this operation is left out"));
    }
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// Whether Envoy takes the text as a header name or value.
pub(super) fn is_sendable(text: &str) -> bool {
    text.len() <= MAX_BYTES && !text.contains(['\0', '\r', '\n'])
}
