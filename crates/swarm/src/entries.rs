//! Repeated fields of requests, encoded once and sent by thousands of nodes.

use std::ops::Range;
use std::sync::Arc;

use crate::http2::Piece;
use crate::request::{put_bytes, put_length};

/// Encoded entries of a repeated field, of which nodes send all or a run.
#[derive(Clone, Debug)]
pub(crate) struct Entries {
    bytes: Arc<[u8]>,
    /// Where each entry ends.
    ends: Vec<usize>,
}

/// A run of entries that may go round the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

impl Entries {
    /// Texts of field `field`.
    pub(crate) fn texts<'a>(field: u32, texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self::of(texts, |out, text| put_bytes(out, field, text.as_bytes()))
    }

    /// Entries of a map from texts to texts in field `field`.
    pub(crate) fn pairs<'a>(field: u32, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut entry = Vec::new();
        Self::of(pairs, |out, (key, value)| {
            entry.clear();
            put_bytes(&mut entry, 1, key.as_bytes());
            put_bytes(&mut entry, 2, value.as_bytes());
            put_length(out, field, entry.len());
            out.extend_from_slice(&entry);
        })
    }

    fn of<T>(items: impl IntoIterator<Item = T>, mut put: impl FnMut(&mut Vec<u8>, T)) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for item in items {
            put(&mut bytes, item);
            ends.push(bytes.len());
        }
        Self { bytes: bytes.into(), ends }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Window {
        Window { first: 0, count: self.len() }
    }

    /// The bytes of a window; two pieces when it goes round the end.
    pub(crate) fn pieces(&self, window: Window) -> impl Iterator<Item = Piece> {
        let ranges = self.ranges(window);
        ranges.into_iter().filter(|range| !range.is_empty()).map(|range| Piece::Shared(Arc::clone(&self.bytes), range))
    }

    fn ranges(&self, window: Window) -> [Range<usize>; 2] {
        let length = self.len();
        let count = window.count.min(length);
        let first = if length == 0 { 0 } else { window.first % length };
        let start = |index: usize| index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let beyond = (first + count).saturating_sub(length);
        [start(first)..start(first + count - beyond), 0..start(beyond)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(entries: &Entries, first: usize, count: usize) -> Vec<u8> {
        entries.pieces(Window { first, count }).flat_map(|piece| piece.bytes().to_vec()).collect()
    }

    #[test]
    fn a_window_goes_round_the_end() {
        let entries = Entries::texts(3, ["a", "bb", "c"]);
        let (a, b, c) = (&[0x1a, 1, b'a'][..], &[0x1a, 2, b'b', b'b'][..], &[0x1a, 1, b'c'][..]);
        assert_eq!(sent(&entries, 0, 3), [a, b, c].concat());
        assert_eq!(sent(&entries, 1, 1), b);
        assert_eq!(sent(&entries, 5, 2), [c, a].concat());
        assert_eq!(sent(&entries, 1, 9), [b, c, a].concat(), "never more than there are");
        assert!(sent(&entries, 0, 0).is_empty());
        assert!(sent(&Entries::texts(3, []), 2, 2).is_empty());
    }

    #[test]
    fn pairs_are_entries_of_a_map() {
        let entries = Entries::pairs(5, [("k", "v")]);
        assert_eq!(sent(&entries, 0, 1), [0x2a, 6, 0x0a, 1, b'k', 0x12, 1, b'v']);
    }
}
