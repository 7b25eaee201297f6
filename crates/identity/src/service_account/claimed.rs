//! What a service account token says of itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde::Deserialize;

use super::{MAX_BYTES, TokenError};
use crate::Workload;
use crate::issuance::seconds;

/// Clocks may differ by so many seconds.
pub(super) const LEEWAY: u64 = 60;
/// `sub` of a service account's token, and what an API server calls its user.
const SUBJECT: &str = "system:serviceaccount:";

/// The account that a token claims to be of, and its times. It proves nothing until somebody has verified the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedAccount {
    /// Whose token it says that it is.
    pub workload: Workload,
    /// The end that it names.
    pub expires: SystemTime,
    /// Until when it counts: the same, and as much as clocks may differ.
    pub until: SystemTime,
}

/// Whether the header has the parameter `crit`, whatever it lists: nothing that it may list is understood here.
pub(super) fn demands_extensions(token: &str) -> bool {
    let header = token.split('.').next().and_then(|header| BASE64_URL_SAFE_NO_PAD.decode(header).ok());
    let header = header.and_then(|header| serde_json::from_slice::<serde_json::Value>(&header).ok());
    header.is_some_and(|header| header.get("crit").is_some())
}

#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    sub: String,
    aud: Audiences,
    exp: u64,
    #[serde(default)]
    nbf: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

impl ClaimedAccount {
    /// What `token` claims. Tells tokens that can be nobody's from those that are worth a question to whoever knows the
    /// keys.
    ///
    /// # Errors
    /// [`TokenError`] when it could prove nothing now, whoever signed it.
    pub fn read(token: &str, audience: &str, now: SystemTime) -> Result<Self, TokenError> {
        if token.len() > MAX_BYTES {
            return Err(TokenError::Form);
        }
        let parts: Vec<_> = token.split('.').collect();
        let [head, claims, signature] = parts[..] else { return Err(TokenError::Form) };
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Form);
        let (_, claims, signature) = (decode(head)?, decode(claims)?, decode(signature)?);
        if demands_extensions(token) {
            return Err(TokenError::Critical);
        }
        if signature.is_empty() {
            return Err(TokenError::Form);
        }
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Form)?;
        claims.read(audience, now)
    }

    /// The workload that an API server means by the name of a user.
    ///
    /// # Errors
    /// [`TokenError::Subject`] and [`TokenError::Name`] when it is no service account's.
    pub fn of_user(name: &str) -> Result<Workload, TokenError> {
        let account = name.strip_prefix(SUBJECT).and_then(|rest| rest.split_once(':'));
        let (namespace, service_account) = account.ok_or(TokenError::Subject)?;
        Ok(Workload::new(namespace, service_account)?)
    }
}

impl Claims {
    /// What they mean for `audience` now.
    pub(super) fn read(&self, audience: &str, now: SystemTime) -> Result<ClaimedAccount, TokenError> {
        if !self.aud.has(audience) {
            return Err(TokenError::Audience);
        }
        let now = seconds(now);
        if now >= self.exp.saturating_add(LEEWAY) {
            return Err(TokenError::Expired);
        }
        if now.saturating_add(LEEWAY) < self.nbf {
            return Err(TokenError::NotYet);
        }
        // What is over after the end of time is never over; an hour is enough to ask again.
        let time = |at: u64| {
            UNIX_EPOCH.checked_add(Duration::from_secs(at)).unwrap_or(UNIX_EPOCH + Duration::from_secs(now + 3600))
        };
        Ok(ClaimedAccount {
            workload: ClaimedAccount::of_user(&self.sub)?,
            expires: time(self.exp),
            until: time(self.exp.saturating_add(LEEWAY)),
        })
    }
}

impl Audiences {
    fn has(&self, wanted: &str) -> bool {
        match self {
            Audiences::One(one) => one == wanted,
            Audiences::Several(several) => several.iter().any(|one| one == wanted),
        }
    }
}
