//! Secrets that somebody made for a proxy, by name: of gateways, and of rules that begin TLS.

use proto::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::pb::envoy::config::core::v3::{AggregatedConfigSource, ApiVersion, ConfigSource};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::SdsSecretConfig;
use world::AUTHORITIES_SUFFIX;

const SCHEME: &str = "kubernetes://";

/// What a gateway has to do to get secrets.
pub(crate) const PROVE: &str = "Secrets go over authenticated connections only: connect the gateway to --xds-tls-listen \
     with a token or a certificate (`pointsman bootstrap --kind gateway --xds-ca ... --token-file ...`).";

/// The name that a secret is asked for by (Istio's `pilot/pkg/credentials`); `None` when it cannot be a secret's: names of
/// other namespaces are not taken either.
pub(crate) fn credential(name: &str) -> Option<String> {
    let is_name =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    is_name.then(|| format!("{SCHEME}{name}"))
}

/// The name of the Secret that is asked for by this name.
pub(crate) fn secret_of(credential: &str) -> &str {
    credential.strip_prefix(SCHEME).unwrap_or(credential)
}

/// The name of the authorities that belong to the secret `credential`.
pub(crate) fn authorities_of(credential: &str) -> String {
    format!("{credential}{AUTHORITIES_SUFFIX}")
}

/// A secret by its name, on the stream of everything else: Istio's agents leave those to the server, too.
pub(crate) fn on_the_stream(name: &str) -> SdsSecretConfig {
    let source = ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        resource_api_version: ApiVersion::V3.into(),
        ..ConfigSource::default()
    };
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(source) }
}
