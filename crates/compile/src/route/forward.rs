//! Where a rule's requests go: weighted destinations, and what happens to the share of those that do not exist.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::pb::envoy::config::route::v3::route_action::HashPolicy;
use proto::pb::envoy::r#type::v3::FractionalPercent;
use world::Problem;
use world::api::istio::HttpDestination;

use super::VirtualHostInput;
use super::hash;
use super::headers::{Fields, Operations};
use super::rule::{Place, Rule};
use super::split::{self, Split};
use crate::{Missing, MissingDestination, Target, flat, names};

/// Clusters that requests are sent to.
pub(super) struct Clusters<'a> {
    /// At least one.
    known: Vec<Known<'a>>,
    /// The weight of each.
    weights: Vec<u32>,
    pub(super) hash: Vec<HashPolicy>,
    /// The share of requests that must be refused before, and why.
    pub(super) refused: Option<(FractionalPercent, String)>,
}

/// A destination that exists and has a weight.
struct Known<'a> {
    cluster: Arc<str>,
    weight: u64,
    operations: Operations<'a>,
}

impl<'a> Clusters<'a> {
    /// The operations of a single destination, which become the route's; several keep theirs.
    pub(super) fn take_operations(&mut self) -> Operations<'a> {
        match &mut self.known[..] {
            [only] => std::mem::take(&mut only.operations),
            _ => Operations::default(),
        }
    }

    /// Writes `RouteAction.cluster_specifier`: cluster 1, or weighted_clusters 3, whose `clusters` are 1. Operations on
    /// headers are left out for gRPC clients.
    pub(super) fn write(&self, out: &mut Vec<u8>, grpc: bool) {
        if let [only] = &self.known[..] {
            flat::bytes(out, 1, only.cluster.as_bytes());
            return;
        }
        flat::message(out, 3, |out| {
            for (known, weight) in self.known.iter().zip(&self.weights) {
                flat::message(out, 1, |out| known.write(out, *weight, grpc));
            }
        });
    }
}

impl Known<'_> {
    /// `ClusterWeight`: name 1, weight 2, operations on headers, host_rewrite_literal 11.
    fn write(&self, out: &mut Vec<u8>, weight: u32, grpc: bool) {
        const FIELDS: Fields = Fields { request_add: 4, response_add: 5, response_remove: 6, request_remove: 9 };
        flat::text(out, 1, &self.cluster);
        flat::wrapped(out, 2, weight.into());
        if !grpc {
            self.operations.write(out, &FIELDS);
            if let Some(host) = self.operations.host {
                flat::bytes(out, 11, host.as_bytes());
            }
        }
    }
}

/// Follows the destinations of `rule`; names of clusters go to `clusters`.
///
/// # Errors
/// Why its requests can go nowhere.
///
/// For gRPC clients, which know no direct responses (grpc-js refuses a route configuration with any action but
/// `route`), the missing share goes to a cluster without endpoints, which fails it as UNAVAILABLE.
pub(super) fn forward<'a>(
    rule: &'a Rule<'_>,
    input: &VirtualHostInput<'_>,
    clusters: &mut BTreeSet<Arc<str>>,
    problems: &mut Vec<Problem>,
) -> Result<Clusters<'a>, String> {
    let place = &rule.place;
    let destinations = &rule.route.route;
    check_weights(destinations, place, problems)?;
    let alone = destinations.len() == 1;
    let total: u128 = destinations.iter().map(|d| u128::from(weight(d, alone))).sum();
    let mut known: Vec<Known<'_>> = Vec::with_capacity(destinations.len());
    let mut hashes: Vec<HashPolicy> = Vec::new();
    let mut missing = 0u64;
    let mut reasons: Vec<String> = Vec::new();
    let mut lost: Vec<(usize, u64, Missing)> = Vec::new();
    for (index, destination) in destinations.iter().enumerate() {
        let weight = weight(destination, alone);
        match (input.resolve)(place.namespace(), &destination.destination, input.port) {
            Target::Cluster { .. } if weight == 0 => {}
            Target::Cluster { name, hash } => {
                if let Some(policy) = hash.as_ref().and_then(|h| hash::policy(h, input.audience))
                    && !hashes.contains(&policy)
                {
                    hashes.push(policy);
                }
                let headers = destination.headers.as_deref();
                let field = format_args!(".route[{index}].headers");
                let operations = Operations::read(headers, place, field, problems);
                clusters.insert(name.clone());
                known.push(Known { cluster: name, weight, operations });
            }
            Target::Missing(why) => {
                missing = missing.saturating_add(weight);
                if weight > 0 {
                    reasons.push(describe(&why));
                }
                lost.push((index, weight, why));
            }
        }
    }
    for (index, weight, why) in &lost {
        let consequence = consequence(*weight, total, known.is_empty(), input.options.missing_destination);
        let field = format!(".route[{index}].destination");
        let problem = missing_destination(place, &field, why, *weight > 0).consequence(consequence);
        problems.push(problem);
    }
    let reason = || format!("{}: {}", place.object.reference, reasons.join("; "));
    if known.is_empty() {
        return Err(reason());
    }
    if input.options.missing_destination == MissingDestination::Reweight {
        missing = 0;
    }
    if missing > 0 && input.audience.is_grpc() {
        let nowhere: Arc<str> = names::BLACK_HOLE.into();
        clusters.insert(nowhere.clone());
        known.push(Known { cluster: nowhere, weight: missing, operations: Operations::default() });
        missing = 0;
    }
    let weights: Vec<u64> = known.iter().map(|k| k.weight).collect();
    let Split { weights, refused } = split::split(&weights, missing);
    let refused = refused.map(|share| (share, reason()));
    Ok(Clusters { known, weights, hash: hashes, refused })
}

