//! Istio's `Gateway` (not the Gateway API's).

use serde::Deserialize;

use crate::Labels;

/// `Gateway.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Gateway {
    /// Labels of the proxies that take these servers.
    pub selector: Labels,
    pub servers: Vec<GatewayServer>,
}

/// `servers[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct GatewayServer {
    pub port: GatewayPort,
    pub bind: Option<String>,
    /// `host` or `namespace/host`; `*` and `.` stand for any and the Gateway's own namespace.
    pub hosts: Vec<String>,
    pub tls: Option<ServerTls>,
    pub name: String,
    pub default_endpoint: Option<String>,
}

/// `servers[].port`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct GatewayPort {
    pub number: u16,
    pub protocol: String,
    pub name: String,
    pub target_port: Option<u16>,
}

/// `servers[].tls`: recognised whole; which modes take effect is the compiler's to say.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ServerTls {
    pub https_redirect: bool,
    pub mode: Option<String>,
    pub credential_name: Option<String>,
    pub credential_names: Vec<String>,
    pub ca_cert_credential_name: Option<String>,
    pub server_certificate: Option<String>,
    pub private_key: Option<String>,
    pub ca_certificates: Option<String>,
    pub ca_crl: Option<String>,
    pub tls_certificates: Vec<CertificateFiles>,
    pub subject_alt_names: Vec<String>,
    pub verify_certificate_spki: Vec<String>,
    pub verify_certificate_hash: Vec<String>,
    pub min_protocol_version: Option<String>,
    pub max_protocol_version: Option<String>,
    pub cipher_suites: Vec<String>,
}

/// `servers[].tls.tlsCertificates[]`: paths on the proxy's machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct CertificateFiles {
    pub server_certificate: Option<String>,
    pub private_key: Option<String>,
    pub ca_certificates: Option<String>,
}
