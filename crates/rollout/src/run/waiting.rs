//! What a step waits for.

use std::time::Duration;

use world::api::delivery::{OnAbsence, OnTelemetryLoss, SharedIncident, StepAnalysis, Winner};

use super::hold::HoldReason;
use super::{PAST_REQUESTS, PAST_WAIT, Run};
use crate::event::GateId;
use crate::steps::Step;
use crate::{Absence, Assignment, Phase, Reason, Stage};

impl Run {
    /// Whether what is known, or that nothing is, keeps the run from going on, whatever the step waits for. Policies may
    /// send the run back meanwhile, which changes its phase.
    pub(super) fn is_held_by_evidence(&mut self) -> bool {
        if !self.record.is_exposed() {
            return false;
        }
        let verdict = self.record.judge.verdict();
        let is_shared =
            verdict.shared.is_some() && self.record.plan.spec.analysis.shared_incident != SharedIncident::Ignore;
        verdict.failure.is_some() || verdict.hold.is_some() || is_shared || self.is_absent()
    }

    /// What keeps the run from assigning `next`, though nothing else does: evidence that no step has waited for, or requests
    /// of stable that cannot be counted any more afterwards. Policies may send the run back meanwhile, which changes
    /// its phase.
    pub(super) fn awaits_evidence(&mut self, index: usize, next: &Assignment) -> Option<HoldReason> {
        if self.record.is_promoted {
            return None;
        }
        // A step that waits has looked at the evidence before it ended, and so has whoever ended it.
        let is_first_look = index.checked_sub(1).and_then(|before| self.steps.get(before)).is_some_and(Step::assigns);
        if is_first_look && (self.is_held_by_evidence() || self.is_unanswered()) {
            return Some(self.evidence_hold());
        }
        let plan = &self.record.plan;
        let ends_stable =
            next.weight_of(&plan.stable).is_zero() && !self.record.assignment.weight_of(&plan.stable).is_zero();
        let counted = self.record.judge.past_requests().filter(|_| ends_stable && !plan.is_fast)?;
        let since = self.record.since;
        if counted >= PAST_REQUESTS || self.is_due(since, PAST_WAIT) {
            return None;
        }
        Some(HoldReason::Evidence(format!(
            "{counted:.0} requests of stable have been counted, of the {PAST_REQUESTS:.0} that the candidate is to be \
             compared with once it has everything"
        )))
    }

    /// Whether a provider of a critical metric does not answer, or has not done so yet. Of a step that waits for a verdict
    /// it is the verdict that says so, and policies for want of one hold.
    pub(super) fn is_unanswered(&self) -> bool {
        self.record.is_exposed() && self.record.judge.unanswered().is_some()
    }

    /// Whether the step's own condition holds. Policies may send the run back meanwhile, which changes its phase.
    pub(super) fn is_waiting_over(&mut self, index: usize, step: &Step) -> bool {
        match step {
            Step::Pause(None) => false,
            Step::Pause(Some(span)) => self.is_due(self.record.since, *span) && !self.is_unanswered(),
            Step::Analysis(analysis) => self.is_judged(analysis),
            Step::Require(needed) => {
                let candidate = self.healthy(&self.record.plan.candidate.clone());
                let stable = u64::from(self.healthy(&self.record.plan.stable.clone()));
                let share = needed.percent_of_stable.map_or(0, |percent| (stable * u64::from(percent)).div_ceil(100));
                let is_there = candidate >= needed.absolute.unwrap_or(0) && u64::from(candidate) >= share;
                is_there && candidate > 0 && !self.is_unanswered()
            }
            Step::Gate(gate) => match &gate.webhook {
                Some(url) => {
                    let id = GateId { phase: world::api::delivery::GatePhase::PreStep, step: index, index: None };
                    let url = url.clone();
                    self.is_gate_open(id, &url, &world::api::delivery::GateSpec::default()) && !self.is_unanswered()
                }
                None => false,
            },
            Step::End { at, winner } => self.is_test_over(*at, *winner),
            // Steps that assign something do not wait.
            Step::Weight(_) | Step::Members { .. } | Step::Variants | Step::Route(_) | Step::Mirror(_) => true,
        }
    }

