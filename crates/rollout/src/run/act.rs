//! What people do to a run.

use world::api::delivery::Weight;

use super::Run;
use crate::action::{Action, ActionError, TakenAction, Verb};
use crate::steps::Step;
use crate::{Phase, Reason, Revision, Stage, Time};

impl Run {
    /// Takes an action. Poll effects afterwards. Taking the same action twice does nothing the second time, and one
    /// that asks for what is already so is recorded and does nothing.
    ///
    /// # Errors
    /// When it is meant for another run or another step, makes no sense now, or has the id of another one that was
    /// taken; nothing has changed then.
    pub fn act(&mut self, now: Time, action: Action) -> Result<(), ActionError> {
        self.now = self.now.max(now);
        if let Some(taken) = self.record.actions.iter().find(|taken| taken.action.id == action.id) {
            return match taken.action == action {
                true => Ok(()),
                false => Err(ActionError::IdTaken { id: action.id, verb: taken.action.verb.as_str() }),
            };
        }
        let plan = &self.record.plan;
        if action.run != plan.run {
            return Err(ActionError::WrongRun { asked: action.run, current: plan.run.clone() });
        }
        if let Some(expected) = action.expected_step
            && self.record.phase.step() != Some(expected)
        {
            return Err(ActionError::Moved { expected, now: self.record.phase.to_string() });
        }
        self.check(&action.verb)?;
        let text = format!("{} by {}: {}", action.verb.as_str(), action.actor, action.reason);
        super::push(&mut self.record.actions, TakenAction { at: self.now, action: action.clone() });
        self.notify("Action", text);
        self.perform(action);
        self.drive();
        Ok(())
    }

    /// Gives the service to a run towards `candidate`. Does nothing unless this one has ended, and has not done so before.
    pub fn begin_next(&mut self, now: Time, candidate: Revision) {
        self.now = self.now.max(now);
        if self.record.phase.is_terminal() {
            self.begin_again(candidate);
            self.drive();
        }
    }

    fn check(&self, verb: &Verb) -> Result<(), ActionError> {
        let phase = self.record.phase;
        let is_begun = matches!(phase, Phase::Step { .. } | Phase::Bake);
        let cannot = |hint: String| ActionError::NotNow { verb: verb.as_str(), phase: phase.to_string(), hint };
        let needs_winner = matches!(verb, Verb::Promote | Verb::PromoteFull | Verb::SkipStep);
        if let Some(hint) = self.lacks_winner().filter(|_| needs_winner) {
            return Err(cannot(hint));
        }
        let (is_possible, hint) = match verb {
            Verb::PromoteVariant(named) => return self.cannot_win(named).map_or(Ok(()), |hint| Err(cannot(hint))),
            Verb::Promote => match self.cannot_be_promoted() {
                Some(hint) => (false, hint),
                None => (is_begun, "it can be promoted while it waits in a step"),
            },
            Verb::PromoteFull => {
                let is_prepared = is_begun || phase == Phase::PreGate;
                let full = self.all_to_candidate();
                let has_endpoints = self.has_capacity(&Step::Weight(Weight::FULL), &full);
                match self.is_kept_back() {
                    Some(hint) => (false, hint),
                    None => (
                        is_prepared && has_endpoints,
                        "it can be promoted once the candidate is prepared and has the endpoints",
                    ),
                }
            }
            Verb::SkipStep => (phase.step().is_some(), "only a step can be skipped"),
            Verb::Pause | Verb::Resume => (!phase.is_over(), "it has ended"),
            Verb::Retry => {
                let is_blocked = matches!(phase, Phase::Step { stage: Stage::Blocked, .. });
                (
                    is_blocked || phase == Phase::RolledBack,
                    "a blocked step, or a run that has gone back, can be retried",
                )
            }
            // Aborting what has ended changes nothing, and says so by doing nothing.
            Verb::Abort => (phase != Phase::Completed, "it has completed; roll back to a revision instead"),
            Verb::RollbackTo(revision) => {
                let plan = &self.record.plan;
                let is_known = *revision == plan.stable || plan.known_good.contains(revision);
                (is_known, "the revision is not among those that completed runs left")
            }
        };
        match is_possible {
            true => Ok(()),
            false => Err(cannot(hint.to_owned())),
        }
    }

