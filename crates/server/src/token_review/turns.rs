//! Items of many origins that take turns.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use super::Origin;

/// A bounded line in which origins take turns, so that one of them with many items delays the others by one item only.
///
/// While there is room, an origin may have as many items as it likes. When there is none, whoever has the most gives its
/// newest up for one that has fewer.
#[derive(Debug)]
pub(super) struct Turns<T> {
    most: usize,
    len: usize,
    /// Those that have items, the next one first.
    order: VecDeque<Origin>,
    /// Oldest first, never none.
    items: HashMap<Origin, VecDeque<T>>,
}

impl<T> Turns<T> {
    /// Room for so many items.
    pub(super) fn new(most: usize) -> Self {
        Self { most, len: 0, order: VecDeque::new(), items: HashMap::new() }
    }

    /// Puts an item behind the others of its origin. Returns the one that there is no room for: another's, or this one.
    pub(super) fn put(&mut self, origin: Origin, item: T) -> Option<(Origin, T)> {
        let out = if self.len < self.most {
            None
        } else {
            match self.displace(origin) {
                Some(other) => Some(other),
                None => return Some((origin, item)),
            }
        };
        let items = self.items.entry(origin).or_default();
        if items.is_empty() {
            self.order.push_back(origin);
        }
        items.push_back(item);
        self.len += 1;
        out
    }

    /// The next item: the oldest of the origin whose turn it is.
    pub(super) fn take(&mut self) -> Option<T> {
        let origin = self.order.pop_front()?;
        let Entry::Occupied(mut items) = self.items.entry(origin) else { return None };
        let item = items.get_mut().pop_front();
        if items.get().is_empty() {
            items.remove();
        } else {
            self.order.push_back(origin);
        }
        self.len -= 1;
        item
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most);
    }

    /// Takes the newest item of whoever has the most, if that leaves them at least as many as `origin` will have then.
    /// Otherwise two origins would drive each other out in turn.
    fn displace(&mut self, origin: Origin) -> Option<(Origin, T)> {
        let own = self.items.get(&origin).map_or(0, VecDeque::len);
        let (longest, items) = self.items.iter_mut().max_by_key(|(_, items)| items.len())?;
        if items.len() < own + 2 {
            return None;
        }
        self.len -= 1;
        Some((*longest, items.pop_back()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(turns: &mut Turns<u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.take()).collect()
    }

    fn origin(number: u64) -> Origin {
        Origin::V6(number)
    }

    #[test]
    fn origins_take_turns_and_the_items_of_one_keep_their_order() {
        let mut turns = Turns::new(10);
        for (from, item) in [(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (2, 21)] {
            assert_eq!(turns.put(origin(from), item), None);
        }
        assert_eq!(drained(&mut turns), [10, 20, 30, 11, 21, 12]);
        assert_eq!(turns.put(origin(2), 22), None, "it can be used again");
        assert_eq!(drained(&mut turns), [22]);
    }

    #[test]
    fn who_is_alone_may_fill_the_line_and_makes_room_for_others_by_its_newest() {
        let mut turns = Turns::new(5);
        for item in 10..15 {
            assert_eq!(turns.put(origin(1), item), None);
        }
        assert_eq!(turns.put(origin(1), 15), Some((origin(1), 15)), "it has no more room than there is");
        assert_eq!(turns.put(origin(2), 20), Some((origin(1), 14)));
        assert_eq!(turns.put(origin(2), 21), Some((origin(1), 13)));
        assert_eq!(turns.put(origin(2), 22), Some((origin(2), 22)), "one more would make it the one with the most");
        assert_eq!(turns.put(origin(3), 30), Some((origin(1), 12)));
        assert_eq!(turns.put(origin(3), 31), Some((origin(3), 31)));
        assert_eq!(drained(&mut turns), [10, 20, 30, 11, 21]);
    }

    #[test]
    fn who_has_one_item_keeps_it_however_many_origins_come() {
        let mut turns = Turns::new(3);
        for number in 1..=3 {
            assert_eq!(turns.put(origin(number), number as u32), None);
        }
        assert_eq!(turns.put(origin(4), 4), Some((origin(4), 4)));
        assert_eq!(drained(&mut turns), [1, 2, 3]);
    }

    #[test]
    fn what_is_cleared_is_empty() {
        let mut turns = Turns::new(1);
        turns.put(origin(1), 1);
        turns.clear();
        assert_eq!((turns.take(), turns.put(origin(2), 2)), (None, None));
    }
}
