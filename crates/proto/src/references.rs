//! The resources that a message names, by what Envoy's API says of its fields.
//!
//! For resources that nobody compiled here, so that nobody wrote down what they refer to. Only what comes over the same
//! stream counts: a configuration source must be `ads` or `self`.

use std::collections::BTreeSet;

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use crate::{ResourceType, descriptor};

/// How many messages inside each other are looked at.
const MAX_DEPTH: u32 = 100;

/// The resources that the message of `type_url` names, each once, in order. Empty for what cannot be decoded.
pub fn references(type_url: &str, bytes: &[u8]) -> BTreeSet<(ResourceType, String)> {
    let mut found = BTreeSet::new();
    if let Some(message) = descriptor::message_of(type_url).and_then(|m| DynamicMessage::decode(m, bytes).ok()) {
        walk(&message, &mut found, MAX_DEPTH);
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// Fields that hold names of clusters: message, field.
const CLUSTER_NAMES: &[(&str, &str)] = &[
    ("envoy.config.route.v3.RouteAction", "cluster"),
    ("envoy.config.route.v3.RouteAction.RequestMirrorPolicy", "cluster"),
    ("envoy.config.route.v3.WeightedCluster.ClusterWeight", "name"),
    ("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster"),
    ("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight", "name"),
    ("envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters"),
    ("envoy.config.core.v3.GrpcService.EnvoyGrpc", "cluster_name"),
    ("envoy.config.core.v3.HttpUri", "cluster"),
];

/// Messages that name a resource of another kind beside the source that it comes from: message, name, source, kind.
const SOURCED: &[(&str, &str, &str, ResourceType)] = &[
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        "route_config_name",
        "config_source",
        ResourceType::Route,
    ),
    ("envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig", "name", "sds_config", ResourceType::Secret),
];

fn walk(message: &DynamicMessage, found: &mut BTreeSet<(ResourceType, String)>, depth: u32) {
    if depth == 0 {
        return;
    }
    let descriptor = message.descriptor();
    let full_name = descriptor.full_name();
    if full_name == "google.protobuf.Any" {
        let type_url = text(message, "type_url");
        let value = message.get_field_by_name("value").and_then(|v| v.as_bytes().cloned()).unwrap_or_default();
        if let Some(inner) = descriptor::message_of(&type_url).and_then(|m| DynamicMessage::decode(m, &value[..]).ok())
        {
            walk(&inner, found, depth - 1);
        }
        return;
    }
    for (_, field) in CLUSTER_NAMES.iter().filter(|(name, _)| *name == full_name) {
        match message.get_field_by_name(field).as_deref() {
            Some(Value::String(name)) => _ = found.insert((ResourceType::Cluster, name.clone())),
            Some(Value::List(names)) => found
                .extend(names.iter().filter_map(Value::as_str).map(|name| (ResourceType::Cluster, name.to_owned()))),
            _ => {}
        }
    }
    for (_, name, source, kind) in SOURCED.iter().filter(|(of, ..)| *of == full_name) {
        if field(message, source).is_some_and(|source| is_this_stream(&source)) {
            found.insert((*kind, text(message, name)));
        }
    }
    match full_name {
        "envoy.config.cluster.v3.Cluster" => found.extend(assignment(message)),
        "envoy.config.route.v3.ScopedRouteConfiguration" => {
            found.insert((ResourceType::Route, text(message, "route_configuration_name")));
        }
        _ => {}
    }
    // Filters of every kind name the configuration that they ask for by their own name.
    if let Some(discovery) = field(message, "config_discovery")
        && field(&discovery, "config_source").is_some_and(|source| is_this_stream(&source))
    {
        found.insert((ResourceType::ExtensionConfig, text(message, "name")));
    }
    for (_, value) in message.fields() {
        each_message(value, &mut |inner| walk(inner, found, depth - 1));
    }
}

/// The assignment that a cluster asks for.
fn assignment(cluster: &DynamicMessage) -> Option<(ResourceType, String)> {
    let eds = field(cluster, "eds_cluster_config")?;
    if !field(&eds, "eds_config").is_some_and(|source| is_this_stream(&source)) {
        return None;
    }
    let service = text(&eds, "service_name");
    Some((ResourceType::Endpoints, if service.is_empty() { text(cluster, "name") } else { service }))
}

fn is_this_stream(source: &DynamicMessage) -> bool {
    source.has_field_by_name("ads") || source.has_field_by_name("self")
}

/// The message in a field, if it is there.
fn field(message: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    if !message.has_field_by_name(name) {
        return None;
    }
    message.get_field_by_name(name)?.as_message().cloned()
}

fn text(message: &DynamicMessage, name: &str) -> String {
    message.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn each_message(value: &Value, look: &mut impl FnMut(&DynamicMessage)) {
    match value {
        Value::Message(message) => look(message),
        Value::List(items) => items.iter().for_each(|item| each_message(item, look)),
        Value::Map(entries) => entries.values().for_each(|held| each_message(held, look)),
        Value::Bool(_)
        | Value::I32(_)
        | Value::I64(_)
        | Value::U32(_)
        | Value::U64(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::EnumNumber(_) => {}
    }
}
