//! From the weighted destinations of a TCP or TLS route to clusters with weights.

use std::sync::Arc;

use world::api::istio::{Destination, L4Destination, TrafficPolicy};
use world::{Object, Problem};

use crate::division::{self, Rollout};
use crate::{Built, Missing, MissingDestination, Options, Resolve, Target, names};

/// The effective policy towards a destination that an object of a namespace names, for a listener port; the default
/// where there is no rule or no such destination.
pub(crate) type Policies<'a> = dyn Fn(&str, &Destination, u16) -> TrafficPolicy + 'a;

/// All that the shares of a route depend on.
pub(super) struct SharesInput<'a> {
    /// The VirtualService.
    pub(super) object: &'a Object,
    /// Path of the list, such as `spec.tcp[0].route`.
    pub(super) field: &'a str,
    /// The list.
    pub(super) destinations: &'a [L4Destination],
    /// Port of the listener.
    pub(super) port: u16,
    /// Follows destinations.
    pub(super) resolve: &'a Resolve<'a>,
    /// What to do with those that lead nowhere.
    pub(super) options: &'a Options,
}

/// Clusters and weights: at least one, no weight is 0, and the sum fits into 32 bits. What cannot be sent anywhere
/// goes to [`names::BLACK_HOLE`], which closes connections.
///
/// A single destination gets everything, whatever its weight is. Weights that are absent count as 0 beside others.
pub(super) fn shares(input: &SharesInput<'_>) -> Built<Vec<(Arc<str>, u32)>> {
    let mut built = Built::new(Vec::new());
    let everything_nowhere = vec![(Arc::from(names::BLACK_HOLE), 1)];
    if let Some(problem) = unusable(input) {
        built.problems.push(problem);
        built.value = everything_nowhere;
        return named(built);
    }
    let mut found = Vec::new();
    let mut lost = 0u64;
    for (at, destination) in input.destinations.iter().enumerate() {
        let weight = weight_of(destination, input.destinations);
        let target = (input.resolve)(&input.object.reference.namespace, &destination.destination, input.port);
        match target {
            // A destination without weight is looked up all the same: its author wants to know that it is missing
            // before it gets any.
            Target::Cluster { name, rollout, .. } if weight > 0 => {
                built.problems.extend(rollout.and_then(|rollout| spared(input, at, &rollout)));
                found.push((name, weight));
            }
            Target::Cluster { .. } => {}
            Target::Missing(missing) => {
                lost = u64::saturating_add(lost, weight);
                built.problems.push(missing_problem(input, at, &missing, weight));
            }
        }
    }
    if lost > 0 && (input.options.missing_destination == MissingDestination::Unavailable || found.is_empty()) {
        found.push((Arc::from(names::BLACK_HOLE), lost));
    }
    built.value = fit(found);
    if built.value.is_empty() {
        built.value = everything_nowhere;
    }
    named(built)
}

fn named(mut built: Built<Vec<(Arc<str>, u32)>>) -> Built<Vec<(Arc<str>, u32)>> {
    built.clusters = built.value.iter().map(|(name, _)| name.clone()).collect();
    built
}

fn weight_of(destination: &L4Destination, all: &[L4Destination]) -> u64 {
    match all {
        [_] => 1,
        _ => destination.weight.and_then(|weight| u64::try_from(weight).ok()).unwrap_or(0),
    }
}

/// Weights that mean nothing, or no destination at all.
fn unusable(input: &SharesInput<'_>) -> Option<Problem> {
    let error = |field: String, message: &str, hint: &str| {
        Problem::error(&input.object.reference, field, message)
            .consequence("connections of this route are closed")
            .hint(hint)
            .at(input.object.meta.location.clone())
    };
    if input.destinations.is_empty() {
        return Some(error(input.field.to_owned(), "the route has no destination", "Add a destination to the route."));
    }
    if let Some(at) = input.destinations.iter().position(|d| d.weight.is_some_and(|weight| weight < 0)) {
        return Some(error(
            format!("{}[{at}].weight", input.field),
            "a weight cannot be negative",
            "Use 0 for a destination that gets nothing.",
        ));
    }
    if input.destinations.iter().all(|d| weight_of(d, input.destinations) == 0) {
        return Some(error(
            input.field.to_owned(),
            "the weights of all destinations are 0 or absent",
            "Give at least one destination a positive weight; the sum need not be 100.",
        ));
    }
    None
}

/// What to say to a run that cannot divide a destination, because it is a subset already.
fn spared(input: &SharesInput<'_>, at: usize, rollout: &Rollout) -> Option<Problem> {
    let Rollout::Spares(run) = rollout else { return None };
    let subset = &input.destinations.get(at)?.destination.subset;
    let route = format!("{} {}[{at}]", input.object.reference, input.field);
    Some(division::spared(run, &route, subset))
}

fn missing_problem(input: &SharesInput<'_>, at: usize, missing: &Missing, weight: u64) -> Problem {
    let (part, message, hint) = match missing {
        Missing::Service { host } => (
            "host",
            format!("no service has the host \"{host}\""),
            "Apply a Service or a ServiceEntry for this host, or correct the name.".to_owned(),
        ),
        Missing::Port { host, port, known } => {
            let known: Vec<_> = known.iter().map(ToString::to_string).collect();
            let known = known.join(", ");
            let message = match port {
                Some(port) => format!("\"{host}\" has no port {port}"),
                None => format!("\"{host}\" has several ports, and the route does not say which"),
            };
            ("port", message, format!("Name one of its ports: {known}."))
        }
        Missing::Subset { host, subset, suggestion } => {
            ("subset", format!("no DestinationRule defines subset \"{subset}\" of \"{host}\""), suggestion.clone())
        }
    };
    let single = input.destinations.len() == 1;
    let consequence = match input.options.missing_destination {
        _ if weight == 0 => "nothing now, because it has no weight",
        _ if single => "connections of this route are closed",
        MissingDestination::Unavailable => "its share of the connections is closed",
        MissingDestination::Reweight => "its share goes to the route's other destinations, if there are any",
    };
    Problem::error(&input.object.reference, format!("{}[{at}].destination.{part}", input.field), message)
        .consequence(consequence)
        .hint(hint)
        .at(input.object.meta.location.clone())
}

/// Scales weights down to a sum of 32 bits; small ones stay at least 1.
fn fit(weights: Vec<(Arc<str>, u64)>) -> Vec<(Arc<str>, u32)> {
    let sum: u128 = weights.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let most = u128::from(u32::MAX) - weights.len() as u128;
    let scale = |weight: u64| {
        let scaled = if sum > most { u128::from(weight) * most / sum } else { weight.into() };
        u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
    };
    weights.into_iter().map(|(name, weight)| (name, scale(weight))).collect()
}
