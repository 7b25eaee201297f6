#![allow(clippy::unwrap_used)]

use crate::listener::tests::golden;

#[test]
fn http_servers_of_several_gateways_share_a_port_and_its_routes() {
    golden("gateway-http");
}

#[test]
fn tls_is_passed_through_or_ended_by_sni() {
    golden("gateway-tls");
}

#[test]
fn certificates_are_asked_for_by_the_names_of_their_secrets() {
    golden("gateway-secrets");
}

#[test]
fn servers_of_the_mesh_show_the_gateways_own_certificate() {
    golden("gateway-mesh-tls");
}

#[test]
fn a_gateway_that_has_not_proved_who_it_is_is_told_that_it_gets_no_secrets() {
    golden("gateway-unproved");
}

#[test]
fn tcp_servers_follow_tcp_routes() {
    golden("gateway-tcp");
}

#[test]
fn servers_that_cannot_be_opened_are_reported_and_harm_nobody() {
    golden("gateway-odd");
}
