//! The authority that signs certificates.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::AttributeTypeAndValue;

use crate::{Error, Lifetime, PrivateKey, Serial, SigningRequest, SpiffeId, TrustDomain, pem};

/// Signs certificates for workloads and servers. Its key can be had by [`Authority::key_pem`] only.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// What names the key in certificates that it has signed; empty when its certificate says none.
    key_id: Vec<u8>,
    /// What stands between what it signs and what others trust, as PEM: its certificate and those between it and the
    /// root, or a certificate of its key by another root.
    intermediates: Vec<String>,
    roots: Vec<CertificateDer<'static>>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// An intermediate that somebody else signed, in the files that Istio's secret `cacerts` has. All of them are PEM.
#[derive(Clone, Copy)]
pub struct PluggedIn<'a> {
    /// `ca-cert.pem`: its certificate.
    pub certificate: &'a str,
    /// `ca-key.pem`: its key.
    pub key: &'a str,
    /// `cert-chain.pem`: its certificate and those between it and the root.
    pub chain: &'a str,
    /// `root-cert.pem`: what clients trust.
    pub roots: &'a str,
}

/// For whom a certificate is.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A workload, which uses it as client and as server.
    Workload(&'a SpiffeId),
    /// A server with these DNS names and IP addresses.
    Server(&'a [String]),
}

/// A certificate that was signed, with what is sent along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, then those between it and the root, each as PEM. The root is not among them.
    pub chain: Vec<String>,
    /// Its number.
    pub serial: Serial,
    /// From when to when it holds: not longer than asked, and not longer than its signer's.
    pub lifetime: Lifetime,
}

