//! From VirtualServices to Envoy's virtual hosts.
//!
//! [`virtual_host()`] builds one virtual host from one input, `configuration_head` the configuration that it stands
//! in, `domains_for` says by which names a service is called. `destinations` lists what an object refers to.
//!
//! The mapping and the names are Istio's (`pilot/pkg/networking/core/route/route.go`). What differs: a destination that
//! does not exist becomes an explicit answer that names the reason (or its share goes to the others), never a
//! reference to a cluster that is not there; and what Envoy or gRPC would refuse is found here and reported, so that it
//! harms nothing but the entry that holds it.
//!
//! Each part writes its fields straight into the bytes of the host, in the order in which prost gives them; what is too
//! rare to matter (answers, faults, mirrors, what is hashed) is built as prost's types and encoded in its place. A test
//! reads the bytes of random VirtualServices with prost and has it write them again.
//!
//! Nothing here looks at the world: destinations are followed by a function that the caller gives.

mod action;
mod answer;
mod claim;
mod configuration;
mod cors;
mod delegate;
mod domains;
mod encoded_host;
mod fault;
mod forward;
mod hash;
mod headers;
mod matching;
mod mirror;
mod pattern;
mod percent_format;
pub(crate) mod regex;
mod request;
mod retry;
mod rewrite;
mod rule;
mod split;
mod virtual_host;

use world::api::istio::{Destination, VirtualService};

pub(crate) use configuration::{allow_any, blackhole, block_all, configuration_head};
pub use delegate::FindDelegate;
pub(crate) use domains::domains_for;
pub use encoded_host::EncodedHost;
pub(crate) use encoded_host::write_names;
pub(crate) use forward::describe;
pub(crate) use matching::gateway_name;
pub use virtual_host::{VirtualHostInput, virtual_host};

/// Every destination that a VirtualService names itself, mirrors included, with the path of its field; what its
/// delegates name is theirs.
pub(crate) fn destinations(spec: &VirtualService) -> impl Iterator<Item = (String, &Destination)> {
    let http = spec.http.iter().enumerate().flat_map(|(at, rule)| {
        let entry = format!("spec.http[{at}]");
        let of = |part: String| format!("{entry}.{part}");
        let routes = rule.route.iter().enumerate();
        let routes = routes.map(|(index, d)| (of(format!("route[{index}].destination")), &d.destination));
        let mirror = rule.mirror.iter().map(|d| (of("mirror".to_owned()), d));
        let mirrors = rule.mirrors.iter().enumerate();
        let mirrors = mirrors.map(|(index, m)| (of(format!("mirrors[{index}].destination")), &m.destination));
        routes.chain(mirror).chain(mirrors).collect::<Vec<_>>()
    });
    let tls = spec.tls.iter().map(|rule| &rule.route).enumerate().map(|(at, routes)| (format!("tls[{at}]"), routes));
    let tcp = spec.tcp.iter().map(|rule| &rule.route).enumerate().map(|(at, routes)| (format!("tcp[{at}]"), routes));
    let l4 = tls.chain(tcp).flat_map(|(entry, routes)| {
        let routes = routes.iter().enumerate();
        routes.map(move |(index, d)| (format!("spec.{entry}.route[{index}].destination"), &d.destination))
    });
    http.chain(l4)
}

#[cfg(test)]
mod tests;
