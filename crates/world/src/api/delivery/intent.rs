//! `DeploymentIntent`: the one kind that users have to write.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::span::{OptionalSpan, Span};
use super::{AnalysisPolicy, Stickiness, Strategy, Weight};
use crate::Labels;
use crate::api::schema::{LABEL, REVISION, SUBDOMAIN, URL, at_least, at_most, rule, some_time};

/// `DeploymentIntent.spec`: how traffic of one service moves to its next revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.protocol != 'TCP' || !(self.strategy.type in ['AB', 'Mirror'])",
            "TCP has no requests to tell apart: use Canary, BlueGreen or Rolling",
        ),
        rule(
            "self.protocol != 'TCP' || !has(self.strategy.canary) || self.strategy.canary.steps.all(s, !has(s.headerRoute) && !has(s.mirror))",
            "TCP has no requests to match or mirror",
        ),
        rule(
            "self.protocol != 'TCP' || !has(self.strategy.blueGreen) || !has(self.strategy.blueGreen.preview.match) || size(self.strategy.blueGreen.preview.match) == 0",
            "TCP has no requests to match",
        ),
        rule(
            "self.stickiness.mode == 'None' || self.protocol != 'TCP'",
            "TCP has neither headers nor cookies",
        ),
        rule(
            "self.stickiness.mode == 'None' || self.strategy.type != 'Rolling'",
            "a rolling strategy exchanges endpoints, not weights: clients cannot stay with a revision",
        ),
        rule(
            "!has(self.strategy.canary) || self.strategy.canary.steps.all(s, !has(s.analysis) || !has(s.analysis.minDuration) || has(s.analysis.maxDuration) || duration(s.analysis.minDuration) <= duration(self.analysis.maxStepDuration))",
            "no minDuration of a step is longer than maxStepDuration",
        ),
    ]))]
pub struct DeploymentIntent {
    /// Whose traffic.
    pub service: ServiceSelector,
    /// Which clients and routes.
    pub attach: Attach,
    /// What the ports carry.
    pub protocol: IntentProtocol,
    /// What tells revisions apart, and which they are.
    pub revisions: RevisionPolicy,
    /// How it moves.
    pub strategy: Strategy,
    /// Whether a client stays with a revision.
    pub stickiness: Stickiness,
    /// When to believe what.
    pub analysis: AnalysisPolicy,
    /// What must hold before and while weights rise.
    pub safety: SafetyPolicy,
    /// How it goes back.
    pub rollback: RollbackPolicy,
    /// What a revision that appears in the middle of a run does to it.
    pub on_new_revision: NewRevision,
    /// How long preparing, and being blocked by refusals, may take.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = some_time()))]
    pub progress_deadline: Duration,
    /// What is left to requests in flight.
    pub drain: Drain,
    /// Who is asked.
    #[schemars(length(max = 64))]
    pub gates: Vec<GateSpec>,
    /// Who is told.
    #[schemars(length(max = 64))]
    pub notify: Vec<NotifySpec>,
    /// No run advances; rolling back stays live.
    pub suspend: bool,
    /// How many finished runs are kept.
    #[schemars(range(min = 1, max = 100))]
    pub history_limit: u32,
}

impl Default for DeploymentIntent {
    fn default() -> Self {
        Self {
            service: ServiceSelector::default(),
            attach: Attach::default(),
            protocol: IntentProtocol::Auto,
            revisions: RevisionPolicy::default(),
            strategy: Strategy::default(),
            stickiness: Stickiness::default(),
            analysis: AnalysisPolicy::default(),
            safety: SafetyPolicy::default(),
            rollback: RollbackPolicy::default(),
            on_new_revision: NewRevision::Replace,
            progress_deadline: Duration::from_secs(600),
            drain: Drain::default(),
            gates: Vec::new(),
            notify: Vec::new(),
            suspend: false,
            history_limit: 10,
        }
    }
}

/// `spec.service`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSelector {
    /// Its name.
    #[schemars(length(max = 253))]
    #[schemars(regex(pattern = SUBDOMAIN))]
    pub name: String,
    /// Its namespace; the object's own without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[schemars(regex(pattern = LABEL))]
    pub namespace: Option<String>,
    /// The ports concerned; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(range(min = 1)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub ports: Vec<u16>,
}

