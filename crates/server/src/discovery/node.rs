//! What the plane needs of what a client says about itself.

use compile::{HostDelivery, Secrets};
use proto::pb::google::protobuf::value::Kind;
use proto::pb::google::protobuf::{Struct, Value};
use serde_json::{Map, Value as Json};
use xds::{Service, Variant};

/// The plane's form of a node that is to get virtual hosts in this way, and has proved who it is or not.
pub(super) fn plane_node(node: &xds::Node, hosts: HostDelivery, is_proved: bool) -> plane::Node {
    plane::Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        metadata: object(&node.metadata),
        user_agent: node.user_agent_name.clone(),
        hosts,
        lacks: node.lacks,
        secrets: secrets(node, is_proved),
    }
}

/// Where a client has its certificate from. Whoever has not proved who it is has none; Istio's agent, which names its
/// version, gets one for its proxy by itself.
fn secrets(node: &xds::Node, is_proved: bool) -> Secrets {
    match is_proved {
        false => Secrets::None,
        true if node.metadata_text(&["ISTIO_VERSION"]).is_some() => Secrets::Agent,
        true => Secrets::Stream,
    }
}

/// How a client gets virtual hosts: as the operator says, if it is Envoy on an aggregated delta stream. Envoy takes
/// separate ones nowhere else (`source/common/router/vhds.cc` of 1.40), and whoever else it may be need not know them.
pub(super) fn host_delivery(
    node: &xds::Node,
    service: Service,
    variant: Variant,
    wanted: HostDelivery,
) -> HostDelivery {
    let takes_separate =
        service == Service::Aggregated && variant == Variant::Delta && node.user_agent_name == ENVOY_USER_AGENT;
    if takes_separate { wanted } else { HostDelivery::Inline }
}

/// What Envoy puts into `Node.user_agent_name` (`source/common/local_info/local_info_impl.h`).
const ENVOY_USER_AGENT: &str = "envoy";

/// Whether a node says that it is a gateway (`router`).
pub(super) fn is_gateway(node: &xds::Node) -> bool {
    node.id.starts_with("router~")
}

/// The version of the proxy's distribution; `unknown` when the client states none.
pub(super) fn distribution_version(node: &xds::Node) -> &str {
    node.metadata_text(&["ISTIO_VERSION"]).unwrap_or("unknown")
}

fn object(message: &Struct) -> Map<String, Json> {
    message.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect()
}

/// As protobuf's JSON mapping says. The depth is bounded: the decoder takes 100 levels of messages at most.
fn json(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(*value),
        Some(Kind::NumberValue(value)) => serde_json::Number::from_f64(*value).map_or(Json::Null, Json::Number),
        Some(Kind::StringValue(value)) => Json::String(value.clone()),
        Some(Kind::StructValue(value)) => Json::Object(object(value)),
        Some(Kind::ListValue(value)) => Json::Array(value.values.iter().map(json).collect()),
    }
}
