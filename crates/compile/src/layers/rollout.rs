//! The rollout of a service, as it concerns one port and one client: which clusters its revisions have, and how traffic
//! is divided between them.
//!
//! HTTP is divided by routes, and bytes by the endpoints of the service's own cluster, so that no listener changes:
//!
//! ```text
//!   Split::Weights,   HTTP       routes with weights, one cluster for each revision
//!   Split::Weights,   TCP, TLS   one locality for each revision, with weights
//!   Split::Endpoints             so many endpoints of each revision are members
//! ```
//!
//! A port that declares nothing may carry either, so it has both.

use std::collections::BTreeSet;
use std::sync::Arc;

use world::api::delivery::{Assignment, IntentProtocol, RequestMatch, Revision, RolloutRun, Split, Weight};
use world::{
    EffectiveRule, Endpoint, Labels, Object, ObjectRef, Problem, Protocol, Resolution, Service, ServicePort, Spec,
    Subset,
};

use super::resolver::Resolver;
use crate::cluster::Discovery;
use crate::division::{Copies, Directed, Division, Plan, WHOLE};
use crate::endpoints::{Part, Receiver};
use crate::{Audience, attachment, names, policy};

/// A run that has an assignment for the port.
pub(super) struct InForce<'w> {
    object: &'w Arc<Object>,
    run: &'w RolloutRun,
    assignment: &'w Assignment,
    /// Everything that the assignment names, in order of name.
    revisions: Vec<RevisionCluster<'w>>,
}

/// The cluster of a revision.
pub(super) struct RevisionCluster<'w> {
    pub(super) revision: &'w Revision,
    /// What selects its endpoints, and the policy of the user's own subset where it is the same.
    pub(super) subset: Subset,
    /// Whether a rule has this very subset, whose cluster it then is.
    pub(super) is_defined: bool,
}

/// How the endpoints of the cluster of the service as a whole are used.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Whole {
    /// As if there were no rollout.
    Plain,
    /// A locality for each revision, with these parts of everything.
    Localities(Vec<Part>),
    /// So many endpoints of each revision.
    Members(Vec<Part>),
}

/// Who follows a destination, where that matters to a rollout.
#[derive(Clone, Copy, Debug)]
pub(super) enum Via<'a> {
    /// Sidecars and gRPC clients.
    Mesh,
    /// Some of these Gateways, as `namespace/name`.
    Gateways(&'a [String]),
    /// Connections, which rollouts divide behind the cluster.
    Connections,
}

impl<'w> Resolver<'_, 'w> {
    /// The run that divides the traffic to a port of a service.
    pub(super) fn in_force(&self, service: &Service, rule: &EffectiveRule, port: u16) -> Option<InForce<'w>> {
        let object = self.reader.split(&service.host, port)?;
        let Spec::RolloutRun(run) = &object.spec else { return None };
        let assignment = run.assignment.as_ref()?;
        let defined = self.subsets(service, rule);
        let revisions = named(assignment);
        let revisions = revisions.into_iter().map(|revision| cluster_of(revision, object, run, &defined));
        Some(InForce { object, run, assignment, revisions: revisions.collect() })
    }

    /// How routes divide requests to a port; `None` where no rollout does.
    pub(super) fn division(
        &self,
        service: &Service,
        rule: &EffectiveRule,
        port: &ServicePort,
        via: Via<'_>,
    ) -> Option<Arc<Division>> {
        if matches!(via, Via::Connections) {
            return None;
        }
        let in_force = self.in_force(service, rule, port.number)?;
        let endpoints = self.reader.endpoints(service, port.number);
        let mut division = in_force.division(self.audience, service, port, &endpoints, via);
        for cluster in in_force.revisions.iter().filter(|cluster| cluster.is_defined) {
            let policy = policy::effective(rule, Some(&cluster.subset), port.number);
            division.hashes.extend(policy.load_balancer.and_then(|lb| lb.consistent_hash));
        }
        Some(Arc::new(division))
    }
}

