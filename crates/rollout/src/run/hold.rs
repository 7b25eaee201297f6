//! Why a run does not move: every wait has a name, a beginning, and a deadline if there is one.

use std::fmt;

use serde::Serialize;

use super::Run;
use crate::event::GateId;
use crate::record::Held;
use crate::{Absence, Phase, Reason, Refusal, Stage, Time};

/// A wait.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// Since when.
    pub since: Time,
    /// When something changes by itself; `None` when only an event can.
    pub deadline: Option<Time>,
}

/// What a run waits for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum HoldReason {
    /// The store does not take its record, in its words; nothing is published meanwhile.
    CommitFailed(String),
    /// It should go back, and stable has no healthy endpoint.
    StableUnhealthy(Reason),
    /// A freeze, with its reason.
    Frozen(String),
    /// The intent says `suspend`.
    Suspended,
    /// Somebody has paused it.
    Paused {
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// A restart: nodes, or evidence, are not back.
    Recovering,
    /// Nothing is known of the endpoints yet, or there are too few of them.
    Endpoints,
    /// Acknowledgements.
    NotAcknowledged {
        /// How many nodes have accepted.
        accepted: u32,
        /// Of how many.
        concerned: u32,
    },
    /// None of the clients that the intent selects is connected. Whom it selects, in words.
    NoClientMatches(String),
    /// Nodes have refused a step.
    Refused(Vec<Refusal>),
    /// A gate.
    Gate(GateId),
    /// A metric fails, and the policy is to hold; or it is not critical.
    Failing {
        /// Which.
        metric: String,
        /// With which numbers.
        words: String,
    },
    /// Candidate and stable break an SLO together.
    SharedIncident(String),
    /// No proxy reports.
    NoTelemetry,
    /// Proxies report, and the candidate gets no request.
    NoTraffic,
    /// A provider does not answer.
    ProviderError {
        /// For which metric.
        metric: String,
        /// In its words.
        words: String,
    },
    /// Evidence, in words.
    Evidence(String),
    /// Time, or somebody's decision.
    Waiting,
}

impl HoldReason {
    /// In one word.
    pub fn as_str(&self) -> &'static str {
        match self {
            HoldReason::CommitFailed(_) => "CommitFailed",
            HoldReason::StableUnhealthy(_) => "StableUnhealthy",
            HoldReason::Frozen(_) => "Frozen",
            HoldReason::Suspended => "Suspended",
            HoldReason::Paused { .. } => "Paused",
            HoldReason::Recovering => "Recovering",
            HoldReason::Endpoints => "Endpoints",
            HoldReason::NotAcknowledged { .. } => "NotAcknowledged",
            HoldReason::NoClientMatches(_) => "NoClientMatches",
            HoldReason::Refused(_) => "Refused",
            HoldReason::Gate(_) => "Gate",
            HoldReason::Failing { .. } => "Failing",
            HoldReason::SharedIncident(_) => "SharedIncident",
            HoldReason::NoTelemetry => "NoTelemetry",
            HoldReason::NoTraffic => "NoTraffic",
            HoldReason::ProviderError { .. } => "ProviderError",
            HoldReason::Evidence(_) => "Evidence",
            HoldReason::Waiting => "Waiting",
        }
    }

    /// Whether somebody has to mend something before the run can go on.
    pub fn is_blocking(&self) -> bool {
        match self {
            HoldReason::CommitFailed(_)
            | HoldReason::StableUnhealthy(_)
            | HoldReason::NoClientMatches(_)
            | HoldReason::Refused(_)
            | HoldReason::Failing { .. }
            | HoldReason::SharedIncident(_)
            | HoldReason::NoTelemetry
            | HoldReason::ProviderError { .. } => true,
            HoldReason::Frozen(_)
            | HoldReason::Suspended
            | HoldReason::Paused { .. }
            | HoldReason::Recovering
            | HoldReason::Endpoints
            | HoldReason::NotAcknowledged { .. }
            | HoldReason::Gate(_)
            | HoldReason::NoTraffic
            | HoldReason::Evidence(_)
            | HoldReason::Waiting => false,
        }
    }
}

