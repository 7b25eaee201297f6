//! Questions that wait for their turn.

use super::Origin;
use super::turns::Turns;

/// Items that wait, whoever has sent them.
const OPEN: usize = 768;
/// Items of origins that have proved somebody before, beside those.
const RESERVED: usize = 256;

/// A line of bounded length in which nobody keeps the others out: origins take turns, and one that has proved somebody
/// before has places, and every other turn, that others cannot fill however many origins they have.
#[derive(Debug)]
pub(super) struct Line<T> {
    open: Turns<T>,
    reserved: Turns<T>,
    is_reserved_next: bool,
}

/// What is known of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has shown a token that proved somebody, not long ago.
    Proved,
    Unknown,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { open: Turns::new(OPEN), reserved: Turns::new(RESERVED), is_reserved_next: true }
    }
}

impl<T> Line<T> {
    /// Puts an item into the line. Returns the one that there is no room for: another, or this one.
    pub(super) fn put(&mut self, origin: Origin, standing: Standing, item: T) -> Option<T> {
        // Who has more than its share of the places that are reserved may have some of the others.
        let (origin, item) = match standing {
            Standing::Proved => self.reserved.put(origin, item)?,
            Standing::Unknown => (origin, item),
        };
        self.open.put(origin, item).map(|(_, item)| item)
    }

    /// The next item.
    pub(super) fn take(&mut self) -> Option<T> {
        let (first, second) = match self.is_reserved_next {
            true => (&mut self.reserved, &mut self.open),
            false => (&mut self.open, &mut self.reserved),
        };
        self.is_reserved_next = !self.is_reserved_next;
        first.take().or_else(|| second.take())
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.reserved.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(number: u64) -> Origin {
        Origin::V6(number)
    }

    /// A line that strangers have filled, each with one item.
    fn full() -> Line<u64> {
        let mut line = Line::default();
        for number in 0..OPEN as u64 {
            assert_eq!(line.put(origin(number), Standing::Unknown, number), None);
        }
        assert_eq!(line.put(origin(1000), Standing::Unknown, 1000), Some(1000));
        line
    }

    #[test]
    fn who_has_proved_somebody_has_a_place_and_the_next_turn_however_many_strangers_wait() {
        let mut line = full();
        assert_eq!(line.put(origin(2000), Standing::Proved, 2000), None);
        assert_eq!(line.put(origin(2001), Standing::Proved, 2001), None);
        let taken: Vec<_> = std::iter::from_fn(|| line.take()).collect();
        assert_eq!(taken[..4], [2000, 0, 2001, 1], "strangers have their turns, too");
        assert_eq!(taken.len(), OPEN + 2);
    }

    #[test]
    fn nobody_who_has_proved_somebody_takes_all_places_from_the_others() {
        let mut line = Line::default();
        let most = (OPEN + RESERVED) as u64;
        for number in 0..most {
            assert_eq!(line.put(origin(1), Standing::Proved, number), None, "who is alone may have all");
        }
        assert_eq!(line.put(origin(1), Standing::Proved, most), Some(most));
        assert!(line.put(origin(2), Standing::Proved, 5000).is_some_and(|out| out < most));
        assert!(line.put(origin(3), Standing::Unknown, 5001).is_some_and(|out| out < most));
        let next: Vec<_> = (0..4).filter_map(|_| line.take()).collect();
        assert!(next.contains(&5000) && next.contains(&5001), "{next:?}");
    }
}
