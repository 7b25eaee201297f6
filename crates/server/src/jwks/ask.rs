//! Fetching one key set.

use std::time::Duration;

use serde::Deserialize;
use world::{KeySet, KeySource};

use super::JwksSettings;
use crate::fetch::{Fetch, authorities_of_the_system};

/// What is needed of an issuer's OpenID configuration (OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct OpenIdConfiguration {
    jwks_uri: String,
}

/// The key set of `source`, if it comes within `patience`.
///
/// # Errors
/// Why it cannot be had, in words that repeat nothing of what was answered.
pub(super) async fn ask(source: &KeySource, patience: Duration, settings: &JwksSettings) -> Result<KeySet, String> {
    let asked = tokio::time::timeout(patience, fetch(source, patience, settings));
    asked.await.unwrap_or_else(|_| Err(format!("\"{source}\": no answer came within {patience:?}")))
}

async fn fetch(source: &KeySource, patience: Duration, settings: &JwksSettings) -> Result<KeySet, String> {
    let first = source.uri();
    let text = document(&first, patience, settings).await?;
    let (uri, text) = match source {
        KeySource::Uri(_) => (first, text),
        KeySource::Issuer(_) => {
            let configuration: OpenIdConfiguration =
                serde_json::from_str(&text).map_err(|_| format!("\"{first}\": it does not tell a jwks_uri"))?;
            let text = document(&configuration.jwks_uri, patience, settings).await?;
            (configuration.jwks_uri, text)
        }
    };
    KeySet::parse(&text).map_err(|why| format!("\"{uri}\": {why}"))
}

async fn document(uri: &str, patience: Duration, settings: &JwksSettings) -> Result<String, String> {
    let authorities = match &settings.authorities {
        Some(path) => Some(path.as_path()),
        None => authorities_of_the_system(),
    };
    let fetch = Fetch::new(uri, authorities).map_err(|why| why.to_string())?;
    fetch.get(patience).await.map_err(|why| why.without_answer().to_string())
}
