//! Certificates in PEM form, and what is said of texts that have another.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};

use crate::Error;

/// All certificates of a text, in order. Other sections are passed over.
pub(crate) fn certificates(text: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| Error::Certificate { what, reason: pem_reason(&error) })?;
    if found.is_empty() {
        return Err(Error::Certificate { what, reason: "there is no certificate in it".to_owned() });
    }
    Ok(found)
}

/// Why a text is not in PEM form, without any of it: the library's own words show the line that it cannot read, which may
/// be one of a key.
pub fn pem_reason(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section in it has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "the line that begins a section cannot be read".to_owned(),
        pem::Error::NoItemsFound => "there is nothing of the kind in it".to_owned(),
        pem::Error::Base64Decode(_) => "a section in it is not base64".to_owned(),
        other => other.to_string(),
    }
}

/// One certificate as a section of PEM.
pub(crate) fn encode(certificate: &[u8]) -> String {
    use base64::Engine;
    let text = base64::prelude::BASE64_STANDARD.encode(certificate);
    let mut pem = String::with_capacity(text.len() + text.len() / 64 + 60);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
