//! Versions of content.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

/// A hash of content (XXH3, 64 bits): equal content has equal versions on every replica and after every restart
/// (rules P-23, P-25). Displayed as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// The version of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxh3_64(bytes))
    }

    /// The version of a named thing inside a set.
    pub(crate) fn member(name: &str, version: Version) -> Self {
        let mut bytes = Vec::with_capacity(name.len() + 8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&version.0.to_le_bytes());
        Self::of(&bytes)
    }

    /// Adds a member's version to a set's. Sets add up in any order, and one member can be exchanged without
    /// looking at the others.
    #[must_use]
    pub fn plus(self, member: Version) -> Self {
        Self(self.0.wrapping_add(member.0))
    }

    /// Takes a member's version out of a set's.
    #[must_use]
    pub fn minus(self, member: Version) -> Self {
        Self(self.0.wrapping_sub(member.0))
    }

    /// One version from two, where the order matters.
    pub(crate) fn then(self, next: Version) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        bytes[8..].copy_from_slice(&next.0.to_le_bytes());
        Self::of(&bytes)
    }

    /// The hash as a number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Reads the displayed form; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
