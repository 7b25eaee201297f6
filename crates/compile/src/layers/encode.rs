//! From messages to cells: canonical bytes, checked against the rules of Envoy's own descriptors.
//!
//! Envoy refuses a response that breaks one of these rules, so nothing that does is ever published. It takes a bug in
//! a builder to get that far; then the resource is left out (or replaced by one that refuses traffic) and the object
//! that led to it is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use proto::ResourceType;
use proto::pb::envoy::config::route::v3::{Vhds, VirtualHost};
use proto::wire::Message;
use snapshot::{Cell, Name, Part};
use world::{ObjectRef, Problem};

use super::output::HostPart;
use crate::{Audience, HostDelivery, names, pack};

/// `RouteConfiguration.virtual_hosts`.
const VIRTUAL_HOSTS: u32 = 2;

/// A resource from its encoded message.
pub(super) fn cell(
    resource_type: ResourceType,
    name: Name,
    bytes: &[u8],
    references: impl IntoIterator<Item = (ResourceType, Name)>,
    origins: &BTreeSet<ObjectRef>,
) -> Result<Cell, Box<Problem>> {
    let message = Message::of_resource(resource_type);
    check(message, bytes, &format!("{} \"{name}\"", resource_type.message_name()), origins.first())?;
    let cell = Cell::new(resource_type, name, &message.canonicalize(bytes));
    Ok(cell.referring_to(references))
}

/// One host with the domains that it has got, as a part of its route configuration: the `virtual_hosts` field.
pub(super) fn virtual_host_part(host: &HostPart, domains: &[&Arc<str>]) -> Result<Part, Box<Problem>> {
    let named = virtual_host_start(host.name.to_string(), domains);
    let len = named.encoded_len() + host.rest.len();
    let mut buffer = BytesMut::with_capacity(len + 8);
    encode_key(VIRTUAL_HOSTS, WireType::LengthDelimited, &mut buffer);
    encode_varint(len as u64, &mut buffer);
    let at = 1 + encoded_len_varint(len as u64);
    put_virtual_host(&mut buffer, &named, host);
    check_virtual_host(&buffer[at..], host)?;
    let part = Part::new(buffer.freeze());
    Ok(part.referring_to(host.references.iter().cloned()).from_objects(host.origins()))
}

/// One host with the domains that it has got, as a resource of its own, called `name`. The message has the same name,
/// because Envoy looks for it when the resource is removed (`source/common/router/route_config_update_receiver_impl.cc`).
pub(super) fn virtual_host_cell(name: Name, host: &HostPart, domains: &[&Arc<str>]) -> Result<Cell, Box<Problem>> {
    let named = virtual_host_start(name.to_string(), domains);
    let mut buffer = BytesMut::with_capacity(named.encoded_len() + host.rest.len());
    put_virtual_host(&mut buffer, &named, host);
    check_virtual_host(&buffer, host)?;
    let cell = Cell::new(ResourceType::VirtualHost, name, &buffer)
        .referring_to(host.references.iter().cloned())
        .from_objects(host.origins());
    Ok(cell.also_known_as(domains.iter().map(|domain| (*domain).clone())))
}

fn virtual_host_start(name: String, domains: &[&Arc<str>]) -> VirtualHost {
    VirtualHost { name, domains: domains.iter().map(|domain| domain.to_string()).collect(), ..VirtualHost::default() }
}

fn put_virtual_host(buffer: &mut BytesMut, named: &VirtualHost, host: &HostPart) {
    named.encode(buffer).expect("a BytesMut grows, so encoding into it does not fail");
    buffer.put_slice(&host.rest);
}

fn check_virtual_host(bytes: &[u8], host: &HostPart) -> Result<(), Box<Problem>> {
    let what = format!("virtual host \"{}\"", host.name);
    check(Message::of_resource(ResourceType::VirtualHost), bytes, &what, host.owner.as_ref())
}

/// A virtual host without name and domains, canonical.
pub(super) fn virtual_host_rest(host: VirtualHost) -> Bytes {
    let rest = VirtualHost { name: String::new(), domains: Vec::new(), ..host };
    let bytes = rest.encode_to_vec();
    let canonical = Message::of_resource(ResourceType::VirtualHost).canonicalize(&bytes).into_owned();
    canonical.into()
}

/// A route configuration without its virtual hosts; with `Separate`, they are to be asked for.
pub(super) fn route_head(name: &str, audience: &Audience, hosts: HostDelivery) -> Bytes {
    let mut head = crate::route::configuration_head(name, audience);
    if name == names::HTTP_PROXY {
        // All ports of a host meet in this configuration: only the port in the host name tells them apart.
        head.ignore_port_in_host_matching = false;
    }
    if hosts == HostDelivery::Separate {
        head.vhds = Some(Vhds { config_source: Some(pack::ads()) });
    }
    head.encode_to_vec().into()
}

fn check(message: Message, bytes: &[u8], what: &str, owner: Option<&ObjectRef>) -> Result<(), Box<Problem>> {
    let Err(violations) = message.check(bytes) else { return Ok(()) };
    let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
    let text = format!("the {what} compiled from this object breaks Envoy's own rules: {}", all.join("; "));
    let anonymous = ObjectRef::new(world::Kind::Other("Resource".into()), "", what);
    let problem = Problem::error(owner.unwrap_or(&anonymous), "", text)
        .consequence("the resource is not sent, because Envoy would refuse the whole response")
        .hint("This should have been said about a field of the object: please report it with the object.");
    Err(Box::new(problem))
}
