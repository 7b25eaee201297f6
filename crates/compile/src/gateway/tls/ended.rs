//! The context that ends TLS.

use proto::pb::envoy::config::core::v3::{DataSource, TransportSocket, data_source};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SubjectAltNameMatcher, TlsCertificate,
    TlsParameters,
};
use proto::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};

use crate::pack::boolean;
use crate::security::{authorities_of, on_the_stream, socket};

/// How TLS ends.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::gateway) enum Ended {
    /// Mutual TLS of the mesh, by this socket.
    Mesh(TransportSocket),
    /// With certificates that somebody made for the server.
    Own {
        certificates: Certificates,
        /// How clients' certificates are verified, if they are.
        clients: Option<Clients>,
        /// The lowest and the highest version of TLS.
        versions: (TlsProtocol, TlsProtocol),
        cipher_suites: Vec<String>,
    },
}

/// What a server shows.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::gateway) enum Certificates {
    /// Chains and keys on the proxy's machine. A file that is not there makes Envoy refuse the listener.
    Files(Vec<(String, String)>),
    /// From the server, by name. While one is not there the listener waits, at most as long as Envoy does by default, 15
    /// seconds; then it opens, and refuses handshakes until the secret comes.
    Secrets(Vec<String>),
}

/// How clients' certificates are verified.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::gateway) struct Clients {
    /// Whether they must show one.
    pub(super) is_mutual: bool,
    /// Who must have signed it.
    pub(super) authorities: Authorities,
    /// Names of which it must have one; any if there are none.
    pub(super) names: Vec<String>,
    /// SHA-256 of public keys, in base64; one of these or of the hashes must be its own, if there are any.
    pub(super) keys: Vec<String>,
    /// SHA-256 of certificates, in hexadecimal digits.
    pub(super) hashes: Vec<String>,
    /// A list of revoked ones on the proxy's machine.
    pub(super) revoked: Option<String>,
}

/// Who must have signed clients' certificates.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::gateway) enum Authorities {
    /// A file on the proxy's machine.
    File(String),
    /// From the server: those of the secret with this name.
    Secret(String),
}

impl Ended {
    /// Whether it needs secrets from the server that somebody else made.
    pub(in crate::gateway) fn asks_for_secrets(&self) -> bool {
        match self {
            Ended::Mesh(_) => false,
            Ended::Own { certificates, clients, .. } => {
                matches!(certificates, Certificates::Secrets(_))
                    || clients.as_ref().is_some_and(|clients| matches!(clients.authorities, Authorities::Secret(_)))
            }
        }
    }

    /// The names of the secrets whose certificates it shows.
    pub(in crate::gateway) fn shown(&self) -> &[String] {
        match self {
            Ended::Own { certificates: Certificates::Secrets(names), .. } => names,
            Ended::Own { certificates: Certificates::Files(_), .. } | Ended::Mesh(_) => &[],
        }
    }

    /// The name of the secret with the authorities of clients.
    pub(in crate::gateway) fn authorities(&self) -> Option<&str> {
        let Ended::Own { clients: Some(clients), .. } = self else { return None };
        match &clients.authorities {
            Authorities::Secret(name) => Some(name),
            Authorities::File(_) => None,
        }
    }

    /// The transport socket that ends TLS; `alpn` is what is offered to clients. That of the mesh has its own.
    pub(in crate::gateway) fn transport_socket(&self, alpn: &[&str]) -> TransportSocket {
        let (certificates, clients, versions, cipher_suites) = match self {
            Ended::Mesh(socket) => return socket.clone(),
            Ended::Own { certificates, clients, versions, cipher_suites } => {
                (certificates, clients, versions, cipher_suites)
            }
        };
        let params = TlsParameters {
            tls_minimum_protocol_version: versions.0.into(),
            tls_maximum_protocol_version: versions.1.into(),
            cipher_suites: cipher_suites.clone(),
            ..TlsParameters::default()
        };
        let mut common = CommonTlsContext {
            tls_params: (params != TlsParameters::default()).then_some(params),
            alpn_protocols: alpn.iter().map(|protocol| (*protocol).to_owned()).collect(),
            validation_context_type: clients.as_ref().map(Clients::validation),
            ..CommonTlsContext::default()
        };
        match certificates {
            Certificates::Files(pairs) => common.tls_certificates = pairs.iter().map(pair).collect(),
            Certificates::Secrets(names) => {
                common.tls_certificate_sds_secret_configs = names.iter().map(|name| on_the_stream(name)).collect();
            }
        }
        socket(&DownstreamTlsContext {
            common_tls_context: Some(common),
            require_client_certificate: Some(boolean(clients.as_ref().is_some_and(|clients| clients.is_mutual))),
            ..DownstreamTlsContext::default()
        })
    }
}

impl Clients {
    fn validation(&self) -> ValidationContextType {
        let san = |name: &String| SubjectAltNameMatcher {
            san_type: if name.contains("://") { SanType::Uri } else { SanType::Dns }.into(),
            matcher: Some(StringMatcher {
                match_pattern: Some(string_matcher::MatchPattern::Exact(name.clone())),
                ..StringMatcher::default()
            }),
            ..SubjectAltNameMatcher::default()
        };
        let own = CertificateValidationContext {
            match_typed_subject_alt_names: self.names.iter().map(san).collect(),
            verify_certificate_spki: self.keys.clone(),
            verify_certificate_hash: self.hashes.clone(),
            crl: self.revoked.as_deref().map(file),
            ..CertificateValidationContext::default()
        };
        match &self.authorities {
            Authorities::File(path) => ValidationContextType::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(file(path)),
                ..own
            }),
            Authorities::Secret(name) => {
                ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                    default_validation_context: Some(own),
                    validation_context_sds_secret_config: Some(on_the_stream(&authorities_of(name))),
                    ..CombinedCertificateValidationContext::default()
                })
            }
        }
    }
}

fn pair((certificate, key): &(String, String)) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: Some(file(certificate)),
        private_key: Some(file(key)),
        ..TlsCertificate::default()
    }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), ..DataSource::default() }
}
