//! Revisions that no run begins for by itself, although they are there.

use serde::{Deserialize, Serialize};

use crate::Revision;

/// So many are remembered; who keeps endpoints of more refused revisions at work has them tried again.
const KEPT: usize = 1_000;

/// Those that went back, that people turned away from, or that came while no other was to come. They stay what they are
/// while they are away and over restarts: the same revision is no better for having been gone. Somebody has to ask for
/// one. In no order that says anything; none is in it twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PassedOver(Vec<Revision>);

impl PassedOver {
    /// No run begins for this one any more.
    pub(super) fn add(&mut self, revision: &Revision) {
        if self.contains(revision) {
            return;
        }
        if self.0.len() >= KEPT {
            self.0.remove(0);
        }
        self.0.push(revision.clone());
    }

    /// Somebody asks for it.
    pub(super) fn forget(&mut self, revision: &Revision) {
        self.0.retain(|known| known != revision);
    }

    /// Whether it is one of them.
    pub fn contains(&self, revision: &Revision) -> bool {
        self.0.contains(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let mut passed_over = PassedOver::default();
        (0..=KEPT).for_each(|number| passed_over.add(&Revision::new(&format!("v{number}"))));
        passed_over.add(&Revision::new("v7"));
        assert!(!passed_over.contains(&Revision::new("v0")) && passed_over.contains(&Revision::new("v1")));
        assert_eq!(passed_over.0.len(), KEPT);
        passed_over.forget(&Revision::new("v7"));
        assert!(!passed_over.contains(&Revision::new("v7")));
    }
}
