//! `servers[].tls`: what is done with TLS. What ends it is [`Ended`]'s to say.

mod ended;

use proto::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use world::Settings;
use world::api::istio::ServerTls;

use crate::{Secrets, security};

pub(super) use ended::Ended;
use ended::{Authorities, Certificates, Clients};

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
/// A server has one certificate of each kind of key, RSA and ECDSA, as in Istio.
const MOST_CERTIFICATES: usize = 2;
const LEAVE_OUT: &str =
    "With ISTIO_MUTUAL the certificates are the mesh's own: leave the field out, or use another mode.";

/// What is done with TLS.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Termination {
    /// Nothing: it is routed by SNI.
    Passthrough,
    /// It ends here.
    Ended(Box<Ended>),
}

/// Why a server cannot be served: field, message, hint.
pub(super) type Refusal = (&'static str, String, &'static str);

/// Parts that are left out: field, message.
pub(super) type Warnings = Vec<(&'static str, String)>;

/// Reads the TLS settings of an HTTPS or TLS server, for a proxy that has its own secrets from there.
///
/// # Errors
/// When the server would be wrong, or less safe than its author means, without what cannot be done.
pub(super) fn termination(
    tls: Option<&ServerTls>,
    secrets: Secrets,
    settings: &Settings,
) -> Result<(Termination, Warnings), Refusal> {
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
        "ISTIO_MUTUAL" => return of_mesh(tls, secrets, settings),
        "AUTO_PASSTHROUGH" => {
            return Err(("tls.mode", format!("TLS mode {mode} is not supported yet"), hint));
        }
        _ => return Err(("tls.mode", format!("unknown TLS mode \"{mode}\""), hint)),
    };
    let certificates = certificates(tls, mode)?;
    let mut warnings = Warnings::new();
    let clients = match verifies {
        true => Some(clients(tls, mode, is_mutual, &certificates, &mut warnings)?),
        false => {
            warnings.extend(
                about_clients(tls)
                    .map(|part| (part, "it is about clients' certificates, which SIMPLE does not ask for".to_owned())),
            );
            None
        }
    };
    let lowest = version(tls.min_protocol_version.as_deref(), "tls.minProtocolVersion")?;
    let highest = version(tls.max_protocol_version.as_deref(), "tls.maxProtocolVersion")?;
    // Envoy's own lowest is 1.2.
    let floor = if lowest == TlsProtocol::TlsAuto { TlsProtocol::TlSv12 } else { lowest };
    if highest != TlsProtocol::TlsAuto && floor as i32 > highest as i32 {
        let message = "minProtocolVersion (TLSV1_2 if it is left out) is above maxProtocolVersion".to_owned();
        return Err(("tls.minProtocolVersion", message, "No client could connect: swap them, or leave one out."));
    }
    let (known, unknown): (Vec<_>, Vec<_>) =
        tls.cipher_suites.iter().cloned().partition(|suite| CIPHER_SUITES.contains(&suite.as_str()));
    warnings.extend(unknown.iter().map(|suite| ("tls.cipherSuites", format!("Envoy has no cipher suite \"{suite}\""))));
    if known.is_empty() && !unknown.is_empty() {
        let hint = "Leave cipherSuites out to use Envoy's own choice.";
        return Err(("tls.cipherSuites", "Envoy has none of these cipher suites".to_owned(), hint));
    }
    let ended = Ended::Own { certificates, clients, versions: (lowest, highest), cipher_suites: known };
    Ok((Termination::Ended(Box::new(ended)), warnings))
}