/// A single destination has all requests, whatever its weight says; else a missing weight is none.
fn weight(destination: &HttpDestination, alone: bool) -> u64 {
    let written = destination.weight.and_then(|weight| u64::try_from(weight).ok()).unwrap_or(0);
    if alone { written.max(1) } else { written }
}

fn check_weights(destinations: &[HttpDestination], place: &Place, problems: &mut Vec<Problem>) -> Result<(), String> {
    const CONSEQUENCE: &str = "the rule's requests are answered 503";
    let field = |index| format!(".route[{index}].weight");
    for (index, destination) in destinations.iter().enumerate() {
        if let Some(weight) = destination.weight.filter(|weight| *weight < 0) {
            let message = format!("weight {weight} is negative");
            problems.push(place.error(&field(index), message.as_str()).consequence(CONSEQUENCE));
            return Err(format!("{}: {message}", place.object.reference));
        }
    }
    if destinations.len() > 1 && destinations.iter().all(|d| d.weight.unwrap_or(0) == 0) {
        let message = "the weights of all destinations are 0";
        let problem = place
            .error(".route", message)
            .consequence(CONSEQUENCE)
            .hint("Give the destinations weights, such as 80 and 20; they need not add up to 100.");
        problems.push(problem);
        return Err(format!("{}: {message}", place.object.reference));
    }
    Ok(())
}

fn consequence(weight: u64, total: u128, nothing_left: bool, policy: MissingDestination) -> String {
    let share = || format!("its share, {weight} of {total}");
    match (weight, nothing_left, policy) {
        (0, _, _) => "none now, because its weight is 0".to_owned(),
        (_, true, _) => "the rule's requests are answered 503".to_owned(),
        (_, false, MissingDestination::Unavailable) => format!("{}, is answered 503", share()),
        (_, false, MissingDestination::Reweight) => format!("{}, goes to the rule's other destinations", share()),
    }
}

/// Why a destination leads nowhere, in one line.
pub(super) fn describe(why: &Missing) -> String {
    match why {
        Missing::Service { host } => format!("no service \"{host}\""),
        Missing::Port { host, port: Some(port), .. } => format!("service \"{host}\" has no port {port}"),
        Missing::Port { host, port: None, .. } => {
            format!("service \"{host}\" has several ports, and none is named")
        }
        Missing::Subset { host, subset, .. } => format!("no DestinationRule defines subset \"{subset}\" of \"{host}\""),
    }
}

/// The same with its place and a way out; `field` is the destination's, below the entry.
pub(super) fn missing_destination(place: &Place, field: &str, why: &Missing, matters: bool) -> Problem {
    let (part, hint) = match why {
        Missing::Service { .. } => {
            let namespace = place.namespace();
            let short = format!("A name without dots means a service of namespace \"{namespace}\".");
            (".host", format!("Apply the Service or ServiceEntry, or mend the name. {short}"))
        }
        Missing::Port { known, .. } if known.is_empty() => (".port", "The service has no ports.".to_owned()),
        Missing::Port { known, .. } => {
            let ports: Vec<_> = known.iter().map(u16::to_string).collect();
            (".port.number", format!("The service's ports: {}.", ports.join(", ")))
        }
        Missing::Subset { suggestion, .. } => (".subset", suggestion.clone()),
    };
    let field = format!("{field}{part}");
    let message = describe(why);
    if matters { place.error(&field, message).hint(hint) } else { place.warning(&field, message).hint(hint) }
}
