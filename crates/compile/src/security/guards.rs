//! All that stands in front of what a workload serves.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::pb::envoy::config::listener::v3::Filter;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use world::ObjectRef;

/// The filters that every request and every connection passes before anything else, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Guards {
    /// Of connection managers.
    pub(crate) http: Vec<HttpFilter>,
    /// Of chains without one.
    pub(crate) network: Vec<Filter>,
    /// Clusters that they name.
    pub(crate) clusters: BTreeSet<Arc<str>>,
    /// The policies that they come from.
    pub(crate) origins: BTreeSet<ObjectRef>,
}
