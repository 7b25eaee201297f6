//! Consistent hashing: the route says what is hashed, the cluster how hosts are picked by it.

use proto::pb::envoy::config::route::v3::route_action::HashPolicy;
use proto::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, FilterState, Header, PolicySpecifier, QueryParameter,
};
use world::api::istio::ConsistentHash;

use super::headers::is_sendable;
use crate::{Audience, pack};

/// What identifies a gRPC channel (gRFC A42): the nearest thing to a client's address that gRPC can hash.
const GRPC_CHANNEL: &str = "io.grpc.channel_id";

/// What to hash; `None` when the rule names nothing that this client can hash. gRPC hashes headers and the channel
/// (gRFC A42), which stands for the source address here.
pub(super) fn policy(text: &ConsistentHash, audience: &Audience) -> Option<HashPolicy> {
    let usable = |name: &&String| !name.is_empty() && is_sendable(name);
    let specifier = if let Some(name) = text.http_header_name.as_ref().filter(usable) {
        PolicySpecifier::Header(Header { header_name: name.clone(), regex_rewrite: None })
    } else if text.use_source_ip == Some(true) {
        if audience.is_grpc() {
            PolicySpecifier::FilterState(FilterState { key: GRPC_CHANNEL.to_owned() })
        } else {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
    } else if audience.is_grpc() {
        return None;
    } else if let Some(cookie) = text.http_cookie.as_ref().filter(|cookie| usable(&&cookie.name)) {
        PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            // Without a lifetime Envoy does not make the cookie; zero makes one for the session.
            ttl: cookie.ttl.map(pack::duration),
            attributes: Vec::new(),
        })
    } else if let Some(name) = text.http_query_parameter_name.as_ref().filter(usable) {
        PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() })
    } else {
        return None;
    };
    Some(HashPolicy { terminal: false, policy_specifier: Some(specifier) })
}
