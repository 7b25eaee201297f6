//! Objects as users write them: identity, metadata, and the specification of one of the kinds that are understood.

mod places;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

pub use places::Places;

use crate::api::delivery::{AnalysisProfile, DeploymentIntent, Freeze, RolloutRun};
use crate::api::istio::{
    AuthorizationPolicy, DestinationRule, Gateway, PeerAuthentication, RequestAuthentication, ServiceEntry,
    VirtualService, WorkloadEntry,
};
use crate::api::kube::{EndpointSlice, Namespace, Pod, ServiceSpec};
use crate::api::mesh_config::MeshConfig;
use crate::api::pointsman::XdsResource;
use crate::api::policy::RateLimitPolicy;

/// Labels or a label selector, in key order.
pub type Labels = BTreeMap<String, String>;

/// The kind of an object. Two API versions of one kind are the same kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    Namespace,
    Service,
    EndpointSlice,
    Pod,
    ServiceEntry,
    WorkloadEntry,
    DestinationRule,
    VirtualService,
    Gateway,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    RateLimitPolicy,
    XdsResource,
    DeploymentIntent,
    AnalysisProfile,
    RolloutRun,
    Freeze,
    /// Only the one that holds Istio's mesh configuration.
    ConfigMap,
    /// A kind that is recognised or not, but has no meaning here yet; kept so that problems can name the object.
    Other(Arc<str>),
}

impl Kind {
    /// The kind's name as in `kind:` of a manifest.
    pub fn as_str(&self) -> &str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Pod => "Pod",
            Kind::ServiceEntry => "ServiceEntry",
            Kind::WorkloadEntry => "WorkloadEntry",
            Kind::DestinationRule => "DestinationRule",
            Kind::VirtualService => "VirtualService",
            Kind::Gateway => "Gateway",
            Kind::PeerAuthentication => "PeerAuthentication",
            Kind::RequestAuthentication => "RequestAuthentication",
            Kind::AuthorizationPolicy => "AuthorizationPolicy",
            Kind::RateLimitPolicy => "RateLimitPolicy",
            Kind::XdsResource => "XdsResource",
            Kind::DeploymentIntent => "DeploymentIntent",
            Kind::AnalysisProfile => "AnalysisProfile",
            Kind::RolloutRun => "RolloutRun",
            Kind::Freeze => "Freeze",
            Kind::ConfigMap => "ConfigMap",
            Kind::Other(name) => name,
        }
    }
}

/// Names by which people call kinds on the command line, in lower case, beside the kind's own and its plural: those of
/// kubectl.
const NAMES: [(Kind, &[&str]); 19] = [
    (Kind::Namespace, &["ns"]),
    (Kind::Service, &["svc"]),
    (Kind::EndpointSlice, &[]),
    (Kind::Pod, &["po"]),
    (Kind::ServiceEntry, &["se", "serviceentries"]),
    (Kind::WorkloadEntry, &["we", "workloadentries"]),
    (Kind::DestinationRule, &["dr"]),
    (Kind::VirtualService, &["vs"]),
    (Kind::Gateway, &["gw"]),
    (Kind::PeerAuthentication, &["pa"]),
    (Kind::RequestAuthentication, &["ra"]),
    (Kind::AuthorizationPolicy, &["ap", "authorizationpolicies"]),
    (Kind::RateLimitPolicy, &["rlp", "ratelimitpolicies"]),
    (Kind::XdsResource, &[]),
    (Kind::DeploymentIntent, &["intent", "intents"]),
    (Kind::AnalysisProfile, &[]),
    (Kind::RolloutRun, &["run", "runs"]),
    (Kind::Freeze, &[]),
    (Kind::ConfigMap, &["cm"]),
];

impl Kind {
    /// The kind that somebody means by `VirtualService`, `virtualservice`, `virtualservices` or `vs`;
    /// [`Kind::Other`] of the same text when there is none.
    pub fn named(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        let is_meant = |(kind, names): &&(Kind, &[&str])| {
            let own = kind.as_str().to_ascii_lowercase();
            lower == own || lower.strip_suffix('s') == Some(&own) || names.contains(&&*lower)
        };
        NAMES.iter().find(is_meant).map_or_else(|| Kind::Other(text.into()), |(kind, _)| kind.clone())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one object. Displayed as `VirtualService default/reviews`; cluster-scoped kinds have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// What it is.
    pub kind: Kind,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ObjectRef {
    /// Names the object of `kind` called `name` in `namespace`.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// The path form that the command line and the admin API use: `virtualservice/default/reviews`.
    pub fn path(&self) -> String {
        let kind = self.kind.as_str().to_ascii_lowercase();
        if self.namespace.is_empty() {
            format!("{kind}/{}", self.name)
        } else {
            format!("{kind}/{}/{}", self.namespace, self.name)
        }
    }
}

/// A text that names no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectPathError {
    /// It has not the form.
    #[error("\"{0}\" is not KIND/NAMESPACE/NAME, such as virtualservice/default/reviews")]
    Form(String),
    /// There is no such kind.
    #[error("\"{path}\" is of no kind that is known: \"{kind}\"")]
    UnknownKind {
        /// The text.
        path: String,
        /// Its first part.
        kind: String,
    },
}

/// The form that [`ObjectRef::path`] has, with any name of the kind that [`Kind::named`] takes.
impl FromStr for ObjectRef {
    type Err = ObjectPathError;

