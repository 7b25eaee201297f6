#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod cases;
mod envoy;
mod fields;
mod meaning;
mod property;
mod request;

use std::sync::Arc;

use prost::Message;
use world::api::istio::AuthorizationPolicy;
use world::{Kind, Meta, Object, ObjectRef, Spec};

use super::*;

/// The policy of this name in the namespace `shop`; `spec` as JSON.
fn policy(name: &str, spec: &str) -> Arc<Object> {
    object(name, serde_json::from_str(spec).unwrap(), &[])
}

fn object(name: &str, spec: AuthorizationPolicy, annotations: &[(&str, &str)]) -> Arc<Object> {
    let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Arc::new(Object {
        reference: ObjectRef::new(Kind::AuthorizationPolicy, "shop", name),
        meta: Meta { annotations, ..Meta::default() },
        spec: Spec::AuthorizationPolicy(spec),
    })
}

fn trust_domains() -> Vec<Arc<str>> {
    vec!["mesh.example".into(), "old.example".into()]
}

fn built(policies: &[Arc<Object>]) -> Built<Authorization> {
    authorization(&AuthorizationInput {
        policies: &policies.iter().collect::<Vec<_>>(),
        trust_domains: &trust_domains(),
        provider: &|name| Err(format!("there is no provider \"{name}\"")),
        most_regex_instructions: crate::Options::DEFAULT_REGEX_INSTRUCTIONS,
    })
}

/// The configurations of HTTP filters.
fn http(filters: &[HttpFilter]) -> Vec<HttpRbac> {
    use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
    let config = |filter: &HttpFilter| match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => HttpRbac::decode(&*any.value).unwrap(),
        other => panic!("{other:?}"),
    };
    filters.iter().map(config).collect()
}

/// The configurations of network filters.
fn network(filters: &[Filter]) -> Vec<NetworkRbac> {
    use proto::pb::envoy::config::listener::v3::filter::ConfigType;
    let config = |filter: &Filter| match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => NetworkRbac::decode(&*any.value).unwrap(),
        other => panic!("{other:?}"),
    };
    filters.iter().map(config).collect()
}
