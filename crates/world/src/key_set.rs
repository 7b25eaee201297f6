//! Public keys by which tokens are verified (JWKS, RFC 7517), and where they are fetched.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

/// Where a key set is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeySource {
    /// From this URI.
    Uri(Arc<str>),
    /// From the URI that this issuer tells in its OpenID configuration.
    Issuer(Arc<str>),
}

impl KeySource {
    /// The URI to ask first: that of the keys, or of the issuer's OpenID configuration (OpenID Connect Discovery 1.0,
    /// section 4).
    pub fn uri(&self) -> String {
        match self {
            KeySource::Uri(uri) => uri.to_string(),
            KeySource::Issuer(issuer) => format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri())
    }
}

/// What fetching a key set has led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The set that was fetched last; it stays when a later attempt fails.
    pub keys: Option<Arc<KeySet>>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<Arc<str>>,
}

/// A set of public keys, of which at least one is of a kind that can prove something.
///
/// Its text is the same for sets that differ only in white space, in the order of members, or in what is not about
/// public keys. It never holds private members, even where an issuer publishes some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet {
    json: Arc<str>,
    /// Which keys are not in it, and why.
    pub left_out: Vec<String>,
}

/// Why a text is no key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    Json(String),
    /// It is something else.
    #[error("it is no key set: a JSON object with a list \"keys\" is expected")]
    Form,
    /// None of the keys counts.
    #[error("none of its keys can be used{0}")]
    NoKeys(String),
}

/// Members of a key that are about its use, or are the public key, in order: RFC 7517 section 4, RFC 7518 section 6,
/// RFC 8037 section 2. Certificates say nothing more.
const PUBLIC: [&str; 10] = ["alg", "crv", "e", "key_ops", "kid", "kty", "n", "use", "x", "y"];

impl KeySet {
    /// Reads a set. Keys that are symmetric, incomplete or of an unknown kind are left out.
    ///
    /// # Errors
    /// [`KeySetError`] when no key is left.
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        let value: Value = serde_json::from_str(text).map_err(|error| KeySetError::Json(error.to_string()))?;
        let Some(Value::Array(keys)) = value.get("keys") else { return Err(KeySetError::Form) };
        let (mut kept, mut left_out) = (Vec::new(), Vec::new());
        for (at, key) in keys.iter().enumerate() {
            match public(key) {
                Ok(key) => kept.push(Value::Object(key)),
                Err(why) => left_out.push(format!("keys[{at}]: {why}")),
            }
        }
        if kept.is_empty() {
            let why = left_out.first().map(|first| format!(" ({first})")).unwrap_or_default();
            return Err(KeySetError::NoKeys(why));
        }
        let set = Map::from_iter([("keys".to_owned(), Value::Array(kept))]);
        Ok(Self { json: Value::Object(set).to_string().into(), left_out })
    }

    /// The set as JSON.
    pub fn as_json(&self) -> &str {
        &self.json
    }
}

/// The public part of a key.
fn public(key: &Value) -> Result<Map<String, Value>, String> {
    let Value::Object(key) = key else { return Err("it is no object".to_owned()) };
    let text = |member: &str| key.get(member).and_then(Value::as_str);
    let needed: &[&str] = match text("kty") {
        Some("RSA") => &["n", "e"],
        Some("EC") => &["crv", "x", "y"],
        Some("OKP") => &["crv", "x"],
        Some("oct") => return Err("a symmetric key proves nothing when everybody can read it".to_owned()),
        Some(other) => return Err(format!("keys of kind \"{other}\" are not known")),
        None => return Err("it does not say its kind (kty)".to_owned()),
    };
    if let Some(missing) = needed.iter().find(|member| text(member).is_none_or(|value| !is_base64url(value))) {
        return Err(format!("\"{missing}\" is missing, or not base64url"));
    }
    Ok(PUBLIC.iter().filter_map(|member| Some(((*member).to_owned(), key.get(*member)?.clone()))).collect())
}

fn is_base64url(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty() && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_set_is_the_same_however_it_is_written() {
        let one = KeySet::parse(r#"{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB","kid":"a"}]}"#).unwrap();
        let other = r#"{ "etag": 7, "keys": [ {"kid":"a", "e":"AQAB", "n":"AQ", "kty":"RSA", "note":"new"} ] }"#;
        assert_eq!(one, KeySet::parse(other).unwrap());
        assert_eq!(one.left_out, [""; 0]);
    }

    #[test]
    fn private_members_and_symmetric_keys_are_left_out() {
        let text = r#"{"keys":[
            {"kty":"EC","crv":"P-256","x":"AQ","y":"Ag","d":"c2VjcmV0"},
            {"kty":"oct","k":"c2hhcmVk"},
            {"kty":"RSA","n":"AQ"},
            {"kty":"PQ"}, {}, 7]}"#;
        let set = KeySet::parse(text).unwrap();
        assert_eq!(set.as_json(), r#"{"keys":[{"crv":"P-256","kty":"EC","x":"AQ","y":"Ag"}]}"#);
        assert_eq!(set.left_out.len(), 5, "{:?}", set.left_out);
    }

    #[test]
    fn what_is_no_key_set_is_told_apart() {
        assert!(matches!(KeySet::parse("<html>"), Err(KeySetError::Json(_))));
        for text in ["[]", "{}", r#"{"keys":{}}"#, r#"{"kid1":"-----BEGIN CERTIFICATE-----"}"#] {
            assert_eq!(KeySet::parse(text), Err(KeySetError::Form), "{text}");
        }
        assert_eq!(KeySet::parse(r#"{"keys":[]}"#), Err(KeySetError::NoKeys(String::new())));
        let shared = KeySet::parse(r#"{"keys":[{"kty":"oct","k":"AQ"}]}"#).unwrap_err().to_string();
        assert!(shared.contains("symmetric"), "{shared}");
    }

    #[test]
    fn the_configuration_of_an_issuer_is_at_its_well_known_place() {
        let place = "https://issuer.test/tenant/.well-known/openid-configuration";
        for issuer in ["https://issuer.test/tenant", "https://issuer.test/tenant/"] {
            assert_eq!(KeySource::Issuer(issuer.into()).uri(), place);
        }
    }
}
