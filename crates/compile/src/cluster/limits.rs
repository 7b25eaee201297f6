//! The cluster by which a proxy asks the control plane about limits.
//!
//! The connection of a bootstrap may prove nothing beside the discovery stream, whose head has the token, and behind
//! Istio's agent it carries nothing else. So this one goes by the certificate that the proxy has from us.

use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use world::Address;

use super::fixed::local;
use super::{dns, http};
use crate::endpoints::Receiver;
use crate::{ControlPlane, Secrets, names, security};

/// `None` for clients without a certificate.
pub(crate) fn limits(to: &ControlPlane, secrets: Secrets) -> Option<Cluster> {
    let socket = security::control_plane(secrets, &to.name)?;
    let receiver = match to.address {
        Address::Ip(_) | Address::Unix(_) => Receiver::Envoy,
        Address::Name(_) => Receiver::Dns,
    };
    let mut cluster = local(names::LIMITS, http::Upstream::Http2, (&to.address, to.port), receiver);
    if receiver == Receiver::Dns {
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns as i32));
        dns::set_default(&mut cluster);
    }
    http::keep_alive(&mut cluster);
    cluster.transport_socket = Some(socket);
    Some(cluster)
}
