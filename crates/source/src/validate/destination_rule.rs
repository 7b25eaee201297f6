//! `DestinationRule`.

use world::api::istio::{
    ClientTls, ConnectionPool, ConsistentHash, DestinationRule, LoadBalancer, OutlierDetection, TrafficPolicy,
};

use super::Findings;
use super::names::{self, Hosts};

pub(super) fn destination_rule(spec: &DestinationRule, findings: &mut Findings) {
    names::host("spec.host", &spec.host, Hosts::Any, findings);
    names::export_to(&spec.export_to, findings);
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy("spec.trafficPolicy", policy, findings);
    }
    for (at, subset) in spec.subsets.iter().enumerate() {
        let field = format!("spec.subsets[{at}]");
        if subset.name.is_empty() {
            findings.error(format_args!("{field}.name"), "the subset has no name");
        } else if !names::is_subset(&subset.name) {
            findings
                .error(format_args!("{field}.name"), format!("\"{}\" is not a subset's name", subset.name))
                .hint("Use letters, digits, '-', '_' and '.', with a letter or digit at both ends.");
        } else if let Some(first) = spec.subsets[..at].iter().position(|s| s.name == subset.name) {
            let message = format!("subset \"{}\" is already defined by spec.subsets[{first}]", subset.name);
            findings.error(format_args!("{field}.name"), message);
        }
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(&format!("{field}.trafficPolicy"), policy, findings);
        }
    }
}

fn traffic_policy(field: &str, policy: &TrafficPolicy, findings: &mut Findings) {
    parts(field, (&policy.load_balancer, &policy.connection_pool, &policy.outlier_detection, &policy.tls), findings);
    for (at, port) in policy.port_level_settings.iter().enumerate() {
        let field = format!("{field}.portLevelSettings[{at}]");
        findings.port(format_args!("{field}.port.number"), port.port.number);
        if policy.port_level_settings[..at].iter().any(|p| p.port == port.port) {
            let message = format!("port {} has settings already", port.port.number);
            findings.error(format_args!("{field}.port.number"), message);
        }
        parts(&field, (&port.load_balancer, &port.connection_pool, &port.outlier_detection, &port.tls), findings);
    }
}

type Parts<'p> =
    (&'p Option<LoadBalancer>, &'p Option<ConnectionPool>, &'p Option<OutlierDetection>, &'p Option<ClientTls>);

fn parts(field: &str, (balancer, pool, outliers, tls): Parts<'_>, findings: &mut Findings) {
    if let Some(balancer) = balancer {
        load_balancer(&format!("{field}.loadBalancer"), balancer, findings);
    }
    if let Some(pool) = pool {
        connection_pool(&format!("{field}.connectionPool"), pool, findings);
    }
    if let Some(outliers) = outliers {
        outlier_detection(&format!("{field}.outlierDetection"), outliers, findings);
    }
    if let Some(tls) = tls {
        client_tls(&format!("{field}.tls"), tls, findings);
    }
}

fn load_balancer(field: &str, balancer: &LoadBalancer, findings: &mut Findings) {
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        findings.error(field, "simple and consistentHash exclude each other");
    }
    if let Some(hash) = &balancer.consistent_hash {
        consistent_hash(&format!("{field}.consistentHash"), hash, findings);
    }
}

fn consistent_hash(field: &str, hash: &ConsistentHash, findings: &mut Findings) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip == Some(true),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.iter().filter(|given| **given).count() != 1 {
        findings.error(
            field,
            "exactly one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName is needed",
        );
    }
    if let Some(name) = &hash.http_header_name {
        names::header(&format!("{field}.httpHeaderName"), name, findings);
    }
    if let Some(cookie) = &hash.http_cookie
        && cookie.name.is_empty()
    {
        findings.error(format_args!("{field}.httpCookie.name"), "the cookie has no name");
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        findings.error(field, "ringHash and maglev exclude each other");
    }
    // Envoy's bound (Cluster.RingHashLbConfig).
    const MAX_RING: u64 = 8_388_608;
    let sizes = [
        ("minimumRingSize", hash.minimum_ring_size),
        ("ringHash.minimumRingSize", hash.ring_hash.as_ref().and_then(|r| r.minimum_ring_size)),
    ];
    for (name, size) in sizes {
        if let Some(size) = size.filter(|size| *size > MAX_RING) {
            findings.error(format_args!("{field}.{name}"), format!("a ring of {size} is larger than {MAX_RING}"));
        }
    }
    // Envoy's bound (Cluster.MaglevLbConfig); it wants a prime, too.
    const MAX_TABLE: u64 = 5_000_011;
    if let Some(size) = hash.maglev.as_ref().and_then(|m| m.table_size)
        && (size > MAX_TABLE || !is_prime(size))
    {
        findings
            .error(format_args!("{field}.maglev.tableSize"), format!("{size} is not a prime up to {MAX_TABLE}"))
            .hint("The default is 65537.");
    }
}

fn is_prime(number: u64) -> bool {
    number > 1 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

fn connection_pool(field: &str, pool: &ConnectionPool, findings: &mut Findings) {
    let mut limit = |name: &str, value: Option<i32>| {
        if let Some(value) = value.filter(|v| *v < 0) {
            findings.error(format_args!("{field}.{name}"), format!("{value} is negative"));
        }
    };
    if let Some(tcp) = &pool.tcp {
        limit("tcp.maxConnections", tcp.max_connections);
    }
    if let Some(http) = &pool.http {
        limit("http.http1MaxPendingRequests", http.http1_max_pending_requests);
        limit("http.http2MaxRequests", http.http2_max_requests);
        limit("http.maxRequestsPerConnection", http.max_requests_per_connection);
        limit("http.maxRetries", http.max_retries);
        limit("http.maxConcurrentStreams", http.max_concurrent_streams);
        let known = ["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"];
        findings.one_of(format_args!("{field}.http.h2UpgradePolicy"), http.h2_upgrade_policy.as_deref(), &known);
    }
}

fn outlier_detection(field: &str, outliers: &OutlierDetection, findings: &mut Findings) {
    if let Some(errors) = outliers.consecutive_errors.filter(|e| *e < 0) {
        findings.error(format_args!("{field}.consecutiveErrors"), format!("{errors} is negative"));
    }
    for (name, value) in
        [("maxEjectionPercent", outliers.max_ejection_percent), ("minHealthPercent", outliers.min_health_percent)]
    {
        if let Some(value) = value {
            findings.percent(format_args!("{field}.{name}"), f64::from(value));
        }
    }
    for (name, value) in [("interval", outliers.interval), ("baseEjectionTime", outliers.base_ejection_time)] {
        // Envoy requires both to be above 0 (OutlierDetection.interval).
        if value.is_some_and(|v| v.is_zero()) {
            findings.error(format_args!("{field}.{name}"), "the time is 0").hint("Use at least 1ms.");
        }
    }
}

fn client_tls(field: &str, tls: &ClientTls, findings: &mut Findings) {
    let known = ["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"];
    findings.one_of(format_args!("{field}.mode"), tls.mode.as_deref(), &known);
    let has_pair = tls.client_certificate.is_some() && tls.private_key.is_some();
    if tls.mode.as_deref() == Some("MUTUAL") && tls.credential_name.is_none() && !has_pair {
        findings.error(field, "mode MUTUAL needs credentialName, or clientCertificate and privateKey");
    }
}