    fn from_str(path: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = path.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(ObjectPathError::Form(path.to_owned()));
        }
        let kind = Kind::named(parts[0]);
        match (&kind, &parts[1..]) {
            (_, [] | [_, _, _, ..]) => Err(ObjectPathError::Form(path.to_owned())),
            (Kind::Other(kind), _) => {
                Err(ObjectPathError::UnknownKind { path: path.to_owned(), kind: kind.to_string() })
            }
            (Kind::Namespace, [name]) => Ok(Self::new(kind, "", name)),
            (Kind::Namespace, _) => Err(ObjectPathError::Form(path.to_owned())),
            (_, [namespace, name]) => Ok(Self::new(kind, namespace, name)),
            (_, [_]) => Err(ObjectPathError::Form(path.to_owned())),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl Serialize for ObjectRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.path())
    }
}

/// Where in a source something was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Location {
    /// File path as the source knows it, or another source's name for the place.
    pub file: Arc<str>,
    /// Line, counted from 1; 0 when unknown.
    pub line: u32,
    /// Column, counted from 1; 0 when unknown.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}", self.file),
            (line, 0) => write!(f, "{}:{line}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file),
        }
    }
}

/// What every object carries beside its specification.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// The object's own labels, shared with the endpoints that come from it.
    pub labels: Arc<Labels>,
    /// The object's annotations.
    pub annotations: BTreeMap<String, String>,
    /// `creationTimestamp` as RFC 3339 text, which sorts by time; empty when absent (files usually have none),
    /// so that objects from files are "oldest" and tie on namespace and name.
    pub created: Arc<str>,
    /// `metadata.generation`, or 0 when the source has none.
    pub generation: i64,
    /// Where the object was read.
    pub location: Option<Location>,
    /// Where its fields stand, for kinds of which much is wrong only beside other objects; `None` for all others.
    pub places: Option<Arc<Places>>,
}

impl Meta {
    /// Where the field of this path stands, as far as that is known; the object's own place otherwise.
    pub fn locate(&self, field: &str) -> Option<Location> {
        let location = self.location.clone()?;
        let place = self.places.as_ref().and_then(|places| places.find(field));
        Some(place.map_or(location.clone(), |(line, column)| Location { line, column, ..location }))
    }
}

/// One object that is understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Identity.
    pub reference: ObjectRef,
    /// Labels, annotations, age, place.
    pub meta: Meta,
    /// What it says.
    pub spec: Spec,
}

/// The specification of each supported kind.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Spec {
    Namespace(Namespace),
    Service(ServiceSpec),
    EndpointSlice(EndpointSlice),
    Pod(Pod),
    ServiceEntry(ServiceEntry),
    WorkloadEntry(WorkloadEntry),
    DestinationRule(Box<DestinationRule>),
    VirtualService(VirtualService),
    Gateway(Gateway),
    PeerAuthentication(PeerAuthentication),
    RequestAuthentication(RequestAuthentication),
    AuthorizationPolicy(AuthorizationPolicy),
    RateLimitPolicy(RateLimitPolicy),
    XdsResource(XdsResource),
    DeploymentIntent(Box<DeploymentIntent>),
    AnalysisProfile(AnalysisProfile),
    RolloutRun(Box<RolloutRun>),
    Freeze(Freeze),
    MeshConfig(MeshConfig),
}

/// The `apiVersion` of the kinds about rollouts.
const DELIVERY: &str = "delivery.pointsman.dev/v1alpha1";

impl Object {
    /// The whole object as a manifest has it, with every default written out, and with the generation that is given
    /// here. `None` for kinds that are not about rollouts: their types read more than they write.
    pub fn manifest(&self, generation: i64) -> Option<serde_json::Value> {
        let spec = match &self.spec {
            Spec::DeploymentIntent(spec) => serde_json::to_value(spec),
            Spec::AnalysisProfile(spec) => serde_json::to_value(spec),
            Spec::RolloutRun(spec) => serde_json::to_value(spec),
            Spec::Freeze(spec) => serde_json::to_value(spec),
            Spec::Namespace(_)
            | Spec::Service(_)
            | Spec::EndpointSlice(_)
            | Spec::Pod(_)
            | Spec::ServiceEntry(_)
            | Spec::WorkloadEntry(_)
            | Spec::DestinationRule(_)
            | Spec::VirtualService(_)
            | Spec::Gateway(_)
            | Spec::PeerAuthentication(_)
            | Spec::RequestAuthentication(_)
            | Spec::AuthorizationPolicy(_)
            | Spec::MeshConfig(_)
            | Spec::RateLimitPolicy(_)
            | Spec::XdsResource(_) => return None,
        };
        let ObjectRef { kind, namespace, name } = &self.reference;
        let mut metadata = serde_json::json!({"name": &**name, "namespace": &**namespace});
        for (field, texts) in [("labels", &*self.meta.labels), ("annotations", &self.meta.annotations)] {
            if !texts.is_empty() {
                metadata[field] = serde_json::json!(texts);
            }
        }
        if !self.meta.created.is_empty() {
            metadata["creationTimestamp"] = serde_json::json!(&*self.meta.created);
        }
        if generation > 0 {
            metadata["generation"] = serde_json::json!(generation);
        }
        let (kind, spec) = (kind.as_str(), spec.ok()?);
        Some(serde_json::json!({"apiVersion": DELIVERY, "kind": kind, "metadata": metadata, "spec": spec}))
    }
}

/// One step of a source: an object is there (new or changed), or is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object exists and now says this.
    Apply(Arc<Object>),
    /// The object no longer exists.
    Remove(ObjectRef),
}
