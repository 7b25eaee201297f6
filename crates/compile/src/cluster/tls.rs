//! TLS towards the endpoints, as a rule asks for it: with certificates from the proxy's own files, from a secret, or mutual
//! TLS of the mesh.

use proto::pb::envoy::config::core::v3::data_source::Specifier;
use proto::pb::envoy::config::core::v3::{DataSource, TransportSocket, UpstreamHttpProtocolOptions};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, TlsCertificate, UpstreamTlsContext,
};
use proto::pb::envoy::r#type::matcher::v3::StringMatcher;
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use world::Problem;
use world::api::istio::ClientTls;

use super::http::Upstream;
use super::{ClusterInput, mutual};
use crate::policy::{Part, Policy};
use crate::security::{self, Peers};
use crate::{Proxy, Secrets};

/// The certificate authorities that a rule trusts when it names none: the file of Debian, Ubuntu, Alpine and Envoy's
/// own images. Envoy has no notion of "the system's".
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What TLS adds to a cluster.
#[derive(Debug)]
pub(super) struct Tls {
    /// The transport socket.
    pub(super) socket: TransportSocket,
    /// What is taken from each request's host because the rule does not say it.
    pub(super) automatic: Option<UpstreamHttpProtocolOptions>,
}

/// The TLS that the policy asks for; `None` for plaintext.
pub(super) fn of(
    input: &ClusterInput<'_>,
    policy: &Policy<'_>,
    upstream: Upstream,
    problems: &mut Vec<Problem>,
) -> Option<Tls> {
    let part = policy.tls.as_ref()?;
    let asked = part.value;
    let shows_certificate = match Mode::of(part, problems) {
        Mode::Plaintext => return None,
        Mode::Simple => false,
        Mode::Mutual => true,
        Mode::Mesh => return of_mesh(input, part, upstream, problems),
    };
    let secret = match asked.credential_name.as_deref() {
        None | Some("") => None,
        Some(name) => Some(secret(name, input, part, problems)?),
    };
    let names = names(input, asked);
    let sni = asked.sni.clone().unwrap_or_default();
    let insecure = asked.insecure_skip_verify == Some(true);
    // The host is known only of HTTP requests.
    let by_host = sni.is_empty() && upstream != Upstream::Opaque;
    let automatic = by_host.then(|| UpstreamHttpProtocolOptions {
        auto_sni: true,
        auto_san_validation: names.is_empty() && !insecure,
        ..UpstreamHttpProtocolOptions::default()
    });
    let mut certificates = CommonTlsContext::default();
    match (&secret, shows_certificate) {
        (_, false) => {}
        (Some(name), true) => {
            certificates.tls_certificate_sds_secret_configs.push(security::on_the_stream(name));
        }
        (None, true) => certificates.tls_certificates.extend(client_certificate(part, problems)),
    }
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(security::versions()),
            alpn_protocols: alpn(upstream).iter().map(|&name| name.to_owned()).collect(),
            validation_context_type: (!insecure).then(|| validation(asked, names, secret.as_deref())),
            ..certificates
        }),
        sni,
        ..UpstreamTlsContext::default()
    };
    Some(Tls { socket: security::socket(&context), automatic })
}

/// Mutual TLS of the mesh; names that the rule gives stand in for the accounts behind the service.
fn of_mesh(
    input: &ClusterInput<'_>,
    part: &Part<'_, ClientTls>,
    upstream: Upstream,
    problems: &mut Vec<Problem>,
) -> Option<Tls> {
    let asked = part.value;
    let named = Peers::named(&asked.subject_alt_names);
    let peers = input.mutual_tls.map(|mutual| if asked.subject_alt_names.is_empty() { &mutual.peers } else { &named });
    let sni = asked.sni.as_deref().unwrap_or_default();
    let socket = peers.and_then(|peers| mutual::socket(input, upstream, sni, peers));
    if socket.is_none() {
        problems.push(part.error(
            "mode",
            "ISTIO_MUTUAL needs a certificate, and a client has none because it has not proved who it is",
            "that client uses plaintext",
        ));
    }
    Some(Tls { socket: socket?, automatic: None })
}

/// What a rule asks for.
pub(super) enum Mode {
    Plaintext,
    Simple,
    Mutual,
    Mesh,
}

