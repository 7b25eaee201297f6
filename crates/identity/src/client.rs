//! Who a client's certificate is for.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{InvalidName, SpiffeId};

/// What a client's certificate says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whom it is for.
    pub id: SpiffeId,
    /// Until when it holds.
    pub not_after: SystemTime,
    /// What names the key that signed it; empty when it does not say.
    pub signer_key_id: Vec<u8>,
}

/// Why a certificate, verified as it may be, names no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientCertificateError {
    /// It cannot be read.
    #[error("the client's certificate cannot be read")]
    Unreadable,
    /// It names none, or several, by URI.
    #[error("the client's certificate has {0} names in URI form; it must have one")]
    Names(usize),
    /// Its name is of another form.
    #[error("the client's certificate: {0}")]
    Name(#[from] InvalidName),
}

impl ClientCertificate {
    /// Reads the first certificate of a chain in PEM form, as [`ClientCertificate::read`] does.
    ///
    /// # Errors
    /// [`ClientCertificateError`] when there is none, or it names no workload.
    pub fn read_pem(chain: &str) -> Result<Self, ClientCertificateError> {
        let first = CertificateDer::from_pem_slice(chain.as_bytes()).map_err(|_| ClientCertificateError::Unreadable)?;
        Self::read(&first)
    }

    /// Reads a certificate, which must have exactly one name in URI form (X509-SVID 2). Whether it holds, and who signed
    /// it, is for TLS to verify.
    ///
    /// # Errors
    /// [`ClientCertificateError`] when it names no workload.
    pub fn read(certificate: &[u8]) -> Result<Self, ClientCertificateError> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| ClientCertificateError::Unreadable)?;
        let names = certificate.subject_alternative_name().map_err(|_| ClientCertificateError::Unreadable)?;
        let names = names.map_or(&[][..], |extension| &extension.value.general_names);
        let uris: Vec<_> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        let id = match uris[..] {
            [uri] => uri.parse()?,
            _ => return Err(ClientCertificateError::Names(uris.len())),
        };
        let signer = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(signer) => signer.key_identifier.as_ref(),
            _ => None,
        });
        Ok(Self {
            id,
            not_after: certificate.validity().not_after.to_datetime().into(),
            signer_key_id: signer.map_or_else(Vec::new, |id| id.0.to_vec()),
        })
    }
}
