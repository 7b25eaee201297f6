//! `RequestAuthentication` as Envoy's filter for tokens (`envoy.filters.http.jwt_authn`).
//!
//! A token has to hold where there is one; a request without any passes. What the tokens say is for others to act on:
//! it is left in the request's dynamic metadata, under [`JWT_FILTER`] and [`JWT_PAYLOAD`].
//!
//! The rules of all policies for a workload count together, as in Istio
//! (`pilot/pkg/security/authn/policy_applier.go`), whose names of providers these are. What differs: keys are only
//! public ones ([`world::KeySet`]), and an issuer without keys is reported.

mod provider;
mod requirement;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use proto::pb::envoy::config::route::v3::{RouteMatch, route_match};
use proto::pb::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use proto::pb::envoy::extensions::filters::http::jwt_authn::v3::{JwtAuthentication, RequirementRule};
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use world::api::istio::JwtRule;
use world::{Fetched, KeySource, Object, Problem, Spec};

use crate::Built;
use crate::pack::http_filter;

/// The filter, and the namespace of the metadata that it leaves.
pub(crate) const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";

/// The claims of a token that holds, in that metadata.
pub(crate) const JWT_PAYLOAD: &str = "payload";

/// All that the filter depends on.
pub(crate) struct AuthenticationInput<'a> {
    /// The RequestAuthentications for the proxy, in an order that does not change by itself.
    pub(crate) policies: &'a [&'a Arc<Object>],
    /// What fetching a key set has led to; `None` while it was never tried.
    pub(crate) keys: &'a dyn Fn(&KeySource) -> Option<Fetched>,
    /// Whether routes look at claims, so that they are to be chosen once these are known.
    pub(crate) routes_by_claims: bool,
}

/// One rule and where it is written.
#[derive(Clone, Copy)]
struct Place<'a> {
    object: &'a Object,
    index: usize,
    rule: &'a JwtRule,
}

impl Place<'_> {
    fn error(&self, part: &str, message: String) -> Problem {
        let field = format!("spec.jwtRules[{}].{part}", self.index);
        Problem::error(&self.object.reference, field, message).at(self.object.meta.location.clone())
    }

    fn warning(&self, part: &str, message: String) -> Problem {
        Problem { severity: world::Severity::Warning, ..self.error(part, message) }
    }
}

/// The filter that checks tokens; `None` when no policy has a rule.
pub(crate) fn authentication(input: &AuthenticationInput<'_>) -> Built<Option<HttpFilter>> {
    let mut built = Built::new(None);
    let mut places: Vec<Place<'_>> = Vec::new();
    for object in input.policies {
        let Spec::RequestAuthentication(spec) = &object.spec else { continue };
        places.extend(spec.jwt_rules.iter().enumerate().map(|(index, rule)| Place { object, index, rule }));
        built.origins.insert(object.reference.clone());
    }
    if places.is_empty() {
        return built;
    }
    places.sort_by(|a, b| a.rule.issuer.cmp(&b.rule.issuer));
    let mut providers = Vec::with_capacity(places.len());
    for (number, place) in places.iter().enumerate() {
        providers.push((format!("origins-{number}"), built.absorb(provider::provider(place, input))));
    }
    let names: Vec<&str> = providers.iter().map(|(name, _)| name.as_str()).collect();
    let rule = RequirementRule {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        requirement_type: Some(RequirementType::Requires(requirement::requirement(&names))),
    };
    let config = JwtAuthentication {
        rules: vec![rule],
        providers: providers.into_iter().collect(),
        // A browser sends no token before it knows that it may.
        bypass_cors_preflight: true,
        ..JwtAuthentication::default()
    };
    built.map(|_: Option<HttpFilter>| Some(http_filter(JWT_FILTER, &config)))
}
