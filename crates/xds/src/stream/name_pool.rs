//! Sets of names that streams have in common.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::name_set::Members;

/// How many names, and the sum of their hashes.
type Fingerprint = (usize, u64);

/// Fewer sets than this are never looked through for those that are gone.
const FEW: usize = 64;

/// Finds the set of names that another stream has already. Thousands of clients ask for the same thousands of names,
/// which would be most of what a stream at rest costs. A copy is the same pool; it keeps no set alive.
#[derive(Clone, Debug, Default)]
pub struct NamePool {
    sets: Arc<Mutex<Sets>>,
}

#[derive(Debug, Default)]
struct Sets {
    by_content: HashMap<Fingerprint, Weak<Members>>,
    last_number: u64,
    /// With so many entries, those of sets that are gone are taken out.
    sweep_at: usize,
}

impl NamePool {
    /// A set that is probably of this content: clients choose the names, so whoever takes it must compare.
    pub(super) fn find(&self, content: Fingerprint) -> Option<Arc<Members>> {
        self.lock().by_content.get(&content)?.upgrade()
    }

    /// Puts a set in, in the place of another of the same fingerprint.
    pub(super) fn add(&self, content: Fingerprint, members: Members) -> Arc<Members> {
        let mut sets = self.lock();
        sets.last_number += 1;
        let members = Arc::new(members.numbered(sets.last_number));
        sets.by_content.insert(content, Arc::downgrade(&members));
        if sets.by_content.len() > sets.sweep_at.max(FEW) {
            sets.by_content.retain(|_, set| set.strong_count() > 0);
            sets.by_content.shrink_to(FEW);
            sets.sweep_at = 2 * sets.by_content.len();
        }
        members
    }

    fn lock(&self) -> MutexGuard<'_, Sets> {
        // What is done under the lock leaves a whole table wherever it stops.
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().by_content.len()
    }
}
