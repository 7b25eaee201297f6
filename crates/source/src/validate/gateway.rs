//! Istio's `Gateway`.

use world::api::istio::{Gateway, GatewayServer};

use super::Findings;
use super::names::{self, Hosts};

const PROTOCOLS: &[&str] = &["HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS"];
const MODES: &[&str] = &["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"];

pub(super) fn gateway(spec: &Gateway, findings: &mut Findings) {
    if spec.servers.is_empty() {
        findings.error("spec.servers", "there is no server");
    }
    for (at, server) in spec.servers.iter().enumerate() {
        let field = format!("spec.servers[{at}]");
        port(&format!("{field}.port"), server, findings);
        if server.hosts.is_empty() {
            findings
                .error(format_args!("{field}.hosts"), "the server has no hosts")
                .hint("Use \"*\" to take every host.");
        }
        for (at, host) in server.hosts.iter().enumerate() {
            let field = format!("{field}.hosts[{at}]");
            let (namespace, name) = host.split_once('/').unwrap_or(("*", host));
            if !matches!(namespace, "*" | ".") && !names::is_label(namespace) {
                findings
                    .error(&field, format!("\"{namespace}\" is not a namespace"))
                    .hint("Write host, namespace/host, ./host or */host.");
            }
            names::host(&field, name, Hosts::Any, findings);
        }
        tls(&field, server, findings);
    }
}

fn port(field: &str, server: &GatewayServer, findings: &mut Findings) {
    let port = &server.port;
    findings.port(format_args!("{field}.number"), port.number);
    if port.protocol.is_empty() {
        findings
            .error(format_args!("{field}.protocol"), "the protocol is missing")
            .hint(format!("Known: {}.", PROTOCOLS.join(", ")));
    } else {
        let protocol = port.protocol.to_ascii_uppercase();
        if !PROTOCOLS.contains(&protocol.as_str()) {
            findings
                .error(format_args!("{field}.protocol"), format!("unknown protocol \"{}\"", port.protocol))
                .hint(format!("Known: {}.", PROTOCOLS.join(", ")));
        }
    }
    if let Some(target) = port.target_port {
        findings.port(format_args!("{field}.targetPort"), target);
    }
}

fn tls(field: &str, server: &GatewayServer, findings: &mut Findings) {
    let is_tls = matches!(server.port.protocol.to_ascii_uppercase().as_str(), "HTTPS" | "TLS");
    let Some(tls) = &server.tls else {
        if is_tls {
            findings.error(format_args!("{field}.tls"), format!("protocol {} needs tls", server.port.protocol));
        }
        return;
    };
    findings.one_of(format_args!("{field}.tls.mode"), tls.mode.as_deref(), MODES);
    let mode = tls.mode.as_deref().unwrap_or("PASSTHROUGH");
    let terminates = matches!(mode, "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL");
    let has_pair = tls.server_certificate.is_some() && tls.private_key.is_some();
    let has_secrets = tls.credential_name.is_some() || !tls.credential_names.is_empty();
    if is_tls && mode == "ISTIO_MUTUAL" {
        for (part, is_given) in [
            ("credentialName", tls.credential_name.is_some()),
            ("credentialNames", !tls.credential_names.is_empty()),
            ("caCertCredentialName", tls.ca_cert_credential_name.is_some()),
            ("serverCertificate", tls.server_certificate.is_some()),
            ("privateKey", tls.private_key.is_some()),
            ("caCertificates", tls.ca_certificates.is_some()),
            ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ] {
            if is_given {
                findings
                    .error(format_args!("{field}.tls.{part}"), "mode ISTIO_MUTUAL has the mesh's own certificates")
                    .hint("Leave it out, or use SIMPLE or MUTUAL.");
            }
        }
    }
    if tls.credential_name.is_some() && !tls.credential_names.is_empty() {
        findings.error(
            format_args!("{field}.tls.credentialNames"),
            "credentialName and credentialNames exclude each other",
        );
    }
    if tls.credential_names.len() > 2 {
        findings
            .error(format_args!("{field}.tls.credentialNames"), "a server has two secrets at most")
            .hint("Name one with an RSA key and one with an ECDSA key.");
    }
    if is_tls && terminates && !has_secrets && !has_pair && tls.tls_certificates.is_empty() {
        findings.error(
            format_args!("{field}.tls"),
            format!("mode {mode} needs credentialName, or serverCertificate and privateKey"),
        );
    }
}
