//! The authority that signs certificates, and the rotation of its root.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// `GET /api/v1/authority`. Nothing of it is secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Authority {
    /// Who signs now.
    pub issuer: Root,
    /// Fingerprints of the roots that are trusted now, the issuer's first.
    pub trusted: Vec<String>,
    /// The same roots as PEM.
    pub roots: String,
    /// How far a rotation is: `distributing`, `reissuing`, or empty when there is none.
    pub stage: String,
    /// When the rotation began.
    pub begun: Option<Timestamp>,
    /// When the stage began.
    pub since: Option<Timestamp>,
    /// Connected nodes that have proved who they are.
    pub nodes: usize,
    /// Nodes that lack something before the next stage may begin, by id.
    pub lacking: Vec<LackingNode>,
    /// How long the stage, or the server, is too young for the next stage: clients that were cut off may be on their way
    /// back.
    pub settles_in_seconds: u64,
}

/// A certificate that signs others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// SHA-256 of it, in hexadecimal digits.
    pub fingerprint: String,
    /// Until when it holds.
    pub not_after: Timestamp,
}

/// A node that something waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LackingNode {
    /// Its id.
    pub id: String,
    /// Who it has proved to be.
    pub identity: String,
    /// Where it is connected from.
    pub address: String,
    /// What it lacks.
    pub reason: String,
}

/// `POST /api/v1/authority/actions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityRequest {
    /// `begin`, `advance` or `abort`.
    pub action: String,
    /// The stage that `advance` is to end; refused when it is over already.
    #[serde(default)]
    pub stage: String,
    /// Go on although nodes lack something.
    #[serde(default)]
    pub force: bool,
    /// Who does this; kept in the audit log.
    #[serde(default)]
    pub actor: String,
    /// Why; kept in the audit log.
    #[serde(default)]
    pub reason: String,
}
