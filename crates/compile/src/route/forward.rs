//! Where a rule's requests go: weighted destinations, and what happens to the share of those that do not exist.

use std::sync::Arc;

use proto::pb::envoy::config::route::v3::route_action::HashPolicy;
use proto::pb::envoy::r#type::v3::FractionalPercent;
use world::api::istio::{ConsistentHash, HttpDestination};
use world::{ObjectRef, Problem};

use super::VirtualHostInput;
use super::hash;
use super::headers::{Fields, Operations};
use super::rule::{Place, Rule};
use super::split::{self, Split};
use crate::division::{self, Division, Plan, Rollout, WHOLE};
use crate::{Audience, Missing, MissingDestination, Target, flat, names};

/// Where a rule's requests go, before it is decided which of them go where.
pub(super) struct Destinations<'a> {
    /// At least one.
    known: Vec<Known<'a>>,
    /// The weight of those that do not exist, and why they do not.
    missing: u64,
    reason: String,
    /// What the rules of the destinations hash by.
    pub(super) hash: Vec<HashPolicy>,
    /// Clusters of those that have no weight.
    resting: Vec<Arc<str>>,
}

/// A destination that exists and has a weight.
struct Known<'a> {
    to: To,
    weight: u64,
    operations: Operations<'a>,
}

/// What a destination is.
enum To {
    Cluster(Arc<str>),
    /// The service as a whole, whose rollout this is for the route of this name.
    Divided(Arc<Division>, Arc<str>),
}

/// Clusters that requests are sent to.
#[derive(Clone)]
pub(super) struct Clusters<'a> {
    /// At least one.
    entries: Vec<Entry<'a>>,
    /// The weight of each.
    weights: Vec<u32>,
    /// Whether what is hashed decides between them.
    pub(super) by_hash: bool,
}

/// One of several clusters.
#[derive(Clone)]
struct Entry<'a> {
    cluster: Arc<str>,
    operations: Operations<'a>,
}

/// Weights of a rule with a division are brought below this in all, so that their products with the parts of a division
/// fit into 32 bits as they are: the sum must not change when the parts do.
const MOST_WEIGHT: u64 = (u32::MAX / WHOLE) as u64 - 200;

impl<'a> Destinations<'a> {
    /// One destination, without anything else; `route` is the name of the route.
    pub(super) fn one(
        name: Arc<str>,
        rollout: Option<&Rollout>,
        hash: Option<&ConsistentHash>,
        route: &str,
        audience: &Audience,
    ) -> Self {
        let mut hashes = Vec::new();
        add_hashes(&mut hashes, hash, rollout, audience);
        let known = vec![Known { to: To::new(name, rollout, route), weight: 1, operations: Operations::default() }];
        Self { known, missing: 0, reason: String::new(), hash: hashes, resting: Vec::new() }
    }

    /// The rollouts that divide any of them, each once, with what they want of this route.
    pub(super) fn divisions(&self) -> Vec<(&Arc<Division>, &Plan)> {
        let mut found: Vec<(&Arc<Division>, &Plan)> = Vec::new();
        for known in &self.known {
            if let To::Divided(division, route) = &known.to
                && !found.iter().any(|(other, _)| other.run == division.run)
            {
                found.push((division, division.plan_for(route)));
            }
        }
        found
    }

    /// Clusters that no request goes to now, because their destinations or revisions have no weight; some may have
    /// requests by other ways.
    pub(super) fn resting(&self) -> impl Iterator<Item = &Arc<str>> {
        let of_plans = self.divisions().into_iter().flat_map(|(_, plan)| &plan.resting);
        self.resting.iter().chain(of_plans)
    }

    /// The share of requests that must be refused before, and why.
    pub(super) fn refused(&self) -> Option<(FractionalPercent, String)> {
        if self.missing == 0 {
            return None;
        }
        let share = split::split(&self.weights(None).1, self.scaled_missing()).refused?;
        Some((share, self.reason.clone()))
    }

