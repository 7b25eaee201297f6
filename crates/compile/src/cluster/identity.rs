//! A cluster's names, metadata and inline endpoints: set in a struct, or written to bytes.

use std::collections::HashMap;

use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::cluster::v3::cluster::EdsClusterConfig;
use proto::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::pb::envoy::config::core::v3::{AggregatedConfigSource, ApiVersion, ConfigSource, Metadata};
use proto::pb::google::protobuf::value::Kind;
use proto::pb::google::protobuf::{Duration, ListValue, Struct, Value};
use world::{ObjectRef, Service};

use super::{ClusterInput, Discovery, dns, mutual, provided};
use crate::{endpoints, flat};

/// Bytes that [`write()`] needs beside names.
pub(super) const ROOM: usize = 256;

/// Key of the metadata that Istio's telemetry and tools read.
const METADATA: &str = "istio";

/// `ConfigSource`: `ads` (3) empty, `initial_fetch_timeout` (4) zero, `resource_api_version` (6) V3. Zero is "wait for
/// as long as it takes": the control plane answers every request, and giving up would put an empty cluster into use.
const ADS: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0, 6 << 3, 2];

/// Endpoints from the same server, in the assignment of this name.
pub(super) fn by_discovery(name: &str) -> EdsClusterConfig {
    EdsClusterConfig {
        eds_config: Some(ConfigSource {
            initial_fetch_timeout: Some(Duration::default()),
            resource_api_version: ApiVersion::V3 as i32,
            config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
            ..ConfigSource::default()
        }),
        service_name: name.to_owned(),
    }
}

/// Adds identity to settings.
pub(super) fn set(cluster: &mut Cluster, input: &ClusterInput<'_>) {
    let discovery = input.discovery();
    cluster.name = input.name.to_string();
    if discovery == Discovery::Eds {
        cluster.eds_cluster_config = Some(by_discovery(input.name));
    }
    cluster.load_assignment = dns::inline(input, discovery).map(|selection| endpoints::message(input.name, &selection));
    cluster.transport_socket_matches = mutual::by_mark(input);
    if input.audience.is_grpc() {
        cluster.transport_socket = provided::socket(input);
    }
    if !input.audience.is_grpc() {
        cluster.alt_stat_name = format!("{};", input.name);
        let mut fields = HashMap::from([
            ("default_original_port".to_owned(), value(Kind::NumberValue(input.port.number.into()))),
            ("services".to_owned(), services(&[input.service])),
        ]);
        if let Some(rule) = input.rule.origins.first() {
            fields.insert("config".to_owned(), value(Kind::StringValue(config_path(rule))));
        }
        if let Some(subset) = input.subset {
            fields.insert("subset".to_owned(), value(Kind::StringValue(subset.name.to_string())));
        }
        cluster.metadata = Some(metadata(fields));
    }
}

/// Writes the same after encoded settings. Entries of maps are in order of key.
pub(super) fn write(out: &mut Vec<u8>, input: &ClusterInput<'_>) {
    let discovery = input.discovery();
    flat::text(out, 1, input.name);
    if discovery == Discovery::Eds {
        flat::message(out, 3, |out| {
            flat::bytes(out, 1, ADS);
            flat::text(out, 2, input.name);
        });
    }
    if let Some(selection) = dns::inline(input, discovery) {
        flat::message(out, 33, |out| endpoints::write(out, input.name, &selection));
    }
    if !input.audience.is_grpc() {
        flat::message(out, 28, |out| {
            out.extend_from_slice(input.name.as_bytes());
            out.push(b';');
        });
        flat::message(out, 25, |out| write_metadata(out, input));
    }
    if let Some(socket) = provided::socket(input) {
        flat::built(out, 24, &socket);
    }
    for socket in mutual::by_mark(input) {
        flat::built(out, 43, &socket);
    }
}

/// `Metadata.filter_metadata` is field 1, its entries have a key 1 and a `Struct` 2.
fn write_metadata(out: &mut Vec<u8>, input: &ClusterInput<'_>) {
    flat::message(out, 1, |out| {
        flat::text(out, 1, METADATA);
        flat::message(out, 2, |out| {
            if let Some(rule) = input.rule.origins.first() {
                write_entry(out, "config", |out| flat::bytes(out, 3, config_path(rule).as_bytes()));
            }
            write_entry(out, "default_original_port", |out| flat::double(out, 2, input.port.number.into()));
            write_entry(out, "services", |out| {
                // `Value.list_value` 6, `ListValue.values` 1, `Value.struct_value` 5.
                flat::message(out, 6, |out| {
                    flat::message(out, 1, |out| flat::message(out, 5, |out| write_service(out, input.service)));
                });
            });
            if let Some(subset) = input.subset {
                write_entry(out, "subset", |out| flat::bytes(out, 3, subset.name.as_bytes()));
            }
        });
    });
}

fn write_service(out: &mut Vec<u8>, service: &Service) {
    let fields = [("host", service.host.as_str()), ("name", &service.name), ("namespace", &service.namespace)];
    for (key, text) in fields {
        write_entry(out, key, |out| flat::bytes(out, 3, text.as_bytes()));
    }
}

/// One field of a `Struct`: entries are field 1, with a key 1 and a `Value` 2.
fn write_entry(out: &mut Vec<u8>, key: &str, content: impl FnOnce(&mut Vec<u8>)) {
    flat::message(out, 1, |out| {
        flat::text(out, 1, key);
        flat::message(out, 2, content);
    });
}

/// The path under which the API server has a rule.
fn config_path(rule: &ObjectRef) -> String {
    let (namespace, name) = (&rule.namespace, &rule.name);
    format!("/apis/networking.istio.io/v1alpha3/namespaces/{namespace}/destination-rule/{name}")
}

/// Metadata that says which services a cluster is for.
pub(super) fn of_services(services_of: &[&Service]) -> Metadata {
    metadata(HashMap::from([("services".to_owned(), services(services_of))]))
}

fn metadata(fields: HashMap<String, Value>) -> Metadata {
    Metadata { filter_metadata: HashMap::from([(METADATA.to_owned(), Struct { fields })]), ..Metadata::default() }
}

fn services(services: &[&Service]) -> Value {
    let values = services.iter().map(|service| {
        let text = |text: &str| value(Kind::StringValue(text.to_owned()));
        let fields = HashMap::from([
            ("host".to_owned(), text(service.host.as_str())),
            ("name".to_owned(), text(&service.name)),
            ("namespace".to_owned(), text(&service.namespace)),
        ]);
        value(Kind::StructValue(Struct { fields }))
    });
    value(Kind::ListValue(ListValue { values: values.collect() }))
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}
