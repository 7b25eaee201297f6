//! Sums that only grow, and what lies between two readings of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use load::{ClusterReport, Counts, Locality};
use rollout::Tally;

use crate::Stat;

/// What was counted of one cluster, request by request or as Envoy's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    stats: BTreeMap<Stat, u64>,
    /// How many answers took at least so many microseconds, and less than the next entry says.
    times: BTreeMap<u64, u64>,
}

impl Sums {
    /// Different counters that are kept of a cluster; there are no more status codes than this in honest traffic.
    pub const MOST_STATS: usize = 256;
    /// Different bounds of times.
    pub const MOST_TIMES: usize = 1024;

    /// One counter.
    pub fn get(&self, stat: Stat) -> u64 {
        self.stats.get(&stat).copied().unwrap_or_default()
    }

    /// All counters, in order.
    pub fn stats(&self) -> impl Iterator<Item = (Stat, u64)> {
        self.stats.iter().map(|(stat, count)| (*stat, *count))
    }

    /// Answers whose time is known, and those among them that surely took `limit_ms` or more. Those in a bucket that
    /// the limit lies within are not sure: see `docs/telemetry.md`.
    pub fn times(&self, limit_ms: u64) -> Tally {
        let all = self.times.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let slow = self.times.range(limit_ms.saturating_mul(1000)..).map(|(_, count)| *count);
        Tally::new(all, slow.fold(0, u64::saturating_add))
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.stats.is_empty() && self.times.is_empty()
    }

    /// Adds to one counter. What there is no room for is dropped.
    pub(crate) fn count(&mut self, stat: Stat, by: u64) {
        add(&mut self.stats, stat, by, Self::MOST_STATS);
    }

    /// Adds answers that took at least so many microseconds.
    pub(crate) fn time(&mut self, micros: u64, by: u64) {
        add(&mut self.times, micros, by, Self::MOST_TIMES);
    }

    pub(crate) fn add(&mut self, other: &Sums) {
        other.stats.iter().for_each(|(stat, by)| self.count(*stat, *by));
        other.times.iter().for_each(|(micros, by)| self.time(*micros, *by));
    }

    /// What was added since these were `earlier`.
    pub(crate) fn since(&self, earlier: &Sums) -> Sums {
        Sums { stats: between(&self.stats, &earlier.stats), times: between(&self.times, &earlier.times) }
    }
}

/// What load reports say of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadSums {
    places: BTreeMap<Locality, Tally>,
    endpoints: BTreeMap<(Locality, Arc<str>), Tally>,
    dropped: u64,
}

impl LoadSums {
    /// Localities that are kept of a cluster.
    pub const MOST_PLACES: usize = 256;
    /// Endpoints that are kept of a cluster.
    pub const MOST_ENDPOINTS: usize = 1024;

    /// By locality.
    pub fn places(&self) -> impl Iterator<Item = (&Locality, Tally)> {
        self.places.iter().map(|(place, tally)| (place, *tally))
    }

    /// By endpoint, with the locality that it is in; empty unless clients were asked for it.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Locality, &Arc<str>, Tally)> {
        self.endpoints.iter().map(|((place, address), tally)| (place, address, *tally))
    }

    /// Requests that clients gave up by themselves, before there was an endpoint.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn add(&mut self, report: &ClusterReport) {
        self.dropped = self.dropped.saturating_add(report.dropped);
        for place in &report.localities {
            tally(&mut self.places, place.locality.clone(), &place.counts, Self::MOST_PLACES);
            for endpoint in &place.endpoints {
                let key = (place.locality.clone(), endpoint.address.clone());
                tally(&mut self.endpoints, key, &endpoint.counts, Self::MOST_ENDPOINTS);
            }
        }
    }

    pub(crate) fn since(&self, earlier: &LoadSums) -> LoadSums {
        LoadSums {
            places: tallies_between(&self.places, &earlier.places),
            endpoints: tallies_between(&self.endpoints, &earlier.endpoints),
            dropped: self.dropped.saturating_sub(earlier.dropped),
        }
    }
}

fn add<K: Ord>(map: &mut BTreeMap<K, u64>, key: K, by: u64, most: usize) {
    if by == 0 || (map.len() >= most && !map.contains_key(&key)) {
        return;
    }
    let count = map.entry(key).or_default();
    *count = count.saturating_add(by);
}

fn tally<K: Ord>(map: &mut BTreeMap<K, Tally>, key: K, counts: &Counts, most: usize) {
    if counts.ended() == 0 || (map.len() >= most && !map.contains_key(&key)) {
        return;
    }
    map.entry(key).or_default().add(Tally::new(counts.ended(), counts.errors));
}

fn between<K: Ord + Copy>(now: &BTreeMap<K, u64>, earlier: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let grown =
        now.iter().map(|(key, count)| (*key, count - earlier.get(key).copied().unwrap_or_default().min(*count)));
    grown.filter(|(_, count)| *count > 0).collect()
}

fn tallies_between<K: Ord + Clone>(now: &BTreeMap<K, Tally>, earlier: &BTreeMap<K, Tally>) -> BTreeMap<K, Tally> {
    let grown = now.iter().map(|(key, tally)| {
        let before = earlier.get(key).copied().unwrap_or_default();
        let since = Tally::new(tally.total.saturating_sub(before.total), tally.bad.saturating_sub(before.bad));
        (key.clone(), since)
    });
    grown.filter(|(_, tally)| tally.total > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_only_what_surely_is() {
        let mut sums = Sums::default();
        for (micros, count) in [(0, 10), (100_000, 5), (250_000, 3), (500_000, 1)] {
            sums.time(micros, count);
        }
        assert_eq!(sums.times(250), Tally::new(19, 4));
        assert_eq!(sums.times(300), Tally::new(19, 1), "three took from 250 to 500 ms: nobody knows on which side");
        assert_eq!(sums.times(501), Tally::new(19, 0));
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_the_rest_goes_on() {
        let mut sums = Sums::default();
        for code in 0..=u16::try_from(Sums::MOST_STATS).unwrap_or(u16::MAX) {
            sums.count(Stat::Code(code), 1);
        }
        sums.count(Stat::Code(0), 1);
        assert_eq!(sums.stats().count(), Sums::MOST_STATS);
        assert_eq!(sums.get(Stat::Code(0)), 2);
    }

    #[test]
    fn a_reading_is_what_was_added_since_the_one_before() {
        let mut sums = Sums::default();
        sums.count(Stat::Answered, 7);
        sums.time(5_000, 2);
        let before = sums.clone();
        sums.count(Stat::Answered, 3);
        sums.count(Stat::Failed, 1);
        let since = sums.since(&before);
        assert_eq!((since.get(Stat::Answered), since.get(Stat::Failed), since.times(0).total), (3, 1, 0));
        assert!(sums.since(&sums).is_empty());
    }
}
