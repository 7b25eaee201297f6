//! When which key set is asked for. Knows no clock and no network.
//!
//! ```text
//!  wanted ──▶ due ──▶ asked ──▶ answered ──▶ due again after a while
//!              ▲                   │
//!              └── 1 s, 2 s, … ────┘ failed
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use world::{Fetched, KeySet, KeySource};

use super::Wanted;

/// How soon a set that could not be had is asked for again; doubled each time.
const AGAIN: Duration = Duration::from_secs(1);
/// At most.
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);

/// The sets that are wanted.
#[derive(Debug)]
pub(super) struct Schedule {
    refresh: Duration,
    entries: BTreeMap<KeySource, Entry>,
}

#[derive(Debug)]
struct Entry {
    patience: Duration,
    /// When it is asked for next; `None` while it is asked for.
    due: Option<Instant>,
    /// How often it could not be had since it could.
    failures: u32,
    known: Fetched,
}

/// How many sets there are of each standing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySetCounts {
    /// Fetched, and the last attempt succeeded.
    pub(crate) fresh: usize,
    /// Fetched, but the last attempt failed.
    pub(crate) stale: usize,
    /// Never fetched.
    pub(crate) missing: usize,
}

impl Schedule {
    /// Nothing is wanted; what will be is to be fetched again every `refresh`.
    pub(super) fn new(refresh: Duration) -> Self {
        Self { refresh, entries: BTreeMap::new() }
    }

    /// These are wanted and no others. New ones are due at once. Returns those that are no longer wanted.
    pub(super) fn want(&mut self, wanted: &Wanted, now: Instant) -> Vec<KeySource> {
        let mut dropped = Vec::new();
        self.entries.retain(|source, _| {
            let is_wanted = wanted.contains_key(source);
            if !is_wanted {
                dropped.push(source.clone());
            }
            is_wanted
        });
        for (source, patience) in wanted {
            let new = || Entry { patience: *patience, due: Some(now), failures: 0, known: Fetched::default() };
            self.entries.entry(source.clone()).or_insert_with(new).patience = *patience;
        }
        dropped
    }

    /// When the next is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    /// One that is due, with how long it may take; it counts as asked for from now on.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(KeySource, Duration)> {
        let is_due = |(_, entry): &(&KeySource, &mut Entry)| entry.due.is_some_and(|due| due <= now);
        let (source, entry) = self.entries.iter_mut().filter(is_due).min_by_key(|(_, entry)| entry.due)?;
        entry.due = None;
        Some((source.clone(), entry.patience))
    }

    /// An answer has come. Returns what is known now, if that is another than before.
    pub(super) fn answered(
        &mut self,
        source: &KeySource,
        answer: Result<KeySet, String>,
        now: Instant,
    ) -> Option<Fetched> {
        let entry = self.entries.get_mut(source)?;
        let before = entry.known.clone();
        match answer {
            Ok(keys) => {
                entry.failures = 0;
                entry.due = Some(now + self.refresh);
                entry.known = Fetched { keys: Some(Arc::new(keys)), failure: None };
            }
            Err(why) => {
                entry.due = Some(now + AGAIN.saturating_mul(1 << entry.failures.min(16)).min(AGAIN_AT_MOST));
                entry.failures += 1;
                entry.known.failure = Some(why.into());
            }
        }
        (entry.known != before).then(|| entry.known.clone())
    }

    /// How many there are of each standing.
    pub(super) fn standing(&self) -> KeySetCounts {
        let mut counts = KeySetCounts::default();
        for entry in self.entries.values() {
            match (&entry.known.keys, &entry.known.failure) {
                (Some(_), None) => counts.fresh += 1,
                (Some(_), Some(_)) => counts.stale += 1,
                (None, _) => counts.missing += 1,
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const REFRESH: Duration = Duration::from_secs(1200);
    const SECOND: Duration = Duration::from_secs(1);

    fn uri(name: &str) -> KeySource {
        KeySource::Uri(format!("http://{name}.test/keys").into())
    }

    fn wanted(names: &[&str]) -> Wanted {
        names.iter().map(|name| (uri(name), 5 * SECOND)).collect()
    }

    fn keys(n: &str) -> KeySet {
        KeySet::parse(&format!(r#"{{"keys":[{{"kty":"RSA","e":"AQAB","n":"{n}"}}]}}"#)).unwrap()
    }

    #[test]
    fn what_is_wanted_is_asked_for_once_and_again_after_a_while() {
        let now = Instant::now();
        let mut schedule = Schedule::new(REFRESH);
        schedule.want(&wanted(&["a"]), now);
        assert_eq!(schedule.take_due(now), Some((uri("a"), 5 * SECOND)));
        assert_eq!((schedule.due(), schedule.take_due(now)), (None, None));
        let fetched = schedule.answered(&uri("a"), Ok(keys("AQ")), now).unwrap();
        assert_eq!(fetched.keys.unwrap().as_json(), keys("AQ").as_json());
        assert_eq!(schedule.due(), Some(now + REFRESH));
        schedule.take_due(now + REFRESH).unwrap();
        assert_eq!(schedule.answered(&uri("a"), Ok(keys("AQ")), now), None, "nothing is new");
    }

    #[test]
    fn after_failures_it_is_asked_for_ever_more_seldom_and_the_last_keys_stay() {
        let now = Instant::now();
        let mut schedule = Schedule::new(REFRESH);
        schedule.want(&wanted(&["a"]), now);
        schedule.take_due(now).unwrap();
        schedule.answered(&uri("a"), Ok(keys("AQ")), now).unwrap();
        for (times, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (60, 60)] {
            let entry = schedule.entries.get_mut(&uri("a")).unwrap();
            entry.failures = times - 1;
            schedule.answered(&uri("a"), Err("no".to_owned()), now);
            assert_eq!(schedule.due(), Some(now + seconds * SECOND), "after {times}");
        }
        let known = &schedule.entries[&uri("a")].known;
        assert!(known.keys.is_some() && known.failure.is_some());
        assert_eq!(schedule.standing(), KeySetCounts { stale: 1, ..KeySetCounts::default() });
        assert!(schedule.answered(&uri("a"), Ok(keys("AQ")), now).unwrap().failure.is_none());
    }

    #[test]
    fn what_is_no_longer_wanted_is_dropped_and_its_late_answer_is_nothing() {
        let now = Instant::now();
        let mut schedule = Schedule::new(REFRESH);
        schedule.want(&wanted(&["a", "b"]), now);
        schedule.take_due(now).unwrap();
        assert_eq!(schedule.want(&wanted(&["b"]), now), [uri("a")]);
        assert_eq!(schedule.answered(&uri("a"), Ok(keys("AQ")), now), None);
        assert_eq!(schedule.take_due(now).unwrap().0, uri("b"));
    }
}
