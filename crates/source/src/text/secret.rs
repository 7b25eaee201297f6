//! `Secret`s with certificates for gateways.
//!
//! They never become objects of the world: they go to whoever serves them by a way of their own, and no text of a problem
//! holds any of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use identity::{TlsSecret, TlsSecretError};
use world::{ObjectRef, Problem};

use super::node::{Node, Value};
use crate::validate::REFUSED;

/// All that a part may be called.
pub(crate) const PARTS: [&str; 7] =
    [CERTIFICATE[0], KEY[0], AUTHORITIES[0], CERTIFICATE[1], KEY[1], AUTHORITIES[1], REVOKED];

/// Names of the parts, the first that is there counts: Kubernetes' own, then Istio's.
const CERTIFICATE: [&str; 2] = ["tls.crt", "cert"];
const KEY: [&str; 2] = ["tls.key", "key"];
const AUTHORITIES: [&str; 2] = ["ca.crt", "cacert"];
const REVOKED: &str = "ca.crl";

/// What a document of kind `Secret` says.
#[derive(Debug)]
pub(super) enum Reading {
    /// Certificates and keys.
    Tls(Arc<TlsSecret>),
    /// Something that is nobody's business here.
    Other,
    /// It was meant to be certificates; the problem has no location yet.
    Refused(Box<Problem>),
}

/// Reads `type`, `data` and `stringData`. A secret of another type, or without any of the parts, is not for gateways.
pub(super) fn read(node: &Node, reference: &ObjectRef) -> Reading {
    let kind = node.get("type").and_then(Node::as_str).unwrap_or("Opaque");
    if !matches!(kind, "kubernetes.io/tls" | "Opaque" | "") {
        return Reading::Other;
    }
    let mut parts = Parts::new();
    for name in PARTS {
        match part(node, name) {
            Ok(Some(text)) => _ = parts.insert(name, text),
            Ok(None) => {}
            Err((field, message)) => {
                let hint = "Values of data are base64; write others under stringData.";
                return Reading::Refused(Box::new(problem(reference, &field, message.to_owned(), hint)));
            }
        }
    }
    if parts.is_empty() && kind != "kubernetes.io/tls" {
        return Reading::Other;
    }
    match assemble(&parts) {
        Ok(secret) => Reading::Tls(Arc::new(secret)),
        Err(Flaw { part, error, hint }) => {
            let is_plain = node.get("stringData").is_some_and(|plain| plain.get(part).is_some());
            let field = format!("{}[{part}]", if is_plain { "stringData" } else { "data" });
            Reading::Refused(Box::new(problem(reference, &field, error.to_string(), hint)))
        }
    }
}

/// The texts of a secret by the names of their parts.
pub(crate) type Parts = BTreeMap<&'static str, String>;

/// Why parts are no secret.
#[derive(Debug)]
pub(crate) struct Flaw {
    /// Which part.
    pub(crate) part: &'static str,
    /// Why it cannot be used.
    pub(crate) error: TlsSecretError,
    /// A way out.
    pub(crate) hint: &'static str,
}

/// Joins parts that fit together.
///
/// # Errors
/// [`Flaw`] when they do not, without any of their text.
pub(crate) fn assemble(parts: &Parts) -> Result<TlsSecret, Flaw> {
    let found = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, parts.get(name)?)));
    let text = |names| found(names).map(|(_, text)| text.as_str());
    // Istio's form for authorities alone has them as `cacert`, beside which `key` may mean something else.
    let secret = TlsSecret::new(text(CERTIFICATE), text(KEY), text(AUTHORITIES));
    let secret = secret.and_then(|secret| match parts.get(REVOKED) {
        Some(lists) => secret.with_revoked(lists),
        None => Ok(secret),
    });
    secret.map_err(|error| {
        let (names, hint) = match &error {
            TlsSecretError::Empty | TlsSecretError::NoCertificate | TlsSecretError::Certificate(_) => {
                (CERTIFICATE, "Put the certificate chain in PEM form there, the server's own first.")
            }
            TlsSecretError::NoKey | TlsSecretError::Key => {
                (KEY, "Put the private key of the certificate there, PEM, PKCS#8.")
            }
            TlsSecretError::Mismatch => (KEY, "Put certificate and key of the same pair there."),
            TlsSecretError::Revoked(_) => {
                ([REVOKED; 2], "Put lists of certificates that the authorities revoked there, PEM.")
            }
            TlsSecretError::Authorities(_) => (AUTHORITIES, "Put the certificates of authorities there, in PEM form."),
        };
        let part = found(names).map_or(names[0], |(name, _)| name);
        Flaw { part, error, hint }
    })
}

fn problem(reference: &ObjectRef, field: &str, message: String, hint: &str) -> Problem {
    Problem::error(reference, field, message).consequence(REFUSED).hint(hint)
}

/// The text of one part; what is written plainly counts before what is encoded.
fn part(node: &Node, name: &str) -> Result<Option<String>, (String, &'static str)> {
    let in_map = |map: &str| match &node.get(map)?.get(name)?.value {
        Value::Null => None,
        value => Some(value.clone()),
    };
    let text = |map: &str, value| match value {
        Value::String(text) => Ok(text),
        _ => Err((format!("{map}[{name}]"), "it is not a text")),
    };
    if let Some(value) = in_map("stringData") {
        return Ok(Some(text("stringData", value)?.into()));
    }
    let Some(value) = in_map("data") else { return Ok(None) };
    let encoded: String = text("data", value)?.split_whitespace().collect();
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| (format!("data[{name}]"), "it is not base64"))?;
    match String::from_utf8(bytes) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(_) => Err((format!("data[{name}]"), "it is not text in PEM form")),
    }
}
