//! From a document's tree to the objects in it: kind, identity, metadata, specification.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use world::api::istio::AuthorizationPolicy;
use world::api::mesh_config::MeshConfig;
use world::{Kind, Labels, Location, Meta, Object, ObjectRef, Places, Problem, Severity, Spec};

use super::decode::{Failure, Unknown, decode};
use super::fields::{self, Standing};
use super::kinds::{self, Recognised};
use super::node::{Node, Value};
use super::secret::{self, Reading};
use super::{Reader, SecretDefinition, split, stand_in, suggest, tree};
use crate::validate::authorization_policy::doubtful;
use crate::validate::{self, REFUSED, Verdict};

/// Beside `metadata` and `spec` every object may have these.
const ENVELOPE: &[&str] = &["apiVersion", "kind", "metadata", "status"];

/// `metadata`. What has no meaning here is listed so that it is not reported.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    labels: Labels,
    annotations: BTreeMap<String, String>,
    creation_timestamp: Option<String>,
    generation: i64,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _deletion_grace_period_seconds: IgnoredAny,
    #[serde(rename = "deletionTimestamp")]
    _deletion_timestamp: IgnoredAny,
    #[serde(rename = "finalizers")]
    _finalizers: IgnoredAny,
    #[serde(rename = "generateName")]
    _generate_name: IgnoredAny,
    #[serde(rename = "managedFields")]
    _managed_fields: IgnoredAny,
    #[serde(rename = "ownerReferences")]
    _owner_references: IgnoredAny,
    #[serde(rename = "resourceVersion")]
    _resource_version: IgnoredAny,
    #[serde(rename = "selfLink")]
    _self_link: IgnoredAny,
    #[serde(rename = "uid")]
    _uid: IgnoredAny,
}

/// The shape of most kinds.
#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "T: Default + Deserialize<'de>"))]
struct WithSpec<T> {
    spec: T,
}

impl Reader<'_> {
    /// Takes in one document: an object, a list of objects, or nothing.
    pub(super) fn document(&mut self, node: Node) {
        match node.value {
            Value::Null => {}
            Value::List(items) => {
                for item in items {
                    if self.has_given_up() {
                        return;
                    }
                    self.document(item);
                }
            }
            Value::Map(_) => self.object_or_list(node),
            Value::Bool(_) | Value::Int(_) | Value::Unsigned(_) | Value::Float(_) | Value::String(_) => {
                self.unreadable(node.line, node.column, "expected an object, found a single value".to_owned());
            }
        }
    }

    fn object_or_list(&mut self, node: Node) {
        let text = |field: &str| node.get(field).and_then(Node::as_str).filter(|text| !text.is_empty());
        let (api_version, kind) = match (text("apiVersion"), text("kind")) {
            (Some(api_version), Some(kind)) => (api_version.to_owned(), kind.to_owned()),
            (None, Some(kind)) => {
                let message = format!("the object of kind \"{kind}\" has no apiVersion");
                return self.unreadable(node.line, node.column, message);
            }
            (_, None) => return self.unreadable(node.line, node.column, "the object has no kind".to_owned()),
        };
        match kind.strip_suffix("List") {
            Some(item_kind) if node.get("items").is_some() => self.list(node, &api_version, item_kind),
            _ => self.object(&node, &api_version, &kind),
        }
    }

    /// `kind: List`, whose items say what they are, or `kind: PodList`, whose items need not.
    fn list(&mut self, node: Node, api_version: &str, item_kind: &str) {
        let Value::Map(entries) = node.value else { return };
        for (key, value) in entries {
            if &*key.text != "items" {
                continue;
            }
            match value.value {
                Value::List(items) => {
                    for item in items {
                        if self.has_given_up() {
                            return;
                        }
                        match item.get("kind") {
                            None if !item_kind.is_empty() && matches!(item.value, Value::Map(_)) => {
                                self.object(&item, api_version, item_kind);
                            }
                            _ => self.document(item),
                        }
                    }
                }
                Value::Null => {}
                _ => self.unreadable(key.line, key.column, "items: expected a list of objects".to_owned()),
            }
        }
    }

    fn object(&mut self, node: &Node, api_version: &str, kind: &str) {
        let recognised = match kinds::recognise(api_version, kind) {
            Recognised::Foreign if is_mesh_config(node, kind) => Recognised::Supported(Kind::ConfigMap),
            recognised => recognised,
        };
        let world_kind = match &recognised {
            Recognised::Supported(kind) => kind.clone(),
            Recognised::WrongVersion(_) | Recognised::NotYet(_) | Recognised::Foreign | Recognised::Unknown(_) => {
                Kind::Other(kind.into())
            }
        };
        let metadata = node.get("metadata");
        let text = |field: &str| metadata.and_then(|m| m.get(field)).and_then(Node::as_str).filter(|t| !t.is_empty());
        let namespace = match text("namespace") {
            _ if kinds::is_cluster_scoped(kind) => "",
            Some(namespace) => namespace,
            None => &self.options.default_namespace,
        };
        let Some(name) = text("name") else {
            if recognised == Recognised::Foreign {
                self.parsed.others.push(ObjectRef::new(world_kind, namespace, ""));
                return;
            }
            let (line, column) = node.locate("metadata.name");
            let is_given = metadata.and_then(|m| m.get("name")).is_some_and(|n| n.value != Value::Null);
            let why = match text("generateName") {
                _ if is_given => "has a metadata.name that is not a string (put it in quotes)",
                Some(_) => "has metadata.generateName instead of metadata.name; only an API server can name it",
                None => "has no metadata.name",
            };
            return self.unreadable(line, column, format!("the object of kind \"{kind}\" {why}"));
        };
        let reference = ObjectRef::new(world_kind.clone(), namespace, name);
        let meta = Meta {
            location: Some(Location { file: self.file.clone(), line: node.line, column: node.column }),
            ..Meta::default()
        };
        let first_problem = self.parsed.problems.len();
        let mut draft = Draft { reader: self, node, reference, meta, first_problem, is_doubtful: false, instead: None };
        match recognised {
            Recognised::Supported(_) => draft.supported(&world_kind),
            Recognised::Foreign if kind == "Secret" && api_version == "v1" => draft.secret(),
            Recognised::Foreign => draft.reader.parsed.others.push(draft.reference),
            Recognised::NotYet(consequence) => {
                let problem = Problem::warning(&draft.reference, "", format!("{kind} is not supported yet"));
                draft.report("kind", problem.consequence(consequence));
            }
            Recognised::WrongVersion(versions) => {
                let message = format!("there is no {kind} in \"{api_version}\"");
                let hint = format!("Known: {}.", versions.join(", "));
                let problem = Problem::error(&draft.reference, "apiVersion", message);
                draft.report("apiVersion", problem.consequence(REFUSED).hint(hint));
                draft.refuse_as(kind);
            }
            Recognised::Unknown(near) => {
                let message = format!("unknown kind \"{kind}\" in \"{api_version}\"");
                let mut problem =
                    Problem::error(&draft.reference, "kind", message).consequence("the object is passed over");
                if let Some(near) = near {
                    problem = problem.hint(format!("Did you mean {near}?"));
                }
                draft.report("kind", problem);
            }
        }
    }
}

