//! Rollouts as the admin API shows them.

use serde::{Deserialize, Serialize};

use super::{Problem, Timestamp};

/// `GET /api/v1/rollouts`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollouts {
    /// One for each intent, ordered by namespace and name.
    pub rollouts: Vec<Rollout>,
}

/// `GET /api/v1/rollouts/{namespace}/{name}`: an intent with its current run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The intent's namespace.
    pub namespace: String,
    /// The intent's name.
    pub intent: String,
    /// The service as `namespace/name`; empty while there is none.
    pub service: String,
    /// The strategy, such as `Canary`; empty before the intent could be carried out.
    pub strategy: String,
    /// The current run's name; empty before the first.
    pub run: String,
    /// `Idle` before the first run, `Deleted` for an intent that is gone, else the run's phase in one word.
    pub phase: String,
    /// Since when.
    pub since: Timestamp,
    /// The index of the step that the run is in.
    pub step: Option<usize>,
    /// How many steps it has.
    pub steps: usize,
    /// Where traffic was when the run began, or is without one.
    pub stable: String,
    /// Where it goes; empty without a run.
    pub candidate: String,
    /// Counted from 1 for each candidate.
    pub attempt: u32,
    /// When the run began.
    pub started: Timestamp,
    /// Shares of the candidate.
    pub weight: RolloutWeights,
    /// Where the nodes stand that the assignment concerns.
    pub nodes: RolloutNodes,
    /// Endpoints by revision.
    pub endpoints: Vec<RevisionEndpoints>,
    /// Why the run does not move; absent when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<RolloutHold>,
    /// Why it went back, in words; empty when it did not.
    pub reason: String,
    /// What people have done, the oldest first.
    pub actions: Vec<RolloutAction>,
    /// What has happened since the server was started, the oldest first; the last hundred.
    pub events: Vec<RolloutEvent>,
    /// Revisions that nothing is sent to any more: they may be scaled down.
    pub safe_to_scale_down: Vec<String>,
    /// What is wrong with the intent as far as rollouts are concerned.
    pub problems: Vec<Problem>,
    /// The runs, the current one first.
    pub runs: Vec<RolloutPast>,
    /// Every number that the verdict on the candidate rests on; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<serde_json::Value>,
    /// The conditions of the intent.
    #[serde(default)]
    pub conditions: Vec<RolloutCondition>,
}

/// The candidate's share in percent, three times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutWeights {
    /// As it is published.
    pub configured: f64,
    /// As every concerned node is known to have accepted it.
    pub acknowledged: f64,
    /// As requests were counted since the weights changed last; absent while none were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<ObservedShare>,
}

/// A share that was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObservedShare {
    /// In percent.
    pub percent: f64,
    /// The ends of its interval of 95 % confidence (Wilson's), in percent.
    pub interval: [f64; 2],
    /// Requests that were counted.
    pub requests: u64,
    /// Requests that header routes chose, or copies, are among them: nobody can tell them apart, and the share is not that
    /// of what weights divide.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub includes_chosen: bool,
}

/// Acknowledgements of the current assignment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutNodes {
    /// The version of the assignment that this is about.
    pub version: u64,
    /// Connected nodes that it concerns.
    pub concerned: u32,
    /// Of them, those that have accepted all that it led to.
    pub accepted: u32,
    /// Those that have refused something, with their words; at most 20.
    pub refused: Vec<RolloutRefusal>,
    /// Nodes that left within the last 15 minutes with an older assignment of the run, which they may still follow. They
    /// are not waited for, and not among those above.
    #[serde(default)]
    pub stale: u32,
}

/// A refusal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutRefusal {
    /// Which node.
    pub node: String,
    /// Its words.
    pub words: String,
}

/// Endpoints of one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RevisionEndpoints {
    /// The value of the label.
    pub revision: String,
    /// How many take traffic.
    pub healthy: u32,
    /// How many there are.
    #[serde(default)]
    pub total: u32,
}

/// Why a run does not move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutHold {
    /// In one word, such as `NotAcknowledged` or `Evidence`.
    pub reason: String,
    /// In a sentence.
    pub text: String,
    /// Since when.
    pub since: Timestamp,
    /// When something changes by itself; absent when only an event can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}

/// Something that somebody did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutAction {
    /// When.
    pub at: Timestamp,
    /// What, such as `promote`.
    pub verb: String,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The id that it was given.
    pub id: String,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutEvent {
    /// Rises with every event.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// In which run.
    pub run: String,
    /// In one word: `Phase`, `Action`, `Blocked`, `Verdict`, `Edit`, `SafeToScaleDown`, `Webhook`.
    pub event: String,
    /// In a sentence.
    pub text: String,
}

/// A run, as its intent's history has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutPast {
    /// Its name.
    pub run: String,
    /// From which revision.
    pub stable: String,
    /// To which.
    pub candidate: String,
    /// Counted from 1 for each candidate.
    pub attempt: u32,
    /// Where it ended, or is.
    pub phase: String,
    /// Why it went back, in words; empty when it did not.
    pub reason: String,
    /// When it began.
    pub started: Timestamp,
    /// When it entered its phase.
    pub since: Timestamp,
    /// The phases that it went through, the oldest first; the last hundred.
    pub passages: Vec<RolloutPassage>,
}

/// A phase that a run entered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutPassage {
    /// When.
    pub at: Timestamp,
    /// Which, such as `step 2: Applying`.
    pub phase: String,
    /// The weight of the candidate at that time, in percent.
    pub weight: f64,
}

/// One condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutCondition {
    /// `Accepted`, `Progressing`, `Healthy`, `Blocked` or `Promoted`.
    pub kind: String,
    /// Whether it holds; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<bool>,
    /// Why, in a few words.
    pub reason: String,
    /// Since when it is so, for this reason; absent where nobody has noted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When it changes by itself at the latest; absent where only an event can change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}

/// The body of `POST /api/v1/rollouts/{namespace}/{name}/actions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutRequest {
    /// `promote`, `promote-full`, `pause`, `resume`, `abort`, `retry`, `skip-step` or `roll-back-to`.
    pub verb: String,
    /// The revision of `roll-back-to`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The variant of an A/B test that `promote` names as its winner, by its name or its revision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// A second action with the same id does nothing. Made up when it is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The step that whoever asks saw; the action is refused when the run is elsewhere by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_step: Option<usize>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
