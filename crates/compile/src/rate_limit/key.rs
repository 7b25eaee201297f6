//! What is counted apart, as entries of a descriptor. A request always has one: what it lacks is [`NONE`], because a
//! descriptor without an entry would not be counted at all.

use proto::pb::envoy::config::core::v3::TypedExtensionConfig;
use proto::pb::envoy::config::route::v3::rate_limit::Action;
use proto::pb::envoy::config::route::v3::rate_limit::action::{ActionSpecifier, MetaData, RemoteAddress, meta_data};
use proto::pb::envoy::extensions::rate_limit_descriptors::expr::v3::Descriptor;
use proto::pb::envoy::extensions::rate_limit_descriptors::expr::v3::descriptor::ExprSpecifier;
use proto::pb::envoy::r#type::metadata::v3::MetadataKey;
use proto::pb::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};
use world::api::policy::{ClientKey, LimitKey};

use crate::pack::any;
use crate::security::{JWT_FILTER, JWT_PAYLOAD};

/// What stands for a thing that a request does not have.
pub(super) const NONE: &str = "-";

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
pub(super) fn action(by: &LimitKey) -> Action {
    let specifier = match (by.client, &by.header, &by.claim) {
        (Some(ClientKey::Identity), ..) => {
            let identity = "connection.uri_san_peer_certificate";
            expression(by, format!("connection.mtls && {identity} != '' ? {identity} : '{NONE}'"))
        }
        (Some(ClientKey::Address), ..) => ActionSpecifier::RemoteAddress(RemoteAddress {}),
        (None, Some(header), _) => {
            // The source lets no name pass that has a quote.
            let value = format!("request.headers['{header}']");
            expression(by, format!("'{header}' in request.headers && {value} != '' ? {value} : '{NONE}'"))
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

fn expression(by: &LimitKey, text: String) -> ActionSpecifier {
    let descriptor =
        Descriptor { descriptor_key: name(by), skip_if_error: false, expr_specifier: Some(ExprSpecifier::Text(text)) };
    ActionSpecifier::Extension(TypedExtensionConfig {
        name: "envoy.rate_limit_descriptors.expr".to_owned(),
        typed_config: Some(any(&descriptor)),
    })
}