impl Mode {
    pub(super) fn of(part: &Part<'_, ClientTls>, problems: &mut Vec<Problem>) -> Self {
        match part.value.mode.as_deref() {
            None | Some("" | "DISABLE") => Mode::Plaintext,
            Some("SIMPLE") => Mode::Simple,
            Some("MUTUAL") => Mode::Mutual,
            Some("ISTIO_MUTUAL") => Mode::Mesh,
            Some(other) => {
                let message = format!("\"{other}\" is none of DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL");
                problems.push(part.error("mode", message, "plaintext is used"));
                Mode::Plaintext
            }
        }
    }
}

fn client_certificate(part: &Part<'_, ClientTls>, problems: &mut Vec<Problem>) -> Option<TlsCertificate> {
    let given = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
    let (chain, key) = (given(&part.value.client_certificate), given(&part.value.private_key));
    if let (Some(chain), Some(key)) = (&chain, &key) {
        return Some(TlsCertificate {
            certificate_chain: Some(file(chain)),
            private_key: Some(file(key)),
            ..TlsCertificate::default()
        });
    }
    let field = if chain.is_none() { "clientCertificate" } else { "privateKey" };
    problems.push(part.error(
        field,
        "MUTUAL needs the files of both clientCertificate and privateKey, or credentialName",
        "TLS is used without a client certificate",
    ));
    None
}

/// The name of the secret that the rule names; `None` where TLS cannot be used, because the client has no secrets.
fn secret(
    name: &str,
    input: &ClusterInput<'_>,
    part: &Part<'_, ClientTls>,
    problems: &mut Vec<Problem>,
) -> Option<String> {
    const FIELD: &str = "credentialName";
    // As in Istio, where a rule for a gateway does not make every sidecar wait for a secret that it may not have.
    if input.audience.proxy != Proxy::Gateway {
        let problem = part.warning(FIELD, "sidecars get no secrets, only gateways do", "sidecars use plaintext");
        problems
            .push(problem.hint("Send the traffic by a gateway, or give sidecars files: caCertificates and its like."));
        return None;
    }
    if input.audience.secrets == Secrets::None {
        let message = "a gateway gets no secrets because it has not proved who it is";
        let consequence = "at that gateway connections to the host fail, and new clusters wait 15 seconds";
        problems.push(part.error(FIELD, message, consequence).hint(security::PROVE));
    }
    let Some(secret) = security::credential(name) else {
        let message = format!("\"{}\" is no name of a Secret", name.escape_debug());
        let problem = part.error(FIELD, message, "connections to the host fail");
        problems.push(problem.hint("Name a Secret in the namespace of the gateway's workload."));
        // Nobody answers to it, which is what must happen: plaintext was not asked for.
        return Some("kubernetes://".to_owned());
    };
    Some(secret)
}

/// Of which names the server's certificate must have one: the rule's, else the ServiceEntry's.
fn names<'a>(input: &ClusterInput<'a>, asked: &'a ClientTls) -> &'a [String] {
    match &asked.subject_alt_names[..] {
        [] => &input.service.subject_alt_names,
        names => names,
    }
}

/// By what the server's certificate is verified.
fn validation(asked: &ClientTls, names: &[String], secret: Option<&str>) -> ValidationContextType {
    let own = CertificateValidationContext {
        match_typed_subject_alt_names: names.iter().flat_map(|name| san_matchers(name)).collect(),
        ..CertificateValidationContext::default()
    };
    if let Some(secret) = secret {
        let authorities = security::on_the_stream(&security::authorities_of(secret));
        return ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
            default_validation_context: Some(own),
            validation_context_sds_secret_config: Some(authorities),
            ..CombinedCertificateValidationContext::default()
        });
    }
    let authorities = asked.ca_certificates.as_deref().filter(|path| !path.is_empty()).unwrap_or(SYSTEM_AUTHORITIES);
    let trusted_ca = Some(file(authorities));
    ValidationContextType::ValidationContext(CertificateValidationContext { trusted_ca, ..own })
}

/// Istio's rules do not say of which type a name is, so it is tried as both that occur.
fn san_matchers(name: &str) -> [SubjectAltNameMatcher; 2] {
    [SanType::Dns, SanType::Uri].map(|san_type| SubjectAltNameMatcher {
        san_type: san_type as i32,
        matcher: Some(StringMatcher {
            match_pattern: Some(MatchPattern::Exact(name.to_owned())),
            ..StringMatcher::default()
        }),
        ..SubjectAltNameMatcher::default()
    })
}

fn alpn(upstream: Upstream) -> &'static [&'static str] {
    match upstream {
        Upstream::Opaque | Upstream::Http1 => &[],
        Upstream::Http2 => &["h2"],
        Upstream::Same => &["h2", "http/1.1"],
    }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..DataSource::default() }
}
