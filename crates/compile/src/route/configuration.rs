//! Route configurations without their virtual hosts, and the virtual hosts that take what no other wants.

use prost::Message as _;
use proto::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use proto::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_match,
};

use super::answer;
use super::encoded_host::EncodedHost;
use crate::{Audience, names, pack};

/// Largest body of a direct response, in bytes: Istio's. Envoy refuses a route with a larger one.
pub(super) const MAX_BODY_BYTES: u32 = 1 << 20;

/// The route configuration `name` without virtual hosts.
///
/// Clusters are not validated by Envoy, because they come by another resource type whose order is kept elsewhere. The
/// port in the `Host` header is ignored, except for gRPC clients, which do not know that option.
pub(crate) fn configuration_head(name: &str, audience: &Audience) -> RouteConfiguration {
    let name = name.to_owned();
    if audience.is_grpc() {
        return RouteConfiguration { name, ..RouteConfiguration::default() };
    }
    RouteConfiguration {
        name,
        validate_clusters: Some(pack::boolean(false)),
        ignore_port_in_host_matching: true,
        max_direct_response_body_size_bytes: Some(pack::uint32(MAX_BODY_BYTES)),
        ..RouteConfiguration::default()
    }
}

/// Takes requests for hosts that nobody knows, and sends them where the client meant them to go.
pub(crate) fn allow_any() -> EncodedHost {
    let timeout = Some(pack::duration(std::time::Duration::ZERO));
    let cluster_specifier = Some(ClusterSpecifier::Cluster(names::PASSTHROUGH.to_owned()));
    catch_all("allow_any", route::Action::Route(RouteAction { timeout, cluster_specifier, ..RouteAction::default() }))
}

/// Takes requests for hosts that nobody knows, and refuses them with 502 as Istio does.
pub(crate) fn block_all() -> EncodedHost {
    catch_all("block_all", answer::status(502))
}

/// What a gateway's port has when no virtual host does: nothing, so every request is answered 404.
pub(crate) fn blackhole(port: u16) -> EncodedHost {
    EncodedHost {
        name: format!("blackhole:{port}"),
        domains: vec!["*".to_owned()],
        has_routes: false,
        rest: Vec::new(),
    }
}

fn catch_all(name: &str, action: route::Action) -> EncodedHost {
    let path_specifier = Some(route_match::PathSpecifier::Prefix("/".to_owned()));
    let everything = RouteMatch { path_specifier, ..RouteMatch::default() };
    let route = Route { name: name.to_owned(), r#match: Some(everything), action: Some(action), ..Route::default() };
    let rest = VirtualHost { routes: vec![route], include_request_attempt_count: true, ..VirtualHost::default() };
    EncodedHost { name: name.to_owned(), domains: vec!["*".to_owned()], has_routes: true, rest: rest.encode_to_vec() }
}
