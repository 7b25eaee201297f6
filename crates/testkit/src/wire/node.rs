//! Who a raw client says it is.

use proto::pb::envoy::config::core::v3::Node;
use proto::pb::google::protobuf::value::Kind;
use proto::pb::google::protobuf::{ListValue, Struct, Value};
use serde_json::Value as Json;

/// A node with only an id and a cluster.
pub fn node(id: &str, cluster: &str) -> Node {
    Node { id: id.to_owned(), cluster: cluster.to_owned(), ..Node::default() }
}

/// The node of a bootstrap: its id, cluster and metadata, without what the client's own build adds.
pub fn node_of(bootstrap: &Json) -> Node {
    let described = &bootstrap["node"];
    let text = |field: &str| described[field].as_str().unwrap_or_default();
    let metadata = match value(&described["metadata"]).kind {
        Some(Kind::StructValue(fields)) => Some(fields),
        _ => None,
    };
    Node { metadata, ..node(text("id"), text("cluster")) }
}

fn value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(*flag),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(value).collect() }),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| (name.clone(), value(field))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_metadata_of_a_bootstrap_is_the_nodes() {
        let node = node_of(&json!({"node": {"id": "a", "cluster": "b", "metadata": {"LABELS": {"app": "x"}, "N": 1}}}));
        assert_eq!((&*node.id, &*node.cluster), ("a", "b"));
        let fields = node.metadata.unwrap_or_default().fields;
        assert_eq!(fields["N"].kind, Some(Kind::NumberValue(1.0)));
        let Some(Kind::StructValue(labels)) = &fields["LABELS"].kind else { panic!("{fields:?}") };
        assert_eq!(labels.fields["app"].kind, Some(Kind::StringValue("x".to_owned())));
        assert_eq!(node_of(&json!({})).metadata, None);
    }
}
