//! The listener that a gRPC client asks for by the name of its target.

use proto::pb::envoy::config::listener::v3::{ApiListener, Listener};

use proto::Extensions;

use super::{ConnectionManagerInput, Reading, Routes, Side, connection_manager};
use crate::pack::any;

/// The resource for `xds:///<target>`: its name is the target, host and port, and its routes are in `route_name`
/// (rule G-01).
pub(crate) fn api_listener(target: &str, route_name: &str) -> Listener {
    let manager = connection_manager(&ConnectionManagerInput {
        side: Side::Grpc,
        stat_prefix: target,
        routes: Routes::Discovered(route_name),
        lacks: Extensions::default(),
        grpc_web: false,
        reading: Reading::default(),
        guards: &[],
        access_log: None,
    });
    Listener {
        name: target.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(any(&manager)) }),
        ..Listener::default()
    }
}
