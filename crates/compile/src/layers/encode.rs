//! From messages to cells: canonical bytes, checked against the rules of Envoy's own descriptors.
//!
//! Envoy refuses a response that breaks one of these rules, so nothing that does is ever published. It takes a bug in
//! a builder to get that far; then the resource is left out (or replaced by one that refuses traffic) and the object
//! that led to it is told.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use proto::ResourceType;
use proto::pb::envoy::config::route::v3::Vhds;
use proto::wire::Message;
use snapshot::{Cell, Name, Part};
use world::{ObjectRef, Problem};

use super::output::HostPart;
use crate::route::EncodedHost;
use crate::security::Peers;
use crate::{Audience, HostDelivery, flat, names, pack, route};

/// `RouteConfiguration.virtual_hosts`.
const VIRTUAL_HOSTS: u32 = 2;

/// A resource from its encoded message.
pub(super) fn cell(
    resource_type: ResourceType,
    name: Name,
    bytes: &[u8],
    references: impl IntoIterator<Item = (ResourceType, Name)>,
    peers: Option<&Peers>,
    origins: &BTreeSet<ObjectRef>,
) -> Result<Cell, Box<Problem>> {
    let message = Message::of_resource(resource_type);
    let what = format_args!("{} \"{name}\"", resource_type.message_name());
    check(message, bytes, what, origins.first())?;
    let cell = Cell::new(resource_type, name, &message.canonicalize(bytes)).referring_to(references);
    Ok(match peers {
        Some(peers) => cell.meeting(peers.names()),
        None => cell,
    })
}

/// One host with the domains that it has got, as a part of its route configuration: the `virtual_hosts` field.
pub(super) fn virtual_host_part(host: &HostPart, domains: &[&Arc<str>]) -> Result<Part, Box<Problem>> {
    let message = virtual_host(&host.name, host, domains)?;
    let mut field = Vec::with_capacity(message.len() + 8);
    flat::bytes(&mut field, VIRTUAL_HOSTS, &message);
    let part = Part::new(field.into());
    Ok(part.referring_to(host.references.iter().cloned()).from_objects(host.origins()))
}

/// One host with the domains that it has got, as a resource of its own, called `name`. The message has the same name,
/// because Envoy looks for it when the resource is removed (`source/common/router/route_config_update_receiver_impl.cc`).
pub(super) fn virtual_host_cell(name: Name, host: &HostPart, domains: &[&Arc<str>]) -> Result<Cell, Box<Problem>> {
    let message = virtual_host(&name, host, domains)?;
    let cell = Cell::new(ResourceType::VirtualHost, name, &message)
        .referring_to(host.references.iter().cloned())
        .from_objects(host.origins());
    Ok(cell.also_known_as(domains.iter().map(|domain| (*domain).clone())))
}

/// The whole `VirtualHost`, checked.
fn virtual_host(name: &str, host: &HostPart, domains: &[&Arc<str>]) -> Result<Vec<u8>, Box<Problem>> {
    let names: usize = domains.iter().map(|domain| domain.len() + 4).sum();
    let mut message = Vec::with_capacity(name.len() + 4 + names + host.rest.len());
    route::write_names(&mut message, name, domains.iter().map(|domain| &***domain));
    message.extend_from_slice(&host.rest);
    let what = format_args!("virtual host \"{}\"", host.name);
    check(Message::of_resource(ResourceType::VirtualHost), &message, what, host.owner.as_ref())?;
    Ok(message)
}

/// The route configuration `name` with this virtual host only.
pub(super) fn route_configuration(name: &str, audience: &Audience, host: &EncodedHost) -> Vec<u8> {
    let mut configuration = route::configuration_head(name, audience).encode_to_vec();
    flat::bytes(&mut configuration, VIRTUAL_HOSTS, &host.encode());
    configuration
}

/// A route configuration without its virtual hosts; with `Separate`, they are to be asked for.
pub(super) fn route_head(name: &str, audience: &Audience, hosts: HostDelivery) -> Bytes {
    let mut head = route::configuration_head(name, audience);
    if name == names::HTTP_PROXY {
        // All ports of a host meet in this configuration: only the port in the host name tells them apart.
        head.ignore_port_in_host_matching = false;
    }
    if hosts == HostDelivery::Separate {
        head.vhds = Some(Vhds { config_source: Some(pack::ads()) });
    }
    head.encode_to_vec().into()
}

fn check(
    message: Message,
    bytes: &[u8],
    what: fmt::Arguments<'_>,
    owner: Option<&ObjectRef>,
) -> Result<(), Box<Problem>> {
    let Err(violations) = message.check(bytes) else { return Ok(()) };
    let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
    let text = format!("the {what} compiled from this object breaks Envoy's own rules: {}", all.join("; "));
    let anonymous = ObjectRef::new(world::Kind::Other("Resource".into()), "", &what.to_string());
    let problem = Problem::error(owner.unwrap_or(&anonymous), "", text)
        .consequence("the resource is not sent, because Envoy would refuse the whole response")
        .hint("This should have been said about a field of the object: please report it with the object.");
    Err(Box::new(problem))
}