    /// An A/B test: its time, and who says which variant wins.
    fn is_test_over(&mut self, at: Option<crate::Time>, winner: Winner) -> bool {
        let is_time = match at {
            Some(at) => self.is_due(at, Duration::ZERO),
            None => winner == Winner::BySignal,
        };
        if !is_time {
            return false;
        }
        if winner == Winner::BySignal && self.is_judged(&StepAnalysis::default()) {
            return true;
        }
        // At the end of its time a test without a winner leaves everything as it was before.
        if at.is_some() && self.may_advance() {
            self.go_back(Reason::TestEnded);
        }
        false
    }

    /// Whether the evidence allows to go on.
    pub(super) fn is_judged(&mut self, step: &StepAnalysis) -> bool {
        let policy = self.record.plan.spec.analysis.clone();
        let (phase, since) = (self.record.phase, self.record.since);
        if self.is_held_by_evidence() || self.record.phase != phase {
            return false;
        }
        let verdict = self.record.judge.verdict();
        let needed =
            if self.record.judge.counts_requests() { step.min_requests.unwrap_or(policy.min_requests) } else { 0 };
        let is_known = verdict.missing.is_none() && self.record.judge.step_requests() >= needed;
        // Less time than is deleted from the evidence could not have shown anything.
        let least = self.record.judge.trim().unwrap_or(Duration::ZERO);
        let is_long = self.is_due(since, step.min_duration.unwrap_or(least));
        if is_known && is_long {
            return true;
        }
        if self.record.judge.counts_requests()
            && self.record.judge.step_requests() == 0
            && self.is_due(self.traffic_since(), policy.no_traffic_timeout)
        {
            match policy.on_no_traffic {
                OnAbsence::Hold => {}
                OnAbsence::Advance => return true,
                OnAbsence::Rollback => _ = self.go_back(Reason::NoTraffic),
            }
            return false;
        }
        if self.is_due(since, step.max_duration.unwrap_or(policy.max_step_duration)) {
            match policy.on_inconclusive {
                OnAbsence::Hold => {}
                OnAbsence::Advance => return true,
                OnAbsence::Rollback => _ = self.go_back(Reason::Inconclusive),
            }
        }
        false
    }

    /// Whether no proxy has reported for too long. Then nothing is known, and nothing that the evidence says counts
    /// for going on.
    fn is_absent(&mut self) -> bool {
        let policy = &self.record.plan.spec.analysis;
        let (timeout, reaction) = (policy.telemetry_timeout, policy.on_telemetry_loss);
        if !self.record.judge.counts_requests() {
            return false;
        }
        let absences = self.record.judge.absences(self.now);
        let silent = absences.iter().find_map(|absence| match absence {
            Absence::Telemetry(since) => Some(*since),
            Absence::Traffic(_) | Absence::Provider(_) => None,
        });
        let Some(since) = silent else { return false };
        if !self.is_due(since, timeout) {
            return false;
        }
        match reaction {
            OnTelemetryLoss::Hold => {}
            OnTelemetryLoss::StepBack => self.step_back(),
            OnTelemetryLoss::Rollback => _ = self.go_back(Reason::TelemetryLoss),
        }
        true
    }

    /// Once: weights as they were before the current ones.
    fn step_back(&mut self) {
        if self.record.has_stepped_back {
            return;
        }
        self.record.has_stepped_back = true;
        let before = self.record.before.clone();
        if before.weight_of(&self.record.plan.candidate) < self.record.weight() && self.assign(before) {
            self.notify("Blocked", "no proxy reports: weights go back a step".to_owned());
            if let Phase::Step { index, .. } = self.record.phase {
                self.enter(Phase::Step { index, stage: Stage::Blocked });
            }
        }
    }

    /// Since when the candidate has had no traffic.
    pub(super) fn traffic_since(&self) -> crate::Time {
        let absences = self.record.judge.absences(self.now);
        let since = absences.iter().find_map(|absence| match absence {
            Absence::Traffic(since) => Some(*since),
            Absence::Telemetry(_) | Absence::Provider(_) => None,
        });
        since.unwrap_or(self.now)
    }
}
