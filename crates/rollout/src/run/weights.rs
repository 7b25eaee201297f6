//! Assignments, and where they have arrived.

use world::api::delivery::{HeaderRoute, MirrorStep, StrategyType, Weight};

use super::Run;
use crate::steps::Step;
use crate::{Arms, Assignment, Plan, Refusal, Revision};
use crate::{Mirror, RequestRoute, Split};

/// All endpoints of a revision, however many they are.
const ALL: u32 = u32::MAX;

/// Everything to one revision, and clusters for no other.
pub(super) fn only(plan: &Plan, revision: &Revision) -> Split {
    match plan.spec.strategy.kind {
        StrategyType::Rolling => Split::Endpoints(vec![(revision.clone(), ALL)]),
        StrategyType::Canary | StrategyType::BlueGreen | StrategyType::Ab | StrategyType::Mirror => {
            Split::Weights(vec![(revision.clone(), Weight::FULL)])
        }
    }
}

/// This much to the candidate. Clusters of every revision of the plan, the candidate first.
fn split(plan: &Plan, weight: Weight) -> Split {
    let (candidate, stable) = (plan.candidate.clone(), plan.stable.clone());
    if plan.spec.strategy.kind == StrategyType::Rolling {
        let members = if weight.is_zero() { (0, ALL) } else { (ALL, 0) };
        return members_of(plan, members.0, members.1);
    }
    let mut shares = vec![(candidate, weight)];
    let variants = plan.spec.strategy.ab.iter().flat_map(|test| &test.variants);
    let variants = variants.map(|variant| Revision::new(&variant.revision));
    for revision in variants.chain(plan.lingering.iter().cloned()) {
        if revision != stable && shares.iter().all(|(known, _)| *known != revision) {
            shares.push((revision, Weight::ZERO));
        }
    }
    shares.push((stable, weight.rest()));
    Split::Weights(shares)
}

/// Members by count. Clusters are one, so what lingers is only named.
fn members_of(plan: &Plan, candidate: u32, stable: u32) -> Split {
    let mut members = vec![(plan.candidate.clone(), candidate)];
    members.extend(plan.lingering.iter().map(|revision| (revision.clone(), 0)));
    members.retain(|(revision, _)| *revision != plan.stable);
    members.push((plan.stable.clone(), stable));
    Split::Endpoints(members)
}

impl Run {
    /// Stable alone, with the clusters of the others in place.
    pub(super) fn all_to_stable(&self) -> Assignment {
        self.bare(split(&self.record.plan, Weight::ZERO))
    }

    /// The candidate alone, with stable's clusters in place.
    pub(super) fn all_to_candidate(&self) -> Assignment {
        self.bare(split(&self.record.plan, Weight::FULL))
    }

    /// One revision, and nothing of any other.
    pub(super) fn released(&self, revision: &Revision) -> Assignment {
        Assignment { fallback: None, ..self.bare(only(&self.record.plan, revision)) }
    }

    /// The candidate at this weight, other than that stable.
    pub(super) fn at_weight(&self, weight: Weight) -> Assignment {
        Assignment { split: split(&self.record.plan, weight), ..self.record.assignment.clone() }
    }

    fn bare(&self, split: Split) -> Assignment {
        let plan = &self.record.plan;
        Assignment {
            version: self.record.assignment.version,
            split,
            routes: Vec::new(),
            mirror: None,
            stickiness: plan.spec.stickiness.clone(),
            fallback: plan.spec.safety.fallback_to_stable.then(|| plan.stable.clone()),
        }
    }

    /// What the step makes of the current assignment; `None` when it assigns nothing.
    pub(super) fn after_step(&self, step: &Step) -> Option<Assignment> {
        let mut next = self.record.assignment.clone();
        match step {
            Step::Weight(Weight::FULL) if self.record.plan.spec.strategy.kind == StrategyType::Rolling => {
                next.split = split(&self.record.plan, Weight::FULL);
            }
            Step::Weight(weight) => next = self.at_weight(*weight),
            Step::Members { candidate, stable } => {
                let candidate = if *stable == 0 { ALL } else { *candidate };
                next.split = members_of(&self.record.plan, candidate, *stable);
            }
            Step::Variants => self.set_variants(&mut next),
            Step::Route(route) => self.set_route(&mut next, route),
            Step::Mirror(MirrorStep { enabled: false, .. }) => next.mirror = None,
            Step::Mirror(mirror) => {
                let to = self.record.plan.candidate.clone();
                next.mirror = Some(Mirror { to, share: mirror.percent, matches: mirror.matches.clone() });
            }
            Step::Pause(_) | Step::Analysis(_) | Step::Require(_) | Step::Gate(_) | Step::End { .. } => return None,
        }
        Some(next)
    }

