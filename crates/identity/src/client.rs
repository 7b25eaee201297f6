//! Who a client's certificate is for.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{InvalidName, SpiffeId};

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

/// The SPIFFE id in a certificate (X509-SVID 2: exactly one URI). Whether the certificate holds, and who signed it, is
/// for TLS to verify.
///
/// # Errors
/// [`ClientCertificateError`] when it names no workload.
pub fn client_id(certificate: &[u8]) -> Result<SpiffeId, ClientCertificateError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| ClientCertificateError::Unreadable)?;
    let names = certificate.subject_alternative_name().map_err(|_| ClientCertificateError::Unreadable)?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let uris: Vec<_> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [uri] => Ok(uri.parse()?),
        _ => Err(ClientCertificateError::Names(uris.len())),
    }
}
