//! Names for which it is not true that the client holds what its snapshot has under them.

use std::collections::{BTreeMap, BTreeSet};

use snapshot::{Cell, Name, Version};

use super::Held;

/// What a client holds under some names. Most of them are *due*: whatever happens on the stream may be what they wait for,
/// so they are looked at each time. The others *rest*: they are held back as refused, and nothing comes of them until
/// something happens to them. A client that refuses a thousand resources has a thousand of these, and must not be slower
/// to serve for it.
#[derive(Debug, Default)]
pub(crate) struct Exceptions {
    due: BTreeMap<Name, Held>,
    resting: BTreeMap<Name, Resting>,
    /// What those that rest add to the version of the snapshot.
    offset: Version,
    /// How many of those that rest are held in a form that has aliases.
    with_aliases: usize,
}

#[derive(Debug)]
struct Resting {
    held: Held,
    offset: Version,
}

impl Resting {
    fn has_aliases(&self) -> bool {
        self.held.cell().is_some_and(|cell| !cell.aliases().is_empty())
    }
}

impl Exceptions {
    pub(crate) fn get(&self, name: &str) -> Option<&Held> {
        self.due.get(name).or_else(|| self.resting.get(name).map(|resting| &resting.held))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All of them: first those that are due, then those that rest, in order of name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Name, &Held)> {
        self.due.iter().chain(self.resting())
    }

    pub(crate) fn len(&self) -> usize {
        self.due.len() + self.resting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.resting.is_empty()
    }

    /// Those that are to be looked at each time.
    pub(crate) fn due(&self) -> &BTreeMap<Name, Held> {
        &self.due
    }

    /// Those that rest.
    pub(crate) fn resting(&self) -> impl Iterator<Item = (&Name, &Held)> {
        self.resting.iter().map(|(name, resting)| (name, &resting.held))
    }

    pub(crate) fn is_resting(&self, name: &str) -> bool {
        self.resting.contains_key(name)
    }

    /// Whether any that rests is held in a form that can be asked for by other names.
    pub(crate) fn rests_with_aliases(&self) -> bool {
        self.with_aliases > 0
    }

    /// What those that rest add to the version of the snapshot, without `others`.
    pub(crate) fn offset_without(&self, others: &BTreeSet<Name>) -> Version {
        let resting = others.iter().filter_map(|name| self.resting.get(name));
        resting.fold(self.offset, |sum, resting| sum.minus(resting.offset))
    }

    /// Notes what the client holds under a name; it is due.
    pub(crate) fn insert(&mut self, name: Name, held: Held) {
        self.remove_resting(&name);
        self.due.insert(name, held);
    }

    pub(crate) fn insert_if_absent(&mut self, name: Name, held: impl FnOnce() -> Held) {
        if !self.contains(&name) {
            self.due.insert(name, held());
        }
    }

    /// Notes what the client holds under a name instead of `published`, until something happens to it.
    pub(crate) fn rest(&mut self, name: Name, held: Held, published: &Cell) {
        self.remove(&name);
        let without = Version::default().minus(published.member());
        let offset = held.cell().map_or(without, |cell| without.plus(cell.member()));
        let resting = Resting { held, offset };
        self.offset = self.offset.plus(offset);
        self.with_aliases += usize::from(resting.has_aliases());
        self.resting.insert(name, resting);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.due.remove(name);
        self.remove_resting(name);
    }

    fn remove_resting(&mut self, name: &str) -> Option<(Name, Held)> {
        let (name, resting) = self.resting.remove_entry(name)?;
        self.offset = self.offset.minus(resting.offset);
        self.with_aliases -= usize::from(resting.has_aliases());
        Some((name, resting.held))
    }

    /// Something has happened to this name: it is due, if it is an exception at all.
    pub(crate) fn wake(&mut self, name: &str) {
        let woken = self.remove_resting(name);
        self.due.extend(woken);
    }

    /// Something has happened that may concern all.
    pub(crate) fn wake_all(&mut self) {
        let resting = std::mem::take(&mut self.resting);
        self.due.extend(resting.into_iter().map(|(name, resting)| (name, resting.held)));
        (self.offset, self.with_aliases) = (Version::default(), 0);
    }

    /// Forgets all that are due.
    pub(crate) fn clear_due(&mut self) {
        self.due.clear();
    }

    pub(crate) fn retain(&mut self, is_kept: impl Fn(&Name) -> bool) {
        self.due.retain(|name, _| is_kept(name));
        let gone: Vec<_> = self.resting.keys().filter(|name| !is_kept(name)).cloned().collect();
        for name in gone {
            self.remove_resting(&name);
        }
    }

    /// All of them, due from now on.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        self.wake_all();
        self.due.values_mut()
    }
}
