//! Cross-origin rules: settings of the CORS filter for one route.

use proto::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy as EnvoyPolicy;
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use world::Problem;
use world::api::istio::{CorsPolicy, StringMatch};

use super::pattern::Pattern;
use super::rule::Place;
use crate::pack;

/// Name of the filter whose settings these are.
pub(super) const FILTER: &str = "envoy.filters.http.cors";

/// The policy of an entry; origins that cannot be used are left out. Their expressions may compile to at most
/// `most_instructions`.
pub(super) fn policy(
    text: &CorsPolicy,
    place: &Place,
    most_instructions: u32,
    problems: &mut Vec<Problem>,
) -> EnvoyPolicy {
    let exact = |origin: &String| StringMatch { exact: Some(origin.clone()), ..StringMatch::default() };
    let older: Vec<_> = text.allow_origin.iter().map(exact).collect();
    let origins =
        if text.allow_origins.is_empty() { ("allowOrigin", &older) } else { ("allowOrigins", &text.allow_origins) };
    let mut allow_origin_string_match = Vec::new();
    for (index, origin) in origins.1.iter().enumerate() {
        match Pattern::read(Some(origin), most_instructions) {
            Ok(Pattern::Exact("*") | Pattern::Present) => allow_origin_string_match.push(any_origin()),
            Ok(pattern) => allow_origin_string_match.extend(pattern.matcher()),
            Err(why) => {
                let field = format!(".corsPolicy.{}[{index}]", origins.0);
                problems.push(place.error(&field, why).consequence("this origin is not allowed"));
            }
        }
    }
    let forward = match text.unmatched_preflights.as_deref() {
        None | Some("" | "UNSPECIFIED") => None,
        Some("FORWARD") => Some(pack::boolean(true)),
        Some("IGNORE") => Some(pack::boolean(false)),
        Some(other) => {
            let problem = place
                .error(".corsPolicy.unmatchedPreflights", format!("\"{other}\" is neither FORWARD nor IGNORE"))
                .consequence("unmatched preflight requests are forwarded");
            problems.push(problem);
            None
        }
    };
    EnvoyPolicy {
        allow_origin_string_match,
        allow_methods: text.allow_methods.join(","),
        allow_headers: text.allow_headers.join(","),
        expose_headers: text.expose_headers.join(","),
        max_age: text.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: text.allow_credentials.map(pack::boolean),
        forward_not_matching_preflights: forward,
        ..EnvoyPolicy::default()
    }
}

/// Every origin, in a form that Envoy's rules for matchers allow (an empty prefix is not).
fn any_origin() -> StringMatcher {
    let everything = RegexMatcher { regex: ".*".to_owned(), engine_type: None };
    StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(everything)), ignore_case: false }
}
