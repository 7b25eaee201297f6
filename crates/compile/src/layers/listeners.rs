//! Listeners that several services share, put together from what each of them wants.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proto::ResourceType;
use snapshot::{Edit, Name};
use world::{Problem, World};

use super::LayerKey;
use super::output::Output;
use super::unit::Unit;
use crate::Options;
use crate::listener::{self, Contribution, Key, OutboundInput};

/// The contributions of all units, by listener.
#[derive(Debug)]
pub(super) struct ListenerTable {
    key: LayerKey,
    options: Options,
    wanted: BTreeMap<Key, BTreeMap<Unit, Share>>,
    /// The listeners that each unit has a share in.
    of_unit: HashMap<Unit, Box<[Key]>>,
    stale: BTreeSet<Key>,
}

/// What one unit wants of one listener.
#[derive(Debug, PartialEq)]
struct Share {
    contributions: Box<[Contribution]>,
    /// Generations of the objects that they came from: another one changes where the listener comes from, even if it
    /// says the same.
    generations: Box<[i64]>,
}

impl Share {
    fn new(world: &World, contributions: Vec<Contribution>) -> Self {
        let origins = contributions.iter().flat_map(|contribution| {
            let of_chains = contribution.chains.iter().flat_map(|chain| &chain.origins);
            of_chains.chain([&contribution.origin])
        });
        let generations = origins.map(|origin| world.generation(origin)).collect();
        Self { contributions: contributions.into(), generations }
    }
}

impl ListenerTable {
    pub(super) fn new(key: LayerKey, options: Options) -> Self {
        Self { key, options, wanted: BTreeMap::new(), of_unit: HashMap::new(), stale: BTreeSet::new() }
    }

    /// Takes what a unit wants now, in place of what it wanted before.
    pub(super) fn set(&mut self, world: &World, unit: Unit, contributions: Vec<Contribution>) {
        let before = self.of_unit.remove(&unit).unwrap_or_default();
        if before.is_empty() && contributions.is_empty() {
            return;
        }
        let mut by_key: BTreeMap<Key, Vec<Contribution>> = BTreeMap::new();
        for contribution in contributions {
            by_key.entry(contribution.key.clone()).or_default().push(contribution);
        }
        let now: Box<[Key]> = by_key.keys().cloned().collect();
        for gone in before.iter().filter(|key| !by_key.contains_key(key)) {
            if let Some(units) = self.wanted.get_mut(gone) {
                units.remove(&unit);
            }
            self.stale.insert(gone.clone());
        }
        for (key, contributions) in by_key {
            let share = Share::new(world, contributions);
            let units = self.wanted.entry(key.clone()).or_default();
            if units.get(&unit) != Some(&share) {
                units.insert(unit.clone(), share);
                self.stale.insert(key);
            }
        }
        if !now.is_empty() {
            self.of_unit.insert(unit, now);
        }
    }

    /// Takes what a unit wanted out.
    pub(super) fn drop(&mut self, unit: &Unit) {
        for gone in self.of_unit.remove(unit).unwrap_or_default() {
            if let Some(units) = self.wanted.get_mut(&gone) {
                units.remove(unit);
            }
            self.stale.insert(gone);
        }
    }

    /// Builds what is stale, reports its problems under the listener's name, and returns how many were encoded.
    pub(super) fn finish(
        &mut self,
        world: &World,
        edit: &mut Edit,
        mut report: impl FnMut(Name, Vec<Problem>),
    ) -> usize {
        let mut encoded = 0;
        for key in std::mem::take(&mut self.stale) {
            let name = key.name();
            let shares = self.wanted.get(&key).into_iter().flat_map(|units| units.values());
            let contributions: Vec<_> = shares.flat_map(|share| &share.contributions).collect();
            if contributions.is_empty() {
                self.wanted.remove(&key);
                edit.remove(ResourceType::Listener, &name);
                report(name, Vec::new());
                continue;
            }
            let audience = &self.key.audience;
            let input = OutboundInput {
                audience,
                key,
                contributions: &contributions,
                options: &self.options,
                access_log: None,
            };
            let mut output = Output::default();
            let routes = contributions.iter().filter_map(|c| c.http_route.clone());
            let routes: BTreeSet<_> = routes.map(|name| (ResourceType::Route, name)).collect();
            output.add_listener(listener::outbound(&input), routes);
            let mut problems = output.problems;
            problems.sort();
            problems.dedup();
            encoded += output.cells.len();
            output.cells.into_iter().for_each(|made| edit.set(made.stamped(world)));
            report(name, problems);
        }
        encoded
    }
}
