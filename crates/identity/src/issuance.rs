//! What the audit log says of a certificate.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Lifetime, Serial, SpiffeId};

/// One certificate that was signed: a line of the audit log. Holds nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuance {
    /// When, in seconds since 1970.
    pub at: u64,
    /// The serial number, in hexadecimal digits.
    pub serial: String,
    /// To whom.
    pub id: String,
    /// From when it holds, in seconds since 1970.
    pub not_before: u64,
    /// Until when.
    pub not_after: u64,
    /// How the caller proved who it is, in a word.
    pub proof: String,
    /// Where it called from.
    pub peer: String,
}

impl Issuance {
    /// Of a certificate for `id`.
    pub fn new(serial: Serial, id: &SpiffeId, lifetime: &Lifetime, proof: &str, peer: &str) -> Self {
        Self {
            at: seconds(lifetime.made),
            serial: serial.to_string(),
            id: id.to_string(),
            not_before: seconds(lifetime.not_before),
            not_after: seconds(lifetime.not_after),
            proof: proof.to_owned(),
            peer: peer.to_owned(),
        }
    }

    /// One line of JSON with its end.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("texts and numbers can always be written as JSON");
        line.push('\n');
        line
    }
}

/// Seconds since 1970; 0 for earlier times.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
