//! `VirtualService`: hosts, gateways, and the routes of TCP and TLS. HTTP routes have their own file.

use world::api::istio::{Destination, L4Destination, L4Match, VirtualService};

use super::Findings;
use super::http_route::http_route;
use super::names::{self, Hosts};

pub(super) fn virtual_service(spec: &VirtualService, findings: &mut Findings) {
    let is_delegate = spec.hosts.is_empty() && !spec.http.is_empty();
    if spec.hosts.is_empty() && !is_delegate {
        findings.error("spec.hosts", "no host is named").hint("Name the hosts whose traffic is routed.");
    }
    if is_delegate && !(spec.gateways.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty()) {
        findings
            .error("spec.hosts", "no host is named, and a delegate has neither gateways nor tcp or tls routes")
            .hint("Name the hosts whose traffic is routed.");
    }
    for (at, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{at}]");
        names::host(&field, host, Hosts::Any, findings);
        if spec.hosts[..at].contains(host) {
            findings.warning(field, format!("\"{host}\" is named twice"), "the second has no effect");
        }
    }
    for (at, gateway) in spec.gateways.iter().enumerate() {
        gateway_name(&format!("spec.gateways[{at}]"), gateway, findings);
    }
    names::export_to(&spec.export_to, findings);
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() && !spec.hosts.is_empty() {
        findings.error("spec", "there is no route").hint("Add http, tcp or tls routes.");
    }
    for (at, route) in spec.http.iter().enumerate() {
        http_route(&format!("spec.http[{at}]"), route, findings);
    }
    for (at, route) in spec.tls.iter().enumerate() {
        let field = format!("spec.tls[{at}]");
        if route.matches.is_empty() {
            findings.error(&field, "a tls route needs a match").hint("Add match with sniHosts.");
        }
        for (at, condition) in route.matches.iter().enumerate() {
            let field = format!("{field}.match[{at}]");
            if condition.sni_hosts.is_empty() {
                findings.error(&field, "a match of a tls route needs sniHosts");
            }
            for (at, host) in condition.sni_hosts.iter().enumerate() {
                names::host(&format!("{field}.sniHosts[{at}]"), host, Hosts::Any, findings);
            }
            l4_match(&field, condition, findings);
        }
        l4_destinations(&field, &route.route, findings);
    }
    for (at, route) in spec.tcp.iter().enumerate() {
        let field = format!("spec.tcp[{at}]");
        for (at, condition) in route.matches.iter().enumerate() {
            let field = format!("{field}.match[{at}]");
            if !condition.sni_hosts.is_empty() {
                findings.warning(
                    format_args!("{field}.sniHosts"),
                    "a tcp route does not look at SNI",
                    "the condition has no effect",
                );
            }
            l4_match(&field, condition, findings);
        }
        l4_destinations(&field, &route.route, findings);
    }
}

fn l4_match(field: &str, condition: &L4Match, findings: &mut Findings) {
    if let Some(port) = condition.port {
        findings.port(format_args!("{field}.port"), port);
    }
    for (at, subnet) in condition.destination_subnets.iter().enumerate() {
        if !is_range(subnet) {
            findings
                .error(
                    format_args!("{field}.destinationSubnets[{at}]"),
                    format!("\"{subnet}\" is not an address range"),
                )
                .hint("Write 10.0.0.1 or 10.0.0.0/8.");
        }
    }
    for (at, gateway) in condition.gateways.iter().enumerate() {
        gateway_name(&format!("{field}.gateways[{at}]"), gateway, findings);
    }
}

fn is_range(text: &str) -> bool {
    let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most))
}

fn l4_destinations(field: &str, destinations: &[L4Destination], findings: &mut Findings) {
    if destinations.is_empty() {
        findings.error(format_args!("{field}.route"), "there is no destination");
    }
    for (at, to) in destinations.iter().enumerate() {
        destination(&format!("{field}.route[{at}].destination"), &to.destination, findings);
    }
    weights(field, destinations.iter().map(|d| d.weight), findings);
}

/// `mesh`, `name` or `namespace/name`.
pub(super) fn gateway_name(field: &str, text: &str, findings: &mut Findings) {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    if !names::is_label(namespace) || !names::is_subdomain(name) {
        findings
            .error(field, format!("\"{text}\" does not name a gateway"))
            .hint("Write mesh, a Gateway's name, or namespace/name.");
    }
}

/// One destination: a host, and a port that exists.
pub(super) fn destination(field: &str, to: &Destination, findings: &mut Findings) {
    names::host(&format!("{field}.host"), &to.host, Hosts::Exact, findings);
    if !to.subset.is_empty() && !names::is_subset(&to.subset) {
        findings.error(format_args!("{field}.subset"), format!("\"{}\" is not a subset's name", to.subset));
    }
    if let Some(port) = &to.port {
        findings.port(format_args!("{field}.port.number"), port.number);
    }
}

/// The weights of one route's destinations. Weights are relative, so their sum is free, but it must exist: a single
/// destination takes everything whatever its weight, several need one above 0.
pub(super) fn weights(field: &str, weights: impl ExactSizeIterator<Item = Option<i64>>, findings: &mut Findings) {
    let count = weights.len();
    let (mut sum, mut is_negative) = (0i128, false);
    let mut missing = Vec::new();
    for (at, weight) in weights.enumerate() {
        match weight {
            Some(weight) if weight < 0 => {
                is_negative = true;
                findings
                    .error(format_args!("{field}.route[{at}].weight"), format!("weight {weight} is negative"))
                    .hint("Use 0 for a destination that takes no traffic.");
            }
            Some(weight) => sum += i128::from(weight),
            None => missing.push(at),
        }
    }
    if is_negative {
        return;
    }
    if sum > i128::from(u32::MAX) {
        // Envoy adds a route's weights in 32 bits (RouteAction.weighted_clusters).
        findings.error(format_args!("{field}.route"), format!("the weights add up to {sum}, more than {}", u32::MAX));
    } else if sum == 0 && count > 1 {
        findings
            .error(format_args!("{field}.route"), "all weights are 0")
            .hint("Give at least one destination a weight above 0.");
    } else if count > 1 {
        for at in missing {
            findings
                .warning(
                    format_args!("{field}.route[{at}].weight"),
                    "no weight is given beside destinations that have one",
                    "the destination takes no traffic",
                )
                .hint("Write weight: 0 if that is meant.");
        }
    }
}
