//! Attached nodes.

use compile::AudienceId;
use snapshot::Snapshot;

/// Names an attached node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub(crate) u64);

/// What an attached node has a part in.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The node.
    pub member: MemberId,
    /// The audience that it belongs to.
    pub audience: AudienceId,
    /// The audience's snapshot.
    pub snapshot: Snapshot,
}