/// In a sentence.
impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HoldReason::CommitFailed(words) => write!(f, "its record cannot be stored, nothing is published: {words}"),
            HoldReason::StableUnhealthy(reason) => write!(f, "stable has no healthy endpoint to go back to ({reason})"),
            HoldReason::Frozen(words) => write!(f, "frozen by {words}"),
            HoldReason::Suspended => f.write_str("the intent says suspend"),
            HoldReason::Paused { actor, reason } => write!(f, "paused by {actor}: {reason}"),
            HoldReason::Recovering => f.write_str("the server was restarted: nodes or evidence are not back"),
            HoldReason::Endpoints => f.write_str("there are not enough healthy endpoints"),
            HoldReason::NotAcknowledged { accepted, concerned } => {
                write!(f, "{accepted} of {concerned} nodes have accepted the weights")
            }
            HoldReason::NoClientMatches(words) => write!(f, "nobody is connected whom the intent selects: {words}"),
            HoldReason::Refused(refusals) => {
                f.write_str("nodes did not accept the step: ")?;
                write_refusals(f, refusals)
            }
            HoldReason::Gate(id) => write!(f, "a gate of phase {:?} has not approved", id.phase),
            HoldReason::Failing { metric, words } => write!(f, "{metric} fails: {words}"),
            HoldReason::SharedIncident(words) => write!(f, "stable is as bad: {words}"),
            HoldReason::NoTelemetry => f.write_str("no proxy reports what it counts"),
            HoldReason::NoTraffic => f.write_str("proxies report, and the candidate gets no request"),
            HoldReason::ProviderError { metric, words } => write!(f, "the provider of {metric} fails: {words}"),
            HoldReason::Evidence(words) => f.write_str(words),
            HoldReason::Waiting => f.write_str("for its time to pass, or for somebody to promote it"),
        }
    }
}

/// The first few refusals.
pub(crate) fn write_refusals(f: &mut fmt::Formatter<'_>, refusals: &[Refusal]) -> fmt::Result {
    for (at, Refusal { node, words }) in refusals.iter().take(3).enumerate() {
        let words = if words.is_empty() { "no answer" } else { words };
        write!(f, "{}{node} ({words})", if at == 0 { "" } else { "; " })?;
    }
    match refusals.len().saturating_sub(3) {
        0 => Ok(()),
        more => write!(f, "; and {more} more"),
    }
}

impl Run {
    /// Why the run does not move; `None` when it is over.
    pub fn hold(&self) -> Option<Hold> {
        let (reason, since) = self.held.clone()?;
        Some(Hold { reason, since, deadline: self.poll_timeout() })
    }

    /// Notes what it waits for now. The record has it, too, for the time after a restart: what is waited for again once
    /// the nodes are back has been waited for all the time.
    pub(super) fn update_hold(&mut self) {
        let reason = self.hold_reason();
        let before = self.held.as_ref().map(|(known, since)| (known.as_str(), *since));
        let stored = self.record.held.as_ref().map(|held| (held.word.as_str(), held.since));
        let since_of = |word: &str| {
            let known = [before, stored].into_iter().flatten().find(|(known, _)| *known == word);
            known.map_or(self.now, |(_, since)| since)
        };
        let held = reason.map(|reason| {
            let since = since_of(reason.as_str());
            (reason, since)
        });
        if self.recovering.is_none() {
            let stored = held.as_ref().map(|(reason, since)| Held {
                word: reason.as_str().to_owned(),
                since: *since,
                is_blocking: reason.is_blocking(),
            });
            let is_blocked = |held: &Option<Held>| held.as_ref().is_some_and(|held| held.is_blocking);
            if is_blocked(&self.record.held) && !is_blocked(&stored) {
                self.record.unblocked = Some(self.now);
            }
            self.record.held = stored;
        }
        self.held = held;
    }