    /// The clusters, each destination in its own share; with `directed`, all that the run divides goes to this cluster.
    pub(super) fn clusters(&self, directed: Option<(&ObjectRef, &Arc<str>)>) -> Clusters<'a> {
        let (entries, weights) = self.weights(directed);
        let Split { weights, .. } = split::split(&weights, self.scaled_missing());
        Clusters { entries, weights, by_hash: false }
    }

    fn is_divided(&self) -> bool {
        self.known.iter().any(|known| matches!(known.to, To::Divided(..)))
    }

    fn weights(&self, directed: Option<(&ObjectRef, &Arc<str>)>) -> (Vec<Entry<'a>>, Vec<u64>) {
        let whole = if self.is_divided() { u64::from(WHOLE) } else { 1 };
        let mut entries = Vec::with_capacity(self.known.len());
        let mut weights = Vec::with_capacity(self.known.len());
        let mut add = |cluster: &Arc<str>, known: &Known<'a>, weight: u64| {
            entries.push(Entry { cluster: cluster.clone(), operations: known.operations.clone() });
            weights.push(weight);
        };
        for (known, weight) in self.known.iter().zip(self.reduced()) {
            match &known.to {
                To::Cluster(cluster) => add(cluster, known, weight.saturating_mul(whole)),
                To::Divided(division, route) => match directed {
                    Some((run, cluster)) if *run == division.run => add(cluster, known, weight * whole),
                    Some(_) | None => {
                        let plan = division.plan_for(route);
                        plan.shares.iter().for_each(|(cluster, part)| add(cluster, known, weight * u64::from(*part)));
                    }
                },
            }
        }
        (entries, weights)
    }

    /// The weights, reduced where they are to be multiplied.
    fn reduced(&self) -> Vec<u64> {
        let weights = self.known.iter().map(|known| known.weight);
        if !self.is_divided() {
            return weights.collect();
        }
        let scale = self.scale();
        weights.map(|weight| scale.of(weight)).collect()
    }

    fn scaled_missing(&self) -> u64 {
        match self.is_divided() && self.missing > 0 {
            true => self.scale().of(self.missing) * u64::from(WHOLE),
            false => self.missing,
        }
    }

    fn scale(&self) -> Scale {
        Scale::new(self.known.iter().map(|known| known.weight).chain([self.missing]))
    }
}

/// Brings weights down, in proportion.
struct Scale {
    /// What divides them all.
    divisor: u64,
    /// Their sum, divided by that.
    total: u128,
}

impl Scale {
    fn new(weights: impl Iterator<Item = u64> + Clone) -> Self {
        let divisor = weights.clone().fold(0, split::gcd).max(1);
        Self { divisor, total: weights.map(|weight| u128::from(weight / divisor)).sum() }
    }

    fn of(&self, weight: u64) -> u64 {
        let weight = weight / self.divisor;
        match self.total <= u128::from(MOST_WEIGHT) {
            true => weight,
            false => u64::try_from(u128::from(weight) * u128::from(MOST_WEIGHT) / self.total).unwrap_or(1).max(1),
        }
    }
}

impl To {
    fn new(name: Arc<str>, rollout: Option<&Rollout>, route: &str) -> Self {
        match rollout {
            Some(Rollout::Divides(division)) => Self::Divided(division.clone(), route.into()),
            Some(Rollout::Spares(_)) | None => Self::Cluster(name),
        }
    }
}

impl<'a> Clusters<'a> {
    /// Their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.iter().map(|entry| &entry.cluster)
    }

    /// Whether all requests go to this cluster.
    pub(super) fn is_only(&self, cluster: &str) -> bool {
        self.entries.iter().all(|entry| *entry.cluster == *cluster)
    }

    /// The operations of a single destination, which become the route's; several keep theirs.
    pub(super) fn take_operations(&mut self) -> Operations<'a> {
        match &mut self.entries[..] {
            [only] => std::mem::take(&mut only.operations),
            _ => Operations::default(),
        }
    }

    /// Writes `RouteAction.cluster_specifier`: cluster 1, or weighted_clusters 3, whose `clusters` are 1 and
    /// use_hash_policy 5. Operations on headers are left out for gRPC clients.
    pub(super) fn write(&self, out: &mut Vec<u8>, grpc: bool) {
        if let [only] = &self.entries[..] {
            flat::bytes(out, 1, only.cluster.as_bytes());
            return;
        }
        flat::message(out, 3, |out| {
            for (entry, weight) in self.entries.iter().zip(&self.weights) {
                flat::message(out, 1, |out| entry.write(out, *weight, grpc));
            }
            if self.by_hash {
                flat::wrapped(out, 5, 1);
            }
        });
    }
}

