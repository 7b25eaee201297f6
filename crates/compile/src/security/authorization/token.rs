//! What the request's token says, as the filter that has checked it noted it.

use proto::pb::envoy::config::rbac::v3::{Principal, principal};
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::pb::envoy::r#type::matcher::v3::{StringMatcher, ValueMatcher};
use world::api::istio::ValueMatch;

use super::term::Term;
use super::text::{has, is, noted, present, string, value};
use crate::security::{JWT_FILTER, JWT_PAYLOAD};

/// A claim, alone or as one of a list; `path` leads to it from the outermost one.
pub(super) fn claim(path: &[&str], text: &str) -> Option<Principal> {
    let text = value(text)?;
    Some(at(path, vec![is(text.clone()), has(text)]))
}

/// `<issuer>/<subject>`, of which either may have slashes: every way to part the value counts.
pub(super) fn request_principal(text: &str) -> Option<Principal> {
    if text.is_empty() {
        return None;
    }
    let (parts, whole): (_, Option<Principal>) = match ValueMatch::new(text) {
        ValueMatch::Present => (Vec::new(), Some(both(present(), present()))),
        ValueMatch::Exact(exact) => (splits(exact, exactly, exactly), None),
        ValueMatch::Prefix(prefix) => {
            let issuer = string(MatchPattern::Prefix(prefix.to_owned()));
            (splits(prefix, exactly, beginning), Some(both(issuer, present())))
        }
        ValueMatch::Suffix(suffix) => {
            let subject = string(MatchPattern::Suffix(suffix.to_owned()));
            (splits(suffix, ending, exactly), Some(both(present(), subject)))
        }
    };
    let all: Vec<Principal> = parts.into_iter().chain(whole).collect();
    // Without a slash there is nobody who could be meant.
    (!all.is_empty()).then(|| Principal::one_of(all))
}

type Part = fn(&str) -> Option<StringMatcher>;

fn splits(text: &str, issuer: Part, subject: Part) -> Vec<Principal> {
    let slashes = text.match_indices('/').map(|(at, _)| at);
    slashes.filter_map(|at| Some(both(issuer(&text[..at])?, subject(&text[at + 1..])?))).collect()
}

fn exactly(text: &str) -> Option<StringMatcher> {
    (!text.is_empty()).then(|| string(MatchPattern::Exact(text.to_owned())))
}

fn beginning(text: &str) -> Option<StringMatcher> {
    Some(if text.is_empty() { present() } else { string(MatchPattern::Prefix(text.to_owned())) })
}

fn ending(text: &str) -> Option<StringMatcher> {
    Some(if text.is_empty() { present() } else { string(MatchPattern::Suffix(text.to_owned())) })
}

fn both(issuer: StringMatcher, subject: StringMatcher) -> Principal {
    Principal::all(vec![at(&["iss"], vec![is(issuer)]), at(&["sub"], vec![is(subject)])])
}

fn at(path: &[&str], matchers: Vec<ValueMatcher>) -> Principal {
    let path: Vec<&str> = [JWT_PAYLOAD].into_iter().chain(path.iter().copied()).collect();
    Principal { identifier: Some(principal::Identifier::SourcedMetadata(noted(JWT_FILTER, &path, matchers))) }
}
