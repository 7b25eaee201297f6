//! Subscribed names, with what tells whether two sets are equal without looking at them.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use snapshot::{Name, Version};

use super::name_pool::NamePool;

/// Steps of more names than this are not remembered: whoever takes the same one compares the sets instead.
const REMEMBERED: usize = 64;

static NO_NAMES: BTreeSet<Name> = BTreeSet::new();

/// A set of names. A copy costs a pointer, so that whoever asks what a stream holds does not keep it from its work, and
/// streams that asked for the same names have one set between them.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameSet {
    /// `None` for no names.
    members: Option<Arc<Members>>,
}

/// Names, and what is known about all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    names: BTreeSet<Name>,
    /// The sum of the members' hashes; wraps.
    sum: u64,
    /// Bytes of all members.
    bytes: usize,
    /// Its own among the sets of a pool; 0 outside.
    number: u64,
    /// How it came from another set.
    step: Option<Box<Step>>,
}

/// A change of a set in a pool. Lists are in order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    from: u64,
    added: Box<[Name]>,
    removed: Box<[Name]>,
}

impl NameSet {
    /// Adds and removes names: such that are not in it, and such that are. Gives the set of equal content out of the
    /// pool if there is one, and puts it there otherwise.
    pub(crate) fn change(&mut self, mut added: Vec<Name>, mut removed: Vec<Name>, pool: Option<&NamePool>) {
        added.sort_unstable();
        added.dedup();
        removed.sort_unstable();
        removed.dedup();
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let sum_of = |names: &[Name]| names.iter().fold(0u64, |sum, name| sum.wrapping_add(hash(name)));
        let bytes_of = |names: &[Name]| names.iter().map(|name| name.len()).sum::<usize>();
        let (len, sum) = self.fingerprint();
        let len = len + added.len() - removed.len();
        let sum = sum.wrapping_add(sum_of(&added)).wrapping_sub(sum_of(&removed));
        let bytes = self.bytes() + bytes_of(&added) - bytes_of(&removed);
        if len == 0 {
            self.members = None;
            return;
        }
        let step = Step { from: self.number(), added: added.into(), removed: removed.into() };
        if let Some(known) = pool.and_then(|pool| pool.find((len, sum)))
            && (known.step.as_deref() == Some(&step) || self.becomes(&known, &step))
        {
            self.members = Some(known);
            return;
        }
        let mut names = self.members.take().map(Arc::unwrap_or_clone).unwrap_or_default().names;
        if step.added.len() > names.len() / 8 {
            // As a whole: one by one leaves the nodes of the tree half empty.
            names.append(&mut step.added.iter().cloned().collect());
        } else {
            names.extend(step.added.iter().cloned());
        }
        for name in &step.removed {
            names.remove(name);
        }
        let is_remembered = step.from != 0 && step.added.len() + step.removed.len() <= REMEMBERED;
        let step = is_remembered.then(|| Box::new(step));
        let members = Members { names, sum, bytes, number: 0, step };
        self.members = Some(match pool {
            Some(pool) => pool.add((len, sum), members),
            None => Arc::new(members),
        });
    }

    /// Puts a name in, if it is not there.
    pub(crate) fn insert(&mut self, name: Name, pool: &NamePool) {
        if !self.contains(&name) {
            self.change(vec![name], Vec::new(), Some(pool));
        }
    }

    /// Whether this set becomes `other`, which has as many names as it should have, by a step.
    fn becomes(&self, other: &Members, step: &Step) -> bool {
        let is_removed = |name: &Name| !step.removed.is_empty() && step.removed.binary_search(name).is_ok();
        let mut kept = self.iter().filter(|name| !is_removed(name)).peekable();
        let mut added = step.added.iter().peekable();
        other.names.iter().all(|name| {
            let is_same = |own: &&Name| Arc::ptr_eq(own, name) || **own == *name;
            kept.next_if(is_same).or_else(|| added.next_if(is_same)).is_some()
        })
    }

    /// Bytes of all names.
    pub(crate) fn bytes(&self) -> usize {
        self.members.as_ref().map_or(0, |members| members.bytes)
    }

    /// Equal for equal sets, and for no others but by an accident of hashing.
    pub(crate) fn fingerprint(&self) -> (usize, u64) {
        self.members.as_ref().map_or((0, 0), |members| (members.names.len(), members.sum))
    }

    fn number(&self) -> u64 {
        self.members.as_ref().map_or(0, |members| members.number)
    }
}

impl Deref for NameSet {
    type Target = BTreeSet<Name>;

    fn deref(&self) -> &BTreeSet<Name> {
        self.members.as_ref().map_or(&NO_NAMES, |members| &members.names)
    }
}

impl Members {
    pub(super) fn numbered(self, number: u64) -> Self {
        Self { number, ..self }
    }
}

fn hash(name: &str) -> u64 {
    Version::of(name.as_bytes()).number()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
