//! Changes in mid-run: of the intent, and of the revisions that there are.
//!
//! What makes a run more careful holds at once; what makes it less careful, and later steps, hold from the next step
//! on; what a run rests on ends it, and another one begins.

use std::collections::BTreeSet;

use world::api::delivery::{DeploymentIntent, MetricSpec, NewRevision, OnFailure, StrategyType};

use super::Run;
use crate::analysis::stricter;
use crate::{Phase, Profiles, Reason, Revision};

impl Run {
    pub(super) fn edited(&mut self, spec: DeploymentIntent, generation: i64, profiles: Profiles) {
        if generation <= self.record.plan.generation || self.record.phase.is_over() {
            return;
        }
        self.record.plan.generation = generation;
        self.is_dirty = true;
        if spec.service != self.record.plan.spec.service {
            return self.notify("Edit", "the service of an intent cannot change; the run goes on as it was".to_owned());
        }
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
        let profiles = self.profiles_of(&spec, profiles);
        self.judge_stricter(&spec, &profiles);
        // An edit stands for the whole intent: what one before it had left for later is gone.
        self.record.next_spec = (spec != self.record.plan.spec).then(|| Box::new(spec));
        self.record.next_profiles = (profiles != self.record.plan.profiles).then_some(profiles);
        if self.record.next_spec.is_some() || self.record.next_profiles.is_some() {
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

    /// What each profile that `spec` names says: as it was where nothing new is known of it.
    fn profiles_of(&self, spec: &DeploymentIntent, mut new: Profiles) -> Profiles {
        let steps = spec.strategy.canary.iter().flat_map(|canary| &canary.steps);
        let of_steps = steps.filter_map(|step| step.analysis.as_ref()?.profile_ref.as_ref());
        let names: BTreeSet<&String> = spec.analysis.profiles.iter().chain(of_steps).collect();
        let old = &self.record.plan.profiles;
        let found = names.into_iter().filter_map(|name| {
            let metrics = new.remove(name).or_else(|| old.get(name).cloned())?;
            Some((name.clone(), metrics))
        });
        found.collect()
    }

    /// Metrics that are stricter than before, or new, count at once.
    fn judge_stricter(&mut self, spec: &DeploymentIntent, new: &Profiles) {
        let live = &mut self.record.plan;
        let before = live.metrics();
        for (profile, metrics) in new {
            match live.profiles.get_mut(profile) {
                None => _ = live.profiles.insert(profile.clone(), metrics.clone()),
                Some(known) => {
                    for metric in metrics {
                        match known.iter_mut().find(|old| old.name == metric.name) {
                            Some(old) => *old = stricter(old, metric),
                            None => known.push(metric.clone()),
                        }
                    }
                }
            }
        }
        for profile in &spec.analysis.profiles {
            if !live.spec.analysis.profiles.contains(profile) {
                live.spec.analysis.profiles.push(profile.clone());
            }
        }
        self.judge_by_plan(before);
    }

    /// The judge goes by what the plan's metrics say now; if they differ from `before`, whoever counts is told.
    fn judge_by_plan(&mut self, before: Vec<MetricSpec>) {
        let plan = &self.record.plan;
        let metrics = plan.metrics();
        self.record.judge.edit(&metrics);
        self.record.judge.also(&plan.own_metrics());
        if metrics != before && self.record.phase != Phase::Pending {
            self.load_reports();
        }
    }

    pub(super) fn adopt_edit(&mut self) {
        let (spec, profiles) = (self.record.next_spec.take(), self.record.next_profiles.take());
        if spec.is_none() && profiles.is_none() {
            return;
        }
        let plan = &mut self.record.plan;
        let before = plan.metrics();
        if let Some(spec) = spec {
            plan.spec = *spec;
        }
        if let Some(profiles) = profiles {
            plan.profiles = profiles;
        }
        let policy = &plan.spec.analysis;
        self.record.judge.set_chances(policy.alpha, policy.beta);
        self.judge_by_plan(before);
        // Profiles of steps that are over judge on while the intent names them.
        let gone = self.record.judge.keep(&self.record.plan.metrics());
        if !gone.is_empty() {
            self.notify("Edit", format!("not judged by any more: {}", gone.join(", ")));
        }
        self.plan_steps();
        self.is_dirty = true;
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
