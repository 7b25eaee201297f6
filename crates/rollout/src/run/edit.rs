//! Changes in mid-run: of the intent, and of the revisions that there are.
//!
//! What makes a run more careful holds at once; what makes it less careful, and later steps, hold from the next step
//! on; what a run rests on ends it, and another one begins.

use std::collections::BTreeMap;

use world::api::delivery::{DeploymentIntent, MetricSpec, NewRevision, OnFailure, StrategyType};

use super::Run;
use crate::{Phase, Reason, Revision};

impl Run {
    pub(super) fn edited(
        &mut self,
        spec: DeploymentIntent,
        generation: i64,
        profiles: BTreeMap<String, Vec<MetricSpec>>,
    ) {
        if generation <= self.record.plan.generation || self.record.phase.is_over() {
            return;
        }
        self.record.plan.generation = generation;
        self.is_dirty = true;
        if spec.service != self.record.plan.spec.service {
            return self.notify("Edit", "the service of an intent cannot change; the run goes on as it was".to_owned());
        }
        self.record.plan.profiles.extend(profiles);
        let old = &self.record.plan.spec;
        if rests_on_something_else(old, &spec) {
            self.notify("Edit", "the intent asks for something else: another run begins".to_owned());
            self.go_back(Reason::Edited);
            return;
        }
        let spec = match self.record.phase.step() {
            Some(index) => self.keep_past_steps(spec, index),
            None => spec,
        };
        self.hold_at_once(&spec);
        // An edit stands for the whole intent: what one before it had left for later is gone.
        self.record.next_spec = (spec != self.record.plan.spec).then(|| Box::new(spec));
        if self.record.next_spec.is_some() {
            self.notify("Edit", "what is left of the edit holds from the next step on".to_owned());
        }
        // Nothing has begun that the rest of the edit could disturb.
        if matches!(self.record.phase, Phase::Pending | Phase::Preparing | Phase::PreGate) {
            self.adopt_edit();
        }
    }

    /// Steps up to the current one are as they were.
    fn keep_past_steps(&mut self, mut spec: DeploymentIntent, index: usize) -> DeploymentIntent {
        let old = self.record.plan.spec.strategy.canary.clone().unwrap_or_default();
        let mut new = spec.strategy.canary.clone().unwrap_or_default();
        if spec.strategy.kind != StrategyType::Canary || old.steps == new.steps {
            return spec;
        }
        let past = old.steps.len().min(index + 1);
        if new.steps.len() < past || new.steps[..past] != old.steps[..past] {
            self.notify("Edit", format!("steps up to {index} are over: their edit has no effect on this run"));
            let later = new.steps.split_off(past.min(new.steps.len()));
            new.steps = old.steps[..past].iter().cloned().chain(later).collect();
            spec.strategy.canary = Some(new);
        }
        spec
    }

    /// What makes the run more careful, and what concerns only others.
    fn hold_at_once(&mut self, new: &DeploymentIntent) {
        let live = &mut self.record.plan.spec;
        live.notify = new.notify.clone();
        live.gates = new.gates.clone();
        live.suspend = new.suspend;
        live.history_limit = new.history_limit;
        live.on_new_revision = new.on_new_revision;
        // A larger alpha rolls back sooner, a smaller beta passes later.
        live.analysis.alpha = live.analysis.alpha.max(new.analysis.alpha);
        live.analysis.beta = live.analysis.beta.min(new.analysis.beta);
        live.analysis.min_requests = live.analysis.min_requests.max(new.analysis.min_requests);
        if new.analysis.on_failure == OnFailure::Rollback {
            live.analysis.on_failure = OnFailure::Rollback;
        }
        let safety = (&mut live.safety, &new.safety);
        safety.0.min_healthy_endpoints = safety.0.min_healthy_endpoints.max(safety.1.min_healthy_endpoints);
        safety.0.capacity_ratio = safety.0.capacity_ratio.max(safety.1.capacity_ratio);
        safety.0.ack_quorum = safety.0.ack_quorum.max(safety.1.ack_quorum);
        safety.0.max_nacks = safety.0.max_nacks.min(safety.1.max_nacks);
        self.record.judge.set_chances(live.analysis.alpha, live.analysis.beta);
    }

    pub(super) fn adopt_edit(&mut self) {
        if let Some(spec) = self.record.next_spec.take() {
            self.record.plan.spec = *spec;
            let policy = &self.record.plan.spec.analysis;
            self.record.judge.set_chances(policy.alpha, policy.beta);
            for name in &policy.profiles {
                let metrics = self.record.plan.profiles.get(name).cloned().unwrap_or_default();
                self.record.judge.also(&metrics);
            }
            self.plan_steps();
            self.is_dirty = true;
        }
    }

    /// A revision has appeared.
    pub(super) fn appeared(&mut self, revision: Revision) {
        let plan = &self.record.plan;
        let is_known = revision == plan.candidate || self.record.queued.as_ref() == Some(&revision);
        if is_known || self.record.successor.is_some() {
            return;
        }
        if self.record.phase.is_terminal() {
            // Who has let go of the service does not decide about it any more.
            return;
        }
        let policy = match (self.record.phase, plan.spec.on_new_revision) {
            (Phase::RollingBack, NewRevision::Replace) => NewRevision::Queue,
            (_, policy) => policy,
        };
        match policy {
            NewRevision::Replace => {
                self.notify("Phase", format!("\"{revision}\" replaces \"{}\"", self.record.plan.candidate));
                self.go_back(Reason::NewRevision(revision));
            }
            NewRevision::Queue => {
                if revision != self.record.plan.stable {
                    self.record.queued = Some(revision);
                    self.is_dirty = true;
                }
            }
            NewRevision::Reject => {
                self.notify("Phase", format!("\"{revision}\" is ignored while this run goes on"));
            }
        }
    }
}

/// Whether the run cannot go on under `new`.
fn rests_on_something_else(old: &DeploymentIntent, new: &DeploymentIntent) -> bool {
    let routes = |spec: &DeploymentIntent| {
        let steps = spec.strategy.canary.iter().flat_map(|canary| &canary.steps);
        steps.filter_map(|step| step.header_route.clone()).collect::<Vec<_>>()
    };
    old.strategy.kind != new.strategy.kind
        || old.stickiness != new.stickiness
        || old.revisions.label != new.revisions.label
        || old.protocol != new.protocol
        || old.attach != new.attach
        || old.strategy.blue_green.as_ref().map(|b| &b.preview) != new.strategy.blue_green.as_ref().map(|b| &b.preview)
        || old.strategy.ab != new.strategy.ab
        || old.strategy.mirror != new.strategy.mirror
        || routes(old) != routes(new)
}
