//! `servers[].tls`: what is done with TLS, and the context that terminates it.

use proto::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::pb::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, TransportSocket, data_source, transport_socket,
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    TlsCertificate, TlsParameters,
};
use proto::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use world::api::istio::ServerTls;

use crate::pack::{any, boolean};

/// Names of cipher suites that BoringSSL knows for TLS 1.2 and below; Envoy refuses a listener with any other.
const CIPHER_SUITES: [&str; 14] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
];

/// What is done with TLS.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Termination {
    /// Nothing: it is routed by SNI.
    Passthrough,
    /// It ends here.
    Ended(Box<Ended>),
}

/// How it ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    material: Material,
    /// Whether clients must show a certificate; where it is verified they may.
    is_mutual: bool,
    alternative_names: Vec<String>,
    versions: (TlsProtocol, TlsProtocol),
    cipher_suites: Vec<String>,
}

/// Where certificates come from. Authorities are given where clients' certificates are verified.
#[derive(Clone, Debug, PartialEq)]
enum Material {
    /// From files on the proxy's machine. A file that is not there makes Envoy refuse the listener.
    Files { certificate: String, key: String, authorities: Option<String> },
    /// From the server, by name. While one is not there the listener waits, at most as long as Envoy does by default, 15
    /// seconds; then it opens, and refuses handshakes until the secret comes.
    Secrets { certificate: String, authorities: Option<String> },
}

/// Why a server cannot be served: field, message, hint.
pub(super) type Refusal = (&'static str, String, &'static str);

/// Parts that are left out: field, message.
pub(super) type Warnings = Vec<(&'static str, String)>;

/// Reads the TLS settings of an HTTPS or TLS server.
///
/// # Errors
/// When the server would be wrong, or less safe than its author means, without what is not supported.
pub(super) fn termination(tls: Option<&ServerTls>) -> Result<(Termination, Warnings), Refusal> {
    let hint = "Use mode PASSTHROUGH, or SIMPLE with credentialName.";
    let Some(tls) = tls else {
        return Err(("tls", "an HTTPS or TLS server needs tls settings".to_owned(), hint));
    };
    let mode = tls.mode.as_deref().unwrap_or("PASSTHROUGH");
    // Whether clients' certificates are verified, and whether they must show one.
    let (verifies, is_mutual) = match mode {
        "PASSTHROUGH" => return Ok((Termination::Passthrough, Vec::new())),
        "SIMPLE" => (false, false),
        "MUTUAL" => (true, true),
        "OPTIONAL_MUTUAL" => (true, false),
        "ISTIO_MUTUAL" | "AUTO_PASSTHROUGH" => {
            return Err(("tls.mode", format!("TLS mode {mode} is not supported yet"), hint));
        }
        _ => return Err(("tls.mode", format!("unknown TLS mode \"{mode}\""), hint)),
    };
    let material = match given(&tls.credential_name) {
        Some(name) => secrets(&name, verifies)?,
        None => files(tls, mode, verifies)?,
    };
    let mut warnings = Warnings::new();
    let lowest = version(tls.min_protocol_version.as_deref(), "tls.minProtocolVersion")?;
    let highest = version(tls.max_protocol_version.as_deref(), "tls.maxProtocolVersion")?;
    let (known, unknown): (Vec<_>, Vec<_>) =
        tls.cipher_suites.iter().cloned().partition(|suite| CIPHER_SUITES.contains(&suite.as_str()));
    warnings.extend(unknown.iter().map(|suite| ("tls.cipherSuites", format!("Envoy has no cipher suite \"{suite}\""))));
    if known.is_empty() && !unknown.is_empty() {
        let hint = "Leave cipherSuites out to use Envoy's own choice.";
        return Err(("tls.cipherSuites", "Envoy has none of these cipher suites".to_owned(), hint));
    }
    let ended = Ended {
        material,
        is_mutual,
        alternative_names: tls.subject_alt_names.clone(),
        versions: (lowest, highest),
        cipher_suites: known,
    };
    Ok((Termination::Ended(Box::new(ended)), warnings))
}

fn files(tls: &ServerTls, mode: &str, verifies: bool) -> Result<Material, Refusal> {
    let hint = "Use credentialName, or paths on the proxy's machine.";
    let missing = |part, name: &str| (part, format!("TLS mode {mode} needs {name}"), hint);
    let certificate = given(&tls.server_certificate)
        .ok_or_else(|| missing("tls.serverCertificate", "the path of a certificate chain"))?;
    let key = given(&tls.private_key).ok_or_else(|| missing("tls.privateKey", "the path of a private key"))?;
    let authorities = match (verifies, given(&tls.ca_certificates)) {
        (true, None) => return Err(missing("tls.caCertificates", "the path of the clients' authorities")),
        (true, authorities) => authorities,
        (false, _) => None,
    };
    Ok(Material::Files { certificate, key, authorities })
}

/// Istio's names for the secret of a gateway, and for what its clients are verified by.
fn secrets(credential: &str, verifies: bool) -> Result<Material, Refusal> {
    if !credential.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b)) {
        let message = format!("\"{}\" is no name of a Secret", credential.escape_debug());
        return Err(("tls.credentialName", message, "Name a Secret in the namespace of the gateway's workload."));
    }
    let certificate = format!("kubernetes://{credential}");
    let authorities = verifies.then(|| format!("{certificate}-cacert"));
    Ok(Material::Secrets { certificate, authorities })
}

