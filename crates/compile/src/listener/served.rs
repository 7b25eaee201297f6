//! What a workload serves: the ports that services lead to, and how the bytes of each are treated.

use std::collections::BTreeMap;
use std::sync::Arc;

use world::{Problem, Protocol, Service};

use crate::Built;

/// One port of a workload that some service leads to.
#[derive(Clone, Debug)]
pub struct Served {
    /// The service; of several the oldest.
    pub service: Arc<Service>,
    /// The service's port.
    pub port: u16,
    /// The workload's port.
    pub target: u16,
    /// What it carries; never UDP.
    pub protocol: Protocol,
}

impl Served {
    /// Whether clients that use the port as `other` says get along with it as this says. HTTP takes nothing but HTTP and
    /// TLS; whatever else there is takes every connection.
    pub fn takes_all_of(&self, other: &Served) -> bool {
        self.target == other.target
            && (treatment(self.protocol) != Some(Treatment::Http) || treatment(other.protocol) == Some(Treatment::Http))
    }
}

/// How the bytes of a port are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    Http,
    Tcp,
    Auto,
}

pub(super) fn treatment(protocol: Protocol) -> Option<Treatment> {
    match protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => Some(Treatment::Http),
        Protocol::Https | Protocol::Tls | Protocol::Tcp => Some(Treatment::Tcp),
        Protocol::Auto => Some(Treatment::Auto),
        Protocol::Udp => None,
    }
}

/// One entry for each port of the workload, in order, from `(service, service port, target port)` in order of age. Of
/// services that lead to one port the oldest decides; a younger one is told only if it is treated differently.
pub(crate) fn served(by: &[(Arc<Service>, u16, u16)]) -> Built<Vec<Served>> {
    let mut built = Built::new(());
    let mut taken: BTreeMap<u16, Served> = BTreeMap::new();
    for (service, port, target) in by {
        let Some((at, declared)) = service.ports.iter().enumerate().find(|(_, p)| p.number == *port) else { continue };
        let Some(treatment) = treatment(declared.protocol).filter(|_| *target != 0) else { continue };
        built.origins.insert(service.origin.clone());
        if let Some(first) = taken.get(target) {
            if self::treatment(first.protocol) != Some(treatment) {
                built.problems.push(
                    Problem::warning(
                        &service.origin,
                        format!("spec.ports[{at}]"),
                        format!(
                            "port {target} of the workload is {} already by port {} of {}",
                            word(first.protocol),
                            first.port,
                            first.service.origin
                        ),
                    )
                    .consequence(format!("what reaches the workload is not treated as {}", word(declared.protocol)))
                    .hint("Declare the same protocol in both services."),
                );
            }
            continue;
        }
        let served = Served { service: service.clone(), port: *port, target: *target, protocol: declared.protocol };
        taken.insert(*target, served);
    }
    built.map(|()| taken.into_values().collect())
}

/// What is served, together with what has gone and is still used: in order of the workload's port, each port once. What
/// is served counts unless it takes less than what clients may still use.
pub(crate) fn with_held(served: &[Served], held: &[Served]) -> Vec<Served> {
    let mut all: BTreeMap<u16, Served> = served.iter().map(|now| (now.target, now.clone())).collect();
    for held in held {
        if all.get(&held.target).is_none_or(|now| !now.takes_all_of(held)) {
            all.insert(held.target, held.clone());
        }
    }
    all.into_values().collect()
}

/// A protocol as users write it.
fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "HTTP",
        Protocol::Http2 => "HTTP2",
        Protocol::Grpc => "GRPC",
        Protocol::GrpcWeb => "GRPC-WEB",
        Protocol::Https => "HTTPS",
        Protocol::Tls => "TLS",
        Protocol::Tcp => "TCP",
        Protocol::Auto => "undeclared",
        Protocol::Udp => "UDP",
    }
}
