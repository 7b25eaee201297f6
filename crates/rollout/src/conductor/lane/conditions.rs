//! How an intent stands, in five answers.

use world::Severity;

use super::Lane;
use crate::conductor::intent_record::Acceptance;
use crate::run::Hold;
use crate::{HoldReason, Phase, Record, Time};

/// One answer. `status` and `reason` are what has been so since `since`; a text that only counts further is no change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `Progressing`, `Healthy`, `Blocked` or `Promoted`.
    pub kind: &'static str,
    /// Whether it holds; `None` while that is not known.
    pub status: Option<bool>,
    /// Why, in a few words.
    pub reason: String,
    /// Since when; `None` of what is older than the records of it.
    pub since: Option<Time>,
    /// When it changes by itself at the latest, where time alone can change it.
    pub deadline: Option<Time>,
}

impl Lane {
    /// The conditions of the intent: `Accepted` and `Progressing` always, the others once there is a run.
    pub fn conditions(&self) -> Vec<Condition> {
        let accepted = self.saved.accepted.clone().unwrap_or_else(|| self.acceptance(None));
        let mut all = vec![Condition {
            kind: "Accepted",
            status: Some(accepted.is_accepted),
            reason: accepted.words,
            since: accepted.since,
            deadline: None,
        }];
        let Some(run) = self.run() else {
            let (kind, reason) = ("Progressing", "NoRun".to_owned());
            all.push(Condition { kind, status: Some(false), reason, since: self.saved.came, deadline: None });
            return all;
        };
        let (record, hold) = (run.record(), run.hold());
        all.push(Condition {
            kind: "Progressing",
            status: Some(!record.phase.is_terminal()),
            reason: record.phase.as_str().to_owned(),
            since: Some(record.since),
            deadline: hold.as_ref().and_then(|hold| hold.deadline),
        });
        all.push(healthy(record, hold.as_ref()));
        all.push(blocked(record, hold.as_ref()));
        let is_promoted = record.phase == Phase::Completed && record.reason.is_none();
        all.push(Condition {
            kind: "Promoted",
            status: Some(is_promoted),
            reason: record.plan.candidate.to_string(),
            since: Some(if is_promoted { record.since } else { record.started }),
            deadline: None,
        });
        all
    }

    /// Notes whether what the intent says is carried out, and since when.
    pub(super) fn note_acceptance(&mut self, now: Time) {
        if self.saved.generation > 0 && self.saved.came.is_none() {
            self.saved.came = Some(now);
        }
        let accepted = self.acceptance(Some(now));
        let is_known = self.saved.accepted.as_ref().is_some_and(|known| known.says_the_same(&accepted));
        if !is_known {
            self.saved.accepted = Some(accepted);
        }
    }

    /// That the store is full is nothing that the intent says: a run says that it is blocked by it.
    fn acceptance(&self, since: Option<Time>) -> Acceptance {
        let is_refused = self.wish.as_ref().is_some_and(|wish| wish.is_refused);
        let error = self.problem.as_ref().filter(|problem| problem.severity == Severity::Error);
        let is_accepted = self.saved.generation > 0 && error.is_none() && !is_refused;
        let words = match (error, is_accepted) {
            (_, true) => "Valid".to_owned(),
            (Some(problem), false) => problem.message.clone(),
            (None, false) => "an error of the intent keeps it from being carried out".to_owned(),
        };
        Acceptance { is_accepted, words, since }
    }
}

/// Of a run that is over, what has become of it; before that it is not known, unless something speaks against it.
fn healthy(record: &Record, hold: Option<&Hold>) -> Condition {
    let failing = hold.filter(|hold| matches!(hold.reason, HoldReason::Failing { .. } | HoldReason::SharedIncident(_)));
    let went_back = record.history.iter().rev().find(|passage| passage.phase == Phase::RollingBack);
    let (status, reason, since) = match (&record.reason, failing) {
        // A test that has passed, or that stable has won, speaks against nobody.
        (Some(reason), _) if record.phase == Phase::Completed => (Some(true), reason.to_string(), record.since),
        (Some(reason), _) if record.phase.is_over() => {
            (Some(false), reason.to_string(), went_back.map_or(record.since, |passage| passage.at))
        }
        (_, Some(hold)) => (Some(false), hold.reason.to_string(), hold.since),
        (_, None) if record.phase == Phase::Completed => (Some(true), "NoVerdictAgainstIt".to_owned(), record.since),
        (_, None) => (None, "NoVerdictAgainstIt".to_owned(), record.started),
    };
    Condition { kind: "Healthy", status, reason, since: Some(since), deadline: None }
}

fn blocked(record: &Record, hold: Option<&Hold>) -> Condition {
    let blocking = hold.filter(|hold| hold.reason.is_blocking());
    Condition {
        kind: "Blocked",
        status: Some(blocking.is_some()),
        reason: blocking.map_or_else(|| "NotBlocked".to_owned(), |hold| hold.reason.to_string()),
        since: Some(blocking.map_or(record.unblocked.unwrap_or(record.started), |hold| hold.since)),
        deadline: blocking.and_then(|hold| hold.deadline),
    }
}
