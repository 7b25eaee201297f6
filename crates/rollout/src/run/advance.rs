//! From phase to phase.

use std::time::Duration;

use world::api::delivery::{GatePhase, StrategyType, Weight};

use super::{Recovering, Run};
use crate::metrics::of_profile;
use crate::steps::{Step, may_be_missing};
use crate::{Effect, Phase, Reason, Stage, Successor, Time};

impl Run {
    /// Takes one step, if the facts allow one.
    pub(super) fn advance(&mut self) -> bool {
        self.recover();
        if !self.record.phase.is_over() && self.must_go_back() {
            return true;
        }
        match self.record.phase {
            Phase::Pending => self.pending(),
            Phase::Preparing => self.preparing(),
            Phase::PreGate => self.pre_gate(),
            Phase::Step { index, stage } => self.step(index, stage),
            Phase::Bake => self.bake(),
            Phase::Promoting => self.promoting(),
            Phase::Draining => self.draining(),
            Phase::RollingBack => self.rolling_back(),
            Phase::Completed | Phase::RolledBack | Phase::Superseded => self.release(),
        }
    }

    /// Whether the run may go forward at all. Going back asks nobody.
    pub(super) fn may_advance(&self) -> bool {
        let plan = &self.record.plan;
        self.endpoints.is_some()
            && self.frozen.is_none()
            && !plan.spec.suspend
            && self.record.paused.is_none()
            && self.recovering.is_none()
            && self.record.wanted.is_none()
    }

    fn recover(&mut self) {
        let Some(Recovering { since, has_nodes, has_evidence }) = self.recovering else { return };
        // Who promotes a step decides without evidence.
        let is_judged = self.record.judge.counts_requests() && !self.record.is_promoted;
        let needs_evidence = self.record.is_exposed() && is_judged;
        if (has_nodes || self.is_due(since, super::RETURN_WAIT)) && (has_evidence || !needs_evidence) {
            self.recovering = None;
        }
    }

    fn pending(&mut self) -> bool {
        if !self.may_advance() || self.healthy(&self.record.plan.stable.clone()) == 0 {
            return false;
        }
        let plan = &self.record.plan;
        self.record.basis = self.endpoints_of(&plan.stable).total;
        self.plan_steps();
        let prepared = self.all_to_stable();
        self.assign(prepared);
        self.enter(Phase::Preparing);
        self.load_reports();
        true
    }

    fn preparing(&mut self) -> bool {
        let candidate = self.record.plan.candidate.clone();
        let needed = self.record.plan.spec.safety.min_healthy_endpoints;
        let is_ready = self.healthy(&candidate) >= needed;
        if is_ready && !self.is_unattended() && self.is_accepted_by_all() && self.may_advance() {
            self.enter(Phase::PreGate);
            return true;
        }
        if self.is_overdue(self.record.since) {
            let reason = match is_ready {
                true if self.is_unattended() => Reason::NoClientMatches(self.record.plan.spec.attach.selected()),
                true => Reason::NotAccepted(self.unaccepted()),
                false => {
                    let healthy = self.healthy(&candidate);
                    Reason::CandidateNeverReady(format!("{healthy} healthy endpoints of at least {needed}"))
                }
            };
            return self.go_back(reason);
        }
        false
    }

    /// Whether somebody wants it to stay where it is.
    pub(super) fn is_held_back(&self) -> bool {
        self.frozen.is_some() || self.record.paused.is_some() || self.record.plan.spec.suspend
    }

    /// Whether the run has waited since `since`, and without anybody who holds it back, for as long as it may.
    fn is_overdue(&mut self, since: Time) -> bool {
        let since = since.max(self.held_back.1);
        !self.is_held_back() && self.is_due(since, self.record.plan.spec.progress_deadline)
    }

    /// Whether the run has to wait for a client that the intent selects before it goes on; it goes back when none comes in
    /// time, which changes its phase.
    fn awaits_clients(&mut self) -> bool {
        let Some(gone) = self.unattended.filter(|_| self.is_unattended()) else { return false };
        if self.is_overdue(gone.max(self.record.since)) {
            let selected = self.record.plan.spec.attach.selected();
            self.go_back(Reason::NoClientMatches(selected));
        }
        true
    }

    fn pre_gate(&mut self) -> bool {
        if !self.may_advance() || !self.gates_are_open(GatePhase::PreRun, 0) {
            return false;
        }
        self.enter(Phase::Step { index: 0, stage: Stage::Guard });
        true
    }