impl Entry<'_> {
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

/// Follows the destinations of `rule`, whose route is called `route`.
///
/// # Errors
/// Why its requests can go nowhere.
///
/// For gRPC clients, which know no direct responses (grpc-js refuses a route configuration with any action but
/// `route`), the missing share goes to a cluster without endpoints, which fails it as UNAVAILABLE.
pub(super) fn forward<'a>(
    rule: &'a Rule<'_>,
    input: &VirtualHostInput<'_>,
    problems: &mut Vec<Problem>,
) -> Result<Destinations<'a>, String> {
    let place = &rule.place;
    let destinations = &rule.route.route;
    check_weights(destinations, place, problems)?;
    let alone = destinations.len() == 1;
    let total: u128 = destinations.iter().map(|d| u128::from(weight(d, alone))).sum();
    let mut known: Vec<Known<'_>> = Vec::with_capacity(destinations.len());
    let mut hashes: Vec<HashPolicy> = Vec::new();
    let mut resting: Vec<Arc<str>> = Vec::new();
    let mut missing = 0u64;
    let mut reasons: Vec<String> = Vec::new();
    let mut lost: Vec<(usize, u64, Missing)> = Vec::new();
    for (index, destination) in destinations.iter().enumerate() {
        let weight = weight(destination, alone);
        match (input.resolve)(place.namespace(), &destination.destination, input.port) {
            Target::Cluster { name, rollout, .. } if weight == 0 => {
                match To::new(name, rollout.as_ref(), &rule.route.name) {
                    To::Cluster(name) => resting.push(name),
                    To::Divided(division, route) => resting.extend(division.plan_for(&route).clusters().cloned()),
                }
            }
            Target::Cluster { name, hash, rollout, protocol: _ } => {
                add_hashes(&mut hashes, hash.as_ref(), rollout.as_ref(), input.audience);
                let headers = destination.headers.as_deref();
                let field = format_args!(".route[{index}].headers");
                let operations = Operations::read(headers, place, field, problems);
                if let Some(Rollout::Spares(run)) = &rollout {
                    let route = format!("{} spec.http[{}].route[{index}]", place.object.reference, place.index);
                    problems.push(division::spared(run, &route, &destination.destination.subset));
                }
                known.push(Known { to: To::new(name, rollout.as_ref(), &rule.route.name), weight, operations });
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
    let reason = format!("{}: {}", place.object.reference, reasons.join("; "));
    if known.is_empty() {
        return Err(reason);
    }
    if input.options.missing_destination == MissingDestination::Reweight {
        missing = 0;
    }
    if missing > 0 && input.audience.is_grpc() {
        let to = To::Cluster(names::BLACK_HOLE.into());
        known.push(Known { to, weight: missing, operations: Operations::default() });
        missing = 0;
    }
    Ok(Destinations { known, missing, reason, hash: hashes, resting })
}

/// What the rules of a destination and of its revisions hash by, each policy once.
fn add_hashes(all: &mut Vec<HashPolicy>, own: Option<&ConsistentHash>, rollout: Option<&Rollout>, audience: &Audience) {
    let of_revisions = match rollout {
        Some(Rollout::Divides(division)) => &division.hashes[..],
        Some(Rollout::Spares(_)) | None => &[],
    };
    for policy in own.into_iter().chain(of_revisions).filter_map(|text| hash::policy(text, audience)) {
        if !all.contains(&policy) {
            all.push(policy);
        }
    }
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
pub(crate) fn describe(why: &Missing) -> String {
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
