//! World and compiler as one deterministic machine: changes and nodes go in, snapshots come out.
//!
//! It does no IO and knows no time but what it is told; the server owns one, feeds it and carries its snapshots to
//! streams.

mod exposure;
mod held;
mod holds;
mod member;
mod modes;
mod node;
mod plane;
mod waits;

pub use held::{Held, Kept};
pub use member::{MemberId, Membership};
pub use node::{Node, NodeError};
pub use plane::{Applied, Moment, ObjectView, Plane, Publication};
pub use waits::Patience;