impl Authority {
    /// A root that signs itself. `key` and what [`Authority::certificate_pem`] says are to be kept, for
    /// [`Authority::own`].
    ///
    /// # Errors
    /// [`Error::Signing`] when the library of cryptography cannot.
    pub fn new_root(
        trust_domain: &TrustDomain,
        key: PrivateKey,
        lifetime: &Lifetime,
        serial: Serial,
    ) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
        // With a part of the number, because one root follows the other and some clients look for signers by name.
        let common_name = format!("Pointsman root {}", &serial.to_string()[..8]);
        params.distinguished_name.push(DnType::CommonName, common_name);
        as_root(&mut params, serial);
        (params.not_before, params.not_after) = (lifetime.not_before.into(), lifetime.not_after.into());
        let certificate = params.self_signed(key.pair()).map_err(signing)?;
        let text = certificate.pem();
        Self::own(&text, &key.to_pem())
    }

    /// The root that [`Authority::new_root`] has made.
    ///
    /// # Errors
    /// [`Error::Certificate`], [`Error::Key`] or [`Error::KeyMismatch`] when they are not what was kept.
    pub fn own(certificate: &str, key: &str) -> Result<Self, Error> {
        Self::with(certificate, key, Vec::new(), certificate)
    }

    /// An intermediate that somebody else signed.
    ///
    /// # Errors
    /// [`Error::Certificate`] when one of the texts holds no certificate, when the chain does not begin with the
    /// authority's own, or leads to none of the roots; [`Error::Key`] and [`Error::KeyMismatch`] for the key.
    pub fn plugged_in(files: &PluggedIn<'_>) -> Result<Self, Error> {
        let own = pem::certificates(files.certificate, "the authority's certificate")?;
        let mut chain = pem::certificates(files.chain, "the authority's chain")?;
        let roots = pem::certificates(files.roots, "the root certificate")?;
        if chain[0] != own[0] {
            let reason = "it does not begin with the authority's certificate".to_owned();
            return Err(Error::Certificate { what: "the authority's chain", reason });
        }
        // Clients have the root; some files end with it nevertheless.
        chain.retain(|certificate| !roots.contains(certificate));
        leads_to(&own[0], &chain, &roots)?;
        let intermediates = chain.iter().map(|certificate| pem::encode(certificate)).collect();
        Self::with(files.certificate, files.key, intermediates, files.roots)
    }

    fn with(certificate: &str, key: &str, intermediates: Vec<String>, roots: &str) -> Result<Self, Error> {
        const WHAT: &str = "the authority's certificate";
        let unusable = |reason: &str| Error::Certificate { what: WHAT, reason: reason.to_owned() };
        let der = pem::certificates(certificate, WHAT)?.swap_remove(0);
        let parsed = parse(&der, WHAT)?;
        if !parsed.is_ca() {
            return Err(unusable("it is not an authority's: it lacks CA:TRUE"));
        }
        let may_sign = parsed.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
        if !may_sign {
            return Err(unusable("its key usage does not allow to sign certificates"));
        }
        let key = KeyPair::from_pem(key).map_err(|error| Error::Key(error.to_string()))?;
        if parsed.public_key().subject_public_key.data != key.der_bytes() {
            return Err(Error::KeyMismatch);
        }
        let (not_before, not_after) =
            (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| unusable(&error.to_string()))?;
        let roots = pem::certificates(roots, "the root certificate")?;
        let key_id = parsed.get_extension_unique(&OID_X509_EXT_SUBJECT_KEY_IDENTIFIER).ok().flatten();
        let key_id = match key_id.map(|extension| extension.parsed_extension()) {
            Some(ParsedExtension::SubjectKeyIdentifier(id)) => id.0.to_vec(),
            _ => Vec::new(),
        };
        Ok(Self { issuer, certificate: der.clone(), key_id, intermediates, roots, not_before, not_after })
    }

    /// The same with `others` trusted beside it.
    #[must_use]
    pub fn trusting(mut self, others: &[CertificateDer<'static>]) -> Self {
        let new: Vec<_> = others.iter().filter(|other| !self.roots.contains(other)).cloned().collect();
        self.roots.extend(new);
        self
    }

    /// The same, with these certificates (PEM) behind each that it signs, so that it is also accepted by whoever trusts
    /// only the root that they lead to.
    #[must_use]
    pub fn behind(mut self, crossed: Vec<String>) -> Self {
        self.intermediates = crossed;
        self
    }

    /// A certificate (PEM) of another root's key, signed by this one: whoever trusts only this root accepts by it what
    /// the other has signed. It holds as long as both do.
    ///
    /// # Errors
    /// [`Error::Certificate`] when the other's name is not of the form that [`Authority::new_root`] gives;
    /// [`Error::Signing`] when the library of cryptography cannot.
    pub fn cross_sign(&self, other: &Authority, serial: Serial) -> Result<String, Error> {
        const WHAT: &str = "the other root";
        let parsed = parse(&other.certificate, WHAT)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let texts = |mut names: Box<dyn Iterator<Item = &AttributeTypeAndValue<'_>> + '_>| {
            names.next().and_then(|name| name.as_str().ok()).map(str::to_owned)
        };
        let organisation = texts(Box::new(parsed.subject().iter_organization()));
        let common_name = texts(Box::new(parsed.subject().iter_common_name()));
        let (Some(organisation), Some(common_name)) = (organisation, common_name) else {
            return Err(Error::Certificate { what: WHAT, reason: "it lacks a part of its name".to_owned() });
        };
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        params.distinguished_name.push(DnType::CommonName, common_name);
        as_root(&mut params, serial);
        params.not_before = self.not_before.max(other.not_before);
        params.not_after = self.not_after.min(other.not_after);
        params.use_authority_key_identifier_extension = true;
        let crossed = params.signed_by(other.issuer.key(), &self.issuer).map_err(signing)?;
        // A name that is not the same to the byte would make it useless.
        if parse(crossed.der(), WHAT)?.subject().as_raw() != parsed.subject().as_raw() {
            return Err(Error::Certificate { what: WHAT, reason: "its name has another form".to_owned() });
        }
        Ok(crossed.pem())
    }

    /// Signs a certificate for whoever has the key. It says what `subject` says and nothing else, and ends when the
    /// authority's own ends, if that is earlier.
    ///
    /// # Errors
    /// [`Error::AuthorityNotValid`] when the authority's own certificate does not hold when it is made;
    /// [`Error::Signing`] when a name cannot stand in a certificate.
    pub fn issue(
        &self,
        subject: Subject<'_>,
        key: &PrivateKey,
        lifetime: &Lifetime,
        serial: Serial,
    ) -> Result<Issued, Error> {
        self.sign(subject, key.pair(), lifetime, serial)
    }

    /// The same for a key of which only its owner has the private part.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_for(
        &self,
        subject: Subject<'_>,
        request: &SigningRequest,
        lifetime: &Lifetime,
        serial: Serial,
    ) -> Result<Issued, Error> {
        self.sign(subject, request.key(), lifetime, serial)
    }

    fn sign(
        &self,
        subject: Subject<'_>,
        key: &impl PublicKeyData,
        lifetime: &Lifetime,
        serial: Serial,
    ) -> Result<Issued, Error> {
        let made = OffsetDateTime::from(lifetime.made);
        if made < self.not_before {
            return Err(Error::AuthorityNotValid("does not hold yet"));
        }
        if made >= self.not_after {
            return Err(Error::AuthorityNotValid("has expired"));
        }
        let not_before = OffsetDateTime::from(lifetime.not_before).max(self.not_before);
        let not_after = OffsetDateTime::from(lifetime.not_after).min(self.not_after);
        let mut params = CertificateParams::default();
        // Names stand in the extension for them, which is critical when the subject is empty (RFC 5280, 4.1.2.6).
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        (params.not_before, params.not_after) = (not_before, not_after);
        params.use_authority_key_identifier_extension = true;
        match subject {
            Subject::Workload(id) => {
                params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().map_err(signing)?)];
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            }
            Subject::Server(names) => {
                params.subject_alt_names = names.iter().map(|name| server_name(name)).collect::<Result<_, _>>()?;
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
        }
        let certificate = params.signed_by(key, &self.issuer).map_err(signing)?;
        let mut chain = vec![certificate.pem()];
        chain.extend(self.intermediates.iter().cloned());
        let lifetime =
            Lifetime { not_before: SystemTime::from(not_before), not_after: SystemTime::from(not_after), ..*lifetime };
        Ok(Issued { chain, serial, lifetime })
    }

    /// What clients trust, as PEM.
    pub fn roots_pem(&self) -> String {
        self.roots.iter().map(|root| pem::encode(root)).collect()
    }

    /// What clients trust.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Its certificate as PEM, to be kept.
    pub fn certificate_pem(&self) -> String {
        pem::encode(&self.certificate)
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What tells it from others: SHA-256 of its certificate in hexadecimal digits, as `openssl x509 -fingerprint -sha256`
    /// has it but for the colons.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// Whether a certificate that names its signer by `key_id` names this one.
    pub fn has_key_id(&self, key_id: &[u8]) -> bool {
        !key_id.is_empty() && self.key_id == key_id
    }

    /// Its key as PEM, to be kept secret.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Until when its own certificate holds.
    pub fn not_after(&self) -> SystemTime {
        self.not_after.into()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { intermediates, roots, not_after, .. } = self;
        let (intermediates, roots) = (intermediates.len(), roots.len());
        f.debug_struct("Authority")
            .field("intermediates", &intermediates)
            .field("roots", &roots)
            .field("not_after", not_after)
            .finish_non_exhaustive()
    }
}

