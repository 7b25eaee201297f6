//! Values of policies as Envoy's matchers.

use proto::pb::envoy::config::core::v3::CidrRange;
use proto::pb::envoy::config::rbac::v3::SourcedMetadata;
use proto::pb::envoy::config::route::v3::HeaderMatcher;
use proto::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::pb::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::pb::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, RegexMatcher, StringMatcher, ValueMatcher, list_matcher, value_matcher,
};
use world::api::istio::{AddressRange, ValueMatch};

use crate::pack::uint32;

/// How letters are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// As it is written.
    Sensitive,
    /// Either.
    Ignored,
}

pub(super) fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

/// A regular expression for the whole of a text.
pub(super) fn regex(regex: String) -> StringMatcher {
    string(MatchPattern::SafeRegex(RegexMatcher { regex, engine_type: None }))
}

/// Anything but the empty text.
pub(super) fn present() -> StringMatcher {
    regex(".+".to_owned())
}

/// A value as it is compared; `None` for the empty one, which says nothing.
pub(super) fn value(text: &str) -> Option<StringMatcher> {
    (!text.is_empty()).then(|| match ValueMatch::new(text) {
        ValueMatch::Present => present(),
        ValueMatch::Suffix(suffix) => string(MatchPattern::Suffix(suffix.to_owned())),
        ValueMatch::Prefix(prefix) => string(MatchPattern::Prefix(prefix.to_owned())),
        ValueMatch::Exact(exact) => string(MatchPattern::Exact(exact.to_owned())),
    })
}

/// A header whose value is compared.
pub(super) fn header(name: &str, text: &str, case: Case) -> Option<HeaderMatcher> {
    let specifier = match ValueMatch::new(text) {
        ValueMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
        ValueMatch::Suffix(_) | ValueMatch::Prefix(_) | ValueMatch::Exact(_) => {
            let matcher = StringMatcher { ignore_case: case == Case::Ignored, ..value(text)? };
            HeaderMatchSpecifier::StringMatch(matcher)
        }
    };
    Some(HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() })
}

/// An address or a network.
pub(super) fn range(text: &str) -> Option<CidrRange> {
    let range: AddressRange = text.parse().ok()?;
    Some(CidrRange { address_prefix: range.address.to_string(), prefix_len: Some(uint32(range.bits.into())) })
}

/// What a filter has noted about the connection or request at `path`, as a text, or as a list that has such a text.
pub(super) fn noted(filter: &str, path: &[&str], matchers: Vec<ValueMatcher>) -> SourcedMetadata {
    let segment = |key: &&str| PathSegment { segment: Some(path_segment::Segment::Key((*key).to_owned())) };
    let value = match <[ValueMatcher; 1]>::try_from(matchers) {
        Ok([only]) => only,
        Err(several) => ValueMatcher {
            match_pattern: Some(value_matcher::MatchPattern::OrMatch(OrMatcher { value_matchers: several })),
        },
    };
    let matcher = MetadataMatcher {
        filter: filter.to_owned(),
        path: path.iter().map(segment).collect(),
        value: Some(value),
        invert: false,
    };
    SourcedMetadata { metadata_matcher: Some(matcher), ..SourcedMetadata::default() }
}

/// A value that is this text.
pub(super) fn is(text: StringMatcher) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::StringMatch(text)) }
}

/// A value that is a list with this text in it.
pub(super) fn has(text: StringMatcher) -> ValueMatcher {
    let one_of = list_matcher::MatchPattern::OneOf(Box::new(is(text)));
    let list = ListMatcher { match_pattern: Some(one_of) };
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(list))) }
}