    fn step(&mut self, index: usize, stage: Stage) -> bool {
        let Some(step) = self.steps.get(index).cloned() else {
            self.enter(Phase::Bake);
            return true;
        };
        match stage {
            Stage::Guard => self.guard(index, &step),
            Stage::Applying => self.applying(index),
            Stage::Settling => {
                let since = self.record.since;
                if !self.is_due(since, self.record.plan.spec.analysis.warmup) || !self.may_advance() {
                    return false;
                }
                self.next_step(index)
            }
            Stage::Waiting => {
                let is_over =
                    self.record.is_promoted || (!self.is_held_by_evidence() && self.is_waiting_over(index, &step));
                // The policy for a step without a verdict may be to go back, which has happened by now.
                if self.record.phase != (Phase::Step { index, stage }) {
                    return true;
                }
                is_over && self.may_advance() && self.next_step(index)
            }
            Stage::Blocked => self.blocked(index),
        }
    }

    /// Conditions of a step that changes what the candidate gets; the others have none.
    fn guard(&mut self, index: usize, step: &Step) -> bool {
        if self.awaits_clients() {
            return self.record.phase != (Phase::Step { index, stage: Stage::Guard });
        }
        if !self.may_advance() {
            return false;
        }
        if let Step::Analysis(analysis) = step
            && let Some(profile) = &analysis.profile_ref
        {
            let metrics = of_profile(&self.record.plan.profiles, profile);
            self.record.judge.also(&metrics);
        }
        if !step.assigns() {
            self.enter(Phase::Step { index, stage: Stage::Waiting });
            return true;
        }
        let Some(next) = self.after_step(step) else { return false };
        if let Some(awaited) = self.awaits_evidence(index, &next) {
            self.awaited = Some(awaited);
            return self.record.phase != (Phase::Step { index, stage: Stage::Guard });
        }
        self.awaited = None;
        if !self.has_capacity(step, &next) || !self.gates_are_open(GatePhase::PreStep, index) {
            return false;
        }
        match self.assign(next) {
            true => self.enter(Phase::Step { index, stage: Stage::Applying }),
            false => self.enter(Phase::Step { index, stage: Stage::Settling }),
        }
        true
    }

    /// Whether every revision that `next` sends anything to has the endpoints for it.
    pub(super) fn has_capacity(&self, step: &Step, next: &crate::Assignment) -> bool {
        let plan = &self.record.plan;
        let safety = &plan.spec.safety;
        let others: Vec<_> = next.revisions().into_iter().filter(|r| next.reaches(r)).collect();
        for revision in others {
            let least = if *revision == plan.stable { 1 } else { safety.min_healthy_endpoints.max(1) };
            if self.healthy(revision) < least {
                return false;
            }
        }
        if let Step::Members { candidate, .. } = step {
            let missing = may_be_missing(&plan.spec, self.record.basis);
            return self.healthy(&plan.candidate) >= candidate.saturating_sub(missing).max(1);
        }
        let weight = next.weight_of(&plan.candidate);
        let rises = weight > self.record.weight();
        let needed = safety.capacity_ratio * weight.fraction() * f64::from(self.healthy(&plan.stable));
        !rises || f64::from(self.healthy(&plan.candidate)) >= needed
    }

    fn applying(&mut self, index: usize) -> bool {
        if self.is_accepted() {
            self.enter(Phase::Step { index, stage: Stage::Settling });
            return true;
        }
        let Some(published) = self.published_at() else { return false };
        let timeout = self.record.plan.spec.safety.ack_timeout;
        if self.is_refused() || self.is_due(published, timeout) {
            let refusals = self.unaccepted();
            let names: Vec<_> = refusals.iter().map(|r| format!("{}: {}", r.node, r.words)).collect();
            let target = self.record.acknowledged.clone();
            self.assign(target);
            self.record.refusals = refusals;
            self.enter(Phase::Step { index, stage: Stage::Blocked });
            self.notify("Blocked", format!("step {index} was not accepted by {}", names.join("; ")));
            return true;
        }
        false
    }

    /// Weights are back at the last ones that everybody accepted; somebody mends it, or the run goes back altogether.
    fn blocked(&mut self, index: usize) -> bool {
        if self.record.is_promoted && self.may_advance() {
            self.record.is_promoted = false;
            self.enter(Phase::Step { index, stage: Stage::Guard });
            return true;
        }
        if self.is_due(self.record.since, self.record.plan.spec.progress_deadline) {
            let refusals = self.record.refusals.clone();
            return self.go_back(Reason::NotAccepted(refusals));
        }
        false
    }

    /// On to the step after `index`; what an edit said about later steps holds from here on.
    pub(super) fn next_step(&mut self, index: usize) -> bool {
        self.adopt_edit();
        let index = index + 1;
        match index < self.steps.len() {
            true => self.enter(Phase::Step { index, stage: Stage::Guard }),
            false => self.enter(Phase::Bake),
        }
        true
    }

