//! Which units read what.

use std::collections::{BTreeSet, HashMap};

use world::{Few, Key};

use crate::slots::Slots;

/// What units have read, and who has read what. Units and keys go by small numbers: in a large mesh there are many
/// pairs of them.
#[derive(Debug, Default)]
pub(super) struct Reads {
    numbers: HashMap<Key, u32>,
    keys: Slots<Read>,
}

/// A key that somebody has read.
#[derive(Debug)]
struct Read {
    key: Key,
    units: Few<u32>,
}

impl Reads {
    /// The numbers of the units that have read `key`, in order.
    pub(super) fn of(&self, key: &Key) -> impl Iterator<Item = u32> {
        let read = self.numbers.get(key).and_then(|number| self.keys.get(*number));
        read.into_iter().flat_map(|read| &read.units).copied()
    }

    /// Everything that was read, in no particular order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().map(|(_, read)| &read.key)
    }

    /// Notes that `unit` has read this in place of what it read `before`, as it was answered then. Tells `change` of keys
    /// that nobody had read before (`true`), and of those that nobody reads any more.
    pub(super) fn replace(
        &mut self,
        unit: u32,
        before: Box<[u32]>,
        reads: &BTreeSet<Key>,
        mut change: impl FnMut(&Key, bool),
    ) -> Box<[u32]> {
        let known = before.iter().filter_map(|number| self.keys.get(*number)).map(|read| &read.key);
        if known.eq(reads) {
            return before;
        }
        for number in &before {
            if self.keys.get(*number).is_some_and(|read| !reads.contains(&read.key)) {
                self.forget(unit, *number, &mut change);
            }
        }
        reads.iter().map(|key| self.note(unit, key, &mut change)).collect()
    }

    fn note(&mut self, unit: u32, key: &Key, change: &mut impl FnMut(&Key, bool)) -> u32 {
        if let Some(number) = self.numbers.get(key) {
            if let Some(read) = self.keys.get_mut(*number) {
                read.units.insert(unit);
            }
            return *number;
        }
        change(key, true);
        let number = self.keys.put(Read { key: key.clone(), units: Few::One(unit) });
        self.numbers.insert(key.clone(), number);
        number
    }

    fn forget(&mut self, unit: u32, number: u32, change: &mut impl FnMut(&Key, bool)) {
        let Some(read) = self.keys.get_mut(number) else { return };
        read.units.remove(&unit);
        if read.units.is_empty()
            && let Some(read) = self.keys.take(number)
        {
            self.numbers.remove(&read.key);
            change(&read.key, false);
        }
    }
}
