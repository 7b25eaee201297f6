//! Replacing a root without a moment in which somebody trusts too little.
//!
//! ```text
//!  (one root) ──begin──▶ Distributing ──advance──▶ Reissuing ──advance──▶ Retiring ──▶ (the new root)
//!      ▲                     │                        │
//!      └───────abort─────────┘                        └ signs with the new root; both are trusted
//!            signs with the old root; both are trusted
//! ```
//!
//! Each step waits for those whom it would cut off: before the new root signs, everybody must trust it; before the old
//! root goes, nobody may show a certificate of it. What somebody lacks is said by [`Rotation::lack`]; to go on although
//! somebody lacks something is the operator's decision.
//!
//! This decides nothing about files or clients that are away; times are parameters.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::issuance::seconds;

/// How far a rotation is. What is kept of it is a [`Rotation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Both roots are handed out; the old one signs.
    Distributing,
    /// Both roots are handed out; the new one signs.
    Reissuing,
    /// The new root takes the old one's place, which is all that is left to do.
    Retiring,
}

/// A rotation that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// How far it is.
    pub stage: Stage,
    /// When it began, in seconds since 1970.
    pub begun: u64,
    /// When the stage began.
    pub since: u64,
    /// The old root, by its fingerprint.
    pub from: String,
    /// The new root.
    pub to: String,
}

/// What is known of a client's part in the trust of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trusting {
    /// Whether it accepted the newest roots; `None` when it does not ask for roots on its stream.
    pub roots: Option<bool>,
    /// Whether it accepted a certificate by who signs now; `None` when it does not ask for one on its stream.
    pub certificate: Option<bool>,
    /// Whether it has proved who it is by a certificate, and whether who signs now has signed that.
    pub proof: Option<bool>,
    /// When the certificate service last signed for it; the answer had the roots of that time.
    pub requested: Option<SystemTime>,
}

impl Rotation {
    /// One that begins now.
    pub fn begin(from: String, to: String, now: SystemTime) -> Self {
        Self { stage: Stage::Distributing, begun: seconds(now), since: seconds(now), from, to }
    }

    /// The same in the next stage; `None` when it is in the last.
    #[must_use]
    pub fn next(&self, now: SystemTime) -> Option<Self> {
        let stage = match self.stage {
            Stage::Distributing => Stage::Reissuing,
            Stage::Reissuing => Stage::Retiring,
            Stage::Retiring => return None,
        };
        Some(Self { stage, since: seconds(now), ..self.clone() })
    }

    /// What a client lacks before the next stage may begin. Certificates hold for `ttl` at most, so whoever got one
    /// before the stage began has another one, or none, when that is over.
    pub fn lack(&self, client: &Trusting, now: SystemTime, ttl: Duration) -> Option<&'static str> {
        let is_over = seconds(now) >= self.since.saturating_add(ttl.as_secs());
        let has_requested = client.requested.is_some_and(|at| seconds(at) >= self.since);
        let is_agent = client.roots.is_none()
            && client.certificate.is_none()
            && (client.requested.is_some() || client.proof.is_some());
        match self.stage {
            Stage::Distributing => {
                if client.roots == Some(false) {
                    Some("has not accepted both roots yet")
                } else if is_agent && !has_requested && !is_over {
                    Some("learns roots when it asks for a certificate, which it has not done since")
                } else {
                    None
                }
            }
            Stage::Reissuing => {
                if client.roots == Some(false) {
                    Some("has not accepted both roots yet")
                } else if client.certificate == Some(false) {
                    Some("has not accepted a certificate of the new root yet")
                } else if client.proof == Some(false) {
                    Some("is connected by a certificate of the old root")
                } else if is_agent && client.proof.is_none() && !has_requested && !is_over {
                    Some("has not asked for a certificate of the new root yet")
                } else {
                    None
                }
            }
            Stage::Retiring => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(1000);

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second)
    }

    fn begun() -> Rotation {
        Rotation::begin("old".to_owned(), "new".to_owned(), at(0))
    }

    fn lack(rotation: &Rotation, client: Trusting, second: u64) -> Option<&'static str> {
        rotation.lack(&client, at(second), TTL)
    }

    #[test]
    fn the_new_root_signs_only_when_everybody_trusts_it() {
        let by_stream = |roots| Trusting { roots: Some(roots), certificate: Some(true), ..Trusting::default() };
        assert!(lack(&begun(), by_stream(false), 10).unwrap().contains("both roots"));
        assert_eq!(lack(&begun(), by_stream(true), 10), None);
        // Who takes nothing of ours but configuration is not waited for.
        assert_eq!(lack(&begun(), Trusting::default(), 10), None);
    }

    #[test]
    fn agents_are_waited_for_until_they_ask_or_until_what_they_had_is_over() {
        let agent = |second| Trusting { requested: Some(at(second)), ..Trusting::default() };
        let before = Trusting { requested: Some(at(0) - Duration::from_secs(1)), ..Trusting::default() };
        let reissuing = begun().next(at(50)).unwrap();
        for (rotation, asked) in [(begun(), 1), (reissuing.clone(), 51)] {
            assert!(lack(&rotation, before, 60).is_some(), "{rotation:?}");
            assert_eq!(lack(&rotation, agent(asked), 60), None, "{rotation:?}");
            assert_eq!(lack(&rotation, before, 1050), None, "{rotation:?}");
        }
        assert!(lack(&reissuing, agent(49), 60).is_some());
        let by_file = Trusting { proof: Some(false), ..Trusting::default() };
        assert!(lack(&begun(), by_file, 60).unwrap().contains("asks for a certificate"));
    }

    #[test]
    fn the_old_root_goes_only_when_nobody_shows_a_certificate_of_it() {
        let reissuing = begun().next(at(50)).unwrap();
        let client = |certificate, proof| Trusting { roots: Some(true), certificate, proof, ..Trusting::default() };
        assert!(lack(&reissuing, client(Some(false), None), 60).unwrap().contains("accepted a certificate"));
        assert!(lack(&reissuing, client(Some(true), Some(false)), 60).unwrap().contains("connected by"));
        assert_eq!(lack(&reissuing, client(Some(true), Some(true)), 60), None);
        assert_eq!(lack(&reissuing, client(Some(true), None), 60), None);
    }

    #[test]
    fn stages_follow_each_other_and_end() {
        let reissuing = begun().next(at(5)).unwrap();
        assert_eq!((reissuing.stage, reissuing.since - reissuing.begun), (Stage::Reissuing, 5));
        let retiring = reissuing.next(at(6)).unwrap();
        assert_eq!((retiring.stage, retiring.next(at(7))), (Stage::Retiring, None));
        let text = serde_json::to_string(&retiring).unwrap();
        assert_eq!(serde_json::from_str::<Rotation>(&text).unwrap(), retiring);
    }
}
