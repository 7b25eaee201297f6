//! TLS of the mesh, with certificates by SDS.

use std::net::IpAddr;
use std::time::Duration;

use proto::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use proto::pb::envoy::config::core::v3::transport_socket::ConfigType;
use proto::pb::envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, GrpcService, TransportSocket, api_config_source,
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    TlsParameters, UpstreamTlsContext,
};
use proto::pb::envoy::r#type::matcher::v3::StringMatcher;
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use world::Settings;

use super::Peers;
use crate::Secrets;
use crate::pack::{any, boolean, duration};

/// The secrets that clients ask for: their certificate with its key, and what they trust.
const CERTIFICATE: &str = "default";
const TRUSTED: &str = "ROOTCA";
/// The cluster of Istio's bootstrap that leads to its agent.
const AGENT: &str = "sds-grpc";
/// Istio's list. TLS 1.3 has its own.
const CIPHER_SUITES: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];
/// `UpstreamTlsContext.sni` takes no more bytes.
const LONGEST_SNI: usize = 255;
/// What servers agree to. Clients of Istio's build offer `istio-peer-exchange` too, and whoever agrees to it promises a
/// preface to the bytes that only that build reads and writes.
const SERVER_PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// The socket of a filter chain that ends mutual TLS, of any workload of the trust domain or its aliases. `None` for
/// clients without a certificate.
///
/// A listener waits for its certificate for as long as Envoy waits by default, 15 seconds; then it is opened, and refuses
/// handshakes until the certificate is there.
pub(crate) fn downstream(secrets: Secrets, settings: &Settings) -> Option<TransportSocket> {
    downstream_of(secrets, settings, &[])
}

/// The same, of workloads with one of these SPIFFE ids; of any, if there are none.
pub(crate) fn downstream_of(secrets: Secrets, settings: &Settings, ids: &[String]) -> Option<TransportSocket> {
    let source = source(secrets)?;
    let domains = trust_domains(settings).map(|domain| MatchPattern::Prefix(format!("spiffe://{domain}/")));
    let ids = ids.iter().map(|id| MatchPattern::Exact(id.clone()));
    let peers: Vec<_> = if ids.len() > 0 { ids.collect() } else { domains.collect() };
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(TlsParameters {
                cipher_suites: CIPHER_SUITES.iter().map(|&suite| suite.to_owned()).collect(),
                ..versions()
            }),
            ..common(source, &SERVER_PROTOCOLS, peers.into_iter().map(of_workload))
        }),
        require_client_certificate: Some(boolean(true)),
        ..DownstreamTlsContext::default()
    };
    Some(socket(&context))
}

/// What a client says that it wants, in the clear: where the connection goes, and what for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerName<'a> {
    /// SNI; left out where it is longer than Envoy takes.
    pub(crate) sni: &'a str,
    /// Application protocols, the most telling one first.
    pub(crate) protocols: &'a [&'a str],
}

/// The socket of a cluster that begins mutual TLS with one of `peers`; with anybody of whom the authority says who he is
/// where there are none. `None` for clients without a certificate.
///
/// A cluster waits for its certificate as a listener does, see [`downstream`].
pub(crate) fn upstream(secrets: Secrets, name: ServerName<'_>, peers: &Peers) -> Option<TransportSocket> {
    let source = source(secrets)?;
    let (exact, prefixes) = peers.patterns();
    let exact = exact.map(|id| MatchPattern::Exact(id.clone()));
    let patterns = exact.chain(prefixes.map(|prefix| MatchPattern::Prefix(prefix.clone())));
    Some(begun(source, name, patterns.map(of_workload)))
}

/// The socket of a cluster that leads to the control plane, whose certificate has this name or IP address: no workload gets
/// one with either. `None` for clients without a certificate.
pub(crate) fn control_plane(secrets: Secrets, name: &str) -> Option<TransportSocket> {
    let source = source(secrets)?;
    let is_ip = name.parse::<IpAddr>().is_ok();
    let kind = if is_ip { SanType::IpAddress } else { SanType::Dns };
    let sni = if is_ip { "" } else { name };
    let expected = [(kind, MatchPattern::Exact(name.to_owned()))];
    Some(begun(source, ServerName { sni, protocols: &["h2"] }, expected.into_iter()))
}

/// The socket of a client that shows its certificate, and wants one of these names to be in the server's.
fn begun(
    source: ConfigSource,
    name: ServerName<'_>,
    peers: impl Iterator<Item = (SanType, MatchPattern)>,
) -> TransportSocket {
    socket(&UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(versions()),
            ..common(source, name.protocols, peers)
        }),
        sni: if name.sni.len() <= LONGEST_SNI { name.sni.to_owned() } else { String::new() },
        ..UpstreamTlsContext::default()
    })
}

/// TLS 1.2 and 1.3; Envoy's default for clients stops at 1.2.
pub(crate) fn versions() -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12 as i32,
        tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
        ..TlsParameters::default()
    }
}

/// The trust domain and its aliases.
pub(super) fn trust_domains(settings: &Settings) -> impl Iterator<Item = &str> {
    [&settings.trust_domain].into_iter().chain(&settings.trust_domain_aliases).map(|domain| &**domain)
}

/// Workloads have their names in URIs.
fn of_workload(pattern: MatchPattern) -> (SanType, MatchPattern) {
    (SanType::Uri, pattern)
}

/// The client's own certificate, and a peer who is one of these by an authority that is trusted.
fn common(
    source: ConfigSource,
    protocols: &[&str],
    peers: impl Iterator<Item = (SanType, MatchPattern)>,
) -> CommonTlsContext {
    let secret = |name: &str| SdsSecretConfig { name: name.to_owned(), sds_config: Some(source.clone()) };
    let peers = peers.map(|(kind, pattern)| SubjectAltNameMatcher {
        san_type: kind as i32,
        matcher: Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }),
        ..SubjectAltNameMatcher::default()
    });
    let peers = CertificateValidationContext { match_typed_subject_alt_names: peers.collect(), ..Default::default() };
    CommonTlsContext {
        alpn_protocols: protocols.iter().map(|&name| name.to_owned()).collect(),
        tls_certificate_sds_secret_configs: vec![secret(CERTIFICATE)],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(peers),
                validation_context_sds_secret_config: Some(secret(TRUSTED)),
                ..CombinedCertificateValidationContext::default()
            },
        )),
        ..CommonTlsContext::default()
    }
}

fn source(secrets: Secrets) -> Option<ConfigSource> {
    let (specifier, timeout) = match secrets {
        Secrets::None | Secrets::Provider => return None,
        Secrets::Stream => (ConfigSourceSpecifier::Ads(AggregatedConfigSource {}), None),
        // As Istio has it: the agent answers, or the proxy is of no use.
        Secrets::Agent => (ConfigSourceSpecifier::ApiConfigSource(agent()), Some(Duration::ZERO)),
    };
    Some(ConfigSource {
        config_source_specifier: Some(specifier),
        resource_api_version: ApiVersion::V3.into(),
        initial_fetch_timeout: timeout.map(duration),
        ..ConfigSource::default()
    })
}

fn agent() -> ApiConfigSource {
    let service = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: AGENT.to_owned(),
            ..EnvoyGrpc::default()
        })),
        ..GrpcService::default()
    };
    ApiConfigSource {
        api_type: api_config_source::ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    }
}

/// The transport socket of a TLS context.
pub(crate) fn socket<M: prost::Message + prost::Name>(context: &M) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(context))),
    }
}
