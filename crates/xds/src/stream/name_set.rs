//! Subscribed names, with what tells whether two sets are equal without looking at them.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use snapshot::{Name, Version};

/// A set of names. A copy costs a pointer, so that whoever asks what a stream holds does not keep it from its work.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameSet {
    names: Arc<BTreeSet<Name>>,
    /// The sum of the members' hashes; wraps.
    sum: u64,
    /// Bytes of all members.
    bytes: usize,
}

impl NameSet {
    /// Puts a name in; whether it was not there before.
    pub(crate) fn insert(&mut self, name: Name) -> bool {
        let (hash, len) = (hash(&name), name.len());
        let is_new = Arc::make_mut(&mut self.names).insert(name);
        if is_new {
            self.sum = self.sum.wrapping_add(hash);
            self.bytes += len;
        }
        is_new
    }

    /// Takes a name out, if it is there.
    pub(crate) fn take(&mut self, name: &str) -> Option<Name> {
        if !self.names.contains(name) {
            return None;
        }
        let taken = Arc::make_mut(&mut self.names).take(name)?;
        self.sum = self.sum.wrapping_sub(hash(&taken));
        self.bytes -= taken.len();
        Some(taken)
    }

    /// Bytes of all names.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Equal for equal sets, and for no others but by an accident of hashing.
    pub(crate) fn fingerprint(&self) -> (usize, u64) {
        (self.names.len(), self.sum)
    }
}

impl Deref for NameSet {
    type Target = BTreeSet<Name>;

    fn deref(&self) -> &BTreeSet<Name> {
        &self.names
    }
}

fn hash(name: &str) -> u64 {
    Version::of(name.as_bytes()).number()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_have_equal_fingerprints_whatever_their_history() {
        let mut one = NameSet::default();
        let mut other = NameSet::default();
        for name in ["a", "b", "c"] {
            assert!(one.insert(name.into()));
        }
        let copy = one.clone();
        for name in ["x", "c", "b"] {
            other.insert(name.into());
        }
        assert_ne!(one.fingerprint(), other.fingerprint());
        assert_eq!(other.take("x").as_deref(), Some("x"));
        assert_eq!(other.take("x"), None);
        assert!(other.insert("a".into()) && !other.insert("a".into()));
        assert_eq!(one.fingerprint(), other.fingerprint());
        one.take("a");
        assert_eq!((copy.len(), one.len()), (3, 2), "a copy stays as it was");
        assert_eq!((copy.bytes(), one.bytes()), (3, 2));
        assert_ne!(one.fingerprint(), copy.fingerprint());
    }
}
