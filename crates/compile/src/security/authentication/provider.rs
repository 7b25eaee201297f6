//! One rule as a provider: whose tokens, where they are, by which keys they are verified, and what becomes of them.

use proto::pb::envoy::config::core::v3::{DataSource, data_source};
use proto::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::{JwksSourceSpecifier, NormalizePayload};
use proto::pb::envoy::extensions::filters::http::jwt_authn::v3::{JwtClaimToHeader, JwtHeader, JwtProvider};
use world::api::istio::JwtRule;
use world::{Fetched, KeySet, Problem};

use super::{AuthenticationInput, JWT_PAYLOAD, Place};
use crate::Built;

/// Claims whose text is a list of words with every issuer (RFC 8693, section 4.2, and Istio).
const LISTS: [&str; 2] = ["permission", "scope"];

/// Keys of an issuer whose keys are not known: a point of P-256 of which nobody knows the private key, so that no token
/// holds. Its x is the SHA-256 of "pointsman: the keys of an issuer whose keys are not known", counted up to the first
/// that is on the curve; its y is the lesser of the two.
const NOBODYS_KEYS: &str = concat!(
    r#"{"keys":[{"alg":"ES256","crv":"P-256","kty":"EC","use":"sig","#,
    r#""x":"XFw8fKuFbLCdmUdBsiLLBNxUU5rWNNXLvEmrDLNQla4","#,
    r#""y":"W3hZ6n66kU4RWU9xeUuYvDgva2suY1oulwVKKJBUpfE"}]}"#,
);

const REFUSED: &str = "every token of this issuer is refused";

pub(super) fn provider(place: &Place<'_>, input: &AuthenticationInput<'_>) -> Built<JwtProvider> {
    let mut built = Built::new(());
    let JwtRule { issuer, audiences, from_params, from_cookies, output_payload_to_header, .. } = place.rule;
    let keys = built.absorb(keys(place, input));
    let headers = place.rule.from_headers.iter();
    let claims = place.rule.output_claim_to_headers.iter();
    let provider = JwtProvider {
        issuer: issuer.clone(),
        audiences: audiences.clone(),
        forward: place.rule.forward_original_token,
        from_headers: headers
            .map(|from| JwtHeader { name: from.name.clone(), value_prefix: from.prefix.clone() })
            .collect(),
        from_params: from_params.clone(),
        from_cookies: from_cookies.clone(),
        forward_payload_header: output_payload_to_header.clone(),
        payload_in_metadata: JWT_PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(NormalizePayload { space_delimited_claims: lists(place.rule) }),
        claim_to_headers: claims
            .map(|to| JwtClaimToHeader {
                header_name: to.header.clone(),
                claim_name: to.claim.clone(),
                ..JwtClaimToHeader::default()
            })
            .collect(),
        clear_route_cache: input.routes_by_claims,
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(data_source::Specifier::InlineString(keys)),
            ..DataSource::default()
        })),
        ..JwtProvider::default()
    };
    built.map(|()| provider)
}

fn lists(rule: &JwtRule) -> Vec<String> {
    let mut lists: Vec<String> = LISTS.iter().map(|claim| (*claim).to_owned()).collect();
    for claim in &rule.space_delimited_claims {
        if !lists.contains(claim) {
            lists.push(claim.clone());
        }
    }
    lists
}

/// The keys in force, as JSON.
fn keys(place: &Place<'_>, input: &AuthenticationInput<'_>) -> Built<String> {
    let mut built = Built::new(NOBODYS_KEYS.to_owned());
    if place.rule.is_garbled {
        // Whoever has read it has told what is wrong.
        return built;
    }
    let issuer = &place.rule.issuer;
    let Some(source) = place.rule.key_source() else {
        match KeySet::parse(&place.rule.jwks) {
            Ok(set) => {
                built.problems.extend(left_out(place, "jwks", &set));
                built.value = set.as_json().to_owned();
            }
            Err(why) => built.problems.push(
                place
                    .error("jwks", format!("the keys of issuer \"{issuer}\" cannot be used: {why}"))
                    .consequence(REFUSED)
                    .hint("Write {\"keys\": [...]} with the issuer's public keys, or name their place in jwksUri."),
            ),
        }
        return built;
    };
    let part = if place.rule.jwks_uri.is_empty() { "issuer" } else { "jwksUri" };
    match (input.keys)(&source) {
        // The first attempt is under way.
        None => {}
        Some(Fetched { keys: Some(set), failure }) => {
            built.problems.extend(left_out(place, part, &set));
            built.value = set.as_json().to_owned();
            built.problems.extend(failure.map(|why| {
                place
                    .warning(part, format!("the keys of issuer \"{issuer}\" could not be fetched again: {why}"))
                    .consequence("those that were fetched last stay in force")
                    .hint("They are asked for again and again.")
            }));
        }
        Some(Fetched { keys: None, failure }) => built.problems.push(
            place
                .error(
                    part,
                    format!(
                        "the keys of issuer \"{issuer}\" cannot be had: {}",
                        failure.as_deref().unwrap_or("no answer")
                    ),
                )
                .consequence(REFUSED)
                .hint(match part {
                    "issuer" => "Name the place of the issuer's keys in jwksUri, or write them in jwks.",
                    _ => "They are asked for again and again. Correct jwksUri, or write the keys in jwks.",
                }),
        ),
    }
    built
}

fn left_out(place: &Place<'_>, part: &str, set: &KeySet) -> Option<Problem> {
    let first = set.left_out.first()?;
    let more = match set.left_out.len() {
        1 => String::new(),
        several => format!(", and {} more", several - 1),
    };
    let problem = place.warning(part, format!("not every key can be used: {first}{more}"));
    Some(problem.consequence("tokens that are signed by such a key are refused"))
}
