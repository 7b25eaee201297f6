//! Cross-origin rules: settings of the CORS filter for one route.

use world::Problem;
use world::api::istio::{CorsPolicy, StringMatch};

use super::pattern::Pattern;
use super::rule::Place;
use crate::flat;

/// Name of the filter whose settings these are.
pub(super) const FILTER: &str = "envoy.filters.http.cors";
/// Type of these settings.
pub(super) const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";

/// The encoded policy of an entry; origins that cannot be used are left out. Their expressions may compile to at most
/// `most_instructions`.
///
/// `CorsPolicy`: allow_origin_string_match 1, allow_methods 2, allow_headers 3, expose_headers 4, max_age 5,
/// allow_credentials 6, forward_not_matching_preflights 10.
pub(super) fn policy(text: &CorsPolicy, place: &Place, most_instructions: u32, problems: &mut Vec<Problem>) -> Vec<u8> {
    let exact = |origin: &String| StringMatch { exact: Some(origin.clone()), ..StringMatch::default() };
    let older: Vec<_> = text.allow_origin.iter().map(exact).collect();
    let origins =
        if text.allow_origins.is_empty() { ("allowOrigin", &older) } else { ("allowOrigins", &text.allow_origins) };
    let mut out = Vec::new();
    for (index, origin) in origins.1.iter().enumerate() {
        match Pattern::read(Some(origin), most_instructions) {
            // In a form that Envoy's rules for matchers allow (an empty prefix is not).
            Ok(Pattern::Exact("*") | Pattern::Present) => Pattern::Regex(".*").write(&mut out, 1),
            Ok(pattern) => pattern.write(&mut out, 1),
            Err(why) => {
                let field = format!(".corsPolicy.{}[{index}]", origins.0);
                problems.push(place.error(&field, why).consequence("this origin is not allowed"));
            }
        }
    }
    let forward = match text.unmatched_preflights.as_deref() {
        None | Some("" | "UNSPECIFIED") => None,
        Some("FORWARD") => Some(true),
        Some("IGNORE") => Some(false),
        Some(other) => {
            let problem = place
                .error(".corsPolicy.unmatchedPreflights", format!("\"{other}\" is neither FORWARD nor IGNORE"))
                .consequence("unmatched preflight requests are forwarded");
            problems.push(problem);
            None
        }
    };
    for (field, words) in [(2, &text.allow_methods), (3, &text.allow_headers), (4, &text.expose_headers)] {
        flat::text(&mut out, field, &words.join(","));
    }
    if let Some(age) = text.max_age {
        flat::text(&mut out, 5, &age.as_secs().to_string());
    }
    if let Some(allowed) = text.allow_credentials {
        flat::wrapped(&mut out, 6, allowed.into());
    }
    if let Some(forward) = forward {
        flat::wrapped(&mut out, 10, forward.into());
    }
    out
}
