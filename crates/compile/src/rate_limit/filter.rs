//! Which requests a limit is about, as the action that makes a descriptor's first entry: without the entry there is no
//! descriptor, and nothing is counted.

use proto::pb::envoy::config::route::v3::HeaderMatcher;
use proto::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::pb::envoy::config::route::v3::rate_limit::Action;
use proto::pb::envoy::config::route::v3::rate_limit::action::{ActionSpecifier, GenericKey, HeaderValueMatch};
use world::api::policy::RequestFilter;

use super::LIMIT_KEY;
use super::value::{Form, matcher};

/// A condition that Envoy would not take.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    /// Its field.
    pub(super) field: String,
    /// Why.
    pub(super) message: String,
}

/// The action for the limit of this name.
///
/// # Errors
/// The first condition that cannot be used.
pub(super) fn action(name: &str, filter: &RequestFilter, max_regex_instructions: u32) -> Result<Action, Unusable> {
    let mut headers = Vec::new();
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
        let specifier = matcher(values, form, max_regex_instructions).map_err(|message| Unusable { field, message })?;
        headers.push(HeaderMatcher {
            name: header.to_owned(),
            header_match_specifier: Some(match specifier {
                None => HeaderMatchSpecifier::PresentMatch(true),
                Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
            }),
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
    Ok(Action { action_specifier: Some(specifier) })
}
