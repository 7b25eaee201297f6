//! One resource as people write it: JSON with `@type`, checked against the descriptors.

use std::time::Duration;

use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde_json::{Map, Value};

use crate::descriptor::{InvalidJson, from_json};
use crate::wire::Message;
use crate::{ResourceType, pb, xdstp};

/// The wrapper that says a name and a TTL beside the resource.
const WRAPPER: &str = "envoy.service.discovery.v3.Resource";

/// A resource, encoded and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawResource {
    /// Its kind; never a secret.
    pub resource_type: ResourceType,
    /// The name to ask for, in the canonical form of [`xdstp`] names.
    pub name: String,
    /// The canonical encoding of the message; it breaks no rule that Envoy's API states.
    pub bytes: Vec<u8>,
    /// How long a client keeps it without hearing of it; longer than nothing.
    pub ttl: Option<Duration>,
}

/// Why JSON is not a resource that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidResource {
    /// Where below the resource, such as `resource.filter_chains[0].filters`; empty for all of it.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// A way out; may be empty.
    pub hint: String,
}

impl InvalidResource {
    fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into(), hint: String::new() }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// The same below a field.
    fn below(self, field: &str) -> Self {
        let path = match self.path.as_str() {
            "" => field.to_owned(),
            path if path.starts_with('[') => format!("{field}{path}"),
            path => format!("{field}.{path}"),
        };
        Self { path, ..self }
    }
}

impl RawResource {
    /// Reads a resource, or an `envoy.service.discovery.v3.Resource` with one inside. The wrapper's name must be that of
    /// the message (rule P-44), except for virtual hosts, which are asked for as `<route configuration>/<host>` and so
    /// need the wrapper.
    ///
    /// # Errors
    /// All that is wrong, at least one finding: a type that is not served, values that do not fit, broken rules of Envoy's API.
    pub fn from_json(value: &Value) -> Result<Self, Vec<InvalidResource>> {
        let object = value.as_object().ok_or_else(|| one(InvalidResource::new("", "a resource is a mapping")))?;
        let type_url = type_of(object).map_err(one)?;
        if type_url.rsplit('/').next() != Some(WRAPPER) {
            return Self::from_message(type_url, value, None);
        }
        let unknown = object.keys().find(|key| !["@type", "name", "ttl", "resource"].contains(&key.as_str()));
        if let Some(key) = unknown {
            let wrong = InvalidResource::new(key.as_str(), format!("\"{key}\" of a {WRAPPER} is not used here"));
            return Err(one(wrong.hint("Known: name, ttl, resource.")));
        }
        let name = match object.get("name") {
            None => None,
            Some(Value::String(name)) => Some(name.as_str()),
            Some(_) => return Err(one(InvalidResource::new("name", "a name is text"))),
        };
        let ttl = object.get("ttl").map(ttl).transpose().map_err(|wrong| one(wrong.below("ttl")))?;
        let inner =
            object.get("resource").ok_or_else(|| one(InvalidResource::new("resource", "there is no resource")))?;
        let below =
            |found: Vec<InvalidResource>| found.into_iter().map(|wrong| wrong.below("resource")).collect::<Vec<_>>();
        let inner_object =
            inner.as_object().ok_or_else(|| one(InvalidResource::new("resource", "a resource is a mapping")))?;
        let inner_type = type_of(inner_object).map_err(|wrong| below(one(wrong)))?;
        Ok(Self { ttl, ..Self::from_message(inner_type, inner, name).map_err(below)? })
    }

    fn from_message(type_url: &str, value: &Value, outer: Option<&str>) -> Result<Self, Vec<InvalidResource>> {
        let resource_type = served(type_url).map_err(one)?;
        let mut fields = value.as_object().cloned().unwrap_or_default();
        fields.shift_remove("@type");
        let bytes = from_json(type_url, &Value::Object(fields)).map_err(|invalid| {
            one(match invalid {
                InvalidJson::UnknownType(name) => InvalidResource::new("@type", format!("unknown type \"{name}\"")),
                InvalidJson::Value { path, reason } => {
                    InvalidResource::new(if path == "." { "" } else { &path }, reason)
                }
            })
        })?;
        if let Err(violations) = Message::of_resource(resource_type).check(&bytes) {
            let said = |v: crate::wire::Violation| {
                let reason = match v.value.as_str() {
                    "" => format!("nothing there breaks the rule {} of Envoy's API", v.rule),
                    value => format!("{value} breaks the rule {} of Envoy's API", v.rule),
                };
                InvalidResource::new(v.path, reason)
            };
            return Err(violations.into_iter().map(said).collect());
        }
        let name = resource_name(resource_type, &bytes, outer).map_err(one)?;
        Ok(Self { resource_type, name, bytes, ttl: None })
    }
}