    fn hold_reason(&self) -> Option<HoldReason> {
        let (record, plan) = (&self.record, &self.record.plan);
        if let Some((words, _)) = &self.commit_failure {
            return Some(HoldReason::CommitFailed(words.clone()));
        }
        if let Some(reason) = &record.wanted {
            return Some(HoldReason::StableUnhealthy(reason.clone()));
        }
        let not_acknowledged =
            || HoldReason::NotAcknowledged { accepted: self.standing.accepted, concerned: self.standing.concerned };
        match record.phase {
            phase if phase.is_terminal() => return None,
            Phase::RollingBack | Phase::Promoting => return Some(not_acknowledged()),
            Phase::Draining if record.settled.is_none() => return Some(not_acknowledged()),
            Phase::Draining => return Some(HoldReason::Waiting),
            Phase::Step { stage: Stage::Blocked, .. } => return Some(HoldReason::Refused(record.refusals.clone())),
            Phase::Step { stage: Stage::Applying, .. } => return Some(not_acknowledged()),
            _ => {}
        }
        if let Some(words) = &self.frozen {
            return Some(HoldReason::Frozen(words.clone()));
        }
        if plan.spec.suspend {
            return Some(HoldReason::Suspended);
        }
        if let Some((actor, reason)) = &record.paused {
            return Some(HoldReason::Paused { actor: actor.clone(), reason: reason.clone() });
        }
        if self.recovering.is_some() {
            return Some(HoldReason::Recovering);
        }
        if self.endpoints.is_none() {
            return Some(HoldReason::Endpoints);
        }
        if let Some(id) = self.waits_for_gate() {
            return Some(HoldReason::Gate(id.clone()));
        }
        let is_ready = self.healthy(&plan.candidate) >= plan.spec.safety.min_healthy_endpoints;
        let needs_clients =
            matches!(record.phase, Phase::Preparing | Phase::Step { stage: Stage::Guard, .. } | Phase::Bake);
        if needs_clients && self.is_unattended() {
            return Some(HoldReason::NoClientMatches(plan.spec.attach.selected()));
        }
        match record.phase {
            Phase::Preparing if is_ready => Some(not_acknowledged()),
            Phase::Pending | Phase::Preparing | Phase::PreGate => Some(HoldReason::Endpoints),
            Phase::Step { stage: Stage::Guard, .. } => Some(self.awaited.clone().unwrap_or(HoldReason::Endpoints)),
            Phase::Step { stage: Stage::Settling, .. } => Some(HoldReason::Waiting),
            _ => Some(self.evidence_hold()),
        }
    }

    /// What the evidence waits for, most serious first. While nothing is sent to the candidate none is to be had, and
    /// that it gets no request is no reason to wait.
    pub(super) fn evidence_hold(&self) -> HoldReason {
        if !self.record.is_exposed() {
            return HoldReason::Waiting;
        }
        let judge = &self.record.judge;
        let policy = &self.record.plan.spec.analysis;
        let verdict = judge.verdict();
        if let Some(failure) = verdict.failure.or(verdict.hold) {
            return HoldReason::Failing { metric: failure.metric, words: failure.words };
        }
        if let Some(shared) = verdict.shared {
            return HoldReason::SharedIncident(format!("{}: {}", shared.metric, shared.words));
        }
        for absence in judge.absences(self.now) {
            match absence {
                Absence::Telemetry(since)
                    if judge.counts_requests() && self.now.since(since) >= policy.telemetry_timeout =>
                {
                    return HoldReason::NoTelemetry;
                }
                Absence::Traffic(since) if self.now.since(since) >= policy.no_traffic_timeout => {
                    return HoldReason::NoTraffic;
                }
                Absence::Provider(failure) => {
                    return HoldReason::ProviderError { metric: failure.metric, words: failure.words };
                }
                Absence::Telemetry(_) | Absence::Traffic(_) => {}
            }
        }
        match verdict.missing.or_else(|| judge.unanswered()) {
            Some(words) => HoldReason::Evidence(words),
            None => HoldReason::Waiting,
        }
    }
}
