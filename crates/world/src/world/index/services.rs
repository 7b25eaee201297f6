//! Services from the objects that define them.

use std::net::IpAddr;
use std::sync::Arc;

use super::kubernetes_host;
use crate::api::istio::{EntryResolution, ServiceEntry};
use crate::api::kube::{IntOrString, ServiceSpec};
use crate::{Export, Hostname, Object, Protocol, Resolution, Service, ServicePort, Settings, Spec, TargetPort};

/// The services that `object` defines: one for a Kubernetes Service, one per host for a ServiceEntry.
pub(super) fn of(object: &Object, settings: &Settings) -> Vec<Service> {
    match &object.spec {
        Spec::Service(spec) => vec![kubernetes(object, spec, settings)],
        Spec::ServiceEntry(spec) => spec.hosts.iter().map(|host| entry(object, spec, host)).collect(),
        _ => Vec::new(),
    }
}

fn kubernetes(object: &Object, spec: &ServiceSpec, settings: &Settings) -> Service {
    let reference = &object.reference;
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let mut addresses: Vec<IpAddr> =
        spec.cluster_ip.iter().chain(&spec.cluster_ips).filter_map(|ip| ip.parse().ok()).collect();
    addresses.dedup();
    let external_name =
        (spec.kind.as_deref() == Some("ExternalName")).then_some(spec.external_name.as_deref()).flatten();
    let ports = spec.ports.iter().map(|port| ServicePort {
        name: port.name.as_str().into(),
        number: port.port,
        protocol: Protocol::select(port.protocol.as_deref(), port.app_protocol.as_deref(), &port.name, port.port),
        target: match &port.target_port {
            Some(IntOrString::String(name)) => TargetPort::Name(name.as_str().into()),
            Some(IntOrString::Int(number)) => TargetPort::Number(u16::try_from(*number).unwrap_or(port.port)),
            None => TargetPort::Number(port.port),
        },
    });
    let exported = object.meta.annotations.get("networking.istio.io/exportTo");
    let export_to: Vec<String> = exported.iter().flat_map(|e| e.split(',')).map(|e| e.trim().to_owned()).collect();
    Service {
        host: kubernetes_host(&reference.name, &reference.namespace, settings),
        namespace: reference.namespace.clone(),
        name: reference.name.clone(),
        origin: reference.clone(),
        created: object.meta.created.clone(),
        kubernetes: true,
        ports: ports.collect(),
        addresses,
        ranges: Vec::new(),
        resolution: match external_name {
            Some(_) => Resolution::Dns,
            None if headless => Resolution::Passthrough,
            None => Resolution::Static,
        },
        headless,
        external: false,
        alias_of: external_name.map(Hostname::new),
        selector: spec.selector.clone(),
        subject_alt_names: Arc::default(),
        publish_not_ready: spec.publish_not_ready_addresses,
        export: Export::parse(&export_to, &reference.namespace),
    }
}

fn entry(object: &Object, spec: &ServiceEntry, host: &str) -> Service {
    let reference = &object.reference;
    let ports = spec.ports.iter().map(|port| ServicePort {
        name: port.name.as_str().into(),
        number: port.number,
        protocol: match port.protocol.as_deref() {
            Some(protocol) => Protocol::parse(protocol).unwrap_or(Protocol::Tcp),
            None => Protocol::select(None, None, &port.name, port.number),
        },
        target: TargetPort::Number(port.target_port.unwrap_or(port.number)),
    });
    Service {
        host: Hostname::new(host),
        namespace: reference.namespace.clone(),
        name: reference.name.clone(),
        origin: reference.clone(),
        created: object.meta.created.clone(),
        kubernetes: false,
        ports: ports.collect(),
        addresses: spec.addresses.iter().filter_map(|a| a.parse().ok()).collect(),
        ranges: spec.addresses.iter().filter_map(|a| parse_range(a)).collect(),
        resolution: match spec.resolution.unwrap_or(EntryResolution::None) {
            EntryResolution::None => Resolution::Passthrough,
            EntryResolution::Static => Resolution::Static,
            EntryResolution::Dns => Resolution::Dns,
            EntryResolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        },
        headless: false,
        external: spec.location.as_deref() != Some("MESH_INTERNAL"),
        alias_of: None,
        selector: Arc::new(spec.workload_selector.iter().flat_map(|s| s.labels.clone()).collect()),
        subject_alt_names: spec.subject_alt_names.as_slice().into(),
        publish_not_ready: false,
        export: Export::parse(&spec.export_to, &reference.namespace),
    }
}

/// Reads `10.0.0.0/8`.
pub(super) fn parse_range(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

/// Where an endpoint of this address is: `unix:///path`, an IP address, or a name.
pub(super) fn parse_address(text: &str) -> crate::Address {
    if let Some(path) = text.strip_prefix("unix://") {
        return crate::Address::Unix(Arc::from(path));
    }
    match text.parse() {
        Ok(ip) => crate::Address::Ip(ip),
        Err(_) => crate::Address::Name(text.into()),
    }
}
