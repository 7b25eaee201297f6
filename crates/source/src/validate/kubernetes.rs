//! `Service`, `EndpointSlice` and `Pod`.

use std::net::IpAddr;

use world::Meta;
use world::api::kube::{EndpointSlice, IntOrString, Pod, ServiceSpec};

use super::Findings;
use super::names::{self, Hosts};

/// Label that names the Service of an EndpointSlice.
const SLICE_SERVICE: &str = "kubernetes.io/service-name";

pub(super) fn service(spec: &ServiceSpec, findings: &mut Findings) {
    let kind = spec.kind.as_deref();
    findings.one_of("spec.type", kind, &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);
    let is_alias = kind == Some("ExternalName");
    match spec.external_name.as_deref() {
        Some(name) if is_alias => names::host("spec.externalName", name, Hosts::Exact, findings),
        None if is_alias => {
            findings.error("spec.externalName", "a Service of type ExternalName needs externalName");
        }
        Some(_) | None => {}
    }
    if let Some(address) = spec.cluster_ip.as_deref().filter(|a| !matches!(*a, "" | "None"))
        && address.parse::<IpAddr>().is_err()
    {
        findings.error("spec.clusterIP", format!("\"{address}\" is not an IP address")).hint("Or None, for headless.");
    }
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    if spec.ports.is_empty() && !is_alias && !is_headless {
        findings.error("spec.ports", "there is no port");
    }
    for (at, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{at}]");
        findings.port(format_args!("{field}.port"), port.port);
        findings.one_of(format_args!("{field}.protocol"), port.protocol.as_deref(), &["TCP", "UDP", "SCTP"]);
        if let Some(IntOrString::Int(target)) = &port.target_port
            && !(1..=65535).contains(target)
        {
            findings
                .error(format_args!("{field}.targetPort"), format!("{target} is not a port"))
                .hint("Use a number from 1 to 65535, or the name of a container port.");
        }
        if port.name.is_empty() && spec.ports.len() > 1 {
            findings
                .error(format_args!("{field}.name"), "the port has no name, which a Service with several ports needs");
        }
        let earlier = &spec.ports[..at];
        if !port.name.is_empty() && earlier.iter().any(|p| p.name == port.name) {
            findings.error(format_args!("{field}.name"), format!("port name \"{}\" is used twice", port.name));
        }
        let transport = |text: &Option<String>| text.as_deref().unwrap_or("TCP").to_owned();
        let same = |p: &&world::api::kube::KubeServicePort| {
            p.port == port.port && transport(&p.protocol) == transport(&port.protocol)
        };
        if port.port != 0 && earlier.iter().any(|p| same(&p)) {
            findings.error(format_args!("{field}.port"), format!("port {} is given twice", port.port));
        }
    }
}

pub(super) fn endpoint_slice(slice: &EndpointSlice, meta: &Meta, findings: &mut Findings) {
    if !meta.labels.contains_key(SLICE_SERVICE) {
        findings
            .warning(
                "metadata.labels",
                format!("there is no label {SLICE_SERVICE}"),
                "its endpoints belong to no service",
            )
            .hint(format!("Add the label {SLICE_SERVICE} with the Service's name."));
    }
    if slice.address_type.is_empty() {
        findings.error("addressType", "the address type is missing").hint("Known: IPv4, IPv6, FQDN.");
    } else {
        findings.one_of("addressType", Some(&slice.address_type), &["IPv4", "IPv6", "FQDN"]);
    }
    for (at, endpoint) in slice.endpoints.iter().enumerate() {
        let field = format!("endpoints[{at}]");
        if endpoint.addresses.is_empty() {
            findings.error(format_args!("{field}.addresses"), "the endpoint has no address");
        }
        for (at, address) in endpoint.addresses.iter().enumerate() {
            let fits = match (slice.address_type.as_str(), address.parse()) {
                ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => true,
                ("IPv4" | "IPv6", _) => false,
                _ => true,
            };
            if !fits {
                let message = format!("\"{address}\" is not an {} address", slice.address_type);
                findings.error(format_args!("{field}.addresses[{at}]"), message);
            }
        }
    }
    for (at, port) in slice.ports.iter().enumerate() {
        if let Some(number) = port.port {
            findings.port(format_args!("ports[{at}].port"), number);
        }
    }
}

pub(super) fn pod(pod: &Pod, findings: &mut Findings) {
    for (at, container) in pod.spec.containers.iter().enumerate() {
        for (port_at, port) in container.ports.iter().enumerate() {
            findings.port(format_args!("spec.containers[{at}].ports[{port_at}].containerPort"), port.container_port);
        }
    }
    if let Some(address) = pod.status.pod_ip.as_deref().filter(|a| !a.is_empty())
        && address.parse::<IpAddr>().is_err()
    {
        findings.error("status.podIP", format!("\"{address}\" is not an IP address"));
    }
}
