//! What a rule's route becomes under a rollout: a few routes, of which the last takes what the others leave.
//!
//! ```text
//!   requests that go to one revision     in the order of the assignment
//!   requests with the rollout's cookie   ┐ only with stickiness by cookie
//!   all others                           ┘ by weight
//! ```
//!
//! Where only some requests are mirrored, each of these comes twice, first with their conditions and the copies.
//!
//! Stickiness needs no memory: Envoy hashes what the client is known by, and takes the remainder by the sum of the
//! weights, which never changes; the candidate stands first, so a client that it has stays as its weight rises. A cookie
//! holds nothing but the id of the request that it was made for, and the first request is decided by that id: so it goes
//! where all later ones go.

use proto::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use proto::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter,
};
use proto::pb::envoy::config::route::v3::route_action::{HashPolicy, RequestMirrorPolicy};
use proto::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use world::Problem;
use world::api::delivery::{
    FieldMatch, HashKey, RequestMatch, SameSite, Stickiness, StickinessMode, StickyCookie, Weight,
};

use crate::division::{Copies, Division, Plan};
use crate::route::forward::{Clusters, Destinations};
use crate::route::headers::is_sendable;
use crate::route::percent_format;
use crate::route::request::Request;
use crate::route::split;
use crate::route::virtual_host::VirtualHostInput;
use crate::{Audience, pack};

/// Names the request, and with it whoever has no cookie yet.
const REQUEST_ID: &str = "x-request-id";

/// One of the routes.
#[derive(Clone)]
pub(super) struct Variant<'a> {
    /// What is added to the route's name, after `~`; nothing for the one that takes all others.
    pub(super) suffix: String,
    /// One route for each of these; one without further conditions when there are none.
    pub(super) requests: Vec<Request>,
    /// Where they go.
    pub(super) clusters: Clusters<'a>,
    /// What is hashed.
    pub(super) hash: Vec<HashPolicy>,
    /// Where copies go.
    pub(super) mirrors: Vec<RequestMirrorPolicy>,
    /// A cookie to set.
    pub(super) cookie: Option<String>,
}

/// The routes, in order; without a rollout only one.
pub(super) fn variants<'a>(
    destinations: &Destinations<'a>,
    input: &VirtualHostInput<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Variant<'a>> {
    let divisions = destinations.divisions();
    let plain = |clusters| Variant {
        suffix: String::new(),
        requests: Vec::new(),
        clusters,
        hash: destinations.hash.clone(),
        mirrors: Vec::new(),
        cookie: None,
    };
    let mut variants = Vec::new();
    for (division, plan) in &divisions {
        for directed in &plan.directed {
            let requests = requests(division, &directed.field, &directed.matches, input, problems);
            if !requests.is_empty() {
                let clusters = destinations.clusters(Some((&division.run, &directed.cluster)));
                variants.push(Variant { suffix: directed.name.clone(), requests, ..plain(clusters) });
            }
        }
    }
    let sticky = divisions.iter().find(|(_, plan)| plan.stickiness.mode != StickinessMode::None);
    match sticky {
        Some((division, plan)) => variants.extend(keeping(destinations, division, &plan.stickiness, input, problems)),
        None => variants.push(plain(destinations.clusters(None))),
    }
    for (division, plan) in &divisions {
        if let Some(copies) = &plan.copies {
            variants = mirrored(variants, division, copies, input, problems);
        }
    }
    variants
}

/// What is left of `matches` for the client, with the problems of the rest.
fn requests(
    division: &Division,
    field: &str,
    matches: &[RequestMatch],
    input: &VirtualHostInput<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Request> {
    let mut found = Vec::with_capacity(matches.len());
    for text in matches {
        match Request::read(text, input.audience, input.most_regex_instructions()) {
            Ok(request) => found.extend(request),
            Err(why) => {
                let field = format!("{field}.matches");
                problems.push(Problem::error(&division.run, field, why).consequence("the match never holds"));
            }
        }
    }
    found
}

/// By weight, and each client always the same way.
fn keeping<'a>(
    destinations: &Destinations<'a>,
    division: &Division,
    stickiness: &Stickiness,
    input: &VirtualHostInput<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Variant<'a>> {
    let draw = |hash: Vec<HashPolicy>| {
        let mut clusters = destinations.clusters(None);
        clusters.by_hash = !hash.is_empty();
        // Of several policies the first that finds something is the only one, so what rules hash by comes last.
        let hash = hash.into_iter().chain(destinations.hash.iter().cloned()).collect();
        Variant { suffix: String::new(), requests: Vec::new(), clusters, hash, mirrors: Vec::new(), cookie: None }
    };
    let say = |problem: Problem| problem.consequence("each of these requests is drawn anew, by weight");
    if input.audience.is_grpc() {
        let message = "gRPC clients without a proxy do not choose between clusters by a hash";
        problems.push(say(Problem::warning(&division.run, "spec.assignment.stickiness", message)));
        return vec![draw(Vec::new())];
    }
    if !destinations.hash.is_empty() {
        let message = "a DestinationRule of the service hashes as well, and a request has one hash";
        problems.push(
            Problem::warning(&division.run, "spec.assignment.stickiness", message)
                .consequence("the same key chooses the revision and the endpoint"),
        );
    }
    if stickiness.mode == StickinessMode::Hash {
        return vec![draw(stickiness.key.iter().filter_map(key).collect())];
    }
    let cookie = &stickiness.cookie;
    // Without a value there is nothing to hash.
    let some = Some("[^;]+".to_owned());
    let known = RequestMatch {
        cookie: Some(FieldMatch { name: cookie.name.clone(), regex: some, ..FieldMatch::default() }),
        ..RequestMatch::default()
    };
    let read = Request::read(&known, input.audience, input.most_regex_instructions());
    let (Ok(Some(known)), Ok(text)) = (read, set_cookie(cookie)) else {
        let field = "spec.assignment.stickiness.cookie";
        problems.push(say(Problem::error(&division.run, field, format!("\"{}\" is no cookie", cookie.name))));
        return vec![draw(Vec::new())];
    };
    let by_cookie = HashKey { cookie: Some(cookie.name.clone()), ..HashKey::default() };
    let by_request = HashKey { header: Some(REQUEST_ID.to_owned()), ..HashKey::default() };
    let suffix = cookie.name.clone();
    vec![
        Variant { suffix, requests: vec![known], ..draw(key(&by_cookie).into_iter().collect()) },
        Variant { cookie: Some(text), ..draw(key(&by_request).into_iter().collect()) },
    ]
}