impl InForce<'_> {
    /// The run.
    pub(super) fn run(&self) -> &ObjectRef {
        &self.object.reference
    }

    /// The clusters of all revisions.
    pub(super) fn revisions(&self) -> &[RevisionCluster<'_>] {
        &self.revisions
    }

    /// The revision whose endpoints stand in for those of `revision` when it has none that is healthy.
    pub(super) fn fallback_of(&self, revision: &RevisionCluster<'_>) -> Option<&Subset> {
        let fallback = self.assignment.fallback.as_ref().filter(|fallback| *fallback != revision.revision)?;
        self.cluster(fallback).map(|cluster| &cluster.subset)
    }

    /// Subsets of other endpoints than the names of revisions promise.
    pub(super) fn clashes(&self) -> impl Iterator<Item = Problem> + '_ {
        let clashing = self.revisions.iter().filter(|r| !r.is_defined && *r.subset.name != *r.revision.as_str());
        clashing.map(|RevisionCluster { revision, subset, .. }| {
            let label = &self.run.label;
            Problem::warning(
                &self.object.reference,
                "spec.label",
                format!(
                    "a DestinationRule has a subset \"{revision}\" that is not the endpoints with {label}={revision}"
                ),
            )
            .consequence(format!(
                "the subset stays as it is, and the revision's clusters are called \"{}\"",
                subset.name
            ))
            .hint("Give the subset another name, or these labels and no others.")
        })
    }

    /// What to say where a cluster's endpoints are not given by the server: those of the service as a whole then cannot be
    /// divided, and a client that takes the endpoint that its connection was meant for takes it from any cluster.
    pub(super) fn is_in_vain(&self, service: &Service, discovery: Discovery, is_whole: bool) -> Option<Problem> {
        let (message, hint) = match discovery {
            Discovery::OriginalDestination => (
                format!("clients choose the endpoints of {} themselves", service.origin),
                "Give the service an address of its own, or resolve its endpoints.",
            ),
            Discovery::StrictDns | Discovery::LogicalDns | Discovery::Nothing if is_whole => {
                (format!("clients resolve the endpoints of {} themselves", service.origin), "Set `resolution: STATIC`.")
            }
            Discovery::Eds | Discovery::StrictDns | Discovery::LogicalDns | Discovery::Nothing => return None,
        };
        let problem = Problem::error(&self.object.reference, "spec.service", message);
        Some(problem.consequence("connections to it are not divided, whatever the weights").hint(hint))
    }

    /// How the cluster of the service as a whole is made up for a client, and what was wrong.
    pub(super) fn whole(
        &self,
        audience: &Audience,
        service: &Service,
        port: &ServicePort,
        endpoints: &[Endpoint],
        via: Via<'_>,
    ) -> (Whole, Vec<Problem>) {
        if !self.by_endpoints(port) {
            return (Whole::Plain, Vec::new());
        }
        let state = self.state(audience, service, endpoints);
        let attached = self.attaches(audience, via);
        let part = |revision: &Revision, amount| {
            let labels = self.cluster(revision)?.subset.labels.clone();
            Some(Part { labels, revision: revision.clone(), amount })
        };
        let parts =
            |of: &[(Revision, u32)]| of.iter().filter_map(|(revision, amount)| part(revision, *amount)).collect();
        let elsewhere = |amount| self.elsewhere(&state).and_then(|all| part(all, amount)).into_iter().collect();
        match &self.assignment.split {
            Split::Weights(_) if !attached => (Whole::Localities(elsewhere(WHOLE)), Vec::new()),
            Split::Endpoints(_) if !attached => (Whole::Members(elsewhere(u32::MAX)), Vec::new()),
            Split::Weights(_) => {
                let (shares, problems) = self.shares(&state);
                (Whole::Localities(parts(&shares)), problems)
            }
            Split::Endpoints(members) => match self.refuge(&state) {
                Some(refuge) if !members.iter().any(|(revision, count)| *count > 0 && state.has(revision)) => {
                    let empty = members.iter().filter(|(_, count)| *count > 0);
                    let problem = |(revision, _): &(Revision, u32)| {
                        let consequence = format!("all traffic goes to \"{refuge}\"");
                        self.is_empty("spec.assignment.split".to_owned(), revision, consequence)
                    };
                    (Whole::Members(parts(&[(refuge.clone(), u32::MAX)])), empty.map(problem).collect())
                }
                Some(_) | None => (Whole::Members(parts(members)), Vec::new()),
            },
        }
    }

    /// Whether the endpoints of the service's own cluster divide its connections.
    pub(super) fn by_endpoints(&self, port: &ServicePort) -> bool {
        match (&self.assignment.split, port.protocol, self.run.protocol) {
            (Split::Endpoints(_), _, _) | (_, _, IntentProtocol::Tcp) => true,
            (_, Protocol::Auto, protocol) => protocol == IntentProtocol::Auto,
            (_, protocol, _) => !protocol.is_http(),
        }
    }

    /// Whether weights are those of the service's localities.
    pub(super) fn by_localities(&self, port: &ServicePort) -> bool {
        matches!(self.assignment.split, Split::Weights(_)) && self.by_endpoints(port)
    }

    fn division(
        &self,
        audience: &Audience,
        service: &Service,
        port: &ServicePort,
        endpoints: &[Endpoint],
        via: Via<'_>,
    ) -> Division {
        let state = self.state(audience, service, endpoints);
        let cluster = &|revision: &Revision| -> Arc<str> {
            let name = self.cluster(revision).map_or("", |cluster| &cluster.subset.name);
            names::outbound_cluster(port.number, name, &service.host)
        };
        let whole = || names::outbound_cluster(port.number, "", &service.host);
        let by_routes = self.run.divides_requests(port.protocol);
        let elsewhere = Plan::all_to(self.elsewhere(&state).filter(|_| by_routes).map_or_else(whole, cluster));
        let mut problems = Vec::new();
        let plan = if self.attaches(audience, via) {
            let shares = match by_routes {
                // An assignment that names nobody divides nothing.
                true if !listed(&self.assignment.split).is_empty() => {
                    let (shares, wrong) = self.shares(&state);
                    problems.extend(wrong);
                    shares.iter().map(|(revision, parts)| (cluster(revision), *parts)).collect()
                }
                true | false => vec![(whole(), WHOLE)],
            };
            let shares = if shares.is_empty() { elsewhere.shares.clone() } else { shares };
            let directed = self.directed(audience, &state, cluster, &mut problems);
            let copies = self.copies(audience, &state, cluster, &mut problems);
            let stickiness = self.assignment.stickiness.clone();
            let has_fallback = self.assignment.fallback.is_some();
            let resting = match by_routes {
                true => self.revisions.iter().map(|revision| cluster(revision.revision)).collect(),
                false => Vec::new(),
            };
            Plan { shares, directed, copies, stickiness, has_fallback, resting }
        } else {
            problems.extend(self.is_left_out(&state, via));
            elsewhere.clone()
        };
        let routes = self.run.attach.routes.clone();
        Division { run: self.object.reference.clone(), plan, routes, elsewhere, hashes: Vec::new(), problems }
    }

    fn directed(
        &self,
        audience: &Audience,
        state: &State<'_>,
        cluster: &dyn Fn(&Revision) -> Arc<str>,
        problems: &mut Vec<Problem>,
    ) -> Vec<Directed> {
        let mut directed = Vec::new();
        for (at, route) in self.assignment.routes.iter().enumerate() {
            let matches = for_client(&route.matches, audience);
            if matches.is_empty() {
                continue;
            }
            let field = format!("spec.assignment.routes[{at}]");
            if !state.has(&route.to) && state.has_any() {
                problems.push(self.is_empty(field, &route.to, "these requests are treated like all others".to_owned()));
                continue;
            }
            directed.push(Directed { name: route.name.clone(), field, matches, cluster: cluster(&route.to) });
        }
        directed
    }

    fn copies(
        &self,
        audience: &Audience,
        state: &State<'_>,
        cluster: &dyn Fn(&Revision) -> Arc<str>,
        problems: &mut Vec<Problem>,
    ) -> Option<Copies> {
        let mirror = self.assignment.mirror.as_ref().filter(|mirror| !mirror.share.is_zero())?;
        let matches = for_client(&mirror.matches, audience);
        if matches.is_empty() && !mirror.matches.is_empty() {
            return None;
        }
        if !state.has(&mirror.to) {
            let consequence = "nothing is mirrored".to_owned();
            problems.push(self.is_empty("spec.assignment.mirror".to_owned(), &mirror.to, consequence));
            return None;
        }
        Some(Copies { cluster: cluster(&mirror.to), share: mirror.share, matches })
    }

    /// The parts of the revisions that have endpoints, in the run's order. What an empty one should have goes to the
    /// fallback, or to what is stable, or to whoever is there; if nobody is, everything stays as it is said.
    fn shares(&self, state: &State<'_>) -> (Vec<(Revision, u32)>, Vec<Problem>) {
        let Split::Weights(weights) = &self.assignment.split else { return (Vec::new(), Vec::new()) };
        let mut shares: Vec<(Revision, u32)> = weights.iter().map(|(revision, _)| (revision.clone(), 0)).collect();
        let mut problems = Vec::new();
        let refuge = self.refuge(state);
        for (revision, weight) in weights.iter().filter(|(_, weight)| !weight.is_zero()) {
            let to = match refuge {
                Some(refuge) if !state.has(revision) => {
                    let consequence = format!("its {weight} of the traffic goes to \"{refuge}\"");
                    problems.push(self.is_empty("spec.assignment.split".to_owned(), revision, consequence));
                    refuge
                }
                Some(_) | None => revision,
            };
            match shares.iter_mut().find(|(revision, _)| revision == to) {
                Some((_, parts)) => *parts = parts.saturating_add(weight.ppm()),
                None => shares.push((to.clone(), weight.ppm())),
            }
        }
        shares.retain(|(_, parts)| *parts > 0);
        (shares, problems)
    }

    /// Who takes what an empty revision should have.
    fn refuge<'s>(&'s self, state: &State<'_>) -> Option<&'s Revision> {
        let listed = listed(&self.assignment.split).into_iter().rev();
        self.assignment.fallback.iter().chain(self.stable()).chain(listed).find(|revision| state.has(revision))
    }

    fn stable(&self) -> Option<&Revision> {
        self.revisions.iter().map(|cluster| cluster.revision).find(|revision| *revision.as_str() == *self.run.stable)
    }

    /// Where clients and routes lead that the run is not attached to: to the one revision that has everything, if one
    /// has, else to what is stable. `None` when the assignment names nobody.
    fn elsewhere<'s>(&'s self, state: &State<'_>) -> Option<&'s Revision> {
        let all = match &self.assignment.split {
            Split::Weights(weights) => weights.iter().find(|(_, weight)| *weight == Weight::FULL).map(|(r, _)| r),
            Split::Endpoints(members) => {
                let mut some = members.iter().filter(|(_, count)| *count > 0).map(|(revision, _)| revision);
                some.next().filter(|_| some.next().is_none())
            }
        };
        let said = all.or(self.assignment.fallback.as_ref()).or_else(|| self.stable());
        all.filter(|revision| state.has(revision)).or_else(|| self.refuge(state)).or(said)
    }

    /// What to say of Gateways that lead to the service and are not named: they would show none of the candidate, and then
    /// all of it.
    fn is_left_out(&self, state: &State<'_>, via: Via<'_>) -> Option<Problem> {
        let Via::Gateways([gateway, ..]) = via else { return None };
        let Split::Weights(weights) = &self.assignment.split else { return None };
        let stable = self.elsewhere(state)?;
        if weights.iter().any(|(_, weight)| *weight == Weight::FULL) {
            return None;
        }
        let message = format!("Gateway {gateway} leads to the service and is not among them");
        Some(
            Problem::warning(&self.object.reference, "spec.attach.gateways", message)
                .consequence(format!("its requests go to \"{stable}\" until everything goes elsewhere"))
                .hint("Name it in the intent, and the run divides its requests as well."),
        )
    }

    fn is_empty(&self, field: String, revision: &Revision, consequence: String) -> Problem {
        Problem::error(&self.object.reference, field, format!("revision \"{revision}\" has no ready endpoints"))
            .consequence(consequence)
            .hint(format!("Its endpoints carry the label {}={revision}.", self.run.label))
    }

    fn cluster(&self, revision: &Revision) -> Option<&RevisionCluster<'_>> {
        self.revisions.iter().find(|cluster| cluster.revision == revision)
    }

    fn attaches(&self, audience: &Audience, via: Via<'_>) -> bool {
        let attach = &self.run.attach;
        match via {
            Via::Mesh | Via::Connections => attachment::means_client(attach, audience),
            Via::Gateways(gateways) => attachment::means_gateway(attach, &self.object.reference.namespace, gateways),
        }
    }

    /// Which revisions have endpoints that the client can use.
    fn state<'s>(&'s self, audience: &Audience, service: &Service, endpoints: &[Endpoint]) -> State<'s> {
        let receiver = match service.resolution {
            Resolution::Dns | Resolution::DnsRoundRobin => Receiver::Dns,
            Resolution::Static | Resolution::Passthrough => Receiver::of(&audience.proxy),
        };
        let there = |cluster: &&RevisionCluster<'_>| {
            endpoints.iter().any(|endpoint| receiver.takes(endpoint) && endpoint.matches(&cluster.subset.labels))
        };
        State(self.revisions.iter().filter(there).map(|cluster| cluster.revision).collect())
    }
}

