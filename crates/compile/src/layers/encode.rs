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
use proto::pb::envoy::config::route::v3::VirtualHost;
use proto::wire::Message;
use snapshot::{Cell, Name};
use world::{ObjectRef, Problem};

use super::output::{HostPart, paths};
use crate::{Audience, names};

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
    Ok(cell.referring_to(references).from_objects(paths(origins).iter().cloned()))
}

/// The `virtual_hosts` field of a route configuration for one host with the domains that it has got.
pub(super) fn virtual_host_field(host: &HostPart, domains: &[&Arc<str>]) -> Result<Bytes, Box<Problem>> {
    let named = VirtualHost {
        name: host.name.to_string(),
        domains: domains.iter().map(|domain| domain.to_string()).collect(),
        ..VirtualHost::default()
    };
    let len = named.encoded_len() + host.rest.len();
    let mut buffer = BytesMut::with_capacity(len + 8);
    encode_key(VIRTUAL_HOSTS, WireType::LengthDelimited, &mut buffer);
    encode_varint(len as u64, &mut buffer);
    let at = 1 + encoded_len_varint(len as u64);
    named.encode(&mut buffer).expect("a BytesMut grows, so encoding into it does not fail");
    buffer.put_slice(&host.rest);
    check(
        Message::of_resource(ResourceType::VirtualHost),
        &buffer[at..],
        &format!("virtual host \"{}\"", host.name),
        host.owner.as_ref(),
    )?;
    Ok(buffer.freeze())
}

/// A virtual host without name and domains, canonical.
pub(super) fn virtual_host_rest(host: VirtualHost) -> Bytes {
    let rest = VirtualHost { name: String::new(), domains: Vec::new(), ..host };
    let bytes = rest.encode_to_vec();
    let canonical = Message::of_resource(ResourceType::VirtualHost).canonicalize(&bytes).into_owned();
    canonical.into()
}

/// A route configuration without its virtual hosts.
pub(super) fn route_head(name: &str, audience: &Audience) -> Bytes {
    let mut head = crate::route::configuration_head(name, audience);
    if name == names::HTTP_PROXY {
        // All ports of a host meet in this configuration: only the port in the host name tells them apart.
        head.ignore_port_in_host_matching = false;
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
