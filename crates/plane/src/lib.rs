//! World and compiler as one deterministic machine: changes and nodes go in, snapshots come out.
//!
//! It does no IO and knows no time; the server owns one, feeds it and carries its snapshots to streams.

mod node;
mod plane;

pub use node::{Node, NodeError};
pub use plane::{MemberId, Membership, ObjectView, Plane, Publication};
