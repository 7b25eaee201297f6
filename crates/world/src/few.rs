//! Sets that nearly always have one member.

use std::collections::{BTreeSet, btree_set};

/// An ordered set that keeps a single member in place: a tree of one takes room for eleven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Few<T> {
    /// Exactly one member.
    One(T),
    /// Any number of them.
    Many(BTreeSet<T>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Few::Many(BTreeSet::new())
    }
}

impl<T: Ord> Few<T> {
    /// Adds a member; one that is equal stays as it was.
    pub fn insert(&mut self, value: T) {
        match self {
            Few::One(one) if *one == value => {}
            Few::Many(many) if !many.is_empty() => _ = many.insert(value),
            Few::Many(_) => *self = Few::One(value),
            Few::One(_) => {
                if let Few::One(one) = std::mem::take(self) {
                    *self = Few::Many(BTreeSet::from([one, value]));
                }
            }
        }
    }

    /// Takes a member away, if it is one.
    pub fn remove(&mut self, value: &T) {
        match self {
            Few::One(one) if one == value => *self = Few::default(),
            Few::One(_) => {}
            Few::Many(many) => _ = many.remove(value),
        }
    }

    /// Whether it is a member.
    pub fn contains(&self, value: &T) -> bool {
        match self {
            Few::One(one) => one == value,
            Few::Many(many) => many.contains(value),
        }
    }

    /// The lowest member.
    pub fn first(&self) -> Option<&T> {
        self.iter().next()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Few::One(_) => 1,
            Few::Many(many) => many.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members in order.
    pub fn iter(&self) -> FewIter<'_, T> {
        self.into_iter()
    }
}

/// The members of a [`Few`] in order.
#[derive(Clone, Debug)]
pub enum FewIter<'a, T> {
    /// The only one, until it was taken.
    One(Option<&'a T>),
    /// Those of a tree.
    Many(btree_set::Iter<'a, T>),
}

impl<'a, T> Iterator for FewIter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        match self {
            FewIter::One(one) => one.take(),
            FewIter::Many(many) => many.next(),
        }
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = FewIter<'a, T>;

    fn into_iter(self) -> FewIter<'a, T> {
        match self {
            Few::One(one) => FewIter::One(Some(one)),
            Few::Many(many) => FewIter::Many(many.iter()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is put in and taken out, it is the set that a tree would be.
        #[test]
        fn a_few_are_a_set(steps in prop::collection::vec((any::<bool>(), 0_u8..4), 0..20)) {
            let (mut few, mut tree) = (Few::default(), BTreeSet::new());
            for (enters, value) in steps {
                if enters {
                    few.insert(value);
                    tree.insert(value);
                } else {
                    few.remove(&value);
                    tree.remove(&value);
                }
                prop_assert_eq!(few.iter().collect::<Vec<_>>(), tree.iter().collect::<Vec<_>>());
                prop_assert_eq!((few.len(), few.is_empty(), few.first()), (tree.len(), tree.is_empty(), tree.first()));
                prop_assert!((0..4).all(|value| few.contains(&value) == tree.contains(&value)));
            }
        }
    }
}