/// Whether this is the ConfigMap by which Istio is configured; whether its namespace is the right one, the world knows.
fn is_mesh_config(node: &Node, kind: &str) -> bool {
    let name = node.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Node::as_str);
    kind == "ConfigMap" && name == Some("istio") && node.get("data").is_some_and(|data| data.get("mesh").is_some())
}

/// One object on its way.
struct Draft<'r, 'o, 'n> {
    reader: &'r mut Reader<'o>,
    node: &'n Node,
    reference: ObjectRef,
    /// As far as it is understood.
    meta: Meta,
    /// Where its problems begin.
    first_problem: usize,
    /// Whether a field that nobody knows may be the one that matters.
    is_doubtful: bool,
    /// What can be understood of it, if that is to be in force when there is no good version.
    instead: Option<Spec>,
}

impl Draft<'_, '_, '_> {
    fn supported(&mut self, kind: &Kind) {
        let Some(()) = self.read_meta() else { return self.refuse() };
        let Some(spec) = self.spec(kind) else { return self.refuse() };
        let object = Object { reference: self.reference.clone(), meta: self.meta.clone(), spec };
        let Verdict { problems, is_refused } = validate::object(&object);
        for problem in problems {
            let field = problem.field.clone();
            self.report(&field, problem);
        }
        if is_refused || self.is_doubtful {
            if !is_refused && stand_in::is_better_than_nothing(&object.spec) {
                self.instead = Some(object.spec);
            }
            return self.refuse();
        }
        if stand_in::is_guard(kind) {
            let text = self.node.to_json().to_string();
            self.reader.parsed.guards.push((self.reference.clone(), text.into()));
        }
        self.reader.parsed.objects.push(Arc::new(object));
    }

    fn secret(&mut self) {
        match secret::read(self.node, &self.reference) {
            Reading::Tls(content) => {
                let (reference, location) = (self.reference.clone(), self.location(""));
                self.reader.parsed.secrets.push(SecretDefinition { reference, location, content });
            }
            Reading::Other => self.reader.parsed.others.push(self.reference.clone()),
            Reading::Refused(problem) => {
                let field = problem.field.clone();
                self.report(&field, *problem);
                self.refuse();
            }
        }
    }

    fn read_meta(&mut self) -> Option<()> {
        let metadata = self.node.get("metadata")?;
        let (result, unknown) = decode::<Metadata>(metadata, "metadata", &[]);
        self.unknown_fields(unknown);
        let metadata = self.fitting(result)?;
        self.meta = Meta {
            labels: Arc::new(metadata.labels),
            annotations: metadata.annotations,
            created: metadata.creation_timestamp.as_deref().unwrap_or_default().into(),
            generation: metadata.generation,
            location: Some(self.location("")),
            places: self.places(),
        };
        Some(())
    }

    /// Of kinds that people write few of, and that name much of what others define.
    fn places(&self) -> Option<Arc<Places>> {
        let is_kept = matches!(self.reference.kind, Kind::DeploymentIntent | Kind::AnalysisProfile | Kind::Freeze);
        let spec = self.node.get("spec").filter(|_| is_kept)?;
        Some(Arc::new(spec.places("spec").into_iter().collect()))
    }

    fn spec(&mut self, kind: &Kind) -> Option<Spec> {
        Some(match kind {
            Kind::Namespace => Spec::Namespace(self.whole(ENVELOPE)?),
            Kind::EndpointSlice => Spec::EndpointSlice(self.whole(ENVELOPE)?),
            Kind::Pod => Spec::Pod(self.whole(&["apiVersion", "kind", "metadata"])?),
            Kind::Service => Spec::Service(self.specification()?),
            Kind::ServiceEntry => Spec::ServiceEntry(self.specification()?),
            Kind::WorkloadEntry => Spec::WorkloadEntry(self.specification()?),
            Kind::DestinationRule => Spec::DestinationRule(self.specification()?),
            Kind::VirtualService => Spec::VirtualService(self.specification()?),
            Kind::Gateway => Spec::Gateway(self.specification()?),
            Kind::PeerAuthentication => Spec::PeerAuthentication(self.specification()?),
            Kind::RequestAuthentication => Spec::RequestAuthentication(self.specification()?),
            Kind::AuthorizationPolicy => Spec::AuthorizationPolicy(self.authorization_policy()?),
            Kind::RateLimitPolicy => Spec::RateLimitPolicy(self.specification()?),
            Kind::XdsResource => Spec::XdsResource(self.specification()?),
            Kind::DeploymentIntent => Spec::DeploymentIntent(self.specification()?),
            Kind::AnalysisProfile => Spec::AnalysisProfile(self.specification()?),
            Kind::RolloutRun => Spec::RolloutRun(self.specification()?),
            Kind::Freeze => Spec::Freeze(self.specification()?),
            Kind::ConfigMap => Spec::MeshConfig(self.mesh_config()?),
            Kind::Other(_) => return None,
        })
    }

    fn whole<T: DeserializeOwned>(&mut self, also: &'static [&'static str]) -> Option<T> {
        let (result, unknown) = decode::<T>(self.node, "", also);
        let is_decisive = |unknown: &Unknown| fields::is_decisive(&self.reference.kind, &unknown.pattern);
        self.is_doubtful |= unknown.iter().any(is_decisive);
        self.unknown_fields(unknown);
        self.fitting(result)
    }

    fn specification<T: DeserializeOwned + Default>(&mut self) -> Option<T> {
        self.whole::<WithSpec<T>>(ENVELOPE).map(|object| object.spec)
    }

    /// A policy, of which a field that nobody understands may be the one that matters.
    fn authorization_policy(&mut self) -> Option<AuthorizationPolicy> {
        let (result, unknown) = decode::<WithSpec<AuthorizationPolicy>>(self.node, "", ENVELOPE);
        let paths: Vec<String> = unknown.iter().map(|unknown| unknown.path.clone()).collect();
        match result {
            Ok(WithSpec { spec: mut policy }) => {
                let all_in_rules = policy.garble(paths.iter().map(String::as_str));
                let consequence = if all_in_rules { doubtful(policy.action) } else { REFUSED };
                self.unknown_fields_with(unknown, consequence);
                all_in_rules.then_some(policy)
            }
            Err(failure) => {
                self.unknown_fields(unknown);
                self.fitting(Err(failure))
            }
        }
    }

    /// The text under `data.mesh`. What is wrong in it is told at that key.
    fn mesh_config(&mut self) -> Option<MeshConfig> {
        let (line, column) = self.node.locate("data.mesh");
        let text = self.node.get("data").and_then(|data| data.get("mesh")).and_then(Node::as_str).unwrap_or_default();
        let documents = split::yaml(text);
        let Some(document) = documents.first() else { return Some(MeshConfig::default()) };
        let node = match tree::build(document) {
            Ok(node) => node,
            Err(broken) => {
                let problem = Problem::error(&self.reference, "data.mesh", format!("invalid YAML: {}", broken.message));
                self.report("data.mesh", problem.consequence(REFUSED));
                return None;
            }
        };
        let (result, unknown) = decode::<MeshConfig>(&node, "data.mesh", &[]);
        self.is_doubtful = unknown.iter().any(|unknown| fields::is_decisive(&Kind::ConfigMap, &unknown.pattern));
        self.instead = Some(Spec::MeshConfig(stand_in::mesh_config(&node)));
        let here = |unknown| Unknown { line, column, ..unknown };
        self.unknown_fields(unknown.into_iter().map(here).collect());
        self.fitting(result.map_err(|failure| Failure { line, column, ..failure }))
    }

    /// Reports a value that does not fit.
    fn fitting<T>(&mut self, result: Result<T, Failure>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Failure { path, line, column, mismatch }) => {
                let location = Location { file: self.reader.file.clone(), line, column };
                let problem = Problem::error(&self.reference, path, mismatch.message);
                let problem = problem.consequence(REFUSED).hint(mismatch.hint).at(Some(location));
                self.reader.parsed.problems.push(problem);
                None
            }
        }
    }

    fn unknown_fields(&mut self, unknown: Vec<Unknown>) {
        self.unknown_fields_with(unknown, "the field has no effect");
    }

    fn unknown_fields_with(&mut self, unknown: Vec<Unknown>, consequence: &str) {
        for Unknown { path, pattern, name, line, column, known } in unknown {
            let kind = &self.reference.kind;
            let (severity, message, hint) = match fields::standing(kind, &pattern) {
                Standing::Irrelevant => continue,
                Standing::NotYet => {
                    (Severity::Warning, format!("\"{name}\" is not supported yet"), fields::instead(kind, &pattern))
                }
                Standing::Unknown => {
                    let candidates = known.iter().copied().chain(fields::beside(kind, &pattern));
                    let near = suggest::nearest(&name, candidates);
                    let hint = near.map(|near| format!("Did you mean \"{near}\"?"));
                    (unknown_field_severity(kind), format!("unknown field \"{name}\""), hint.unwrap_or_default())
                }
            };
            let location = Location { file: self.reader.file.clone(), line, column };
            let problem = match severity {
                Severity::Error => Problem::error(&self.reference, path, message),
                Severity::Warning => Problem::warning(&self.reference, path, message),
            };
            let is_decisive = fields::is_decisive(kind, &pattern);
            let problem = problem.consequence(if is_decisive { REFUSED } else { consequence });
            self.reader.parsed.problems.push(problem.hint(hint).at(Some(location)));
        }
    }

    fn report(&mut self, field: &str, problem: Problem) {
        let location = self.location(field);
        self.reader.parsed.problems.push(problem.at(Some(location)));
    }

    fn location(&self, field: &str) -> Location {
        let (line, column) = self.node.locate(field);
        Location { file: self.reader.file.clone(), line, column }
    }

    fn refuse(&mut self) {
        let parsed = &mut self.reader.parsed;
        parsed.refused.push(self.reference.clone());
        if !validate::is_named_properly(&self.reference) {
            return;
        }
        let instead = self.instead.take().or_else(|| stand_in::of(self.node, &self.reference.kind));
        let is_limit = self.reference.kind == Kind::RateLimitPolicy;
        let consequence = match &instead {
            Some(spec) => stand_in::consequence(spec),
            None if is_limit => stand_in::UNLIMITED,
            None => return,
        };
        for problem in parsed.problems[self.first_problem..].iter_mut().filter(|p| p.consequence == REFUSED) {
            consequence.clone_into(&mut problem.consequence);
        }
        let Some(spec) = instead else { return };
        let object = Object { reference: self.reference.clone(), meta: self.meta.clone(), spec };
        parsed.stand_ins.push(Arc::new(object));
    }

    /// Refuses an object whose version is wrong: what stays in force is the version under the kind's proper name.
    fn refuse_as(&mut self, kind: &str) {
        if let Some(kind) = kinds::supported(kind) {
            self.reference.kind = kind;
        }
        self.refuse();
    }
}

/// What an unknown field is. In rules that people write it is a slip of the pen, and part of the rule is missing. Objects
/// of Kubernetes are mostly written by machines, whose next version may know more fields than this one.
fn unknown_field_severity(kind: &Kind) -> Severity {
    match kind {
        Kind::Namespace | Kind::Service | Kind::Pod | Kind::EndpointSlice => Severity::Warning,
        Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::DestinationRule
        | Kind::VirtualService
        | Kind::Gateway
        | Kind::PeerAuthentication
        | Kind::RequestAuthentication
        | Kind::AuthorizationPolicy
        | Kind::RateLimitPolicy
        | Kind::XdsResource
        | Kind::DeploymentIntent
        | Kind::AnalysisProfile
        | Kind::RolloutRun
        | Kind::Freeze
        | Kind::ConfigMap
        | Kind::Other(_) => Severity::Error,
    }
}
