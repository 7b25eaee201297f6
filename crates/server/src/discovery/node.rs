//! What the plane needs of what a client says about itself.

use compile::{HostDelivery, Secrets};
use identity::Workload;
use proto::pb::google::protobuf::value::Kind;
use proto::pb::google::protobuf::{Struct, Value};
use serde_json::{Map, Value as Json};
use xds::{Service, Variant};

/// The plane's form of a node that is to get virtual hosts in this way, and has proved who it is or not.
pub(super) fn plane_node(node: &xds::Node, hosts: HostDelivery, proved: Option<&Workload>) -> plane::Node {
    plane::Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        metadata: object(&node.metadata),
        user_agent: node.user_agent_name.clone(),
        hosts,
        lacks: node.lacks,
        secrets: secrets(node, proved.is_some()),
        account: proved.map(|workload| (workload.namespace().into(), workload.service_account().into())),
    }
}

/// Where a client has its certificate from. gRPC has it from files, whoever it is on this stream, if its bootstrap names
/// the certificate provider: [`PROVIDERS`] says so, and the version of Istio's agent, whose bootstraps always do. Of all
/// others whoever has not proved who it is has none; Istio's agent gets one for its proxy by itself.
fn secrets(node: &xds::Node, is_proved: bool) -> Secrets {
    let is_grpc = node.is_grpc() || node.metadata_text(&["GENERATOR"]) == Some("grpc");
    match is_proved {
        _ if is_grpc && names_provider(node) => Secrets::Provider,
        false => Secrets::None,
        true if node.metadata_text(&["ISTIO_VERSION"]).is_some() => Secrets::Agent,
        true => Secrets::Stream,
    }
}

/// The metadata by which a gRPC node says which instances its bootstrap has in `certificate_providers`: a list of names,
/// or one with commas.
const PROVIDERS: &str = "CERTIFICATE_PROVIDERS";

fn names_provider(node: &xds::Node) -> bool {
    let is_ours = |name: &str| name.trim() == compile::names::CERTIFICATE_PROVIDER;
    match node.metadata_value(&[PROVIDERS]).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(names)) => names.split(',').any(is_ours),
        Some(Kind::ListValue(names)) => {
            names.values.iter().any(|name| matches!(&name.kind, Some(Kind::StringValue(name)) if is_ours(name)))
        }
        Some(Kind::NullValue(_) | Kind::NumberValue(_) | Kind::BoolValue(_) | Kind::StructValue(_)) => false,
        None => node.metadata_text(&["ISTIO_VERSION"]).is_some(),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::pb::google::protobuf::ListValue;

    use super::*;

    fn text(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.to_owned())) }
    }

    fn list(names: &[&str]) -> Value {
        Value { kind: Some(Kind::ListValue(ListValue { values: names.iter().map(|name| text(name)).collect() })) }
    }

    fn node(user_agent: &str, metadata: &[(&str, Value)]) -> xds::Node {
        let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let user_agent_name = user_agent.to_owned();
        xds::Node { id: "a".to_owned(), metadata: Struct { fields }, user_agent_name, ..xds::Node::default() }
    }

    #[test]
    fn grpc_says_by_its_metadata_which_certificate_providers_it_has() {
        let (grpc, version) = ("gRPC C-core linux Python", ("ISTIO_VERSION", text("1.29.0")));
        for (user_agent, metadata, wanted) in [
            (grpc, vec![], Secrets::Stream),
            (grpc, vec![(PROVIDERS, list(&["spare", "default"]))], Secrets::Provider),
            (grpc, vec![(PROVIDERS, text("spare, default"))], Secrets::Provider),
            (grpc, vec![(PROVIDERS, list(&["spare"])), version.clone()], Secrets::Agent),
            (grpc, vec![(PROVIDERS, Value { kind: Some(Kind::BoolValue(true)) })], Secrets::Stream),
            (grpc, vec![version.clone()], Secrets::Provider),
            ("", vec![("GENERATOR", text("grpc")), version.clone()], Secrets::Provider),
            ("envoy", vec![(PROVIDERS, list(&["default"]))], Secrets::Stream),
            ("envoy", vec![version], Secrets::Agent),
        ] {
            let node = node(user_agent, &metadata);
            assert_eq!(secrets(&node, true), wanted, "{metadata:?}");
            let unproved = if wanted == Secrets::Provider { wanted } else { Secrets::None };
            assert_eq!(secrets(&node, false), unproved, "its files are its own: {metadata:?}");
        }
    }
}