fn given(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

fn version(text: Option<&str>, part: &'static str) -> Result<TlsProtocol, Refusal> {
    Ok(match text.unwrap_or("TLS_AUTO") {
        "TLS_AUTO" | "" => TlsProtocol::TlsAuto,
        "TLSV1_0" => TlsProtocol::TlSv10,
        "TLSV1_1" => TlsProtocol::TlSv11,
        "TLSV1_2" => TlsProtocol::TlSv12,
        "TLSV1_3" => TlsProtocol::TlSv13,
        other => {
            let hint = "Known: TLS_AUTO, TLSV1_0, TLSV1_1, TLSV1_2, TLSV1_3.";
            return Err((part, format!("unknown TLS version \"{other}\""), hint));
        }
    })
}

impl Ended {
    /// The transport socket that terminates TLS; `alpn` is what is offered to clients.
    pub(super) fn transport_socket(&self, alpn: &[&str]) -> TransportSocket {
        let params = TlsParameters {
            tls_minimum_protocol_version: self.versions.0.into(),
            tls_maximum_protocol_version: self.versions.1.into(),
            cipher_suites: self.cipher_suites.clone(),
            ..TlsParameters::default()
        };
        let mut common = CommonTlsContext {
            tls_params: (params != TlsParameters::default()).then_some(params),
            alpn_protocols: alpn.iter().map(|protocol| (*protocol).to_owned()).collect(),
            ..CommonTlsContext::default()
        };
        match &self.material {
            Material::Files { certificate, key, authorities } => {
                common.tls_certificates = vec![TlsCertificate {
                    certificate_chain: Some(file(certificate)),
                    private_key: Some(file(key)),
                    ..TlsCertificate::default()
                }];
                common.validation_context_type = authorities.as_deref().map(|path| {
                    ValidationContextType::ValidationContext(CertificateValidationContext {
                        trusted_ca: Some(file(path)),
                        ..self.validation()
                    })
                });
            }
            Material::Secrets { certificate, authorities } => {
                common.tls_certificate_sds_secret_configs = vec![secret(certificate)];
                common.validation_context_type = authorities.as_deref().map(|name| {
                    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                        default_validation_context: Some(self.validation()),
                        validation_context_sds_secret_config: Some(secret(name)),
                        ..CombinedCertificateValidationContext::default()
                    })
                });
            }
        }
        let context = DownstreamTlsContext {
            common_tls_context: Some(common),
            require_client_certificate: Some(boolean(self.is_mutual)),
            ..DownstreamTlsContext::default()
        };
        TransportSocket {
            name: "envoy.transport_sockets.tls".to_owned(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
        }
    }

    /// Which names clients may have, beside who has signed for them.
    fn validation(&self) -> CertificateValidationContext {
        let san = |name: &String| SubjectAltNameMatcher {
            san_type: if name.contains("://") { SanType::Uri } else { SanType::Dns }.into(),
            matcher: Some(StringMatcher {
                match_pattern: Some(string_matcher::MatchPattern::Exact(name.clone())),
                ..StringMatcher::default()
            }),
            ..SubjectAltNameMatcher::default()
        };
        CertificateValidationContext {
            match_typed_subject_alt_names: self.alternative_names.iter().map(san).collect(),
            ..CertificateValidationContext::default()
        }
    }
}

/// A secret by its name, on the stream of everything else.
fn secret(name: &str) -> SdsSecretConfig {
    let source = ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        resource_api_version: ApiVersion::V3.into(),
        ..ConfigSource::default()
    };
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(source) }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), ..DataSource::default() }
}
