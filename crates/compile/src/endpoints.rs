//! Assignments: which endpoints a cluster has.
//!
//! [`assignment`] writes the `ClusterLoadAssignment` byte by byte, because endpoints are what a mesh has most of;
//! tests hold it to the bytes that prost gives for the same message. The only metadata is what chooses TLS: nothing in a
//! stock Envoy reads Istio's `workload` entry, and it would double the size of an endpoint.

mod divided;
mod selection;
mod structs;
mod text;

use world::{Address, Endpoint, Health, Labels, ObjectRef, Problem};

use crate::{Proxy, flat};

pub use divided::FALLBACK;
pub(crate) use divided::{Part, by_count, by_parts, with_fallback};
pub(crate) use selection::{Receiver, Selection};
pub(crate) use structs::message;

/// The endpoints that carry all of a subset's labels, in the order given.
pub fn of_subset<'a>(endpoints: &'a [Endpoint], labels: &'a Labels) -> impl Iterator<Item = &'a Endpoint> + Clone {
    endpoints.iter().filter(|endpoint| endpoint.matches(labels))
}

/// The encoded `ClusterLoadAssignment` of the cluster called `cluster`.
///
/// Endpoints are grouped by locality, in order of region, zone and sub-zone; inside of a locality in order of address
/// and port; all have priority 0. An address and port that comes twice is taken once. A locality weighs what its
/// endpoints weigh together. If all weights together exceed 2³²-1, which clients refuse, all are divided by the same
/// number, and none becomes less than 1.
///
/// What the client cannot take is left out (see [`problems`]): names, which are resolved only in DNS clusters; Unix
/// sockets for gRPC; addresses of a ServiceEntry without text. Without endpoints the assignment is explicit and empty.
pub fn assignment<'a>(cluster: &str, endpoints: impl IntoIterator<Item = &'a Endpoint>, proxy: &Proxy) -> Vec<u8> {
    let selection = Selection::new(endpoints, Receiver::of(proxy));
    // An endpoint with an IPv4 address takes about 40 bytes.
    let mut out = Vec::with_capacity(16 + cluster.len() + 48 * selection.len());
    write(&mut out, cluster, &selection);
    out
}

/// Says which endpoints [`assignment`] leaves out, and why, as problems of the object that defines them.
pub fn problems<'a>(
    origin: &ObjectRef,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
    proxy: &Proxy,
) -> Vec<Problem> {
    let receiver = Receiver::of(proxy);
    let left_out = endpoints.into_iter().filter(|endpoint| !receiver.takes(endpoint));
    left_out.map(|endpoint| unusable(origin, endpoint, receiver)).collect()
}

/// The problem of an endpoint that its receiver does not take.
pub(crate) fn unusable(origin: &ObjectRef, endpoint: &Endpoint, receiver: Receiver) -> Problem {
    let (message, hint) = match &endpoint.address {
        Address::Name(name) if name.is_empty() => ("an endpoint has no address".to_owned(), ""),
        Address::Name(name) => (
            format!("the endpoint \"{name}\" is a name, and only addresses can be used without DNS"),
            "Set `resolution: DNS`, or give an IP address.",
        ),
        Address::Unix(path) => match receiver {
            Receiver::Dns => (format!("the endpoint \"{path}\" is a Unix socket, which DNS cannot resolve"), ""),
            Receiver::Envoy | Receiver::Grpc => {
                (format!("the endpoint \"{path}\" is a Unix socket, which gRPC clients cannot reach"), "")
            }
        },
        Address::Ip(ip) => (format!("the endpoint \"{ip}\" cannot be used"), ""),
    };
    Problem::error(origin, "spec.endpoints", message).consequence("the endpoint is left out").hint(hint)
}

/// `ClusterLoadAssignment`: `cluster_name` 1, `endpoints` 2.
pub(crate) fn write(out: &mut Vec<u8>, cluster: &str, selection: &Selection<'_>) {
    flat::text(out, 1, cluster);
    for group in selection.localities() {
        flat::message(out, 2, |out| write_locality(out, group, selection, None, 0));
    }
}

