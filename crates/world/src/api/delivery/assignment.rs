//! Who gets which share of a service's traffic: the one thing that a rollout decides about the data plane.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RequestMatch, Stickiness, Weight};

/// A revision of a service: a value of the label that tells revisions apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(Arc<str>);

impl Revision {
    /// The revision of this name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A split that is in force, or is to be: data of the world that routes are decorated with. The first entry of the
/// split is the candidate, so that a hash bucket below its weight stays with it as the weight rises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Rises with every change; an assignment is durable before it is on any wire.
    pub version: u64,
    /// Requests that nothing below takes.
    pub split: Split,
    /// Requests that go to one revision, in order, above the split.
    pub routes: Vec<RequestRoute>,
    /// Copies.
    pub mirror: Option<Mirror>,
    /// Whether a client stays with its revision.
    pub stickiness: Stickiness,
    /// Whether the proxies themselves send requests for a revision without healthy endpoints to `fallback`.
    pub fallback: Option<Revision>,
}

/// How traffic is divided. Every revision listed has its cluster, and keeps it while it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Split {
    /// By weight; the weights add up to everything.
    Weights(Vec<(Revision, Weight)>),
    /// By how many endpoints of each revision are members of one cluster; at least one is.
    Endpoints(Vec<(Revision, u32)>),
}

/// Requests that match any of `matches` go to `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRoute {
    /// The name of the step or variant that it comes from.
    pub name: String,
    /// Which requests.
    pub matches: Vec<RequestMatch>,
    /// Where to.
    pub to: Revision,
}

/// A copy of a share of the requests goes to `to`, whose answers are thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Where to.
    pub to: Revision,
    /// Of how many.
    pub share: Weight,
    /// Of which; of all when empty.
    pub matches: Vec<RequestMatch>,
}

impl Assignment {
    /// The share of undirected requests that `revision` takes, in parts per million; by endpoints it is rounded.
    pub fn weight_of(&self, revision: &Revision) -> Weight {
        match &self.split {
            Split::Weights(shares) => shares.iter().find(|(r, _)| r == revision).map_or(Weight::ZERO, |(_, w)| *w),
            Split::Endpoints(members) => {
                let all: u64 = members.iter().map(|(_, count)| u64::from(*count)).sum();
                let own = members.iter().find(|(r, _)| r == revision).map_or(0, |(_, count)| u64::from(*count));
                Weight::from_ppm((own * u64::from(Weight::TOTAL) / all.max(1)) as u32)
            }
        }
    }

    /// Whether any request, or copy of one, is sent to `revision`.
    pub fn reaches(&self, revision: &Revision) -> bool {
        let split = match &self.split {
            Split::Weights(shares) => shares.iter().any(|(r, weight)| r == revision && !weight.is_zero()),
            Split::Endpoints(members) => members.iter().any(|(r, count)| r == revision && *count > 0),
        };
        let mirrored = self.mirror.as_ref().is_some_and(|mirror| mirror.to == *revision && !mirror.share.is_zero());
        split || mirrored || self.routes.iter().any(|route| route.to == *revision)
    }

    /// The revisions that have clusters, whether or not anything is sent to them.
    pub fn revisions(&self) -> BTreeSet<&Revision> {
        match &self.split {
            Split::Weights(shares) => shares.iter().map(|(revision, _)| revision).collect(),
            Split::Endpoints(members) => members.iter().map(|(revision, _)| revision).collect(),
        }
    }

    /// Whether somebody takes what is not directed elsewhere, and weights add up to everything.
    pub fn is_whole(&self) -> bool {
        match &self.split {
            Split::Weights(shares) => {
                shares.iter().map(|(_, weight)| u64::from(weight.ppm())).sum::<u64>() == u64::from(Weight::TOTAL)
            }
            Split::Endpoints(members) => members.iter().any(|(_, count)| *count > 0),
        }
    }

    /// The revision that Envoy picks for a hash: its remainder by the sum of the weights, walking the entries in order.
    /// `None` where endpoints are exchanged instead.
    pub fn pick(&self, hash: u64) -> Option<&Revision> {
        let Split::Weights(shares) = &self.split else { return None };
        let mut rest = (hash % u64::from(Weight::TOTAL)) as u32;
        for (revision, weight) in shares {
            if rest < weight.ppm() {
                return Some(revision);
            }
            rest -= weight.ppm();
        }
        None
    }

    /// Whether both say the same, whatever their versions.
    pub fn says_the_same(&self, other: &Assignment) -> bool {
        Self { version: other.version, ..self.clone() } == *other
    }
}
