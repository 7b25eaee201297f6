//! Clusters: where traffic can go, and how connections are made.
//!
//! A cluster is its *settings*, which follow from the traffic policy, the protocol and the kind of client, and its
//! *identity*, its names and metadata. Settings are built as prost's types. Nearly all clusters of a mesh have the
//! settings of no policy at all, so those are encoded once; the identity is written byte by byte around them.
//! [`outbound`] and [`encoded`] say the same, which a test holds them to.

mod connection_pool;
mod discovery;
mod dns;
mod fixed;
mod http;
mod identity;
mod limits;
mod load_balancer;
mod mutual;
mod number;
mod outlier;
mod provided;
mod settings;
mod tls;

use std::sync::Arc;

use prost::Message;
use proto::pb::envoy::config::cluster::v3::Cluster;
use world::{EffectiveRule, Endpoint, ObjectRef, Service, ServicePort, Subset};

use crate::policy::Policy;
use crate::security::MutualTls;
use crate::{Audience, Built};

pub use discovery::Discovery;
pub use fixed::{InboundInput, black_hole, black_hole_for_grpc, inbound, inbound_passthrough, passthrough};
pub(crate) use limits::limits;
pub(crate) use mutual::admitted;
pub(crate) use provided::is_left_in_the_clear;

/// All that a cluster towards a service may depend on.
#[derive(Clone, Copy, Debug)]
pub struct ClusterInput<'a> {
    /// The client.
    pub audience: &'a Audience,
    /// The cluster's name, [`crate::names::outbound_cluster`].
    pub name: &'a Arc<str>,
    /// The service.
    pub service: &'a Service,
    /// Its port.
    pub port: &'a ServicePort,
    /// The subset, when the cluster is one's.
    pub subset: Option<&'a Subset>,
    /// The rule of the service's host; the default when there is none.
    pub rule: &'a EffectiveRule,
    /// The rollout that the cluster is there for, or that divides its connections.
    pub rollout: Option<ClusterRollout<'a>>,
    /// How to speak mutual TLS of the mesh to it; `None` for clients that cannot.
    pub mutual_tls: Option<&'a MutualTls>,
    /// The service's endpoints behind the port, of all subsets. Looked at only when the service's resolution is DNS
    /// of either kind; so that other clusters need not be built again when endpoints change, leave it empty for them.
    pub endpoints: &'a [Endpoint],
}

/// What a rollout makes of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct ClusterRollout<'a> {
    /// The run.
    pub run: &'a ObjectRef,
    /// Whether its endpoints are followed by those of another revision at the next priority: it must never send to
    /// unhealthy ones instead.
    pub has_fallback: bool,
    /// Whether connections are divided between its localities by their weights.
    pub by_localities: bool,
}

impl ClusterInput<'_> {
    /// How the client learns the endpoints; [`Discovery::Eds`] calls for an assignment of the cluster's name.
    pub fn discovery(&self) -> Discovery {
        discovery::of(self, &self.policy())
    }

    fn policy(&self) -> Policy<'_> {
        Policy::new(self.rule, self.subset, self.port.number)
    }
}

/// The cluster of a service's port towards which clients send.
///
/// Every field that Istio's rules leave to defaults has Istio's, not Envoy's: 10 s to connect, least request, circuit
/// breakers that never open, no panic routing. Settings that make no sense or that the client does not have become
/// problems, and have their defaults.
pub fn outbound(input: &ClusterInput<'_>) -> Built<Cluster> {
    let mut built = settings::of(input);
    identity::set(&mut built.value, input);
    with_origins(built, input)
}

/// [`outbound`], encoded. The bytes are canonical: equal clusters have equal bytes, though the order of fields is not
/// prost's.
pub fn encoded(input: &ClusterInput<'_>) -> Built<Vec<u8>> {
    let built = match settings::template(input) {
        Some(template) => Built::new(write(input, template)),
        None => {
            let built = settings::of(input);
            let settings = built.value.encode_to_vec();
            built.map(|_| write(input, &settings))
        }
    };
    with_origins(built, input)
}

fn write(input: &ClusterInput<'_>, settings: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(settings.len() + identity::ROOM + 6 * input.name.len());
    out.extend_from_slice(settings);
    identity::write(&mut out, input);
    out
}

fn with_origins<T>(mut built: Built<T>, input: &ClusterInput<'_>) -> Built<T> {
    built.origins.insert(input.service.origin.clone());
    built.origins.extend(input.rule.origins.iter().cloned());
    built.origins.extend(input.subset.map(|subset| subset.origin.clone()));
    built.origins.extend(input.rollout.map(|rollout| rollout.run.clone()));
    built
}

#[cfg(test)]
mod tests;