/// With the proxy's certificate of the mesh, for workloads of the mesh.
fn of_mesh(tls: &ServerTls, secrets: Secrets, settings: &Settings) -> Result<(Termination, Warnings), Refusal> {
    let stray = of_files(tls)
        .chain(given(&tls.ca_certificates).map(|_| "tls.caCertificates"))
        .chain(given(&tls.credential_name).map(|_| "tls.credentialName"))
        .chain((!tls.credential_names.is_empty()).then_some("tls.credentialNames"))
        .chain(given(&tls.ca_cert_credential_name).map(|_| "tls.caCertCredentialName"))
        .next();
    if let Some(part) = stray {
        return Err((part, "a server of mode ISTIO_MUTUAL has no certificates of its own".to_owned(), LEAVE_OUT));
    }
    let Some(socket) = security::downstream_of(secrets, settings, &tls.subject_alt_names) else {
        let message = "ISTIO_MUTUAL needs a certificate, and this gateway has none because it has not proved who it is";
        return Err(("tls.mode", message.to_owned(), security::PROVE));
    };
    let fixed = [
        ("tls.minProtocolVersion", tls.min_protocol_version.is_some()),
        ("tls.maxProtocolVersion", tls.max_protocol_version.is_some()),
        ("tls.cipherSuites", !tls.cipher_suites.is_empty()),
        ("tls.caCrl", given(&tls.ca_crl).is_some()),
        ("tls.verifyCertificateSpki", !tls.verify_certificate_spki.is_empty()),
        ("tls.verifyCertificateHash", !tls.verify_certificate_hash.is_empty()),
    ];
    let fixed = fixed.into_iter().filter(|(_, is_given)| *is_given);
    let warnings = fixed.map(|(part, _)| (part, "the mesh's own TLS has fixed settings".to_owned()));
    Ok((Termination::Ended(Box::new(Ended::Mesh(socket))), warnings.collect()))
}

/// What a server shows: of secrets, else of files.
fn certificates(tls: &ServerTls, mode: &str) -> Result<Certificates, Refusal> {
    let one = given(&tls.credential_name);
    let (part, names) = match (&one, &tls.credential_names[..]) {
        (Some(_), [_, ..]) => {
            let message = "credentialName and credentialNames exclude each other".to_owned();
            return Err(("tls.credentialNames", message, "Name all of them in credentialNames."));
        }
        (Some(name), []) => ("tls.credentialName", std::slice::from_ref(name)),
        (None, names) => ("tls.credentialNames", names),
    };
    if names.len() > MOST_CERTIFICATES {
        let message = format!("{} secrets are named, and a server has {MOST_CERTIFICATES} at most", names.len());
        return Err((part, message, "Name one with an RSA key and one with an ECDSA key."));
    }
    if !names.is_empty() {
        let names: Result<_, _> = names.iter().map(|name| secret(name, part)).collect();
        return Ok(Certificates::Secrets(names?));
    }
    files(tls, mode).map(Certificates::Files)
}

fn files(tls: &ServerTls, mode: &str) -> Result<Vec<(String, String)>, Refusal> {
    let hint = "Use credentialName, or paths on the proxy's machine.";
    let missing = |part, name: &str| (part, format!("TLS mode {mode} needs {name}"), hint);
    if tls.tls_certificates.is_empty() {
        let certificate = given(&tls.server_certificate)
            .ok_or_else(|| missing("tls.serverCertificate", "the path of a certificate chain"))?;
        let key = given(&tls.private_key).ok_or_else(|| missing("tls.privateKey", "the path of a private key"))?;
        return Ok(vec![(certificate, key)]);
    }
    let part = "tls.tlsCertificates";
    if given(&tls.server_certificate).is_some() || given(&tls.private_key).is_some() {
        let message = "tlsCertificates excludes serverCertificate and privateKey".to_owned();
        return Err((part, message, "Put all pairs into tlsCertificates."));
    }
    if tls.tls_certificates.len() > MOST_CERTIFICATES {
        let message =
            format!("there are {} pairs, and a server has {MOST_CERTIFICATES} at most", tls.tls_certificates.len());
        return Err((part, message, "Give one with an RSA key and one with an ECDSA key."));
    }
    let pair = |(certificate, key)| Some((given(certificate)?, given(key)?));
    let pairs = tls.tls_certificates.iter().map(|pair| (&pair.server_certificate, &pair.private_key)).map(pair);
    pairs.collect::<Option<_>>().ok_or_else(|| missing(part, "paths of certificate chain and private key in each pair"))
}