/// SHA-256 of a certificate in hexadecimal digits.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    digest(&SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A certificate in PEM form.
pub fn pem_of(certificate: &CertificateDer<'_>) -> String {
    pem::encode(certificate)
}

fn as_root(params: &mut CertificateParams, serial: Serial) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
}

fn server_name(name: &str) -> Result<SanType, Error> {
    match name.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into().map_err(signing)?)),
    }
}

/// Checks that every certificate is signed by the next one, and the last one by a root.
fn leads_to(own: &CertificateDer<'_>, chain: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> Result<(), Error> {
    const WHAT: &str = "the authority's chain";
    if roots.contains(own) {
        return Ok(());
    }
    let mut parsed = chain.iter().map(|certificate| parse(certificate, WHAT)).collect::<Result<Vec<_>, _>>()?;
    let roots = roots.iter().map(|root| parse(root, "the root certificate")).collect::<Result<Vec<_>, _>>()?;
    let is_signed_by = |certificate: &X509Certificate<'_>, signer: &X509Certificate<'_>| {
        certificate.issuer() == signer.subject() && certificate.verify_signature(Some(signer.public_key())).is_ok()
    };
    let broken = |reason: &str| Error::Certificate { what: WHAT, reason: reason.to_owned() };
    let Some(last) = parsed.pop() else { return Err(broken("it is empty")) };
    let mut signed = &last;
    for certificate in parsed.iter().rev() {
        if !is_signed_by(certificate, signed) {
            return Err(broken("one of its certificates is not signed by the next"));
        }
        signed = certificate;
    }
    if roots.iter().any(|root| is_signed_by(&last, root)) {
        Ok(())
    } else {
        Err(broken("it does not lead to the root certificate"))
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>, what: &'static str) -> Result<X509Certificate<'a>, Error> {
    let (_, parsed) = X509Certificate::from_der(der)
        .map_err(|error| Error::Certificate { what, reason: format!("it cannot be read: {error}") })?;
    Ok(parsed)
}

fn signing(error: rcgen::Error) -> Error {
    Error::Signing(error.to_string())
}

#[cfg(test)]
mod tests;