    /// Why nobody may send the run forward, whatever it waits for. Going back asks nobody.
    pub(super) fn is_kept_back(&self) -> Option<&'static str> {
        let lacks_nodes = self
            .recovering
            .is_some_and(|recovering| !recovering.has_nodes && self.now.since(recovering.since) < super::RETURN_WAIT);
        if self.frozen.is_some() {
            Some("a freeze holds it: going back is all that is possible until that ends")
        } else if self.record.plan.spec.suspend {
            Some("the intent says suspend: only going back is possible until that is taken out")
        } else if self.record.paused.is_some() {
            Some("somebody has paused it: resume it first")
        } else if lacks_nodes {
            Some("the server was restarted, and its nodes are not back yet")
        } else if self.is_unattended() {
            Some("nobody is connected whom the intent selects: change spec.attach, or connect a client")
        } else {
            None
        }
    }

    /// Why it makes no difference to a step that somebody promotes it, for it does not wait for anybody.
    fn cannot_be_promoted(&self) -> Option<&'static str> {
        let Phase::Step { index, stage } = self.record.phase else { return None };
        match stage {
            Stage::Waiting | Stage::Blocked => None,
            Stage::Applying | Stage::Settling => {
                Some("its weights are on their way: promote the step that it waits in")
            }
            Stage::Guard if self.is_unattended() => Some("nobody is connected whom the intent selects"),
            Stage::Guard if self.waits_for_gate().is_some() => {
                Some("a gate has not approved, which nobody can do in its place")
            }
            Stage::Guard => {
                let step = self.steps.get(index)?;
                let next = self.after_step(step)?;
                let lacks_endpoints = !self.has_capacity(step, &next);
                lacks_endpoints.then_some("there are not enough healthy endpoints for the step")
            }
        }
    }

    fn perform(&mut self, action: Action) {
        let aborted = || Reason::Aborted { actor: action.actor.clone(), reason: action.reason.clone() };
        match action.verb {
            Verb::Promote => self.record.is_promoted = true,
            Verb::PromoteVariant(named) => match self.winner(&named) {
                Ok(winner) if winner != self.record.plan.candidate => {
                    self.go_back(Reason::Decided { revision: winner, actor: action.actor, reason: action.reason });
                }
                Ok(_) => self.record.is_promoted = true,
                Err(_) => {}
            },
            Verb::PromoteFull => {
                self.record.wanted = None;
                self.promote();
            }
            Verb::Pause => {
                if self.record.paused.is_none() {
                    self.record.paused = Some((action.actor, action.reason));
                }
            }
            Verb::Resume => self.record.paused = None,
            Verb::Abort if self.record.phase.is_over() => {}
            Verb::Abort => _ = self.go_back(aborted()),
            Verb::Retry => match self.record.phase {
                Phase::RolledBack => self.begin_again(self.record.plan.candidate.clone()),
                _ => self.record.is_promoted = true,
            },
            Verb::SkipStep => {
                if let Phase::Step { index, .. } = self.record.phase {
                    self.next_step(index);
                }
            }
            Verb::RollbackTo(revision) => self.roll_back_to(revision, aborted()),
        }
    }

    fn roll_back_to(&mut self, revision: Revision, reason: Reason) {
        let (is_terminal, is_stable) = (self.record.phase.is_terminal(), revision == self.record.plan.stable);
        match (is_terminal, self.record.phase) {
            (true, Phase::RolledBack | Phase::Superseded) if is_stable => {}
            (true, _) => self.begin_again(revision),
            (false, phase) => {
                self.record.queued = (!is_stable).then_some(revision);
                match (phase, &self.record.reason) {
                    // It makes room for a run that nobody wants any more.
                    (Phase::RollingBack, Some(Reason::NewRevision(_) | Reason::Edited)) => {
                        self.record.reason = Some(reason);
                    }
                    (Phase::RollingBack, _) => {}
                    (_, _) => _ = self.go_back(reason),
                }
            }
        }
    }

    /// Gives the service to another run. Only a run that has ended does.
    fn begin_again(&mut self, candidate: Revision) {
        if self.record.successor.is_none() {
            let successor = self.successor(candidate);
            self.let_go(successor);
        }
    }
}
