//! One intent after the other for the same service: an intent that was deleted first takes back what it has given to a
//! candidate, then the next one begins where it has left off. A renamed intent is both.

use world::api::delivery::{Choice, ServiceSelector};
use world::{ObjectRef, Problem};

use super::Lane;
use crate::Revision;
use crate::conductor::Sight;

/// What an intent has in force, for others to see.
#[derive(Clone, Debug)]
pub(in crate::conductor) struct Claim {
    intent: ObjectRef,
    service: (String, String),
    ports: ServiceSelector,
    /// Its intent is there.
    is_wanted: bool,
    /// Everything goes to stable, and what went elsewhere has drained.
    is_at_rest: bool,
    version: u64,
    label: String,
    stable: Option<Revision>,
}

/// What others are for the service of an intent.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// One that was deleted, and is not at rest yet.
    waits_for: Option<ObjectRef>,
    /// Where one that was deleted has left traffic, by which label.
    inherited: Option<(String, Revision)>,
    /// Another one governs the service now.
    pub(super) is_succeeded: bool,
}

impl Lane {
    /// What it has in force, if anything.
    pub(in crate::conductor) fn claim(&self) -> Option<Claim> {
        self.in_force.as_ref()?;
        let spec = self.run.as_ref().map_or(&self.saved.spec, |run| &run.record().plan.spec);
        Some(Claim {
            intent: self.intent.clone(),
            service: self.saved.service.clone(),
            ports: spec.service.clone(),
            is_wanted: self.wish.is_some(),
            is_at_rest: self.run.as_ref().is_none_or(crate::Run::is_finished),
            version: self.last_version(),
            label: self.saved.label.clone(),
            stable: self.saved.stable.clone(),
        })
    }

    /// What its runs have left.
    pub(in crate::conductor) fn left(&self) -> impl Iterator<Item = &Revision> {
        let records = self.run.iter().map(crate::Run::record).chain(&self.history);
        records.flat_map(|record| &record.left)
    }

    /// What has clusters, or gets some by the run that goes on; and what nodes may still send something to.
    pub(in crate::conductor) fn used(&self) -> Vec<&Revision> {
        let mut used: Vec<&Revision> = self.saved.stable.iter().collect();
        if let Some(record) = self.run.as_ref().map(crate::Run::record) {
            if !record.phase.is_terminal() {
                used.extend([&record.plan.candidate, &record.plan.stable].into_iter().chain(&record.plan.lingering));
            }
            used.extend(record.assignment.revisions());
            if record.settled.is_none() {
                let held = &record.acknowledged;
                used.extend(held.revisions().into_iter().filter(|revision| held.reaches(revision)));
            }
        }
        used
    }

    /// Takes in what others have in force.
    pub(super) fn note_others(&mut self, others: &[Claim]) {
        let (namespace, name) = self.service();
        let ports = self.wish.as_ref().map_or(&self.saved.spec.service.ports, |wish| &wish.spec.service.ports);
        let is_same = |claim: &&Claim| {
            let service = (claim.service.0.as_str(), claim.service.1.as_str());
            claim.intent != self.intent && service == (namespace, name) && claim.ports.meets(ports)
        };
        let same: Vec<&Claim> = others.iter().filter(is_same).collect();
        let version = self.last_version();
        let gone = || same.iter().filter(|claim| !claim.is_wanted);
        self.place = Place {
            waits_for: gone().find(|claim| !claim.is_at_rest).map(|claim| claim.intent.clone()),
            inherited: gone().find_map(|claim| Some((claim.label.clone(), claim.stable.clone()?))),
            is_succeeded: same.iter().any(|claim| claim.is_wanted && claim.version > version),
        };
    }

    /// Whether it cannot begin before another one has ended; that is told.
    pub(super) fn waits_for_another(&mut self) -> bool {
        let Some(other) = self.place.waits_for.as_ref().filter(|_| self.in_force.is_none()) else { return false };
        let message = format!("{other}, which governed this service, was deleted and is on its way back to stable");
        let problem = Problem::warning(&self.intent, "spec.service", message);
        self.problem = Some(problem.consequence("this intent begins after that"));
        true
    }

    /// Where the intent before has left traffic, unless this one says something else.
    pub(super) fn inherited_stable(&self, sight: &Sight) -> Option<Revision> {
        let (label, stable) = self.place.inherited.as_ref()?;
        let is_meant = *label == sight.label && self.saved.spec.revisions.stable == Choice::Auto;
        Some(stable.clone()).filter(|stable| is_meant && sight.endpoints.contains_key(stable))
    }
}
