//! What an update changes, by name.

use std::collections::BTreeSet;

use compile::{Turn, Update};
use proto::ResourceType;
use snapshot::Name;

use crate::journal::NAMES;
use crate::view;

/// Changes of so many assignments are looked at name by name; of more, everybody is told.
const NAMES_LOOKED_AT: usize = 64;

/// Names of resources that an update changes.
pub(super) struct Changed<'u> {
    /// At most [`NAMES`].
    found: BTreeSet<(ResourceType, &'u Name)>,
    /// Whether there may be others.
    pub(super) has_more: bool,
}

impl<'u> Changed<'u> {
    /// Costs what differs, but for what is too much to name.
    pub(super) fn by(update: &'u Update) -> Self {
        let of_turn = |turn: &'u Turn| {
            let of_type = |of: ResourceType| turn.new.changed_names(&turn.old, of).map(move |name| (of, name));
            ResourceType::ALL.into_iter().flat_map(of_type)
        };
        let mut found = BTreeSet::new();
        for name in update.turns.iter().flat_map(of_turn) {
            found.insert(name);
            if found.len() > NAMES {
                found.pop_last();
                return Self { found, has_more: true };
            }
        }
        Self { found, has_more: !update.restacked.is_empty() }
    }

    /// As the API says them.
    pub(super) fn names(&self) -> Vec<view::ResourceName> {
        let named = |(of, name): &(ResourceType, &Name)| view::ResourceName {
            r#type: of.short().to_owned(),
            name: name.to_string(),
        };
        self.found.iter().map(named).collect()
    }

    /// The names, if nothing but assignments of endpoints has changed, and few of them.
    pub(super) fn endpoints(&self) -> Option<impl Iterator<Item = &'u str>> {
        let is_of_few = !self.has_more && self.found.len() <= NAMES_LOOKED_AT;
        let is_of_endpoints = || self.found.iter().all(|(of, _)| *of == ResourceType::Endpoints);
        (is_of_few && is_of_endpoints()).then(|| self.found.iter().map(|(_, name)| &***name))
    }
}
