//! Assignments of clusters that a rollout divides: the endpoints of each revision are in localities of their own, by
//! which load reports tell them apart, too.

use world::api::delivery::Revision;
use world::{Endpoint, Labels, Locality};

use super::selection::{Receiver, Selection};
use super::{of_subset, write_locality};
use crate::{Proxy, flat};

/// Sub-zone of endpoints that stand in for those of another revision.
pub const FALLBACK: &str = "pm-fallback";

/// Envoy sends to the next priority once the share of healthy endpoints times this factor is below 1, by default 1.4,
/// that is below 72 %. With 100 (in percent, as Envoy has it) not before fewer than one endpoint in a hundred is left.
const OVERPROVISIONING_PERCENT: u32 = 100 * 100;

/// What one revision has of a service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    /// What its endpoints carry.
    pub(crate) labels: Labels,
    /// Its name.
    pub(crate) revision: Revision,
    /// A weight, or a number of endpoints.
    pub(crate) amount: u32,
}

/// The assignment of a revision: its own endpoints, and at the next priority those of another.
pub(crate) fn with_fallback(
    cluster: &str,
    endpoints: &[Endpoint],
    own: &Labels,
    fallback: &Labels,
    proxy: &Proxy,
) -> Vec<u8> {
    let receiver = Receiver::of(proxy);
    let own = Selection::new(of_subset(endpoints, own), receiver);
    let behind =
        relocated(of_subset(endpoints, fallback), |locality| Locality { sub_zone: FALLBACK.into(), ..locality });
    let behind = Selection::new(&behind, receiver);
    let mut out = Vec::new();
    flat::text(&mut out, 1, cluster);
    // Priorities must begin at 0: gRPC refuses others.
    let next = u32::from(!own.is_empty());
    for (priority, selection) in [(0, &own), (next, &behind)] {
        for group in selection.localities() {
            flat::message(&mut out, 2, |out| write_locality(out, group, selection, None, priority));
        }
    }
    // `ClusterLoadAssignment.policy` 4, whose overprovisioning_factor is 3.
    flat::message(&mut out, 4, |out| flat::wrapped(out, 3, OVERPROVISIONING_PERCENT.into()));
    out
}

/// The assignment of a service whose revisions have these parts: one locality for each, without those that have no part.
pub(crate) fn by_parts(cluster: &str, endpoints: &[Endpoint], parts: &[Part], proxy: &Proxy) -> Vec<u8> {
    let mut out = Vec::new();
    flat::text(&mut out, 1, cluster);
    for Part { labels, revision, amount } in parts.iter().filter(|part| part.amount > 0) {
        let place = |_| Locality { sub_zone: revision.as_str().into(), ..Locality::default() };
        let members = relocated(of_subset(endpoints, labels), place);
        let selection = Selection::new(&members, Receiver::of(proxy));
        for group in selection.localities() {
            flat::message(&mut out, 2, |out| write_locality(out, group, &selection, Some(*amount), 0));
        }
    }
    out
}

/// The assignment of a service that so many endpoints of each revision belong to: the first of them in order of address
/// and port, so that one that belongs to it stays as the number rises.
pub(crate) fn by_count(cluster: &str, endpoints: &[Endpoint], members: &[Part], proxy: &Proxy) -> Vec<u8> {
    let receiver = Receiver::of(proxy);
    let mut chosen = Vec::new();
    for Part { labels, revision, amount } in members {
        let place = |locality| Locality { sub_zone: revision.as_str().into(), ..locality };
        let mut of_revision: Vec<_> =
            of_subset(endpoints, labels).filter(|endpoint| receiver.takes(endpoint)).collect();
        of_revision.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
        let count = usize::try_from(*amount).unwrap_or(usize::MAX);
        chosen.extend(relocated(of_revision.into_iter().take(count), place));
    }
    super::assignment(cluster, &chosen, proxy)
}

fn relocated<'a>(endpoints: impl Iterator<Item = &'a Endpoint>, place: impl Fn(Locality) -> Locality) -> Vec<Endpoint> {
    endpoints.map(|endpoint| Endpoint { locality: place(endpoint.locality.clone()), ..endpoint.clone() }).collect()
}
