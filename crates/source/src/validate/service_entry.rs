//! `ServiceEntry` and `WorkloadEntry`.

use std::net::IpAddr;

use world::api::istio::{EntryResolution, ServiceEntry, WorkloadEntry};

use super::Findings;
use super::names::{self, Hosts};

pub(super) fn service_entry(spec: &ServiceEntry, findings: &mut Findings) {
    if spec.hosts.is_empty() {
        findings.error("spec.hosts", "no host is named");
    }
    for (at, host) in spec.hosts.iter().enumerate() {
        names::host(&format!("spec.hosts[{at}]"), host, Hosts::NotStarAlone, findings);
    }
    names::export_to(&spec.export_to, findings);
    findings.one_of("spec.location", spec.location.as_deref(), &["MESH_EXTERNAL", "MESH_INTERNAL"]);
    ports(spec, findings);
    if !spec.endpoints.is_empty() && spec.workload_selector.is_some() {
        findings.error("spec.endpoints", "endpoints and workloadSelector exclude each other");
    }
    for (at, endpoint) in spec.endpoints.iter().enumerate() {
        let field = format!("spec.endpoints[{at}]");
        address(&format!("{field}.address"), endpoint, findings);
        for (name, number) in &endpoint.ports {
            findings.port(format_args!("{field}.ports.{name}"), *number);
            if !spec.ports.iter().any(|p| p.name == *name) {
                findings
                    .error(format_args!("{field}.ports.{name}"), format!("the entry has no port called \"{name}\""));
            }
        }
    }
    resolution(spec, findings);
}

fn ports(spec: &ServiceEntry, findings: &mut Findings) {
    if spec.ports.is_empty() {
        findings.warning("spec.ports", "there is no port", "no traffic reaches the hosts through this object");
    }
    for (at, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{at}]");
        findings.port(format_args!("{field}.number"), port.number);
        if port.name.is_empty() {
            findings.error(format_args!("{field}.name"), "the port has no name");
        }
        let earlier = &spec.ports[..at];
        if !port.name.is_empty() && earlier.iter().any(|p| p.name == port.name) {
            findings.error(format_args!("{field}.name"), format!("port name \"{}\" is used twice", port.name));
        }
        if port.number != 0 && earlier.iter().any(|p| p.number == port.number) {
            findings.error(format_args!("{field}.number"), format!("port {} is given twice", port.number));
        }
        if let Some(target) = port.target_port {
            findings.port(format_args!("{field}.targetPort"), target);
        }
    }
}

fn resolution(spec: &ServiceEntry, findings: &mut Findings) {
    let resolution = spec.resolution.unwrap_or(EntryResolution::None);
    match resolution {
        EntryResolution::None => {
            if !spec.endpoints.is_empty() {
                findings
                    .error("spec.endpoints", "endpoints are not used with resolution NONE")
                    .hint("Use STATIC for IP addresses, DNS for names.");
            }
        }
        EntryResolution::Static => {
            if spec.endpoints.is_empty() && spec.workload_selector.is_none() {
                findings
                    .warning(
                        "spec.resolution",
                        "resolution STATIC without endpoints and workloadSelector",
                        "requests to the hosts are answered 503",
                    )
                    .hint("Add endpoints, or use DNS to resolve the hosts themselves.");
            }
            for (at, endpoint) in spec.endpoints.iter().enumerate() {
                let is_static = endpoint.address.starts_with("unix://") || endpoint.address.parse::<IpAddr>().is_ok();
                if !is_static && !endpoint.address.is_empty() {
                    findings
                        .error(
                            format_args!("spec.endpoints[{at}].address"),
                            format!("\"{}\" is not an IP address, as resolution STATIC needs", endpoint.address),
                        )
                        .hint("Use resolution DNS for names.");
                }
            }
        }
        EntryResolution::Dns | EntryResolution::DnsRoundRobin => {
            let wildcard = spec.hosts.iter().position(|h| h.starts_with('*'));
            if let Some(at) = wildcard.filter(|_| spec.endpoints.is_empty() && spec.workload_selector.is_none()) {
                findings
                    .error(
                        format_args!("spec.hosts[{at}]"),
                        format!("wildcard \"{}\" cannot be resolved by DNS", spec.hosts[at]),
                    )
                    .hint("Add endpoints with names that can, or use resolution NONE.");
            }
            if resolution == EntryResolution::DnsRoundRobin && spec.endpoints.len() > 1 {
                findings
                    .error("spec.endpoints", "resolution DNS_ROUND_ROBIN takes one endpoint")
                    .hint("Use resolution DNS for several.");
            }
        }
    }
}

pub(super) fn workload_entry(spec: &WorkloadEntry, findings: &mut Findings) {
    address("spec.address", spec, findings);
    for (name, number) in &spec.ports {
        findings.port(format_args!("spec.ports.{name}"), *number);
    }
}

fn address(field: &str, entry: &WorkloadEntry, findings: &mut Findings) {
    let text = entry.address.as_str();
    if text.is_empty() {
        findings.error(field, "the address is missing").hint("Give an IP address, a DNS name or unix:///path.");
    } else if let Some(path) = text.strip_prefix("unix://") {
        if !path.starts_with(['/', '@']) {
            findings.error(field, format!("\"{text}\" is not the path of a socket")).hint("Write unix:///path.");
        }
        if !entry.ports.is_empty() {
            findings.error(field, "a Unix socket has no ports");
        }
    } else {
        names::host(field, text, Hosts::Exact, findings);
    }
}
