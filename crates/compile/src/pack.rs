//! Small conversions into Envoy's message types that every builder needs.

use std::net::IpAddr;
use std::time::Duration;

use prost::{Message, Name};
use proto::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use proto::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, address,
};
use proto::pb::envoy::config::listener::v3::{Filter, filter};
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use proto::pb::google::protobuf;

/// A message inside an `Any`.
pub(crate) fn any<M: Message + Name>(message: &M) -> protobuf::Any {
    protobuf::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// A duration; [`Duration`] values beyond protobuf's range do not occur, because the sources refuse them.
pub(crate) fn duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A wrapped integer.
pub(crate) fn uint32(value: u32) -> protobuf::UInt32Value {
    protobuf::UInt32Value { value }
}

/// A wrapped boolean.
pub(crate) fn boolean(value: bool) -> protobuf::BoolValue {
    protobuf::BoolValue { value }
}

/// Discovery over the stream that the resource itself came on. Without a fetch timeout: a listener that waits is better
/// than one that answers 404.
pub(crate) fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(duration(Duration::ZERO)),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

/// An HTTP filter with its configuration.
pub(crate) fn http_filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(config))),
        ..HttpFilter::default()
    }
}

/// A network filter with its configuration.
pub(crate) fn network_filter<M: Message + Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(any(config))) }
}

/// A TCP socket address.
pub(crate) fn socket_address(address: IpAddr, port: u16) -> Address {
    let socket = SocketAddress {
        address: address.to_string(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}
