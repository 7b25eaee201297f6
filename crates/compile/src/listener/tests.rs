#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

pub(crate) mod mesh;

use std::path::PathBuf;

use prost::Message;
use proto::ResourceType;

use self::mesh::Mesh;
use super::chain::{network, parse_range};
use super::*;

fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Compares with `<name>.golden.json`; writes it instead when `POINTSMAN_GOLDEN` is `write`.
pub(crate) fn compare(name: &str, found: &serde_json::Value) {
    let path = golden_folder().join(format!("{name}.golden.json"));
    let text = format!("{}\n", serde_json::to_string_pretty(found).unwrap());
    if std::env::var("POINTSMAN_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::write(path, text).unwrap();
    } else {
        let wanted = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, wanted, "{} differs; POINTSMAN_GOLDEN=write writes it anew", path.display());
    }
}

pub(crate) fn golden(name: &str) {
    let mesh = Mesh::read(&std::fs::read_to_string(golden_folder().join(format!("{name}.yaml"))).unwrap());
    compare(name, &mesh.compile().view(&mesh.client));
}

#[test]
fn services_with_http_share_one_listener_for_each_port() {
    golden("listener-http");
}

#[test]
fn tcp_routes_become_weighted_clusters_and_address_ranges() {
    golden("listener-tcp");
}

#[test]
fn tls_is_routed_by_sni() {
    golden("listener-tls");
}

#[test]
fn undeclared_ports_are_http_or_tcp_by_their_first_bytes() {
    golden("listener-auto");
}

#[test]
fn headless_services_have_a_listener_for_each_other_endpoint() {
    golden("listener-headless");
}

#[test]
fn services_without_addresses_share_a_listener_or_are_told_why_not() {
    golden("listener-shared");
}

#[test]
fn without_interception_ports_are_bound_on_loopback_and_on_the_workloads_address() {
    golden("listener-bound");
}

#[test]
fn inbound_ports_have_chains_by_protocol() {
    golden("listener-inbound");
}

#[test]
fn a_port_takes_what_its_mode_says() {
    golden("mtls-permissive");
    golden("mtls-strict");
    golden("mtls-ports");
    golden("mtls-bound");
}

#[test]
fn without_a_certificate_nothing_is_taken_that_must_be_mutual_tls() {
    golden("mtls-without-certificate");
}

#[test]
fn destinations_that_are_missing_are_closed_or_reweighted() {
    golden("listener-missing");
    golden("listener-reweight");
}

#[test]
fn odd_tcp_and_tls_routes_are_reported() {
    golden("listener-odd");
}

#[test]
fn a_grpc_client_gets_an_api_listener_with_the_filters_that_it_knows() {
    let listener = api_listener("reviews.shop.svc.cluster.local:80", "outbound|80||reviews.shop.svc.cluster.local");
    let bytes = listener.encode_to_vec();
    assert_eq!(proto::wire::check(ResourceType::Listener.type_url(), &bytes), Ok(()));
    compare("listener-api", &proto::descriptor::to_json(ResourceType::Listener.type_url(), &bytes));
}

#[test]
fn subnets_are_equal_however_their_host_bits_are_written() {
    for (text, wanted) in [
        ("10.1.2.3/8", Some("10.0.0.0/8")),
        ("10.1.2.3", Some("10.1.2.3/32")),
        ("10.1.2.3/0", Some("0.0.0.0/0")),
        ("2001:db8::1/32", Some("2001:db8::/32")),
        ("::1", Some("::1/128")),
        ("::1/0", Some("::/0")),
        ("10.0.0.0/33", None),
        ("10.0.0.0/-1", None),
        ("10.0.0/8", None),
        ("/8", None),
        ("", None),
    ] {
        let found = parse_range(text).map(|(address, bits)| format!("{address}/{bits}"));
        assert_eq!(found.as_deref(), wanted, "{text}");
    }
    assert_eq!(network("::1".parse().unwrap(), 129), None);
}

#[test]
fn a_match_gives_up_the_names_or_addresses_that_others_have() {
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut matching = Matching { server_names: names(&["a.com", "b.com"]), ..Matching::default() };
    let taken: Vec<_> = Matching { server_names: names(&["a.com"]), ..Matching::default() }.leaves().collect();
    assert!(matching.remove(|leaf| taken.contains(leaf)));
    assert_eq!(matching.server_names, ["b.com"]);
    let taken: Vec<_> = matching.leaves().collect();
    assert!(!matching.remove(|leaf| taken.contains(leaf)));

    let ranges = vec![parse_range("10.0.0.0/8").unwrap(), parse_range("10.1.0.0/16").unwrap()];
    let mut matching = Matching { ranges, ..Matching::default() };
    let taken: Vec<_> =
        Matching { ranges: vec![parse_range("10.0.0.9/8").unwrap()], ..Matching::default() }.leaves().collect();
    assert!(matching.remove(|leaf| taken.contains(leaf)));
    assert_eq!(matching.ranges, [parse_range("10.1.0.0/16").unwrap()]);
    let mut everything = Matching::default();
    assert!(!everything.remove(|_| true));
}

#[test]
fn huge_weights_are_scaled_to_what_envoy_can_add_up() {
    let mesh = Mesh::read(&format!(
        "# client: {{proxy: redirect}}\n{}\n---\n{}\n---\n{}",
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.0.0.1, ports: [{name: tcp, port: 9000}]}}",
        "{apiVersion: v1, kind: Service, metadata: {name: b}, spec: {clusterIP: 10.0.0.2, ports: [{name: tcp, port: 9000}]}}",
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: [a], tcp: [{route: [\
         {destination: {host: a}, weight: 9223372036854775807}, {destination: {host: b}, weight: 9223372036854775807}, \
         {destination: {host: a}, weight: 9223372036854775807}, {destination: {host: b}, weight: 1}]}]}}",
    ));
    let compiled = mesh.compile();
    let listener = compiled.listeners.iter().find(|l| l.name == "10.0.0.1_9000").unwrap();
    let json = proto::descriptor::to_json(ResourceType::Listener.type_url(), &listener.encode_to_vec());
    let clusters = json["filter_chains"][0]["filters"][0]["typed_config"]["weighted_clusters"]["clusters"].clone();
    let weights: Vec<u64> = clusters.as_array().unwrap().iter().map(|c| c["weight"].as_u64().unwrap()).collect();
    assert_eq!(weights[..3], [1_431_655_763, 1_431_655_763, 1_431_655_763]);
    assert_eq!(weights[3], 1);
    assert!(weights.iter().sum::<u64>() <= u32::MAX.into());
    assert_eq!(compiled.problems, []);
}

#[test]
fn tproxy_keeps_the_clients_address() {
    let mesh = Mesh::read(
        "# client: {proxy: tproxy, addresses: [10.0.0.9, 'fd00::9']}\n\
         {apiVersion: v1, kind: Service, metadata: {name: other}, spec: {}}",
    );
    let listeners = mesh.compile().listeners;
    let [outbound, inbound] = &listeners[..] else { panic!("{listeners:?}") };
    assert_eq!(outbound.transparent.as_ref().map(|t| t.value), Some(true));
    assert_eq!(inbound.transparent.as_ref().map(|t| t.value), Some(true));
    let filters: Vec<_> = inbound.listener_filters.iter().map(|f| f.name.rsplit('.').next().unwrap()).collect();
    assert_eq!(filters, ["original_dst", "original_src", "http_inspector"]);
    assert_eq!(inbound.additional_addresses.len(), 1);
}
