//! Whose requests can be compared.

use serde::{Deserialize, Serialize};
use world::api::delivery::Assignment;

use crate::Revision;

/// Who gets what, as far as it matters to whoever compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arms {
    /// Chance decides which requests candidate and stable get, or copies of all of them go to the candidate: both arms
    /// see the same kind of requests at the same time.
    #[default]
    Both,
    /// The candidate has everything: only stable's past is there to be compared with.
    Candidate,
    /// Only chosen requests reach the candidate, or copies of such: they are of another kind than stable's.
    Chosen,
}

impl Arms {
    /// What `assignment` makes of it.
    pub(crate) fn of(assignment: &Assignment, candidate: &Revision, stable: &Revision) -> Self {
        let is_split = !assignment.weight_of(candidate).is_zero();
        if is_split && assignment.weight_of(stable).is_zero() {
            return Arms::Candidate;
        }
        let chosen = assignment.routes.iter().any(|route| route.to == *candidate);
        let copies = assignment.mirror.as_ref().filter(|mirror| mirror.to == *candidate && !mirror.share.is_zero());
        let copies_all = copies.is_some_and(|mirror| mirror.matches.is_empty());
        match is_split || copies_all && !chosen {
            true => Arms::Both,
            false => Arms::Chosen,
        }
    }
}
