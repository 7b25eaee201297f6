//! The way back to stable: it waits for no queue, freeze, gate or quorum.

use world::api::delivery::{GatePhase, OnFailure, RollbackMode, SharedIncident, Weight};

use super::Run;
use crate::steps::RAMP_PARTS;
use crate::{Phase, Reason, Revision};

impl Run {
    /// Looks at everything that ends a run whatever it is doing. True when it has ended it.
    pub(super) fn must_go_back(&mut self) -> bool {
        if let Some(reason) = self.record.wanted.clone() {
            return self.go_back(reason);
        }
        if !self.record.is_exposed() || self.endpoints.is_none() {
            return false;
        }
        if let Some(gone) = self.gone() {
            return self.go_back(Reason::EndpointsGone(gone));
        }
        let verdict = self.record.judge.verdict();
        let policy = &self.record.plan.spec.analysis;
        if let Some(failure) = verdict.failure
            && policy.on_failure == OnFailure::Rollback
        {
            return self.go_back(Reason::Failed { metric: failure.metric, words: failure.words });
        }
        if let Some(shared) = verdict.shared
            && policy.shared_incident == SharedIncident::Rollback
        {
            return self.go_back(Reason::SharedIncident(shared.words));
        }
        self.rollback_gates()
    }

    /// A revision other than stable that is sent something and has nobody to take it.
    pub(super) fn gone(&self) -> Option<Revision> {
        let assignment = &self.record.assignment;
        let mut reached = assignment.revisions().into_iter().filter(|r| assignment.reaches(r));
        reached.find(|r| **r != self.record.plan.stable && self.healthy(r) == 0).cloned()
    }

    /// Begins to go back, or notes that it should while stable has nobody to take the traffic. True when the phase has
    /// changed.
    pub(super) fn go_back(&mut self, reason: Reason) -> bool {
        let stable = self.record.plan.stable.clone();
        let is_harmless = !self.record.is_exposed();
        if !is_harmless && self.healthy(&stable) == 0 {
            if self.record.wanted.is_none() {
                self.notify("Blocked", format!("cannot go back ({reason:?}): \"{stable}\" has no healthy endpoint"));
                self.record.wanted = Some(reason);
            }
            return false;
        }
        self.record.wanted = None;
        self.record.next_spec = None;
        self.record.next_profiles = None;
        self.record.paused = None;
        if let Reason::Failed { .. } | Reason::SharedIncident(_) = reason {
            self.notify("Verdict", format!("against \"{}\": {reason:?}", self.record.plan.candidate));
        }
        let policy = &self.record.plan.spec.rollback;
        let weight = self.record.weight();
        let is_ramped = policy.mode == RollbackMode::Ramp && !reason.is_urgent() && !weight.is_zero();
        self.record.ramp_from = is_ramped.then_some(weight);
        let next = match (is_ramped, self.record.phase) {
            (true, _) => {
                let bare = self.all_to_stable();
                crate::Assignment { split: self.at_weight(weight).split, ..bare }
            }
            // Nothing was ever published for this run: there is nothing to take back.
            (false, Phase::Pending) => self.record.assignment.clone(),
            (false, _) => self.all_to_stable(),
        };
        self.record.reason = Some(reason);
        self.assign(next);
        self.enter(Phase::RollingBack);
        true
    }

    pub(super) fn rolling_back(&mut self) -> bool {
        if let Some(from) = self.record.ramp_from {
            // Whatever was to be taken back stays where it is while nobody else can take it.
            return self.healthy(&self.record.plan.stable.clone()) > 0 && self.ramp_down(from);
        }
        // A run that never published anything is back already.
        let was_published = self.record.history.iter().any(|passage| passage.phase == Phase::Preparing);
        if was_published && !self.is_accepted() {
            let Some(published) = self.published_at() else { return false };
            if !self.is_due(published, self.record.plan.spec.safety.ack_timeout) {
                return false;
            }
            self.record.refusals = self.unaccepted();
        }
        let successor = match self.record.reason.clone() {
            Some(Reason::NewRevision(revision)) if revision != self.record.plan.stable => Some(revision),
            Some(Reason::Decided { revision, .. }) if revision != self.record.plan.stable => Some(revision),
            Some(Reason::Edited) => Some(self.record.plan.candidate.clone()),
            _ => self.record.queued.take(),
        };
        self.record.successor = successor.map(|candidate| self.successor(candidate));
        self.enter(match &self.record.reason {
            Some(Reason::NewRevision(_) | Reason::Edited) => Phase::Superseded,
            Some(Reason::Decided { revision, .. }) if *revision != self.record.plan.stable => Phase::Superseded,
            Some(Reason::TestPassed | Reason::Decided { .. }) => Phase::Completed,
            _ => Phase::RolledBack,
        });
        if !was_published {
            self.record.is_released = true;
        }
        self.announce_end();
        true
    }

    /// One part of the ramp after the other, by the clock and not by acknowledgements. What is urgent meanwhile ends it.
    fn ramp_down(&mut self, from: Weight) -> bool {
        let ramp = self.record.plan.spec.rollback.ramp.unwrap_or_default();
        let is_urgent = self.gone().is_some() || self.record.judge.verdict().failure.is_some();
        let part = ramp / RAMP_PARTS;
        let (mut done, since) = (0, self.record.since);
        while done < RAMP_PARTS && self.is_due(since, part * (done + 1)) {
            done += 1;
        }
        let left = u64::from(from.ppm()) * u64::from(RAMP_PARTS - done) / u64::from(RAMP_PARTS);
        if is_urgent || left == 0 {
            self.record.ramp_from = None;
            let next = self.all_to_stable();
            return self.assign(next) || self.record.weight().is_zero();
        }
        let next = self.at_weight(Weight::from_ppm(left as u32));
        self.assign(next);
        false
    }

    /// Gates that may ask for going back, while the candidate is reached.
    fn rollback_gates(&mut self) -> bool {
        if self.ask_gates(GatePhase::Rollback, 0) {
            return self.go_back(Reason::Gate("a gate of phase Rollback asked for it".to_owned()));
        }
        false
    }
}