/// By what clients' certificates are verified.
fn clients(
    tls: &ServerTls,
    mode: &str,
    is_mutual: bool,
    certificates: &Certificates,
    warnings: &mut Warnings,
) -> Result<Clients, Refusal> {
    let path = given(&tls.ca_certificates)
        .or_else(|| tls.tls_certificates.iter().find_map(|pair| given(&pair.ca_certificates)));
    let own = given(&tls.ca_cert_credential_name).map(|name| secret(&name, "tls.caCertCredentialName")).transpose()?;
    let authorities = match (own, certificates, path) {
        (Some(name), _, path) => {
            warnings.extend(path.map(|_| ("tls.caCertificates", "caCertCredentialName goes before it".to_owned())));
            Authorities::Secret(name)
        }
        // Of several, those beside the first count, as in Istio.
        (None, Certificates::Secrets(names), path) => {
            warnings.extend(path.map(|_| ("tls.caCertificates", "authorities come from the secret, too".to_owned())));
            Authorities::Secret(names.first().cloned().unwrap_or_default())
        }
        (None, Certificates::Files(_), Some(path)) => Authorities::File(path),
        (None, Certificates::Files(_), None) => {
            let message = format!("TLS mode {mode} needs the path of the clients' authorities");
            return Err(("tls.caCertificates", message, "Use credentialName, or paths on the proxy's machine."));
        }
    };
    let hint = "Write SHA-256 hashes: of public keys in base64, of certificates in hexadecimal digits.";
    let wrong = |part, hash: &str| (part, format!("\"{}\" is no SHA-256 hash", hash.escape_debug()), hint);
    if let Some(hash) = tls.verify_certificate_spki.iter().find(|hash| !is_base64_hash(hash)) {
        return Err(wrong("tls.verifyCertificateSpki", hash));
    }
    if let Some(hash) = tls.verify_certificate_hash.iter().find(|hash| !is_hexadecimal_hash(hash)) {
        return Err(wrong("tls.verifyCertificateHash", hash));
    }
    Ok(Clients {
        is_mutual,
        authorities,
        names: tls.subject_alt_names.clone(),
        keys: tls.verify_certificate_spki.clone(),
        hashes: tls.verify_certificate_hash.clone(),
        revoked: given(&tls.ca_crl),
    })
}

/// Fields that say something of clients' certificates.
fn about_clients(tls: &ServerTls) -> impl Iterator<Item = &'static str> {
    let given = [
        ("tls.caCertificates", given(&tls.ca_certificates).is_some()),
        ("tls.caCertCredentialName", given(&tls.ca_cert_credential_name).is_some()),
        ("tls.caCrl", given(&tls.ca_crl).is_some()),
        ("tls.subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("tls.verifyCertificateSpki", !tls.verify_certificate_spki.is_empty()),
        ("tls.verifyCertificateHash", !tls.verify_certificate_hash.is_empty()),
    ];
    given.into_iter().filter(|(_, is_given)| *is_given).map(|(part, _)| part)
}

/// Fields that say where the server's certificates are on the proxy's machine.
fn of_files(tls: &ServerTls) -> impl Iterator<Item = &'static str> {
    let given = [
        ("tls.serverCertificate", given(&tls.server_certificate).is_some()),
        ("tls.privateKey", given(&tls.private_key).is_some()),
        ("tls.tlsCertificates", !tls.tls_certificates.is_empty()),
    ];
    given.into_iter().filter(|(_, is_given)| *is_given).map(|(part, _)| part)
}

/// The name of a secret as it is asked for.
fn secret(name: &str, part: &'static str) -> Result<String, Refusal> {
    security::credential(name).ok_or_else(|| {
        let message = format!("\"{}\" is no name of a Secret", name.escape_debug());
        (part, message, "Name a Secret in the namespace of the gateway's workload.")
    })
}

/// The 44 characters of base64 that Envoy takes (`CertificateValidationContext.verify_certificate_spki`).
fn is_base64_hash(text: &str) -> bool {
    use base64::prelude::{BASE64_STANDARD, Engine};
    BASE64_STANDARD.decode(text).is_ok_and(|hash| hash.len() == 32)
}

/// 64 digits, or pairs of them with colons between (`CertificateValidationContext.verify_certificate_hash`).
fn is_hexadecimal_hash(text: &str) -> bool {
    let is_digits = |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_digits(text, 64) || (text.split(':').count() == 32 && text.split(':').all(|pair| is_digits(pair, 2)))
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
