//! What a rollout makes of the traffic to one port of a service, for one client.
//!
//! The assignment of a `RolloutRun` speaks of revisions; here they are clusters of the same layer, and what cannot be
//! done has been taken out already: nothing leads to a revision without endpoints.

use std::sync::Arc;

use world::api::delivery::{RequestMatch, Stickiness, Weight};
use world::api::istio::ConsistentHash;
use world::{ObjectRef, Problem};

/// Parts that make up everything.
pub(crate) const WHOLE: u32 = Weight::TOTAL;

/// How requests to a service as a whole are divided.
#[derive(Clone, Debug, PartialEq)]
pub struct Division {
    /// The run that says so.
    pub run: ObjectRef,
    /// What routes that it is attached to do.
    pub plan: Plan,
    /// The names of the routes that it is attached to; all when empty.
    pub routes: Vec<String>,
    /// What all other routes do: they lead to what is stable, until everything goes elsewhere.
    pub elsewhere: Plan,
    /// What the revisions' own subsets hash by.
    pub hashes: Vec<ConsistentHash>,
    /// What was wrong with it.
    pub problems: Vec<Problem>,
}

/// What a route that leads to the service does.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Clusters with their parts of [`Weight::TOTAL`], in the run's order; at least one, and none without a part.
    pub shares: Vec<(Arc<str>, u32)>,
    /// Requests that go to one cluster, first match first.
    pub directed: Vec<Directed>,
    /// Copies.
    pub copies: Option<Copies>,
    /// Whether clients stay where they are.
    pub stickiness: Stickiness,
    /// Whether a request that fails may be tried again at another priority, where a fallback is.
    pub has_fallback: bool,
    /// Clusters that may have a part at another time: those of all revisions that the assignment names.
    pub resting: Vec<Arc<str>>,
}

/// Requests that match any of `matches`.
#[derive(Clone, Debug, PartialEq)]
pub struct Directed {
    /// The step or variant that asked for it.
    pub name: String,
    /// Where the assignment says so, for problems.
    pub field: String,
    /// At least one; those that cannot concern the client are not among them.
    pub matches: Vec<RequestMatch>,
    /// Where they go.
    pub cluster: Arc<str>,
}

/// Copies of a share of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Copies {
    /// Where they go.
    pub cluster: Arc<str>,
    /// Of how many; not 0.
    pub share: Weight,
    /// Of which; of all when empty.
    pub matches: Vec<RequestMatch>,
}

/// What a rollout has to do with a destination.
#[derive(Clone, Debug, PartialEq)]
pub enum Rollout {
    /// It divides it.
    Divides(Arc<Division>),
    /// The destination is a subset, which this run leaves alone.
    Spares(ObjectRef),
}

impl Plan {
    /// All clusters that requests go to, or may go to.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.shares.iter().map(|(cluster, _)| cluster).chain(&self.resting)
    }

    /// Everything to one cluster.
    pub(crate) fn all_to(cluster: Arc<str>) -> Self {
        Self {
            shares: vec![(cluster, WHOLE)],
            directed: Vec::new(),
            copies: None,
            stickiness: Stickiness::default(),
            has_fallback: false,
            resting: Vec::new(),
        }
    }
}

impl Division {
    /// What a route of this name does.
    pub(crate) fn plan_for(&self, route: &str) -> &Plan {
        let attached = self.routes.is_empty() || self.routes.iter().any(|name| name == route);
        if attached { &self.plan } else { &self.elsewhere }
    }
}

/// What to say to a run of a destination that it cannot divide, because it is a subset already.
pub(crate) fn spared(run: &ObjectRef, route: &str, subset: &str) -> Problem {
    Problem::warning(run, "spec.service", format!("{route} names the subset \"{subset}\""))
        .consequence("what it takes goes there, whatever the weights of the run")
        .hint("Leave the subset out of the route, and the run divides it.")
}