/// The revisions that have endpoints.
struct State<'s>(BTreeSet<&'s Revision>);

impl State<'_> {
    fn has(&self, revision: &Revision) -> bool {
        self.0.contains(revision)
    }

    fn has_any(&self) -> bool {
        !self.0.is_empty()
    }
}

/// The revisions of a split, in its order.
fn listed(split: &Split) -> Vec<&Revision> {
    match split {
        Split::Weights(weights) => weights.iter().map(|(revision, _)| revision).collect(),
        Split::Endpoints(members) => members.iter().map(|(revision, _)| revision).collect(),
    }
}

/// Every revision that an assignment names.
fn named(assignment: &Assignment) -> BTreeSet<&Revision> {
    let directed = assignment.routes.iter().map(|route| &route.to);
    let mirrored = assignment.mirror.iter().map(|mirror| &mirror.to);
    listed(&assignment.split).into_iter().chain(directed).chain(mirrored).chain(&assignment.fallback).collect()
}

/// The user's own subset where one has the revision's name and labels; else one without a policy of its own, under
/// another name where the revision's means something else.
fn cluster_of<'w>(
    revision: &'w Revision,
    object: &Object,
    run: &RolloutRun,
    defined: &[Subset],
) -> RevisionCluster<'w> {
    let labels = Labels::from([(run.label.clone(), revision.as_str().to_owned())]);
    let of_name = defined.iter().find(|subset| *subset.name == *revision.as_str());
    if let Some(subset) = of_name.filter(|subset| subset.labels == labels) {
        return RevisionCluster { revision, subset: subset.clone(), is_defined: true };
    }
    let name = match of_name {
        // Without a name the cluster would be that of the service as a whole.
        None if !revision.as_str().is_empty() => revision.as_str().into(),
        None | Some(_) => format!("{}={revision}", run.label).into(),
    };
    let subset = Subset { name, labels, policy: None, origin: object.reference.clone() };
    RevisionCluster { revision, subset, is_defined: false }
}

/// The matches that can concern a client, without what is known of it.
fn for_client(matches: &[RequestMatch], audience: &Audience) -> Vec<RequestMatch> {
    let concerned = matches.iter().filter(|condition| audience.has_labels(&condition.source_labels));
    concerned.map(|condition| RequestMatch { source_labels: Labels::new(), ..condition.clone() }).collect()
}