    fn bake(&mut self) -> bool {
        // Copies promote nothing: the verdict was what they were for.
        if self.record.plan.spec.strategy.kind == StrategyType::Mirror && !self.record.plan.is_fast {
            return self.may_advance() && self.go_back(Reason::TestPassed);
        }
        let is_over = self.record.is_promoted || self.is_judged(&world::api::delivery::StepAnalysis::default());
        if self.record.phase != Phase::Bake {
            return true;
        }
        if !is_over || !self.may_advance() || !self.gates_are_open(GatePhase::PrePromote, 0) {
            return false;
        }
        if self.awaits_clients() {
            return self.record.phase != Phase::Bake;
        }
        self.promote()
    }

    /// Everything to the candidate, and nothing but weights: routes and copies end.
    pub(super) fn promote(&mut self) -> bool {
        let next = self.all_to_candidate();
        if !self.has_capacity(&Step::Weight(Weight::FULL), &next) {
            return false;
        }
        self.assign(next);
        self.enter(Phase::Promoting);
        true
    }

    fn promoting(&mut self) -> bool {
        if self.is_accepted() {
            self.enter(Phase::Draining);
            return true;
        }
        if self.is_due(self.record.since, self.record.plan.spec.progress_deadline) {
            let refusals = self.unaccepted();
            return self.go_back(Reason::NotAccepted(refusals));
        }
        false
    }

    fn draining(&mut self) -> bool {
        let Some(settled) = self.record.settled else { return false };
        let spec = &self.record.plan.spec;
        let keep = spec.strategy.blue_green.clone().unwrap_or_default().keep_previous;
        let keep = if spec.strategy.kind == StrategyType::BlueGreen { keep } else { Duration::ZERO };
        if !self.is_due(settled, spec.drain.timeout.max(keep)) {
            return false;
        }
        self.enter(Phase::Completed);
        self.record.successor = self.record.queued.take().map(|candidate| self.successor(candidate));
        self.announce_end();
        true
    }

    /// After the end: the clusters of what is left go, once nobody uses them.
    fn release(&mut self) -> bool {
        if self.record.is_released {
            return false;
        }
        let plan = &self.record.plan;
        let kept = match self.record.phase {
            Phase::Completed if self.record.reason.is_none() => plan.candidate.clone(),
            _ => plan.stable.clone(),
        };
        let Some(settled) = self.record.settled else { return false };
        if !self.is_due(settled, plan.spec.drain.timeout) {
            return false;
        }
        self.record.is_released = true;
        let listed = self.record.assignment.revisions().into_iter();
        self.record.left = listed.filter(|revision| **revision != kept).cloned().collect();
        let released = self.released(&kept);
        self.assign(released);
        self.announce_left();
        true
    }

    /// What follows from the end of the run. Said again after a restart: it does no harm.
    pub(super) fn announce_end(&mut self) {
        self.load_reports();
        self.announce_left();
        if let Some(successor) = self.record.successor.clone() {
            self.let_go(successor);
        }
        self.ask_gates(GatePhase::PostRun, 0);
    }

    fn announce_left(&mut self) {
        self.is_dirty = true;
        for revision in self.record.left.clone() {
            self.when_durable(Effect::SafeToScaleDown(revision));
        }
    }

    /// Gives the service to another run, which takes the clusters that are left away, too.
    pub(super) fn let_go(&mut self, successor: Successor) {
        self.record.successor = Some(successor.clone());
        self.record.is_released = true;
        self.when_durable(Effect::StartRun(successor));
    }

    /// A run towards `candidate` from where this one ends.
    pub(super) fn successor(&self, candidate: crate::Revision) -> Successor {
        let plan = &self.record.plan;
        let has_promoted = self.record.phase == Phase::Completed && self.record.reason.is_none();
        let stable = if has_promoted { plan.candidate.clone() } else { plan.stable.clone() };
        let window = plan.spec.rollback.window as usize;
        // Who has won a test has been looked at.
        let has_won = matches!(&self.record.reason, Some(Reason::Decided { revision, .. }) if *revision == candidate);
        let is_fast = has_won || plan.known_good.iter().take(window).any(|good| *good == candidate);
        let attempt = if candidate == plan.candidate { plan.attempt + 1 } else { 1 };
        let listed = self.record.assignment.revisions().into_iter();
        let lingering = listed.filter(|r| **r != stable && **r != candidate).cloned().collect();
        Successor { stable, candidate, attempt, is_fast, lingering }
    }
}
