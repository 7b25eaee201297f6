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
    /// Whose the proof is, where whoever verified it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
}

/// The pod that a service account token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name, in the account's namespace.
    pub name: String,
    /// What tells it from others of the same name, before and after it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
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
            pod: None,
        }
    }

    /// The same, by a proof of this pod.
    pub fn of_pod(self, pod: Option<Pod>) -> Self {
        Self { pod, ..self }
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