fn one(wrong: InvalidResource) -> Vec<InvalidResource> {
    vec![wrong]
}

fn type_of(object: &Map<String, Value>) -> Result<&str, InvalidResource> {
    let hint = "Write \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, for instance.";
    match object.get("@type") {
        Some(Value::String(type_url)) => Ok(type_url),
        Some(_) => Err(InvalidResource::new("@type", "the type is not text").hint(hint)),
        None => Err(InvalidResource::new("", "the resource has no \"@type\"").hint(hint)),
    }
}

/// The kind that a type URL names, if it may be written down.
fn served(type_url: &str) -> Result<ResourceType, InvalidResource> {
    let known = ResourceType::ALL.into_iter().filter(|kind| *kind != ResourceType::Secret);
    match ResourceType::from_type_url(type_url) {
        Some(ResourceType::Secret) => Err(InvalidResource::new("@type", "secrets are not served from objects").hint(
            "A key needs an authenticated channel. Let the proxy read it from a file: a DataSource with a filename.",
        )),
        Some(found) => Ok(found),
        None => {
            let all: Vec<_> = known.map(ResourceType::type_url).collect();
            Err(InvalidResource::new("@type", format!("\"{type_url}\" is not a type that is served"))
                .hint(format!("Served: {}.", all.join(", "))))
        }
    }
}

/// The field that holds the name of a resource.
fn name_field(resource_type: ResourceType) -> &'static str {
    match resource_type {
        ResourceType::Endpoints => "cluster_name",
        ResourceType::Runtime
        | ResourceType::Secret
        | ResourceType::Cluster
        | ResourceType::VirtualHost
        | ResourceType::Route
        | ResourceType::ScopedRoute
        | ResourceType::ExtensionConfig
        | ResourceType::Listener => "name",
    }
}

fn resource_name(resource_type: ResourceType, bytes: &[u8], outer: Option<&str>) -> Result<String, InvalidResource> {
    let descriptor = crate::descriptor::pool().get_message_by_name(resource_type.message_name());
    let message = descriptor.and_then(|descriptor| DynamicMessage::decode(descriptor, bytes).ok());
    let field = name_field(resource_type);
    let inner = message.and_then(|m| m.get_field_by_name(field).and_then(|v| v.as_str().map(str::to_owned)));
    let inner = inner.unwrap_or_default();
    let name = match (resource_type, outer) {
        (ResourceType::VirtualHost, None) => {
            let hint = format!(
                "Wrap it: {{\"@type\": type.googleapis.com/{WRAPPER}, name: <route configuration>/<host>, resource: ...}}."
            );
            return Err(InvalidResource::new(
                "",
                "a virtual host does not say which route configuration it belongs to",
            )
            .hint(hint));
        }
        (ResourceType::VirtualHost, Some(outer)) => outer.to_owned(),
        (_, Some(outer)) if outer != inner => {
            let reason = format!("the {field} \"{inner}\" is not \"{outer}\", the name around it");
            return Err(InvalidResource::new(field, reason).hint("Clients expect both to be the same."));
        }
        _ => inner,
    };
    match name.as_str() {
        "" => Err(InvalidResource::new(field, "the resource has no name")),
        "*" => Err(InvalidResource::new(field, "\"*\" is no name, it means all resources")),
        _ if xdstp::is_collection(&name) => {
            Err(InvalidResource::new(field, format!("\"{name}\" is no name, it means a collection")))
        }
        _ => Ok(xdstp::canonical(&name).into_owned()),
    }
}

/// A TTL in the JSON form of a protobuf duration.
fn ttl(value: &Value) -> Result<Duration, InvalidResource> {
    let wrong = |reason: String| InvalidResource::new("", reason).hint("Write 5s or 0.5s.");
    let bytes = from_json("google.protobuf.Duration", value).map_err(|_| wrong("that is no duration".to_owned()))?;
    let duration = pb::google::protobuf::Duration::decode(&*bytes).map_err(|error| wrong(error.to_string()))?;
    let positive = u64::try_from(duration.seconds).ok().zip(u32::try_from(duration.nanos).ok());
    match positive.map(|(seconds, nanos)| Duration::new(seconds, nanos)) {
        Some(ttl) if !ttl.is_zero() => Ok(ttl),
        _ => Err(wrong("a TTL is longer than nothing".to_owned())),
    }
}
