//! Which revisions of a service have been seen, in the order in which they came.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Endpoints;
use crate::{Revision, Time};

/// A revision that was away for so long and has endpoints again is a new deployment; before that it is a restart of
/// its endpoints. Rolling a pod takes seconds.
const AWAY: Duration = Duration::from_secs(30);

/// Revisions, the last that came last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    revision: Revision,
    /// Since when it has no endpoint.
    gone: Option<Time>,
}

impl Seen {
    /// Takes in what there is now. Revisions that come at the same time are ordered by name. The stable one keeps its
    /// place while it is away: what came before it has not come last for that.
    pub(super) fn look(&mut self, now: Time, endpoints: &BTreeMap<Revision, Endpoints>, stable: Option<&Revision>) {
        let has = |revision: &Revision| endpoints.get(revision).is_some_and(|found| found.total > 0);
        for entry in &mut self.0 {
            entry.gone = match (has(&entry.revision), entry.gone) {
                _ if Some(&entry.revision) == stable => None,
                // What comes back late is forgotten below, and comes as a new one.
                (true, Some(gone)) if now.since(gone) >= AWAY => Some(gone),
                (true, _) => None,
                (false, gone) => gone.or(Some(now)),
            };
        }
        self.0.retain(|entry| entry.gone.is_none_or(|gone| now.since(gone) < AWAY));
        for revision in endpoints.keys().filter(|revision| has(revision)) {
            if self.0.iter().all(|entry| entry.revision != *revision) {
                self.0.push(Entry { revision: revision.clone(), gone: None });
            }
        }
    }

    /// When a revision that is away is forgotten.
    pub(super) fn due(&self) -> Option<Time> {
        self.0.iter().filter_map(|entry| Some(entry.gone?.plus(AWAY))).min()
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Revision> {
        self.0.iter().map(|entry| &entry.revision)
    }

    /// The one that came last.
    pub(super) fn newest(&self) -> Option<&Revision> {
        self.0.last().map(|entry| &entry.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(names: &[&str]) -> BTreeMap<Revision, Endpoints> {
        names.iter().map(|name| (Revision::new(name), Endpoints { healthy: 1, total: 1 })).collect()
    }

    #[test]
    fn what_is_back_soon_has_not_come_anew_and_what_is_back_late_has() {
        let (mut seen, at) = (Seen::default(), |seconds: u64| Time::from_millis(seconds * 1_000));
        seen.look(at(0), &there(&["v1"]), None);
        seen.look(at(1), &there(&["v1", "v2"]), None);
        seen.look(at(2), &there(&["v2"]), None);
        seen.look(at(20), &there(&["v1", "v2"]), None);
        assert_eq!(seen.newest(), Some(&Revision::new("v2")));
        assert_eq!(seen.due(), None);
        seen.look(at(30), &there(&["v2"]), None);
        assert_eq!(seen.due(), Some(at(60)));
        // Nobody looked in between.
        seen.look(at(90), &there(&["v1", "v2"]), None);
        assert_eq!(seen.newest(), Some(&Revision::new("v1")));
    }

    #[test]
    fn what_came_before_the_stable_one_has_not_come_last_when_that_is_away() {
        let (mut seen, stable) = (Seen::default(), Revision::new("v2"));
        let at = |seconds: u64| Time::from_millis(seconds * 1_000);
        seen.look(at(0), &there(&["v1", "v2"]), Some(&stable));
        seen.look(at(1), &there(&["v1"]), Some(&stable));
        seen.look(at(100), &there(&["v1"]), Some(&stable));
        assert_eq!((seen.newest(), seen.due()), (Some(&stable), None));
        // Another one is stable now.
        seen.look(at(101), &there(&["v1"]), Some(&Revision::new("v1")));
        assert_eq!(seen.due(), Some(at(131)));
    }
}
