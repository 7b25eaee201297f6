//! Questions to others.

use std::time::Duration;

use world::api::delivery::{GatePhase, GateSpec, OnGateError};

use super::Run;
use crate::effect::GateQuestion;
use crate::event::{GateAnswer, GateId};
use crate::{Effect, GateRecord, Phase, Reason};

/// How soon a gate that has not approved is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Beyond all of its retries a question without an answer is lost.
const GRACE: Duration = Duration::from_secs(5);

/// How long all attempts of a question can take together, and a little more. Records of other versions may hold numbers
/// that are not written any more, so nothing here goes out of range.
fn patience(gate: &GateSpec) -> Duration {
    let attempts = gate.timeout.saturating_mul(gate.retries.saturating_add(1));
    let pauses = GateQuestion::LONGEST_PAUSE.saturating_mul(gate.retries);
    attempts.saturating_add(pauses).saturating_add(GRACE)
}

impl Run {
    /// Whether all gates of this phase have approved; asks those that have not.
    pub(super) fn gates_are_open(&mut self, phase: GatePhase, step: usize) -> bool {
        let gates = self.gates_of(phase);
        let mut is_open = true;
        for (index, gate) in gates {
            let id = GateId { phase, step, index: Some(index) };
            is_open &= self.is_gate_open(id, &gate.url.clone(), &gate);
            if self.record.phase.is_over() {
                return false;
            }
        }
        is_open
    }

    /// Asks the gates of this phase, whatever they answer. True when one of them has approved.
    pub(super) fn ask_gates(&mut self, phase: GatePhase, step: usize) -> bool {
        let mut has_approved = false;
        for (index, gate) in self.gates_of(phase) {
            let id = GateId { phase, step, index: Some(index) };
            has_approved |= self.ask(&id, &gate.url.clone(), &gate) == Some(GateAnswer::Approved);
        }
        has_approved
    }

    fn gates_of(&self, phase: GatePhase) -> Vec<(usize, GateSpec)> {
        let gates = self.record.plan.spec.gates.iter().enumerate();
        gates.filter(|(_, gate)| gate.phase == phase).map(|(index, gate)| (index, gate.clone())).collect()
    }

    /// Whether this gate has approved. A refusal sends the run back.
    pub(super) fn is_gate_open(&mut self, id: GateId, url: &str, gate: &GateSpec) -> bool {
        match self.ask(&id, url, gate) {
            Some(GateAnswer::Approved) => true,
            Some(GateAnswer::Refused(words)) => {
                self.go_back(Reason::Gate(format!("{url} refused: {words}")));
                false
            }
            Some(GateAnswer::Failed(words)) if gate.on_error == OnGateError::Fail => {
                self.go_back(Reason::Gate(format!("{url} could not be asked: {words}")));
                false
            }
            Some(GateAnswer::NotYet | GateAnswer::Failed(_)) | None => false,
        }
    }

    /// The gate's answer so far. Asks if there is none, and again after a while if it was not final.
    fn ask(&mut self, id: &GateId, url: &str, gate: &GateSpec) -> Option<GateAnswer> {
        let patience = patience(gate);
        if let Some(at) = self.asked.get(id).copied() {
            if !self.is_due(at, patience) {
                return self.answer_of(id);
            }
            self.asked.remove(id);
            self.note_answer(id.clone(), GateAnswer::Failed(format!("there was no answer within {patience:?}")));
        }
        let known =
            self.record.gates.iter().find(|known| known.id == *id).map(|known| (known.at, known.answer.clone()));
        let is_final = match &known {
            Some((_, GateAnswer::Approved | GateAnswer::Refused(_))) => true,
            Some((_, GateAnswer::Failed(_))) => gate.on_error == OnGateError::Fail,
            Some((_, GateAnswer::NotYet)) | None => false,
        };
        let is_time = known.as_ref().is_none_or(|(at, _)| !is_final && self.is_due(*at, ASK_AGAIN));
        if is_time {
            self.asked.insert(id.clone(), self.now);
            self.effects.push_back(Effect::AskGate(GateQuestion {
                id: id.clone(),
                url: url.to_owned(),
                timeout: gate.timeout,
                retries: gate.retries,
                run: self.record.plan.run.clone(),
                candidate: self.record.plan.candidate.clone(),
            }));
            let then = self.now;
            self.is_due(then, patience);
        }
        known.map(|(_, answer)| answer)
    }

    fn answer_of(&self, id: &GateId) -> Option<GateAnswer> {
        self.record.gates.iter().find(|known| known.id == *id).map(|known| known.answer.clone())
    }

    /// A gate has answered. Answers to questions that nobody asked are dropped.
    pub(super) fn answered(&mut self, id: GateId, answer: GateAnswer) {
        if self.asked.remove(&id).is_some() {
            self.note_answer(id, answer);
        }
    }

    fn note_answer(&mut self, id: GateId, answer: GateAnswer) {
        self.record.gates.retain(|known| known.id != id);
        self.record.gates.push(GateRecord { id, at: self.now, answer });
        self.is_dirty = true;
    }

    /// The gate that the run waits for now, if any: one of its phase and step that was asked and has not approved.
    pub(super) fn waits_for_gate(&self) -> Option<&GateId> {
        let (phase, step) = match self.record.phase {
            Phase::PreGate => (GatePhase::PreRun, 0),
            Phase::Step { index, .. } => (GatePhase::PreStep, index),
            Phase::Bake => (GatePhase::PrePromote, 0),
            _ => return None,
        };
        let unapproved = self.record.gates.iter().filter(|gate| gate.answer != GateAnswer::Approved);
        let mut waiting = self.asked.keys().chain(unapproved.map(|gate| &gate.id));
        waiting.find(|id| id.phase == phase && id.step == step)
    }
}
