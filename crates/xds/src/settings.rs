//! Bounds of one stream.

use std::sync::Arc;
use std::time::Duration;

use crate::NamePool;

/// What a [`Stream`](crate::Stream) is told about the server that runs it, and how long it waits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `control_plane.identifier` of every response (rule P-47); Envoy shows it as a statistic.
    pub control_plane: Arc<str>,
    /// How long an unacknowledged response keeps the next one of its type back. Envoy 1.40 was seen to keep a
    /// rejection of clusters to itself until the next response, so without this bound such a type would stand still.
    pub acknowledgement_wait: Duration,
    /// How long a resource is kept back by another type: routes by clusters that are not accepted; twice as long,
    /// removals by resources that still refer to what goes (rule P-59).
    pub order_wait: Duration,
    /// Names that one type may subscribe to; more close the stream.
    pub max_names: usize,
    /// Bytes of all names that a stream may subscribe to; more close it.
    pub max_name_bytes: usize,
    /// Resources of one response, in bytes; the rest follows after its acknowledgement (rule P-46). One resource
    /// larger than this goes alone. State-of-the-world listeners and clusters cannot be split.
    pub max_response_bytes: usize,
    /// Sets of names that the streams with these settings, and with clones of them, have in common.
    pub names: NamePool,
}

impl Default for Settings {
    /// Waits of 15 seconds, Envoy's default for the warming of a cluster (`initial_fetch_timeout`); a million names of each type,
    /// 64 MiB of them in all: an honest stream of a hundred thousand resources has ten; responses of any size.
    fn default() -> Self {
        Self {
            control_plane: "pointsman".into(),
            acknowledgement_wait: Duration::from_secs(15),
            order_wait: Duration::from_secs(15),
            max_names: 1_000_000,
            max_name_bytes: 64 << 20,
            max_response_bytes: usize::MAX,
            names: NamePool::default(),
        }
    }
}
