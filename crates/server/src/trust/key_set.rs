//! The public keys of a cluster's service accounts: from a file, or asked for at a URL.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use identity::ServiceAccountTokens;

use super::state_directory::read;
use super::{ServiceAccountSource, StateError};
use crate::fetch::{Fetch, FetchError};

/// How often a URL is asked: keys change seldom, and new ones are published before they are used.
const ASK_EVERY: Duration = Duration::from_secs(300);
/// How soon a URL that failed is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The keys in force. Until they are known no service account token counts; when they cannot be had again, the old
/// ones stay in force.
#[derive(Debug)]
pub(super) struct KeySet {
    source: ServiceAccountSource,
    place: Place,
    current: RwLock<Option<Arc<ServiceAccountTokens>>>,
}

#[derive(Debug)]
enum Place {
    /// With when the file was changed last.
    File(Mutex<Option<SystemTime>>),
    /// With when it is to be asked next.
    Url(Fetch, Mutex<Instant>),
}

impl KeySet {
    /// A file is read now, a URL asked with the first refresh.
    pub(super) fn open(source: ServiceAccountSource) -> Result<Self, StateError> {
        let is_url = ["http://", "https://"].iter().any(|scheme| source.keys.starts_with(scheme));
        if is_url {
            if source.keys.starts_with("https://") && source.authorities.is_none() {
                return Err(StateError::Settings(format!(
                    "--jwks \"{}\" is asked over TLS: say with --jwks-ca FILE which authorities sign for that server",
                    source.keys
                )));
            }
            let fetch = Fetch::new(&source.keys, source.authorities.as_deref()).map_err(unusable)?;
            let place = Place::Url(fetch, Mutex::new(Instant::now()));
            return Ok(Self { source, place, current: RwLock::default() });
        }
        let changed = changed(Path::new(&source.keys));
        let tokens = tokens(&source, &read(Path::new(&source.keys))?)?;
        Ok(Self { source, place: Place::File(Mutex::new(changed)), current: RwLock::new(Some(tokens)) })
    }

    /// The keys, once they are known.
    pub(super) fn current(&self) -> Option<Arc<ServiceAccountTokens>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets the keys again if that is due.
    pub(super) async fn refresh(&self) {
        let got = match &self.place {
            Place::File(last) => {
                let now = changed(Path::new(&self.source.keys));
                let before = std::mem::replace(&mut *last.lock().unwrap_or_else(PoisonError::into_inner), now);
                if now.is_none() || now == before {
                    return;
                }
                read(Path::new(&self.source.keys))
            }
            Place::Url(fetch, next) => {
                if Instant::now() < *next.lock().unwrap_or_else(PoisonError::into_inner) {
                    return;
                }
                let got = fetch.get(PATIENCE).await.map_err(unusable);
                let wait = if got.is_ok() { ASK_EVERY } else { ASK_AGAIN };
                *next.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + wait;
                got
            }
        };
        match got.and_then(|text| tokens(&self.source, &text)) {
            Ok(tokens) => *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(tokens),
            Err(error) => tracing::error!(
                keys = self.source.keys,
                %error,
                "the key set of service accounts cannot be had: what was known stays in force"
            ),
        }
    }
}

fn unusable(error: FetchError) -> StateError {
    StateError::Settings(error.to_string())
}

fn tokens(source: &ServiceAccountSource, text: &str) -> Result<Arc<ServiceAccountTokens>, StateError> {
    ServiceAccountTokens::new(text, &source.issuer, &source.audience)
        .map(Arc::new)
        .map_err(|error| StateError::Settings(format!("\"{}\": {error}", source.keys)))
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
