//! Who the client says it is.

use std::collections::BTreeMap;

use proto::Extensions;
use proto::pb::envoy::config::core::v3 as core;
use proto::pb::google::protobuf::value::Kind;
use proto::pb::google::protobuf::{Struct, Value};

use crate::Variant;

/// What is kept of the client's `Node`. Of its list of extensions only what matters is: with it an Envoy 1.40 takes
/// 61 KB.
///
/// Nothing of it is proven: whoever decides by it checks it against the transport identity (rule P-10).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// The node's id; never empty.
    pub id: String,
    /// The service cluster that the node belongs to; may be empty.
    pub cluster: String,
    /// Free-form metadata.
    pub metadata: Struct,
    /// Where it runs.
    pub locality: Locality,
    /// `envoy`, `gRPC Node Pure JS`, ...
    pub user_agent_name: String,
    /// As text, `1.40.0` for Envoy's structured form; empty when unknown.
    pub user_agent_version: String,
    /// Extensions that configuration could name and the client was built without, if it says which it has.
    pub lacks: Extensions,
    /// Features that the client says it has (rule G-10).
    pub client_features: Vec<String>,
    /// Context parameters by resource type URL; may change while the stream lives (rule P-09).
    pub dynamic_parameters: BTreeMap<String, BTreeMap<String, String>>,
}

/// Region, zone and sub-zone; each may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// Sub-zone within the zone.
    pub sub_zone: String,
}

impl Node {
    pub(crate) fn from_message(node: core::Node) -> Self {
        let dynamic_parameters = parameters(&node);
        let locality = node.locality.unwrap_or_default();
        let user_agent_version = match node.user_agent_version_type {
            None => String::new(),
            Some(core::node::UserAgentVersionType::UserAgentVersion(text)) => text,
            Some(core::node::UserAgentVersionType::UserAgentBuildVersion(build)) => {
                build.version.map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch)).unwrap_or_default()
            }
        };
        let lacks = Extensions::lacking(node.extensions.iter().map(|extension| extension.name.as_str()));
        Self {
            id: node.id,
            cluster: node.cluster,
            metadata: node.metadata.unwrap_or_default(),
            locality: Locality { region: locality.region, zone: locality.zone, sub_zone: locality.sub_zone },
            user_agent_name: node.user_agent_name,
            user_agent_version,
            lacks,
            client_features: node.client_features,
            dynamic_parameters,
        }
    }

    /// The text at a path of the metadata; `None` when there is none, or something else than text.
    pub fn metadata_text(&self, path: &[&str]) -> Option<&str> {
        match self.metadata_value(path)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text),
            _ => None,
        }
    }

    /// The value at a path of the metadata.
    pub fn metadata_value(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.metadata.fields.get(*first)?, |value, key| match value.kind.as_ref()? {
            Kind::StructValue(inner) => inner.fields.get(*key),
            _ => None,
        })
    }

    /// Whether the client forgets resources when their TTL is over (rule P-63). In state-of-the-world it must know the
    /// wrapper, too, that says the TTL. The features have been spelt in more than one way.
    pub(crate) fn knows_ttls(&self, variant: Variant) -> bool {
        let has = |wanted: &[&str]| {
            let bare = |feature: &String| {
                let known = ["xds.config.", "envoy.config."].iter().find_map(|prefix| feature.strip_prefix(prefix));
                known.is_some_and(|name| wanted.contains(&name))
            };
            self.client_features.iter().any(bare)
        };
        has(&["supports-resource-ttl", "resource-ttl"])
            && (variant == Variant::Delta || has(&["resource-in-sotw", "supports-resource-in-sotw"]))
    }

    /// Whether this is gRPC's own client, as far as its name tells (C-core, Java, Go, JS and Rust all begin so).
    pub fn is_grpc(&self) -> bool {
        self.user_agent_name.starts_with("gRPC")
    }
}

/// The dynamic parameters of a message, in order.
pub(crate) fn parameters(node: &core::Node) -> BTreeMap<String, BTreeMap<String, String>> {
    let sorted = |params: &std::collections::HashMap<String, String>| {
        params.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    node.dynamic_parameters.iter().map(|(url, context)| (url.clone(), sorted(&context.params))).collect()
}
