//! TLS of the mesh for gRPC without a proxy: by the certificate provider that its bootstrap names (gRPC proposal A29).
//!
//! gRPC refuses what it does not know here, SDS and `tls_params` among it, and names of peers on servers; of the two
//! lists of names it reads the older one (rule G-06).

use proto::pb::envoy::config::core::v3::TransportSocket;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext,
    UpstreamTlsContext,
};
use proto::pb::envoy::r#type::matcher::v3::StringMatcher;
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::Peers;
use super::sockets::socket;
use crate::names::CERTIFICATE_PROVIDER;
use crate::pack::boolean;

/// What is asked of the provider: the certificate with its key, and what is trusted. Providers that read files have one
/// of each, whatever it is called.
const CERTIFICATE: &str = "default";
const TRUSTED: &str = "ROOTCA";

/// The socket of a server that ends mutual TLS. It takes whoever an authority that it trusts has signed; of which trust
/// domain that is, another has to look at.
pub(crate) fn provided_downstream() -> TransportSocket {
    socket(&DownstreamTlsContext {
        common_tls_context: Some(common(Vec::new())),
        require_client_certificate: Some(boolean(true)),
        ..DownstreamTlsContext::default()
    })
}

/// The socket of a cluster that begins mutual TLS with one of `peers`; with anybody of whom the authority says who he is
/// where there are none.
pub(crate) fn provided_upstream(peers: &Peers) -> TransportSocket {
    let (exact, prefixes) = peers.patterns();
    let exact = exact.map(|id| MatchPattern::Exact(id.clone()));
    let patterns = exact.chain(prefixes.map(|prefix| MatchPattern::Prefix(prefix.clone())));
    let matcher = |pattern| StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() };
    socket(&UpstreamTlsContext {
        common_tls_context: Some(common(patterns.map(matcher).collect())),
        ..UpstreamTlsContext::default()
    })
}

#[allow(deprecated)] // The newer list of names is not read by gRPC.
fn common(peers: Vec<StringMatcher>) -> CommonTlsContext {
    let instance = |name: &str| CertificateProviderPluginInstance {
        instance_name: CERTIFICATE_PROVIDER.to_owned(),
        certificate_name: name.to_owned(),
    };
    let validation = CertificateValidationContext {
        ca_certificate_provider_instance: Some(instance(TRUSTED)),
        match_subject_alt_names: peers,
        ..CertificateValidationContext::default()
    };
    CommonTlsContext {
        tls_certificate_provider_instance: Some(instance(CERTIFICATE)),
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..CommonTlsContext::default()
    }
}
