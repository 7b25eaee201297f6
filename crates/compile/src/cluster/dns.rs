//! Clusters whose endpoints are names.

use std::time::Duration;

use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use world::{Address, Endpoint, Problem};

use super::{ClusterInput, Discovery};
use crate::endpoints::{self, Receiver, Selection};
use crate::pack;

/// Istio's default, `MeshConfig.dnsRefreshRate`; the time to live of a record goes before it.
const REFRESH: Duration = Duration::from_secs(60);
/// Spreads the lookups of many proxies.
const JITTER: Duration = Duration::from_millis(100);

/// The endpoints of the input's subset, or all.
pub(super) fn endpoints<'a>(input: &ClusterInput<'a>) -> impl Iterator<Item = &'a Endpoint> + Clone {
    let labels = input.subset.map(|subset| &subset.labels);
    input.endpoints.iter().filter(move |endpoint| labels.is_none_or(|labels| endpoint.matches(labels)))
}

/// Those that can be resolved, as they stand in the cluster.
pub(super) fn selection<'a>(input: &ClusterInput<'a>) -> Selection<'a> {
    Selection::new(endpoints(input), Receiver::Dns)
}

/// The endpoints inside of a cluster of this discovery; `None` when they come by other ways.
pub(super) fn inline<'a>(input: &ClusterInput<'a>, discovery: Discovery) -> Option<Selection<'a>> {
    match discovery {
        Discovery::Eds | Discovery::OriginalDestination | Discovery::Nothing => None,
        Discovery::StrictDns => Some(selection(input)),
        Discovery::LogicalDns => Some(selection(input).first_only()),
    }
}

/// Sets how names are resolved, and reports which cannot be.
#[allow(deprecated)] // In favour of an extension that gRPC does not know and Istio's tools do not look at.
pub(super) fn set(cluster: &mut Cluster, input: &ClusterInput<'_>, discovery: Discovery, problems: &mut Vec<Problem>) {
    let origin = &input.service.origin;
    match discovery {
        Discovery::Eds | Discovery::OriginalDestination => return,
        Discovery::StrictDns | Discovery::LogicalDns | Discovery::Nothing => {
            let unusable = endpoints(input).filter(|endpoint| !Receiver::Dns.takes(endpoint));
            problems.extend(unusable.map(|endpoint| endpoints::unusable(origin, endpoint, Receiver::Dns)));
        }
    }
    if discovery == Discovery::Nothing {
        problems.push(
            Problem::error(origin, "spec.endpoints", "there is no name to resolve")
                .consequence("requests are answered with 503"),
        );
        return;
    }
    let selected = selection(input);
    let names = selected.len();
    if let Some(used) = selected.first().filter(|_| discovery == Discovery::LogicalDns && names > 1) {
        let message = if input.audience.is_grpc() {
            format!("gRPC clients resolve one name, and there are {names}")
        } else {
            format!("DNS_ROUND_ROBIN resolves one name, and there are {names}")
        };
        let used = match &used.address {
            Address::Ip(ip) => ip.to_string(),
            Address::Name(text) | Address::Unix(text) => text.to_string(),
        };
        problems
            .push(Problem::error(origin, "spec.endpoints", message).consequence(format!("only \"{used}\" is used")));
    }
    if input.audience.is_grpc() {
        return;
    }
    set_default(cluster);
}

/// Sets how often names are resolved, and to addresses of which family.
#[allow(deprecated)] // As above.
pub(super) fn set_default(cluster: &mut Cluster) {
    // Which families a node has is not asked, so that nodes of both share their clusters. Names with both kinds of
    // addresses go by IPv4, which reaches them from everywhere except networks that have only IPv6.
    cluster.dns_lookup_family = DnsLookupFamily::V4Preferred as i32;
    cluster.dns_refresh_rate = Some(pack::duration(REFRESH));
    cluster.respect_dns_ttl = true;
    cluster.dns_jitter = Some(pack::duration(JITTER));
}