/// `LocalityLbEndpoints`: `locality` 1, `lb_endpoints` 2, `load_balancing_weight` 3, `priority` 5. The locality is there
/// even when nothing is known of it: gRPC asks for it (rule G-04). It weighs what its endpoints do, unless it is said.
fn write_locality(
    out: &mut Vec<u8>,
    group: &[&Endpoint],
    selection: &Selection<'_>,
    weight: Option<u32>,
    priority: u32,
) {
    let Some(first) = group.first() else { return };
    flat::message(out, 1, |out| {
        flat::text(out, 1, &first.locality.region);
        flat::text(out, 2, &first.locality.zone);
        flat::text(out, 3, &first.locality.sub_zone);
    });
    let mut sum = 0u32;
    for endpoint in group {
        let own = selection.weight(endpoint);
        sum = sum.saturating_add(own);
        write_endpoint(out, endpoint, own);
    }
    write_weight(out, 3, weight.unwrap_or(sum));
    if priority > 0 {
        flat::number(out, 5, priority.into());
    }
}

/// `LbEndpoint` as field 2: `endpoint` 1, `health_status` 2, `metadata` 3, `load_balancing_weight` 4. Its lengths are worked out
/// beforehand: they are nested five deep and nearly always below 128.
fn write_endpoint(out: &mut Vec<u8>, endpoint: &Endpoint, weight: u32) {
    let mut buffer = text::Buffer::new();
    let (address_tag, socket_len, text) = match &endpoint.address {
        Address::Ip(ip) => {
            let text = buffer.write(*ip);
            (ADDRESS_SOCKET, field_len(text.len()) + 1 + flat::varint_len(endpoint.port.into()), text)
        }
        Address::Name(name) => {
            (ADDRESS_SOCKET, field_len(name.len()) + 1 + flat::varint_len(endpoint.port.into()), name.as_bytes())
        }
        Address::Unix(path) => (ADDRESS_PIPE, field_len(path.len()), path.as_bytes()),
    };
    let address_len = field_len(socket_len);
    let host_len = field_len(address_len);
    let weight_len = 1 + flat::varint_len(weight.into());
    let metadata = if endpoint.mutual_tls { MUTUAL_TLS } else { &[] };
    let len = field_len(host_len) + 2 + metadata.len() + field_len(weight_len);
    head(out, 2, len);
    head(out, 1, host_len);
    head(out, 1, address_len);
    head(out, address_tag, socket_len);
    if address_tag == ADDRESS_SOCKET {
        flat::bytes(out, 2, text);
        flat::number(out, 3, endpoint.port.into());
    } else {
        flat::bytes(out, 1, text);
    }
    flat::number(out, 2, health(endpoint.health));
    out.extend_from_slice(metadata);
    write_weight(out, 4, weight);
}

/// `metadata` (3) that has the one entry `envoy.transport_socket_match: {tlsMode: istio}`, by which a cluster chooses its
/// transport socket.
const MUTUAL_TLS: &[u8] =
    b"\x1a\x36\x0a\x34\x0a\x1cenvoy.transport_socket_match\x12\x14\x0a\x12\x0a\x07tlsMode\x12\x07\x1a\x05istio";

/// `Address.socket_address`.
const ADDRESS_SOCKET: u32 = 1;
/// `Address.pipe`.
const ADDRESS_PIPE: u32 = 2;

/// A weight in its wrapper; weights are never 0.
fn write_weight(out: &mut Vec<u8>, field: u32, weight: u32) {
    head(out, field, 1 + flat::varint_len(weight.into()));
    flat::number(out, 1, weight.into());
}

/// `envoy.config.core.v3.HealthStatus`.
fn health(health: Health) -> u64 {
    match health {
        Health::Healthy => 1,
        Health::Unhealthy => 2,
        Health::Draining => 3,
    }
}

/// Tag and length of a message with a field number below 16.
fn head(out: &mut Vec<u8>, field: u32, len: usize) {
    out.push((field << 3 | 2) as u8);
    flat::varint(out, len as u64);
}

/// Length of a field of `len` bytes with a number below 16.
fn field_len(len: usize) -> usize {
    1 + flat::varint_len(len as u64) + len
}

#[cfg(test)]
mod tests;
