//! Whom a change of endpoints concerns.
//!
//! Endpoints change far more often than anything else, and each change concerns the few streams that ask for that very
//! assignment. To wake the thousands of others would cost more than everything else about such a change. So each stream
//! says what it asks for, as a signature: for each name two of 2,048 bits. All signatures together are a table with a row
//! for each bit and a column for each stream; the streams that may ask for a name are where two rows have ones. Now and
//! then a stream is woken for nothing (a false positive); none is ever left out.

use std::collections::BTreeSet;

use compile::AudienceId;
use xxhash_rust::xxh3::xxh3_64;

/// Bits of a signature.
const BITS: usize = 2048;
/// With so many names so many bits are set that the signature would leave out next to nobody.
const MOST_NAMES: usize = 1024;
/// Bits of a word.
const WORD: usize = u64::BITS as usize;

/// What a stream asks for among assignments of endpoints.
#[derive(Debug)]
pub(crate) enum Interest {
    /// Any of them.
    All,
    /// Some names.
    Names(Signature),
}

/// Stands for a set of names.
#[derive(Debug)]
pub(crate) struct Signature(Box<[u64; BITS / WORD]>);

impl Interest {
    /// Of a stream that asks for these names, and no others.
    pub(crate) fn of<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> Self {
        if names.len() > MOST_NAMES {
            return Interest::All;
        }
        let mut signature = Signature(Box::new([0; BITS / WORD]));
        for bit in names.flat_map(bits) {
            signature.0[bit / WORD] |= 1 << (bit % WORD);
        }
        Interest::Names(signature)
    }
}

fn bits(name: &str) -> [usize; 2] {
    let hash = xxh3_64(name.as_bytes()) as usize;
    [hash % BITS, hash / BITS % BITS]
}

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column(usize);

/// The table.
#[derive(Debug, Default)]
pub(super) struct Interests {
    /// Row by row, `stride` words each.
    rows: Vec<u64>,
    stride: usize,
    /// The columns of streams that are concerned by everything.
    all: Vec<u64>,
    audiences: Vec<Option<AudienceId>>,
    free: Vec<usize>,
}

impl Interests {
    /// A stream of this audience, which is concerned by everything until it says otherwise.
    pub(super) fn enter(&mut self, audience: AudienceId) -> Column {
        let column = self.free.pop().unwrap_or_else(|| {
            self.audiences.push(None);
            self.audiences.len() - 1
        });
        if column >= self.stride * WORD {
            self.widen();
        }
        self.audiences[column] = Some(audience);
        self.all[column / WORD] |= 1 << (column % WORD);
        Column(column)
    }

    /// Makes room for twice as many columns.
    fn widen(&mut self) {
        let stride = (self.stride * 2).max(1);
        let mut rows = vec![0; BITS * stride];
        if self.stride > 0 {
            for (new, old) in rows.chunks_exact_mut(stride).zip(self.rows.chunks_exact(self.stride)) {
                new[..self.stride].copy_from_slice(old);
            }
        }
        self.all.resize(stride, 0);
        (self.rows, self.stride) = (rows, stride);
    }

    /// The stream belongs to another audience now.
    pub(super) fn move_to(&mut self, Column(column): Column, audience: AudienceId) {
        self.audiences[column] = Some(audience);
    }

    /// The stream says what it asks for.
    pub(super) fn set(&mut self, Column(column): Column, interest: &Interest) {
        let (word, bit) = (column / WORD, 1 << (column % WORD));
        match interest {
            Interest::All => self.all[word] |= bit,
            Interest::Names(signature) => {
                self.all[word] &= !bit;
                for (row, words) in self.rows.chunks_exact_mut(self.stride).enumerate() {
                    if signature.0[row / WORD] >> (row % WORD) & 1 == 1 {
                        words[word] |= bit;
                    } else {
                        words[word] &= !bit;
                    }
                }
            }
        }
    }

    /// The stream is gone.
    pub(super) fn leave(&mut self, Column(column): Column) {
        self.audiences[column] = None;
        self.free.push(column);
    }

