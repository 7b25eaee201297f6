//! What is counted apart, as entries of a descriptor. A request always has one: what it lacks is [`NONE`], because a
//! descriptor without an entry would not be counted at all.

use std::sync::LazyLock;

use proto::pb::envoy::config::core::v3::substitution_format_string::Format;
use proto::pb::envoy::config::core::v3::{DataSource, SubstitutionFormatString, data_source};
use proto::pb::envoy::config::route::v3::rate_limit::Action;
use proto::pb::envoy::config::route::v3::rate_limit::action::{ActionSpecifier, MetaData, RemoteAddress, meta_data};
use proto::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use proto::pb::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{Key, Value};
use proto::pb::envoy::extensions::filters::http::set_filter_state::v3::Config;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use proto::pb::envoy::r#type::metadata::v3::MetadataKey;
use proto::pb::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};
use world::api::policy::{ClientKey, LimitKey};

use super::{Peers, expression};
use crate::pack::http_filter;
use crate::security::{JWT_FILTER, JWT_PAYLOAD};

/// What stands for a thing that a request does not have.
pub(super) const NONE: &str = "-";
/// Where [`note_peer`] notes the address.
const PEER: &str = "pointsman.peer_address";

/// The key of the entry that is made of `by`.
pub(super) fn name(by: &LimitKey) -> String {
    match (by.client, &by.header, &by.claim) {
        (Some(ClientKey::Identity), ..) => "client".to_owned(),
        // Envoy's action has this key and no other.
        (Some(ClientKey::Address), ..) => "remote_address".to_owned(),
        (None, Some(header), _) => format!("header:{header}"),
        (None, None, claim) => format!("claim:{}", claim.as_deref().unwrap_or_default()),
    }
}

/// The action that makes the entry.
pub(super) fn action(by: &LimitKey, peers: Peers) -> Action {
    let specifier = match (by.client, &by.header, &by.claim) {
        (Some(ClientKey::Identity), ..) => {
            let identity = "connection.uri_san_peer_certificate";
            let text = format!("connection.mtls && {identity} != '' ? {identity} : '{NONE}'");
            return expression::action(&name(by), &text);
        }
        (Some(ClientKey::Address), ..) if peers == Peers::Workloads => {
            return expression::action(&name(by), &format!("filter_state['{PEER}']"));
        }
        (Some(ClientKey::Address), ..) => ActionSpecifier::RemoteAddress(RemoteAddress {}),
        (None, Some(header), _) => {
            // The source lets no name pass that has a quote.
            let value = format!("request.headers['{header}']");
            let text = format!("'{header}' in request.headers && {value} != '' ? {value} : '{NONE}'");
            return expression::action(&name(by), &text);
        }
        (None, None, claim) => {
            let path = [JWT_PAYLOAD, claim.as_deref().unwrap_or_default()];
            let segment = |name: &str| PathSegment { segment: Some(path_segment::Segment::Key(name.to_owned())) };
            ActionSpecifier::Metadata(MetaData {
                descriptor_key: name(by),
                metadata_key: Some(MetadataKey { key: JWT_FILTER.to_owned(), path: path.map(segment).to_vec() }),
                default_value: NONE.to_owned(),
                source: meta_data::Source::Dynamic.into(),
                skip_if_absent: false,
            })
        }
    };
    Action { action_specifier: Some(specifier) }
}

/// The filter that notes the address of the connection, for descriptors: by themselves they know only that which the request
/// says in `X-Forwarded-For`.
pub(super) fn note_peer() -> HttpFilter {
    static FILTER: LazyLock<HttpFilter> = LazyLock::new(|| {
        let text = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%".to_owned();
        let text = DataSource { specifier: Some(data_source::Specifier::InlineString(text)), ..DataSource::default() };
        let format = SubstitutionFormatString { format: Some(Format::TextFormatSource(text)), ..Default::default() };
        let address = FilterStateValue {
            key: Some(Key::ObjectKey(PEER.to_owned())),
            factory_key: "envoy.string".to_owned(),
            value: Some(Value::FormatString(format)),
            ..FilterStateValue::default()
        };
        let config = Config { on_request_headers: vec![address], ..Config::default() };
        http_filter("envoy.filters.http.set_filter_state", &config)
    });
    FILTER.clone()
}
