//! Join tokens: secrets that stand for an identity, for whoever has no certificate yet.
//!
//! A token has the form `pmj_<id>_<secret>`. What is kept of it is a [`JoinRecord`] with a hash of the secret, filed
//! under the id, so that neither a look at the files nor the time that a comparison takes gives a token away.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde::{Deserialize, Serialize};

use crate::Workload;
use crate::issuance::seconds;

const PREFIX: &str = "pmj_";

/// What a token is filed under: sixteen hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

/// A token. `Debug` shows its id only.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: TokenId,
    secret: [u8; 32],
}

/// How often a token can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uses {
    /// Once, for one call.
    Once,
    /// As often as wanted.
    Many,
}

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRecord {
    /// What it is filed under.
    pub id: TokenId,
    /// For whom it stands, as `namespace/account`.
    pub identity: String,
    /// How often it can be used.
    pub uses: Uses,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it is over.
    pub expires: u64,
    /// SHA-256 of the secret, in base64.
    hash: String,
}

/// Why a token proves nothing. Says nothing that would help to guess one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It has another form.
    #[error("this is no join token")]
    Form,
    /// It was never made, was used up, or was revoked.
    #[error("the join token is not known, was used already, or was revoked")]
    Unknown,
    /// It is over.
    #[error("the join token has expired")]
    Expired,
}

impl TokenId {
    /// The id as a text; it can stand in a file's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 16 && text.bytes().all(is_digit) { Ok(Self(text.to_owned())) } else { Err(InvalidToken::Form) }
    }
}

impl TryFrom<String> for TokenId {
    type Error = InvalidToken;

    fn try_from(text: String) -> Result<Self, InvalidToken> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let (id, secret) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(InvalidToken::Form)?;
        let secret = BASE64_URL_SAFE_NO_PAD.decode(secret).map_err(|_| InvalidToken::Form)?;
        Ok(Self { id: id.parse()?, secret: secret.try_into().map_err(|_| InvalidToken::Form)? })
    }
}

impl JoinToken {
    /// Of random bytes.
    pub fn from_random(id: [u8; 8], secret: [u8; 32]) -> Self {
        Self { id: TokenId(id.iter().map(|byte| format!("{byte:02x}")).collect()), secret }
    }

    /// Whether a text looks like one: other bearer tokens are for others to verify.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// What it is filed under.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// The whole token, to be shown once to whoever asked for it.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, BASE64_URL_SAFE_NO_PAD.encode(self.secret))
    }

    /// What to keep of it, when it stands for `workload` from now until `ttl` is over.
    pub fn record(&self, workload: &Workload, uses: Uses, now: SystemTime, ttl: Duration) -> JoinRecord {
        let created = seconds(now);
        JoinRecord {
            id: self.id.clone(),
            identity: workload.to_string(),
            uses,
            created,
            expires: created.saturating_add(ttl.as_secs()),
            hash: self.hash(),
        }
    }

    fn hash(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.secret))
    }
}

impl JoinRecord {
    /// For whom the token stands, if it is the one that this was kept of and still holds.
    ///
    /// # Errors
    /// [`InvalidToken::Unknown`] when it is another one, or the record makes no sense; [`InvalidToken::Expired`].
    pub fn verify(&self, token: &JoinToken, now: SystemTime) -> Result<Workload, InvalidToken> {
        let is_same = verify_slices_are_equal(self.hash.as_bytes(), token.hash().as_bytes()).is_ok();
        if self.id != token.id || !is_same {
            return Err(InvalidToken::Unknown);
        }
        if seconds(now) >= self.expires {
            return Err(InvalidToken::Expired);
        }
        self.identity.parse().map_err(|_| InvalidToken::Unknown)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_token_stands_for_its_identity_until_it_is_over() {
        let token = JoinToken::from_random([0xab; 8], [7; 32]);
        let workload = Workload::new("shop", "front").unwrap();
        let record = token.record(&workload, Uses::Many, now(), Duration::from_secs(60));
        let text = serde_json::to_string(&record).unwrap();
        let record: JoinRecord = serde_json::from_str(&text).unwrap();
        let token: JoinToken = token.reveal().parse().unwrap();
        assert_eq!(record.verify(&token, now() + Duration::from_secs(59)), Ok(workload));
        assert_eq!(record.verify(&token, now() + Duration::from_secs(60)), Err(InvalidToken::Expired));
        let other = JoinToken::from_random([0xab; 8], [8; 32]);
        assert_eq!(record.verify(&other, now()), Err(InvalidToken::Unknown));
    }

    #[test]
    fn nothing_that_is_kept_or_shown_gives_the_secret_away() {
        let token = JoinToken::from_random([1; 8], [200; 32]);
        let secret = BASE64_URL_SAFE_NO_PAD.encode([200; 32]);
        let record = token.record(&Workload::new("a", "b").unwrap(), Uses::Once, now(), Duration::from_secs(60));
        let shown = format!("{token:?} {record:?} {}", serde_json::to_string(&record).unwrap());
        assert!(token.reveal().contains(&secret) && !shown.contains(&secret), "{shown}");
    }

    #[test]
    fn other_texts_are_no_tokens_and_lead_to_no_files() {
        for text in ["", "pmj_", "pmj_x_y", "pmj_../../etc/passwd_AAAA", "pmj_00000000000000AB_AAAA", "eyJhbGciOi.x.y"]
        {
            assert_eq!(text.parse::<JoinToken>(), Err(InvalidToken::Form), "{text}");
        }
        assert!("../../etc/passwd".parse::<TokenId>().is_err());
    }
}
