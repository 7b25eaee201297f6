//! Marks inside resources that say when their content was committed, and finding them without decoding.
//!
//! A server under measurement writes a [`Stamp`] into the resources that it changes, as `pointsman mesh` does; whoever
//! reads the bytes then knows how old the content is, and whether the last change has come.

use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::Finder;

/// Which service was changed, and when. Its text is always equally long: `mesh-stamp-`, 16 hexadecimal digits of the time,
/// a dash, 8 of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// CLOCK_REALTIME in nanoseconds.
    pub committed_ns: u64,
    /// The service's number.
    pub service: u32,
}

const MAGIC: &[u8] = b"mesh-stamp-";
const LENGTH: usize = MAGIC.len() + 16 + 1 + 8;

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MAGIC));

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mesh-stamp-{:016x}-{:08x}", self.committed_ns, self.service)
    }
}

impl Stamp {
    /// Reads a whole text; `None` if it is something else.
    fn read(text: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(text.strip_prefix(MAGIC)?).ok()?;
        let (committed_ns, service) = digits.split_once('-')?;
        Some(Self {
            committed_ns: u64::from_str_radix(committed_ns, 16).ok()?,
            service: u32::from_str_radix(service, 16).ok()?,
        })
    }
}

/// Finds stamps in a run of bytes that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct StampFinder {
    /// The last bytes, in which a stamp may have begun.
    tail: Vec<u8>,
}

impl StampFinder {
    /// Looks at the next piece; `found` learns of every stamp that ends in it.
    pub(crate) fn look(&mut self, piece: &[u8], mut found: impl FnMut(Stamp)) {
        let before = self.tail.len();
        self.tail.extend_from_slice(&piece[..piece.len().min(LENGTH - 1)]);
        // What begins in the tail ends within a stamp's length of the piece, and nothing else is whole here.
        if before > 0 {
            all(&self.tail, &mut found);
        }
        if piece.len() < LENGTH {
            self.tail.drain(..self.tail.len().saturating_sub(LENGTH - 1));
            return;
        }
        all(piece, &mut found);
        self.tail.clear();
        self.tail.extend_from_slice(&piece[piece.len() - (LENGTH - 1)..]);
    }
}

fn all(bytes: &[u8], found: &mut impl FnMut(Stamp)) {
    for at in FINDER.find_iter(bytes) {
        if let Some(stamp) = bytes.get(at..at + LENGTH).and_then(Stamp::read) {
            found(stamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(pieces: &[&[u8]]) -> Vec<Stamp> {
        let mut finder = StampFinder::default();
        let mut found = Vec::new();
        pieces.iter().for_each(|piece| finder.look(piece, |stamp| found.push(stamp)));
        found
    }

    #[test]
    fn what_only_looks_like_a_stamp_is_none() {
        let stamp = Stamp { committed_ns: 1_795_279_070_119_022_753, service: 999 };
        let text = stamp.to_string();
        assert_eq!(found(&[text.as_bytes()]), [stamp]);
        assert_eq!(found(&[text.replace("-000", "-zzz").as_bytes()]), []);
        assert_eq!(found(&[&text.as_bytes()[..LENGTH - 1]]), []);
        assert_eq!(found(&[b"mesh-stamp-", text.as_bytes()]), [stamp]);
    }

    proptest! {
        #[test]
        fn each_stamp_is_found_once_wherever_the_bytes_are_cut(
            stamps in prop::collection::vec((any::<u64>(), any::<u32>(), "[a-z]{0,60}"), 1..5),
            mut cuts in prop::collection::vec(0usize..400, 0..20),
        ) {
            let stamps: Vec<_> = stamps.into_iter().map(|(committed_ns, service, gap)| {
                (Stamp { committed_ns, service }, gap)
            }).collect();
            let text: String = stamps.iter().map(|(stamp, gap)| format!("{gap}{stamp}")).collect();
            cuts.extend([0, text.len()]);
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(text.len()));
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let expected: Vec<_> = stamps.iter().map(|(stamp, _)| *stamp).collect();
            prop_assert_eq!(found(&pieces), expected);
        }
    }
}
