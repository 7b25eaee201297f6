//! Counts are judged in blocks: tiny ones waste evidence, because a block with one arm empty says nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Part, Tally};
use crate::Time;

/// A block is full with so many requests in both arms together.
const REQUESTS: u64 = 100;
/// And after so long: what one client flushes once a second is one block, however often it is looked at.
const LEAST: Duration = Duration::from_millis(900);
/// Or after so long.
const SPAN: Duration = Duration::from_secs(30);

/// What has been counted since the last block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Block {
    pub(super) from: Time,
    pub(super) until: Time,
    pub(super) candidate: Tally,
    pub(super) stable: Tally,
    pub(super) parts: Vec<Part>,
    is_open: bool,
}

impl Block {
    /// Adds counts, and hands out the block if it is full.
    pub(super) fn add(
        &mut self,
        (from, until): (Time, Time),
        candidate: Tally,
        stable: Tally,
        parts: &[Part],
    ) -> Option<Block> {
        if !self.is_open {
            *self = Self { from, is_open: true, ..Self::default() };
        }
        self.until = until;
        self.candidate.add(candidate);
        self.stable.add(stable);
        for part in parts {
            match self.parts.iter_mut().find(|known| known.endpoint == part.endpoint) {
                Some(known) => known.tally.add(part.tally),
                None => self.parts.push(*part),
            }
        }
        let total = self.candidate.total.saturating_add(self.stable.total);
        let span = until.since(self.from);
        (total >= REQUESTS && span >= LEAST || span >= SPAN).then(|| std::mem::take(self))
    }
}
