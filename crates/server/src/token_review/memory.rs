//! What is remembered of tokens: by their hash, for a short while, and of a bounded number. And from where came what
//! proved somebody.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::line::Standing;
use super::{Origin, Outcome};

/// SHA-256 of a token.
pub(super) type TokenHash = [u8; 32];

/// Proofs that are remembered: more than one server's clients.
const PROOFS: usize = 65_536;
/// Other outcomes that are remembered. They have a place of their own, so that whoever invents tokens displaces no proof.
const OTHERS: usize = 8_192;
/// How long a refusal counts: an account may be made just after its first token was shown.
const REFUSAL: Duration = Duration::from_secs(10);
/// How soon a question that nobody could answer is asked again.
const FAILURE: Duration = Duration::from_secs(1);
/// Origins that are remembered.
const ORIGINS: usize = 65_536;
/// For how long: clients come back after an API server was away for a night.
const ORIGIN: Duration = Duration::from_secs(24 * 3600);

/// The outcomes in force.
#[derive(Debug)]
pub(super) struct Memory {
    proofs: Shelf<TokenHash, Outcome>,
    others: Shelf<TokenHash, Outcome>,
    /// Those of which a token has proved somebody.
    origins: Shelf<Origin, ()>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { proofs: Shelf::new(PROOFS), others: Shelf::new(OTHERS), origins: Shelf::new(ORIGINS) }
    }
}

impl Memory {
    /// What is known of a token.
    pub(super) fn recall(&self, token: &TokenHash, now: Instant) -> Option<Outcome> {
        self.proofs.get(token, now).or_else(|| self.others.get(token, now)).cloned()
    }

    /// Remembers an outcome: a proof for as long as is said, everything else for a shorter while.
    pub(super) fn note(&mut self, token: TokenHash, outcome: Outcome, now: Instant, proof_kept: Duration) {
        match outcome {
            Outcome::Proved(_) => self.proofs.put(token, outcome, now, proof_kept),
            Outcome::Refused(_) => self.others.put(token, outcome, now, REFUSAL.min(proof_kept)),
            Outcome::Failed(_) => self.others.put(token, outcome, now, FAILURE),
        }
    }

    /// What is known of an origin.
    pub(super) fn standing(&self, origin: &Origin, now: Instant) -> Standing {
        match self.origins.get(origin, now) {
            Some(()) => Standing::Proved,
            None => Standing::Unknown,
        }
    }

    /// A token from there has proved somebody.
    pub(super) fn note_origin(&mut self, origin: Origin, now: Instant) {
        // One that comes again and again needs no more room than others.
        if self.origins.get(&origin, now + ORIGIN / 2).is_none() {
            self.origins.put(origin, (), now, ORIGIN);
        }
    }
}

/// So many values; when there are more, the one that was put there first makes room.
#[derive(Debug)]
struct Shelf<K, V> {
    most: usize,
    values: HashMap<K, (V, Instant)>,
    /// In the order in which they came. What came again is there twice.
    order: VecDeque<(K, Instant)>,
}

impl<K: Copy + Eq + Hash, V> Shelf<K, V> {
    fn new(most: usize) -> Self {
        Self { most, values: HashMap::new(), order: VecDeque::new() }
    }

    fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.values.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value)
    }

    fn put(&mut self, key: K, value: V, now: Instant, kept: Duration) {
        while let Some((oldest, until)) = self.order.front()
            && (*until <= now || self.order.len() >= self.most)
        {
            // It may have come again since.
            if self.values.get(oldest).is_some_and(|(_, newest)| newest == until) {
                self.values.remove(oldest);
            }
            self.order.pop_front();
        }
        let until = now + kept;
        self.values.insert(key, (value, until));
        self.order.push_back((key, until));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use identity::Workload;

    use super::super::Proved;
    use super::*;

    const KEPT: Duration = Duration::from_secs(60);

    fn proof() -> Outcome {
        Outcome::Proved(Arc::new(Proved { workload: Workload::new("shop", "front").unwrap(), pod: None }))
    }

    fn token(number: usize) -> TokenHash {
        let mut token = TokenHash::default();
        token[..8].copy_from_slice(&number.to_be_bytes());
        token
    }

    #[test]
    fn a_proof_counts_for_as_long_as_was_said_and_other_outcomes_for_less() {
        let (mut memory, begin) = (Memory::default(), Instant::now());
        memory.note(token(0), proof(), begin, KEPT);
        memory.note(token(1), Outcome::Refused("".into()), begin, KEPT);
        memory.note(token(2), Outcome::Failed("".into()), begin, KEPT);
        let known = |memory: &Memory, after: Duration| {
            [0, 1, 2].map(|number| memory.recall(&token(number), begin + after).is_some())
        };
        let almost = |time: Duration| time - Duration::from_millis(1);
        assert_eq!(known(&memory, almost(FAILURE)), [true, true, true]);
        assert_eq!(known(&memory, FAILURE), [true, true, false]);
        assert_eq!(known(&memory, almost(REFUSAL)), [true, true, false]);
        assert_eq!(known(&memory, REFUSAL), [true, false, false]);
        assert_eq!(known(&memory, almost(KEPT)), [true, false, false]);
        assert_eq!(known(&memory, KEPT), [false, false, false]);
    }

    #[test]
    fn a_token_that_comes_again_is_remembered_from_then_on() {
        let (mut memory, begin) = (Memory::default(), Instant::now());
        memory.note(token(0), proof(), begin, KEPT);
        memory.note(token(0), proof(), begin + KEPT / 2, KEPT);
        // What comes later clears what is over away, and not this.
        memory.note(token(1), proof(), begin + KEPT, KEPT);
        assert!(memory.recall(&token(0), begin + KEPT).is_some());
        assert!(memory.recall(&token(0), begin + KEPT + KEPT / 2).is_none());
    }

    #[test]
    fn however_many_tokens_are_invented_the_memory_is_bounded_and_proofs_stay() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        memory.note(token(0), proof(), now, KEPT);
        for number in 1..=3 * OTHERS {
            memory.note(token(number), Outcome::Refused("".into()), now, KEPT);
        }
        assert!(memory.others.values.len() <= OTHERS && memory.others.order.len() <= OTHERS);
        assert_eq!(memory.recall(&token(0), now), Some(proof()));
        assert!(memory.recall(&token(1), now).is_none(), "the oldest has made room");
        assert!(memory.recall(&token(3 * OTHERS), now).is_some());
        // The same token again and again needs no more room either.
        for _ in 0..2 * PROOFS {
            memory.note(token(0), proof(), now, KEPT);
        }
        assert!(memory.proofs.order.len() <= PROOFS);
        assert_eq!(memory.recall(&token(0), now), Some(proof()));
    }

    #[test]
    fn where_a_proof_came_from_is_remembered_and_its_clients_need_one_place() {
        let (mut memory, begin) = (Memory::default(), Instant::now());
        let (here, there) = (Origin::V6(1), Origin::V6(2));
        for second in 0..100 {
            memory.note_origin(here, begin + Duration::from_secs(second));
        }
        assert_eq!(memory.origins.order.len(), 1);
        assert_eq!(memory.standing(&there, begin), Standing::Unknown);
        assert_eq!(memory.standing(&here, begin + ORIGIN / 2), Standing::Proved);
        memory.note_origin(here, begin + ORIGIN / 2);
        assert_eq!(memory.standing(&here, begin + ORIGIN), Standing::Proved);
        assert_eq!(memory.standing(&here, begin + 2 * ORIGIN), Standing::Unknown);
    }
}
