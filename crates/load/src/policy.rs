//! What is asked of clients that report load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What is wanted, by whoever wants it: a standing interval for all clusters, and any number of focuses on some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How often all clusters are reported; `None` when only the focuses count.
    pub interval: Option<Duration>,
    /// Whether every report breaks its numbers down to endpoints.
    pub endpoints: bool,
    focuses: BTreeMap<Arc<str>, Focus>,
}

/// A closer look at some clusters for a while, such as for the length of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Focus {
    /// The clusters that must be reported.
    pub clusters: BTreeSet<Arc<str>>,
    /// How often.
    pub interval: Duration,
    /// Whether the numbers are broken down to endpoints.
    pub endpoints: bool,
}

/// What one client is to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which clusters.
    pub clusters: Clusters,
    /// How often; at least [`Ask::SHORTEST`].
    pub interval: Duration,
    /// Whether the numbers are broken down to endpoints.
    pub endpoints: bool,
}

/// The clusters of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clusters {
    /// None: the client stays quiet.
    None,
    /// These, whether the client has them or not.
    Named(Arc<BTreeSet<Arc<str>>>),
    /// All that the client has.
    All,
}

impl Ask {
    /// No shorter interval is asked for: a report costs both ends more than it tells.
    pub const SHORTEST: Duration = Duration::from_millis(100);
    /// The interval that a client is given while it is asked nothing.
    const RESTING: Duration = Duration::from_secs(60);
}

impl Policy {
    /// All clusters at this interval.
    pub fn every(interval: Duration) -> Self {
        Self { interval: Some(interval), ..Self::default() }
    }

    /// Begins or changes the focus of `owner`.
    pub fn set_focus(&mut self, owner: Arc<str>, focus: Focus) {
        self.focuses.insert(owner, focus);
    }

    /// Ends the focus of `owner`, if it has one.
    pub fn end_focus(&mut self, owner: &str) {
        self.focuses.remove(owner);
    }

    /// The focuses by owner.
    pub fn focuses(&self) -> impl Iterator<Item = (&Arc<str>, &Focus)> {
        self.focuses.iter()
    }

    /// What clients are to report so that everybody who asks is served: the shortest interval of all, all clusters if
    /// somebody wants all. The protocol has one interval for a whole stream, so nobody gets fewer reports than asked.
    pub fn ask(&self) -> Ask {
        let intervals = self.focuses.values().map(|focus| focus.interval).chain(self.interval);
        let interval = intervals.min().map_or(Ask::RESTING, |interval| interval.max(Ask::SHORTEST));
        let clusters = match self.interval {
            Some(_) => Clusters::All,
            None if self.focuses.values().all(|focus| focus.clusters.is_empty()) => Clusters::None,
            None => {
                let names = self.focuses.values().flat_map(|focus| focus.clusters.iter().cloned());
                Clusters::Named(Arc::new(names.collect()))
            }
        };
        let endpoints = self.endpoints || self.focuses.values().any(|focus| focus.endpoints);
        Ask { clusters, interval, endpoints }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn focus(clusters: &[&str], seconds: u64) -> Focus {
        let clusters = clusters.iter().map(|&name| name.into()).collect();
        Focus { clusters, interval: Duration::from_secs(seconds), endpoints: false }
    }

    #[test]
    fn nobody_is_asked_anything_by_default() {
        assert_eq!(Policy::default().ask().clusters, Clusters::None);
    }

    #[test]
    fn the_shortest_interval_and_the_widest_set_of_clusters_serve_all_who_ask() {
        let mut policy = Policy::default();
        policy.set_focus("a".into(), focus(&["x", "y"], 5));
        policy.set_focus("b".into(), focus(&["y", "z"], 1));
        let names = ["x", "y", "z"].into_iter().map(Arc::from).collect();
        let expected =
            Ask { clusters: Clusters::Named(Arc::new(names)), interval: Duration::from_secs(1), endpoints: false };
        assert_eq!(policy.ask(), expected);
        policy.interval = Some(Duration::from_secs(30));
        assert_eq!(policy.ask(), Ask { clusters: Clusters::All, ..expected });
        policy.end_focus("b");
        policy.end_focus("a");
        assert_eq!(policy.ask().interval, Duration::from_secs(30));
    }

    #[test]
    fn an_interval_of_nothing_is_raised_to_the_shortest() {
        assert_eq!(Policy::every(Duration::ZERO).ask().interval, Ask::SHORTEST);
    }
}
