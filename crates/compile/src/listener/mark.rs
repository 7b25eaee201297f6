//! What a connection says of itself where mutual TLS of the mesh begins.
//!
//! On a port whose protocol nobody declares the other side goes by the application protocols of TLS, which it sees before
//! anything else: whether to read the connection as HTTP, with all that policies ask of requests, or to pass it on as it is.
//! What a cluster offers is the same for all its connections, and is HTTP there; what a listener has found to be something
//! else, it says of that one connection.

use std::sync::LazyLock;

use proto::Extension;
use proto::pb::envoy::config::core::v3::substitution_format_string::Format;
use proto::pb::envoy::config::core::v3::{DataSource, SubstitutionFormatString, data_source};
use proto::pb::envoy::config::listener::v3::Filter;
use proto::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use proto::pb::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{Key, Value};
use proto::pb::envoy::extensions::filters::network::set_filter_state::v3::Config;
use world::Protocol;
use world::api::istio::TrafficPolicy;

use crate::Audience;
use crate::pack::network_filter;

/// What Envoy offers instead of what the cluster says (`well_known_filter_state`).
const OFFERED: &str = "envoy.network.application_protocols";
/// By which inspectors of the mesh know bytes.
const BYTES: &str = "istio";

/// A destination of a chain, as far as it matters here.
pub(super) struct Place<'a> {
    /// What its port is declared to carry.
    pub(super) protocol: Protocol,
    /// The policy towards it.
    pub(super) policy: &'a TrafficPolicy,
}

/// Whether a chain that leads to these places has to say that it carries bytes: one of them cannot know it, and none speaks
/// TLS of another kind, whose servers may refuse what they do not know.
pub(super) fn is_needed(audience: &Audience, places: &[Place<'_>]) -> bool {
    let is_foreign = |place: &Place<'_>| {
        let mode = place.policy.tls.as_ref().and_then(|tls| tls.mode.as_deref());
        matches!(mode, Some("SIMPLE" | "MUTUAL"))
    };
    audience.marks_bytes()
        && places.iter().any(|place| place.protocol == Protocol::Auto)
        && !places.iter().any(is_foreign)
}

/// The filter that says so. It comes before the one that begins the connection.
pub(super) fn as_bytes() -> Filter {
    static FILTER: LazyLock<Filter> = LazyLock::new(|| {
        let text = DataSource {
            specifier: Some(data_source::Specifier::InlineString(BYTES.to_owned())),
            ..DataSource::default()
        };
        let format = SubstitutionFormatString { format: Some(Format::TextFormatSource(text)), ..Default::default() };
        let offered = FilterStateValue {
            key: Some(Key::ObjectKey(OFFERED.to_owned())),
            value: Some(Value::FormatString(format)),
            ..FilterStateValue::default()
        };
        let config = Config { on_new_connection: vec![offered], ..Config::default() };
        network_filter(Extension::SetFilterState.name(), &config)
    });
    FILTER.clone()
}