impl ServiceSelector {
    /// Whether this governs a port that `ports` govern as well, of the same service. No ports stand for every port.
    pub fn meets(&self, ports: &[u16]) -> bool {
        self.ports.is_empty() || ports.is_empty() || ports.iter().any(|port| self.ports.contains(port))
    }
}

/// `spec.attach`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.mesh || (has(self.gateways) && size(self.gateways) > 0)",
            "no traffic is meant: set mesh: true, or name gateways",
        ),
    ]))]
pub struct Attach {
    /// Traffic of sidecars and proxyless clients.
    pub mesh: bool,
    /// Traffic of these gateways, by `name` or `namespace/name`.
    pub gateways: Vec<String>,
    /// Only these routes, by the names that they have in their VirtualServices; all when empty.
    pub routes: Vec<String>,
    /// Only clients with these labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientSelector>,
}

impl Default for Attach {
    fn default() -> Self {
        Self { mesh: true, gateways: Vec::new(), routes: Vec::new(), clients: None }
    }
}

impl Attach {
    /// Whether it means some clients and not simply everybody in the mesh: then that none of them is there is worth
    /// knowing.
    pub fn is_selective(&self) -> bool {
        !self.mesh || self.clients.as_ref().is_some_and(|clients| !clients.match_labels.is_empty())
    }

    /// Whom it means, in words.
    pub fn selected(&self) -> String {
        let labels = self.clients.iter().flat_map(|clients| &clients.match_labels);
        let labels: Vec<_> = labels.map(|(key, value)| format!("{key}={value}")).collect();
        let mesh = match labels.is_empty() {
            true => "a client in the mesh".to_owned(),
            false => format!("a client with {}", labels.join(",")),
        };
        let gateways = format!("a proxy of Gateway {}", self.gateways.join(" or "));
        match (self.mesh, self.gateways.is_empty()) {
            (true, true) => mesh,
            (true, false) => format!("{mesh}, or {gateways}"),
            (false, _) => gateways,
        }
    }
}

/// `attach.clients`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientSelector {
    /// All of these.
    pub match_labels: Labels,
}

/// `spec.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum IntentProtocol {
    /// What the service's ports say.
    #[default]
    Auto,
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "GRPC")]
    Grpc,
    #[serde(rename = "TCP")]
    Tcp,
}

/// `spec.revisions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.stable == 'Auto' || self.stable != self.candidate",
            "the candidate is another revision than stable",
        ),
    ]))]
pub struct RevisionPolicy {
    /// The label whose values are the revisions.
    #[schemars(length(min = 1))]
    pub label: String,
    /// Where traffic is; `Auto` is where the last completed run left it.
    pub stable: Choice,
    /// Where it goes; `Auto` is the value seen last.
    pub candidate: Choice,
}

impl Default for RevisionPolicy {
    fn default() -> Self {
        Self { label: "version".to_owned(), stable: Choice::Auto, candidate: Choice::Auto }
    }
}

/// A revision by name, or `Auto`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Found by itself.
    #[default]
    Auto,
    /// This value of the label.
    Named(String),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Choice::Auto => "Auto",
            Choice::Named(name) => name,
        })
    }
}

impl Serialize for Choice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(if text == "Auto" { Choice::Auto } else { Choice::Named(text) })
    }
}

impl JsonSchema for Choice {
    fn schema_name() -> Cow<'static, str> {
        "Choice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 253, "pattern": REVISION})
    }
}

/// `spec.safety`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SafetyPolicy {
    /// The candidate takes traffic only with at least this many healthy endpoints.
    #[schemars(range(min = 1))]
    pub min_healthy_endpoints: u32,
    /// Weights rise only while the candidate's healthy endpoints are at least this times the weight times stable's;
    /// 0 for no such condition.
    #[schemars(range(min = 0, max = 100))]
    pub capacity_ratio: f64,
    /// Requests for a candidate without healthy endpoints go to stable, in the proxy itself.
    pub fallback_to_stable: bool,
    /// A step counts when this share of the concerned nodes has accepted it.
    #[schemars(range(min = 50))]
    pub ack_quorum: Weight,
    /// For so long it is waited for.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = at_least("1s")))]
    pub ack_timeout: Duration,
    /// More refusals than this block a step.
    pub max_nacks: u32,
}

