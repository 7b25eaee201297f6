//! Clusters that get no requests now and may get some: gRPC clients hear of them in time.
//!
//! A gRPC client asks for the clusters that its routes name, and connects to them. gRPC-Go gives new routes to its calls a
//! moment before it gives new clusters to its balancer, and calls that are sent to a cluster that the balancer does not know
//! yet fail (`ClientConn.updateResolverStateAndUnlock` of 1.85). So what has no weight is named already, by a route that
//! no request takes: then a weight that rises from 0 leads to a cluster that is known and connected.

use std::sync::Arc;

use proto::pb::envoy::r#type::v3::FractionalPercent;

use super::route::Route;
use crate::flat;
use crate::route::action::Action;

/// No method of a gRPC service is called so: their paths are `/service/method`. The share of 0 alone would not do, because
/// gRPC-Go lets one call in a million through (`fractionMatcher.match`).
const PATH: &str = "/resting";

/// Writes a route that no request takes, to each of these clusters; behind all others.
pub(super) fn write(out: &mut Vec<u8>, clusters: &[Arc<str>]) {
    let mut conditions = Vec::new();
    // `RouteMatch.path`.
    flat::text(&mut conditions, 2, PATH);
    let action = Action::to_all(clusters);
    let nothing = FractionalPercent::default();
    let route = Route {
        name: "resting",
        conditions: &conditions,
        claims: &[],
        share: Some(&nothing),
        action: &action,
        change: None,
        origin: None,
        fields: &[],
        stat_prefix: "",
    };
    route.write(out);
}