    fn set_route(&self, assignment: &mut Assignment, route: &HeaderRoute) {
        assignment.routes.retain(|known| known.name != route.name);
        if route.enabled {
            let to = self.record.plan.candidate.clone();
            assignment.routes.push(RequestRoute { name: route.name.clone(), matches: route.matches.clone(), to });
        }
    }

    fn set_variants(&self, assignment: &mut Assignment) {
        let plan = &self.record.plan;
        let Split::Weights(mut shares) = split(plan, Weight::ZERO) else { return };
        let variants = plan.spec.strategy.ab.iter().flat_map(|test| &test.variants);
        shares.iter_mut().for_each(|(_, weight)| *weight = Weight::ZERO);
        for variant in variants {
            let to = Revision::new(&variant.revision);
            let share = variant.share.unwrap_or(Weight::ZERO);
            if let Some((_, weight)) = shares.iter_mut().find(|(revision, _)| *revision == to) {
                *weight = Weight::from_ppm(weight.ppm() + share.ppm());
            }
            if !variant.matches.is_empty() {
                let (name, matches) = (variant.name.clone(), variant.matches.clone());
                assignment.routes.push(RequestRoute { name, matches, to });
            }
        }
        let given: u32 = shares.iter().map(|(_, weight)| weight.ppm()).sum();
        // What no share takes is stable's: shares of a valid intent leave nothing.
        if let Some((_, weight)) = shares.last_mut() {
            *weight = Weight::from_ppm(weight.ppm() + Weight::TOTAL.saturating_sub(given));
        }
        assignment.split = Split::Weights(shares);
    }

    /// Makes `next` the assignment, under a version of its own. False when it says nothing new.
    pub(super) fn assign(&mut self, next: Assignment) -> bool {
        if next.says_the_same(&self.record.assignment) {
            return false;
        }
        self.record.assignment = Assignment { version: self.record.assignment.version + 1, ..next };
        self.record.settled = None;
        self.record.refusals.clear();
        self.is_dirty = true;
        self.assigned = self.record.sequence + 1;
        self.standing = crate::Standing::default();
        let arms = self.arms();
        self.record.judge.begin_step(self.now, arms);
        true
    }

    /// Whose requests can be compared under the current assignment.
    pub(super) fn arms(&self) -> Arms {
        Arms::of(&self.record.assignment, &self.record.plan.candidate, &self.record.plan.stable)
    }

    /// Whether the current assignment has been published, and when.
    pub(super) fn published_at(&self) -> Option<crate::Time> {
        self.published.filter(|(version, _)| *version == self.record.assignment.version).map(|(_, at)| at)
    }

    /// Whether the run was to divide the traffic of nobody: that would show nothing of the candidate, and then give it
    /// everybody. What has served before needs nobody to show it.
    pub(crate) fn is_unattended(&self) -> bool {
        self.unattended.is_some() && !self.record.plan.is_fast
    }

    /// Every concerned node has accepted the current assignment.
    pub(super) fn is_accepted_by_all(&self) -> bool {
        self.published_at().is_some()
            && self.standing.version == self.record.assignment.version
            && self.standing.accepted >= self.standing.concerned
            && self.standing.refused.is_empty()
    }

    /// The quorum of the concerned nodes has accepted it, and few enough have refused.
    pub(super) fn is_accepted(&self) -> bool {
        let safety = &self.record.plan.spec.safety;
        let concerned = u64::from(self.standing.concerned);
        let needed = (concerned * u64::from(safety.ack_quorum.ppm())).div_ceil(u64::from(Weight::TOTAL));
        self.published_at().is_some()
            && self.standing.version == self.record.assignment.version
            && u64::from(self.standing.accepted) >= needed
            && !self.is_refused()
    }

    /// More nodes than allowed have refused the current assignment.
    pub(super) fn is_refused(&self) -> bool {
        self.standing.version == self.record.assignment.version
            && self.standing.refused.len() > self.record.plan.spec.safety.max_nacks as usize
    }

    /// Who has not accepted the current assignment: refusals, and one entry without words for those that are silent.
    pub(super) fn unaccepted(&self) -> Vec<Refusal> {
        let mut missing: Vec<Refusal> = self.standing.refused.iter().take(super::KEPT).cloned().collect();
        let silent = self.standing.concerned.saturating_sub(self.standing.accepted) as usize;
        if let Some(silent) = silent.checked_sub(self.standing.refused.len()).filter(|silent| *silent > 0) {
            missing.push(Refusal { node: format!("{silent} nodes"), words: String::new() });
        }
        missing
    }
}
