//! Our own `delivery.pointsman.dev` v1alpha1: how traffic moves from one revision of a service to the next.
//!
//! Every type can be read and written, because a run keeps the intent that it began with. Defaults are those of the
//! API: an empty `spec` with a service is a complete intent. What makes no sense by itself (weights that fall, two
//! strategies) is reported by the source; what cannot be a value at all (a weight of 120 %) is not read.

mod amount;
mod analysis;
mod assignment;
mod freeze;
mod intent;
mod json_path;
mod matching;
mod profile;
mod run;
mod span;
mod stickiness;
mod strategy;
mod template;
mod time;
mod weight;

pub use amount::Amount;
pub use analysis::{AnalysisPolicy, EvidenceSource, OnAbsence, OnFailure, OnTelemetryLoss, SharedIncident};
pub use assignment::{Assignment, Mirror, RequestRoute, Revision, Split};
pub use freeze::Freeze;
pub use intent::{
    Attach, Choice, ClientSelector, DeploymentIntent, Drain, GatePhase, GateSpec, IntentProtocol, NewRevision,
    NotifySpec, OnGateError, RevisionPolicy, RollbackMode, RollbackPolicy, SafetyPolicy, ServiceSelector,
};
pub use json_path::JsonPath;
pub use matching::{FieldMatch, RequestMatch};
pub use profile::{AnalysisProfile, Bounds, MetricKind, MetricSpec, OnMetricError, Tolerance};
pub use run::{RolloutRun, RunStatus};
pub use stickiness::{HashKey, SameSite, Stickiness, StickinessMode, StickyCookie};
pub use strategy::{
    AbTest, BlueGreen, Canary, GateStep, HeaderRoute, MirrorStep, MirrorTest, PauseStep, Preview, Promotion,
    RequireEndpoints, Rolling, Step, StepAnalysis, Strategy, StrategyType, Switch, Variant, Winner,
};
pub use template::fill_in;
pub use time::{parse_time, time_text};
pub use weight::{Weight, WeightError};

pub use crate::api::schema::{COOKIE_DOMAIN, COOKIE_PATH, URL};
pub use crate::text::parse_duration;

/// The profile that an intent without profiles uses: errors of the candidate beside those of stable.
pub const DEFAULT_PROFILE: &str = "envoy-default";
