//! Resources that people write: what is taken, what is refused, and what they refer to.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use proto::{InvalidResource, RawResource, ResourceType, references};
use serde_json::{Value, json};

const LAYER: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

fn refused(value: &Value) -> Vec<(String, String)> {
    let wrong: Vec<InvalidResource> = RawResource::from_json(value).unwrap_err();
    wrong.into_iter().map(|wrong| (wrong.path, wrong.reason)).collect()
}

fn named(resource_type: ResourceType, value: Value) -> Vec<(ResourceType, String)> {
    let mut value = value;
    value["@type"] = resource_type.type_url().into();
    let raw = RawResource::from_json(&value).unwrap();
    references(resource_type.type_url(), &raw.bytes).into_iter().collect()
}

#[test]
fn a_resource_is_named_by_its_message_or_by_the_wrapper_around_it() {
    let plain = json!({"@type": LAYER, "name": "rtds", "layer": {"a.b": 1}});
    let raw = RawResource::from_json(&plain).unwrap();
    assert_eq!((raw.resource_type, raw.name.as_str(), raw.ttl), (ResourceType::Runtime, "rtds", None));
    let wrapped = RawResource::from_json(&json!({"@type": WRAPPER, "ttl": "1.5s", "resource": plain})).unwrap();
    assert_eq!(wrapped.ttl, Some(Duration::from_millis(1500)));
    assert_eq!(RawResource { ttl: None, ..wrapped }, raw);
    let host = json!({"@type": ResourceType::VirtualHost.type_url(), "name": "h", "domains": ["a.test"]});
    let host = RawResource::from_json(&json!({"@type": WRAPPER, "name": "r/a.test", "resource": host})).unwrap();
    assert_eq!(host.name, "r/a.test");
}

#[test]
fn every_served_type_is_taken_by_its_name() {
    for resource_type in ResourceType::ALL {
        let mut value = json!({"@type": resource_type.type_url(), "name": "n"});
        match resource_type {
            ResourceType::Secret => {
                let (path, reason) = refused(&value).remove(0);
                assert_eq!((path.as_str(), reason.as_str()), ("@type", "secrets are not served from objects"));
                continue;
            }
            ResourceType::Endpoints => value = json!({"@type": resource_type.type_url(), "cluster_name": "n"}),
            ResourceType::VirtualHost => {
                value["domains"] = json!(["n"]);
                value = json!({"@type": WRAPPER, "name": "n", "resource": value});
            }
            ResourceType::ScopedRoute => {
                value["route_configuration_name"] = "r".into();
                value["key"] = json!({"fragments": [{"string_key": "k"}]});
            }
            ResourceType::ExtensionConfig => {
                value["typed_config"] =
                    json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
            }
            ResourceType::Runtime | ResourceType::Cluster | ResourceType::Route | ResourceType::Listener => {}
        }
        let raw = RawResource::from_json(&value).unwrap();
        assert_eq!((raw.resource_type, raw.name.as_str()), (resource_type, "n"));
    }
}

#[test]
fn what_is_wrong_is_told_with_its_path() {
    let cluster = |fields: Value| {
        let mut value = json!({"@type": ResourceType::Cluster.type_url(), "name": "c"});
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        value
    };
    let one = |value: &Value| refused(value).remove(0);
    assert_eq!(one(&json!([])).1, "a resource is a mapping");
    assert_eq!(one(&json!({"name": "x"})).1, "the resource has no \"@type\"");
    assert!(one(&json!({"@type": "type.googleapis.com/envoy.Nothing"})).1.contains("is not a type that is served"));
    assert_eq!(one(&cluster(json!({"name": "*"}))).0, "name");
    assert_eq!(one(&json!({"@type": LAYER})).0, "name");
    let (path, reason) =
        one(&cluster(json!({"load_assignment": {"cluster_name": "c", "endpoints": [{"priority": "x"}]}})));
    assert_eq!(path, "load_assignment.endpoints[0].priority", "{reason}");
    let (path, reason) = one(&cluster(json!({"lb_policie": 1})));
    assert!(reason.contains("lb_policie"), "{path}: {reason}");
    let (path, reason) = one(&cluster(json!({"connect_timeout": "0s"})));
    assert_eq!(path, "connect_timeout");
    assert!(reason.contains("of Envoy's API"), "{reason}");
    let inner = json!({"@type": WRAPPER, "resource": cluster(json!({"connect_timeout": "-1s"}))});
    assert_eq!(one(&inner).0, "resource.connect_timeout");
    let other = json!({"@type": WRAPPER, "name": "d", "resource": cluster(json!({}))});
    assert_eq!(one(&other), ("resource.name".into(), "the name \"c\" is not \"d\", the name around it".into()));
    assert_eq!(one(&json!({"@type": WRAPPER, "ttl": "0s", "resource": cluster(json!({}))})).0, "ttl");
    assert_eq!(one(&json!({"@type": WRAPPER, "version": "1", "resource": cluster(json!({}))})).0, "version");
}

#[test]
fn what_a_resource_names_is_found_wherever_it_stands() {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let cluster = json!({"name": "c", "type": "EDS", "eds_cluster_config": {"eds_config": ads, "service_name": "s"}});
    assert_eq!(named(ResourceType::Cluster, cluster), [(ResourceType::Endpoints, "s".into())]);
    let cluster = json!({"name": "c", "type": "EDS", "eds_cluster_config": {"eds_config": {"path": "/x.yaml"}}});
    assert_eq!(named(ResourceType::Cluster, cluster), []);
    let route = json!({"name": "r", "virtual_hosts": [{"name": "h", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {
            "weighted_clusters": {"clusters": [{"name": "b", "weight": 1}, {"name": "a", "weight": 1}]},
            "request_mirror_policies": [{"cluster": "m"}],
        }},
    ]}]});
    let names: Vec<_> = named(ResourceType::Route, route).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["a", "b", "m"]);
    let listener = json!({"name": "l", "api_listener": {"api_listener": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "l",
        "rds": {"route_config_name": "r", "config_source": ads},
        "http_filters": [{"name": "f", "config_discovery": {
            "config_source": ads, "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"],
        }}],
    }}});
    let all = [(ResourceType::Route, "r".to_owned()), (ResourceType::ExtensionConfig, "f".to_owned())];
    assert_eq!(named(ResourceType::Listener, listener), all);
    let scope = json!({"name": "s", "route_configuration_name": "r", "key": {"fragments": [{"string_key": "k"}]}});
    assert_eq!(named(ResourceType::ScopedRoute, scope), [(ResourceType::Route, "r".into())]);
}
