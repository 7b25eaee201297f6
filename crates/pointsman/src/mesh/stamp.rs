//! A mark inside a resource that says when its content was committed.

use std::fmt;

/// Which service's endpoints were changed, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// CLOCK_REALTIME in nanoseconds.
    pub(crate) committed_ns: u64,
    /// The service's number.
    pub(crate) service: u32,
}

impl Stamp {
    /// What a stamp's text begins with.
    pub(crate) const MAGIC: &str = "mesh-stamp-";
}

/// Always equally long: the magic, 16 and 8 hexadecimal digits.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:016x}-{:08x}", Self::MAGIC, self.committed_ns, self.service)
    }
}
