//! Which requests a limit is about, as the actions that make a descriptor's first entries: without one of them there is no
//! descriptor, and nothing is counted.

use proto::pb::envoy::config::route::v3::HeaderMatcher;
use proto::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::pb::envoy::config::route::v3::rate_limit::Action;
use proto::pb::envoy::config::route::v3::rate_limit::action::{ActionSpecifier, GenericKey, HeaderValueMatch};
use proto::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use world::api::policy::RequestFilter;

use super::value::{Form, matcher};
use super::{LIMIT_KEY, expression};

/// A condition that Envoy would not take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    /// Its field.
    pub(super) field: String,
    /// Why.
    pub(super) message: String,
}

/// The beginning of a limit's descriptors.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// What makes it; if one of them makes nothing there is no descriptor.
    pub(super) actions: Vec<Action>,
    /// What it is then.
    pub(super) entries: Vec<Entry>,
    /// Conditions that are left out.
    pub(super) unusable: Vec<Unusable>,
}

/// The conditions of the limit of this name. Values that are too much for a regular expression are compared one by one.
pub(super) fn conditions(name: &str, filter: &RequestFilter, max_regex_instructions: u32) -> Conditions {
    let mut headers = Vec::new();
    let mut all = Conditions::default();
    let of_request = [
        ("methods", ":method", &filter.methods, Form::Text),
        ("paths", ":path", &filter.paths, Form::Path),
        ("hosts", ":authority", &filter.hosts, Form::Host),
    ];
    let of_request =
        of_request.into_iter().map(|(field, header, values, form)| (field.to_owned(), header, values, form));
    let named = filter.headers.iter().map(|(name, values)| (format!("headers.{name}"), &**name, values, Form::Text));
    for (field, header, values, form) in of_request.chain(named) {
        if values.is_empty() {
            continue;
        }
        let specifier = match matcher(values, form, max_regex_instructions) {
            Ok(None) => HeaderMatchSpecifier::PresentMatch(true),
            Ok(Some(matcher)) => HeaderMatchSpecifier::StringMatch(matcher),
            Err(_) => {
                match expression::of(header, values, form) {
                    Ok(text) => {
                        let key = format!("match:{field}");
                        all.actions.push(expression::action(&key, &text));
                        all.entries.push(Entry { key, value: expression::HOLDS.to_owned() });
                    }
                    Err(message) => all.unusable.push(Unusable { field, message }),
                }
                continue;
            }
        };
        headers.push(HeaderMatcher {
            name: header.to_owned(),
            header_match_specifier: Some(specifier),
            ..HeaderMatcher::default()
        });
    }
    let (descriptor_key, descriptor_value) = (LIMIT_KEY.to_owned(), name.to_owned());
    let specifier = if headers.is_empty() {
        ActionSpecifier::GenericKey(GenericKey { descriptor_key, descriptor_value, ..GenericKey::default() })
    } else {
        let matching = HeaderValueMatch { descriptor_key, descriptor_value, headers, ..HeaderValueMatch::default() };
        ActionSpecifier::HeaderValueMatch(matching)
    };
    all.actions.insert(0, Action { action_specifier: Some(specifier) });
    all.entries.insert(0, Entry { key: LIMIT_KEY.to_owned(), value: name.to_owned() });
    all
}
