//! Our own `networking.pointsman.dev` v1alpha1.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::Value;

use super::istio::WorkloadSelector;
use super::schema;

/// `XdsResource.spec`: resources of Envoy's API as they are, for the clients that are selected.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct XdsResource {
    /// Which clients of the object's namespace get them; those of every namespace when the object is in the root
    /// namespace. All of them without a selector.
    pub selector: Option<WorkloadSelector>,
    /// How long a client keeps them after it has heard of them last; for ever without. Entries may have their own.
    #[serde(deserialize_with = "crate::text::duration")]
    #[schemars(schema_with = "ttl")]
    pub ttl: Option<Duration>,
    /// Messages in the JSON form of protobuf, each with its `@type`: a resource, or an
    /// `envoy.service.discovery.v3.Resource` around one, which says the name to ask for and a TTL of its own.
    #[schemars(schema_with = "resources", length(min = 1))]
    pub resources: Vec<Value>,
}

/// Longer than nothing.
fn ttl(_: &mut SchemaGenerator) -> Schema {
    let mut schema = schema::duration();
    schema.insert("x-kubernetes-validations".to_owned(), schema::some_time().into());
    schema
}

/// Envoy's API is not repeated in the schema: what each message must be is checked when it is read.
fn resources(_: &mut SchemaGenerator) -> Schema {
    schema::messages()
}