/// A part of the key; the parts after it count only where it finds nothing.
fn key(key: &HashKey) -> Option<HashPolicy> {
    let specifier = if let Some(name) = key.header.as_ref().filter(|name| is_sendable(name) && !name.is_empty()) {
        PolicySpecifier::Header(Header { header_name: name.clone(), regex_rewrite: None })
    } else if let Some(name) = key.cookie.as_ref().filter(|name| !name.is_empty()) {
        // Without a lifetime: Envoy makes no cookie here.
        PolicySpecifier::Cookie(Cookie { name: name.clone(), ..Cookie::default() })
    } else if let Some(name) = key.query.as_ref().filter(|name| !name.is_empty()) {
        PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() })
    } else if key.source_ip {
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
    } else {
        return None;
    };
    Some(HashPolicy { terminal: true, policy_specifier: Some(specifier) })
}

/// The value of `Set-Cookie`, in Envoy's format.
///
/// # Errors
/// A part would break the header.
fn set_cookie(cookie: &StickyCookie) -> Result<String, ()> {
    let StickyCookie { name, ttl, path, domain, same_site, secure, http_only } = cookie;
    let parts = [Some(name), Some(path), domain.as_ref()];
    if name.is_empty() || parts.into_iter().flatten().any(|part| !is_sendable(part) || part.contains([';', ','])) {
        return Err(());
    }
    let same_site = match same_site {
        SameSite::Strict => "Strict",
        SameSite::Lax => "Lax",
        SameSite::None => "None",
    };
    let domain = domain.as_ref().map(|domain| format!("; Domain={domain}")).unwrap_or_default();
    let before = percent_format::literal(name);
    let after = format!("; Max-Age={}; Path={path}{domain}; SameSite={same_site}", ttl.as_secs());
    let secure = if *secure { "; Secure" } else { "" };
    let http_only = if *http_only { "; HttpOnly" } else { "" };
    Ok(format!("{before}=%REQ({REQUEST_ID})%{}{secure}{http_only}", percent_format::literal(&after)))
}

/// Adds copies to the variants that do not lead where the copies go.
fn mirrored<'a>(
    variants: Vec<Variant<'a>>,
    division: &Division,
    copies: &Copies,
    input: &VirtualHostInput<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Variant<'a>> {
    let field = "spec.assignment.mirror";
    if input.audience.is_grpc() {
        problems.push(
            Problem::warning(&division.run, field, "gRPC clients cannot mirror").consequence("they send no copies"),
        );
        return variants;
    }
    let only = requests(division, field, &copies.matches, input, problems);
    if only.is_empty() && !copies.matches.is_empty() {
        return variants;
    }
    let mut all = Vec::with_capacity(variants.len());
    for mut variant in variants {
        if variant.clusters.is_only(&copies.cluster) {
            all.push(variant);
            continue;
        }
        if only.is_empty() {
            variant.mirrors.push(policy(copies));
            all.push(variant);
            continue;
        }
        let mut first = variant.clone();
        first.suffix = if first.suffix.is_empty() { "mirror".to_owned() } else { format!("{}~mirror", first.suffix) };
        first.mirrors.push(policy(copies));
        first.requests = match &first.requests[..] {
            [] => only.clone(),
            some => some.iter().flat_map(|one| only.iter().filter_map(|other| one.and(other))).collect(),
        };
        if !first.requests.is_empty() {
            all.push(first);
        }
        all.push(variant);
    }
    all
}

fn policy(copies: &Copies) -> RequestMirrorPolicy {
    let fraction = split::fraction(copies.share.ppm().into(), DenominatorType::Million);
    let runtime_fraction = RuntimeFractionalPercent { default_value: Some(fraction), ..Default::default() };
    RequestMirrorPolicy {
        cluster: copies.cluster.to_string(),
        runtime_fraction: (copies.share < Weight::FULL).then_some(runtime_fraction),
        trace_sampled: Some(pack::boolean(false)),
        ..RequestMirrorPolicy::default()
    }
}

/// Whether a retry may go to a fallback.
pub(super) fn falls_back(destinations: &Destinations<'_>, audience: &Audience) -> bool {
    let has_fallback = |(_, plan): &(_, &Plan)| plan.has_fallback;
    !audience.is_grpc() && destinations.divisions().iter().any(has_fallback)
}
