//! What a client asks for, as others may know it.

use std::collections::btree_set::Iter;

use snapshot::Name;

use crate::stream::interest::Interest;

/// What a client asks for of one type.
#[derive(Clone, Copy, Debug)]
pub struct Wants<'s> {
    /// `None` for nothing.
    interest: Option<&'s Interest>,
}

impl<'s> Wants<'s> {
    pub(crate) fn new(interest: Option<&'s Interest>) -> Self {
        Self { interest }
    }

    /// Equal for equal wants, and for no others but by an accident of hashing; `None` for everything.
    pub fn fingerprint(&self) -> Option<[(usize, u64); 2]> {
        self.interest.map_or(Some(<[(usize, u64); 2]>::default()), Interest::fingerprint)
    }

    /// The names, if these are all: `None` for everything, and when collections are asked for, or names that may be
    /// those of others (`xdstp`).
    pub fn names(&self) -> Option<Iter<'s, Name>> {
        let is_plain = |interest: &&Interest| {
            !interest.wildcard
                && interest.collections.is_empty()
                && !interest.names.iter().any(|name| name.starts_with("xdstp:"))
        };
        match self.interest {
            None => Some(Iter::default()),
            Some(interest) => Some(interest).filter(is_plain).map(|interest| interest.names.iter()),
        }
    }
}
