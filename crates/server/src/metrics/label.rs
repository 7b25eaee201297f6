//! Labels, and the closed sets of words that some of them take.

use prometheus_client::encoding::EncodeLabelSet;
use proto::ResourceType;
use xds::{Service, Variant};

/// A type of resources by its short name: `cds`, `eds`, ...
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TypeLabel {
    pub(super) r#type: &'static str,
}

impl From<ResourceType> for TypeLabel {
    fn from(resource_type: ResourceType) -> Self {
        Self { r#type: resource_type.short() }
    }
}

/// The distribution version that clients state, such as Istio's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct VersionLabel {
    pub(super) version: String,
}

/// The service that a stream was opened on, and the variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StreamLabel {
    /// `ads`, or the short name of a type.
    pub(crate) service: &'static str,
    /// `sotw` or `delta`.
    pub(crate) variant: &'static str,
}

impl StreamLabel {
    pub(crate) fn of(service: Service, variant: Variant) -> Self {
        Self {
            service: match service {
                Service::Aggregated => "ads",
                Service::Only(resource_type) => ResourceType::short(resource_type),
            },
            variant: match variant {
                Variant::StateOfTheWorld => "sotw",
                Variant::Delta => "delta",
            },
        }
    }
}

/// The gRPC status of a stream's end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CodeLabel {
    pub(super) code: i32,
}

/// A reason out of a closed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: &'static str,
}

/// What clients report by: `metrics` or `access_logs`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabel {
    pub(super) kind: &'static str,
}

/// What became of a request that a limit is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LimitLabel {
    pub(super) limit: String,
    pub(super) outcome: &'static str,
}

/// A metric that a run is judged by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct JudgedLabel {
    pub(super) namespace: String,
    pub(super) intent: String,
    pub(super) metric: String,
}

/// How a key set stands: `fresh`, `stale` or `missing`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StandingLabel {
    pub(super) standing: &'static str,
}

/// How something ended: `ok` or `failed`; of a token also `proved`, `refused` and `crowded`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabel {
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SeverityLabel {
    pub(super) severity: &'static str,
}

/// What became of a request that a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// There was room.
    Allowed,
    /// There was none.
    Refused,
    /// There was none, and it passed all the same.
    DryRun,
    /// There is no such limit, or no more.
    Unknown,
    /// It passed without being counted: there are too many keys.
    Uncounted,
    /// Nobody could say.
    Failed,
}

impl Passage {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Passage::Allowed => "allowed",
            Passage::Refused => "refused",
            Passage::DryRun => "dry_run",
            Passage::Unknown => "unknown",
            Passage::Uncounted => "uncounted",
            Passage::Failed => "failed",
        }
    }
}