    /// The audiences of all streams that may ask for one of these names.
    pub(super) fn concerned<'n>(&self, names: impl Iterator<Item = &'n str>) -> BTreeSet<AudienceId> {
        let mut columns = self.all.clone();
        for name in names {
            let [first, second] = bits(name).map(|bit| &self.rows[bit * self.stride..][..self.stride]);
            for ((column, first), second) in columns.iter_mut().zip(first).zip(second) {
                *column |= first & second;
            }
        }
        let set = columns.iter().enumerate().filter(|(_, word)| **word != 0);
        let of_word = set
            .flat_map(|(at, word)| (0..WORD).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * WORD + bit));
        of_word.filter_map(|column| *self.audiences.get(column)?).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use compile::{Audience, Compiler, HostDelivery, Interception, Options, Proxy};
    use world::{Settings, World};

    use super::*;

    /// So many audiences.
    fn audiences(count: u8) -> Vec<AudienceId> {
        let world = World::new(Settings::default());
        let mut compiler = Compiler::new(Options::default());
        let audience = |at: u8| Audience {
            proxy: Proxy::Sidecar { interception: Interception::None, http_proxy_port: None },
            namespace: "default".into(),
            labels: Default::default(),
            addresses: vec![[10, 0, 0, at].into()],
            hosts: HostDelivery::Inline,
            lacks: Default::default(),
            secrets: Default::default(),
            control_plane: None,
        };
        (0..count).map(|at| compiler.add(&world, &audience(at)).0).collect()
    }

    fn names(from: usize) -> Vec<String> {
        (from..from + 20).map(|at| format!("outbound|80||service-{at}.default.svc.cluster.local")).collect()
    }

    fn interest(names: &[String]) -> Interest {
        Interest::of(names.iter().map(String::as_str))
    }

    #[test]
    fn whoever_asks_for_a_name_is_found_and_few_others() {
        let audiences = audiences(200);
        let mut interests = Interests::default();
        for (at, audience) in audiences.iter().enumerate() {
            let column = interests.enter(*audience);
            interests.set(column, &interest(&names(at * 20)));
        }
        let mut in_vain = 0;
        for (at, audience) in audiences.iter().enumerate() {
            for name in names(at * 20) {
                let found = interests.concerned([&*name].into_iter());
                assert!(found.contains(audience), "{name}");
                in_vain += found.len() - 1;
            }
        }
        // Each has 40 of 2,048 bits, so one in 2,600 is found by accident: about 300 of 796,000.
        assert!(in_vain < 1_000, "{in_vain} were found by accident");
        let both = interests.concerned([&*names(0)[0], &*names(40)[0]].into_iter());
        assert!(both.contains(&audiences[0]) && both.contains(&audiences[2]));
    }

    #[test]
    fn a_stream_is_concerned_by_everything_until_it_says_otherwise_and_by_nothing_once_it_is_gone() {
        let audiences = audiences(3);
        let mut interests = Interests::default();
        let columns: Vec<_> = audiences.iter().map(|audience| interests.enter(*audience)).collect();
        let name = "outbound|80||a.default.svc.cluster.local";
        let find = |interests: &Interests| interests.concerned([name].into_iter()).into_iter().collect::<Vec<_>>();
        assert_eq!(find(&interests), audiences);
        interests.set(columns[0], &interest(&[]));
        interests.set(columns[1], &interest(&[name.to_owned()]));
        assert_eq!(find(&interests), audiences[1..]);
        interests.set(columns[1], &interest(&["another".to_owned()]));
        interests.set(columns[0], &Interest::All);
        assert_eq!(find(&interests), [audiences[0], audiences[2]]);
        interests.move_to(columns[0], audiences[1]);
        interests.leave(columns[2]);
        assert_eq!(find(&interests), [audiences[1]]);
        let again = interests.enter(audiences[2]);
        assert_eq!(again, columns[2], "room is used again");
        assert_eq!(find(&interests), audiences[1..], "and nothing is left of who was there");
    }

    #[test]
    fn too_many_names_are_as_good_as_all() {
        let many: Vec<_> = (0..=MOST_NAMES).map(|at| at.to_string()).collect();
        assert!(matches!(interest(&many), Interest::All));
        assert!(matches!(interest(&many[1..]), Interest::Names(_)));
    }
}
