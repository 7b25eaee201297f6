//! What the world has of an intent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use world::api::delivery::{EvidenceSource, RolloutRun, ServiceSelector, Split, Stickiness, Weight};
use world::{Change, Meta, Object, Spec};

use super::Lane;
use crate::conductor::Deed;
use crate::conductor::picture::run_reference;
use crate::{Assignment, Plan};

/// A change of what is in force that a record has to say first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    /// Everything to stable.
    Baseline,
    /// Nothing any more.
    Removal,
}

impl Lane {
    /// Does what waited for its record, if that is durable now.
    pub(super) fn carry_out_pending(&mut self, deeds: &mut VecDeque<Deed>) {
        let Some((_, pending)) = self.pending.take_if(|(needed, _)| *needed <= self.durable) else { return };
        match pending {
            Pending::Baseline => self.put_baseline(deeds),
            Pending::Removal => deeds.extend(self.in_force.take().map(|run| Deed::Change(vec![Change::Remove(run)]))),
        }
    }

    /// Everything to stable, before the first run.
    pub(super) fn put_baseline(&mut self, deeds: &mut VecDeque<Deed>) {
        let Some((stable, version)) = self.saved.baseline.clone() else { return };
        let assignment = Assignment {
            version,
            split: Split::Weights(vec![(stable.clone(), Weight::FULL)]),
            routes: Vec::new(),
            mirror: None,
            stickiness: Stickiness::default(),
            fallback: None,
        };
        let mut spec = self.saved.spec.clone();
        spec.revisions.label.clone_from(&self.saved.label);
        let plan = Plan {
            run: format!("{}-0", self.intent.name),
            generation: self.saved.generation,
            spec,
            profiles: BTreeMap::new(),
            stable: stable.clone(),
            candidate: stable,
            attempt: 0,
            is_fast: false,
            known_good: Vec::new(),
            lingering: Vec::new(),
            first_version: version,
            fence: 0,
        };
        self.put_in_force(&plan, assignment, deeds);
    }

    /// The world gets this assignment in place of what it has of the intent.
    pub(super) fn put_in_force(&mut self, plan: &Plan, assignment: Assignment, deeds: &mut VecDeque<Deed>) {
        // Whatever was to come instead is overtaken.
        self.pending = None;
        self.saved.is_released = false;
        let reference = run_reference(&self.intent.namespace, &plan.run);
        let before = self.in_force.replace(reference.clone()).filter(|before| *before != reference);
        let generation = i64::try_from(assignment.version).unwrap_or(i64::MAX);
        let (namespace, name) = self.saved.service.clone();
        let spec = RolloutRun {
            intent: self.intent.name.to_string(),
            intent_generation: plan.generation,
            service: ServiceSelector { name, namespace: Some(namespace), ports: plan.spec.service.ports.clone() },
            attach: plan.spec.attach.clone(),
            protocol: plan.spec.protocol,
            label: plan.spec.revisions.label.clone(),
            stable: plan.stable.to_string(),
            candidate: plan.candidate.to_string(),
            attempt: plan.attempt,
            access_log: plan.spec.analysis.source == EvidenceSource::AccessLog,
            assignment: Some(assignment),
        };
        let object =
            Object { reference, meta: Meta { generation, ..Meta::default() }, spec: Spec::RolloutRun(Box::new(spec)) };
        let removal = before.map(Change::Remove);
        deeds.push_back(Deed::Change(removal.into_iter().chain([Change::Apply(Arc::new(object))]).collect()));
    }
}
