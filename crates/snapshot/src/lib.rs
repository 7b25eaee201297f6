//! Encoded, versioned resources, and the immutable picture of them that a stream delivers.
//!
//! A [`Cell`] is one resource, encoded once when its content changes; its bytes are shared by everyone who sends it.
//! A [`Layer`] is a set of cells that all nodes with equal inputs share; editing one gives a new layer that shares
//! what stayed the same. A [`Snapshot`] is the stack of layers of one node. Streams remember the snapshot that they
//! sent last: the difference to the next one costs what changed, not what there is.
//!
//! Nothing here knows what a cluster or a route means; names, bytes and references are enough.

mod alias;
mod body;
mod cell;
mod layer;
mod snapshot;
mod ttl;
mod version;

pub use alias::{parent, with_aliases};
pub use body::Body;
pub use cell::{Cell, Name, Origin, Part, Parts};
pub use layer::{Edit, Layer};
pub use snapshot::{Changes, Dangling, Snapshot};
pub use version::Version;