impl Default for SafetyPolicy {
    fn default() -> Self {
        Self {
            min_healthy_endpoints: 1,
            capacity_ratio: 0.0,
            fallback_to_stable: true,
            ack_quorum: Weight::FULL,
            ack_timeout: Duration::from_secs(30),
            max_nacks: 0,
        }
    }
}

/// `spec.rollback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.mode != 'Ramp' || (has(self.ramp) && duration(self.ramp) >= duration('1s'))",
            "mode Ramp needs a ramp of at least 1s",
        ),
    ]))]
pub struct RollbackPolicy {
    /// At once, or over `ramp`.
    pub mode: RollbackMode,
    /// How long a ramp takes.
    #[serde(with = "OptionalSpan", skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Duration>,
    /// So many of the last good revisions may come back without steps.
    #[schemars(range(max = 10))]
    pub window: u32,
}

impl Default for RollbackPolicy {
    fn default() -> Self {
        Self { mode: RollbackMode::Instant, ramp: None, window: 1 }
    }
}

/// How weights go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RollbackMode {
    /// In one publication.
    #[default]
    Instant,
    /// In even parts. Only for rollbacks that nobody is hurt by: a verdict or lost endpoints go at once.
    Ramp,
}

/// What a third revision means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NewRevision {
    /// Stable takes everything, and a new run begins.
    #[default]
    Replace,
    /// Its run begins when this one has ended.
    Queue,
    /// It is told about and otherwise ignored.
    Reject,
}

/// `spec.drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// Between the last acceptance of weight 0 and the removal of a revision's clusters.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = at_most("1h")))]
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60) }
    }
}

/// `spec.gates[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
        rule(
            "self.url.startsWith('https://') || (has(self.insecure) && self.insecure && self.url.startsWith('http://'))",
            "the URL is an https one, or an http one with insecure: true",
        ),
    ]))]
pub struct GateSpec {
    /// When it is asked.
    pub phase: GatePhase,
    /// Whom.
    #[schemars(length(min = 1, max = 2048))]
    #[schemars(regex(pattern = URL))]
    pub url: String,
    /// Plain HTTP is meant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// How long an answer may take; an hour at most.
    #[serde(with = "Span")]
    #[schemars(extend("x-kubernetes-validations" = [some_time(), at_most("1h")].concat()))]
    pub timeout: Duration,
    /// How often it is asked again after an error, before that is an answer.
    #[schemars(range(max = 100))]
    pub retries: u32,
    /// What an error means.
    pub on_error: OnGateError,
}

impl Default for GateSpec {
    fn default() -> Self {
        Self {
            phase: GatePhase::PreRun,
            url: String::new(),
            insecure: false,
            timeout: Duration::from_secs(10),
            retries: 3,
            on_error: OnGateError::Hold,
        }
    }
}

/// When a gate is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum GatePhase {
    /// Before the first weight.
    #[default]
    PreRun,
    /// Before every step that changes what the candidate takes.
    PreStep,
    /// Before the candidate becomes stable.
    PrePromote,
    /// After the run, for its information only.
    PostRun,
    /// Again and again while the candidate takes traffic: approval means to roll back.
    Rollback,
}

/// What an error of a gate means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnGateError {
    /// It is asked again.
    #[default]
    Hold,
    /// It has refused.
    Fail,
}

/// `spec.notify[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NotifySpec {
    /// Whom.
    #[schemars(length(max = 2048))]
    #[schemars(regex(pattern = URL))]
    pub url: String,
    /// Of what; of everything when empty.
    #[schemars(length(max = 64))]
    #[schemars(inner(regex(pattern = "^(Phase|Action|Blocked|Verdict|Edit)$")))]
    pub events: Vec<String>,
}

impl NotifySpec {
    /// The events that there are.
    pub const EVENTS: [&str; 5] = ["Phase", "Action", "Blocked", "Verdict", "Edit"];
}
