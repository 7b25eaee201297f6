//! The last endpoints of revisions that rollouts send requests to.
//!
//! When they are gone, routes lead elsewhere in the same publication, and a client that would lose the endpoints before
//! its routes have changed would answer requests with errors. So the revision's cluster keeps the endpoints that it had
//! until every client has settled that publication ([`Waits`]), or until there are others. Endpoints may be gone
//! because they are dead, so nobody is waited for for long.
//!
//! Kept is only what an assignment in force sends requests to, or did until just now, and only while another revision is
//! there to take them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use world::{Exposed, Hostname, Key, ObjectRef, Place, World};

use crate::waits::{Missing, Wait, Waits};
use crate::{MemberId, Patience};

/// A client that has not answered for so long is not worth more failures of others; and worker threads of one that has
/// answered use its new routes within milliseconds.
const PATIENCE: Patience = Patience { longest: Duration::from_secs(2), quiet: Duration::from_millis(200) };

/// The books.
#[derive(Debug)]
pub(crate) struct Exposure {
    /// What rollouts divide requests between, as it was looked at last.
    known: BTreeMap<Hostname, BTreeMap<Place, Exposed>>,
    kept: BTreeMap<Place, Kept>,
    /// Who is waited for.
    pub(crate) waits: Waits,
}

/// Endpoints that are kept.
#[derive(Clone, Debug)]
struct Kept {
    service: ObjectRef,
    count: usize,
    /// The generation whose routes do not lead there.
    generation: u64,
}

/// The endpoints of one place that are kept.
#[derive(Clone, Debug)]
pub(crate) struct KeptEntry<'a> {
    pub(crate) place: &'a Place,
    pub(crate) service: &'a ObjectRef,
    pub(crate) count: usize,
    pub(crate) generation: u64,
    pub(crate) wait: &'a Wait,
}

impl Default for Exposure {
    fn default() -> Self {
        Self { known: BTreeMap::new(), kept: BTreeMap::new(), waits: Waits::new(PATIENCE) }
    }
}

impl Exposure {
    /// Looks at what was touched, and keeps in the world what clients may still send requests to; `is_settled` tells
    /// whether every client does what it was told last. Returns whether anything is kept from this generation on, which
    /// then needs [`Exposure::wait_for`].
    pub(crate) fn look(
        &mut self,
        world: &mut World,
        touched: &BTreeSet<Key>,
        generation: u64,
        is_settled: &dyn Fn() -> bool,
    ) -> bool {
        let mut has_kept = false;
        for host in touched.iter().filter_map(host).collect::<BTreeSet<_>>() {
            let now = world.exposed(host);
            let before = self.known.remove(host).unwrap_or_default();
            for (place, before) in before.into_iter().filter(|(_, before)| !before.endpoints.is_empty()) {
                let Some(lost) = now.get(&place).filter(|_| has_lost(&now, &place)) else { continue };
                if before.is_reached || lost.is_reached || !is_settled() {
                    has_kept = true;
                    self.keep(world, place, before, generation);
                }
            }
            let is_back = |place: &Place| now.get(place).is_some_and(|now| !now.endpoints.is_empty());
            let back: Vec<_> = self.kept.keys().filter(|place| is_back(place)).cloned().collect();
            for place in back {
                self.kept.remove(&place);
                world.let_go(&place);
            }
            if !now.is_empty() {
                self.known.insert(host.clone(), now);
            }
        }
        self.tidy();
        has_kept
    }

    fn keep(&mut self, world: &mut World, place: Place, before: Exposed, generation: u64) {
        let Exposed { service, endpoints, .. } = before;
        self.kept.insert(place.clone(), Kept { service, count: endpoints.len(), generation });
        world.keep(place, endpoints);
    }

    /// What is kept since this generation waits for these members.
    pub(crate) fn wait_for(
        &mut self,
        generation: u64,
        now: Instant,
        missing: impl IntoIterator<Item = (MemberId, Missing)>,
    ) {
        self.waits.begin(generation, now, missing);
        self.tidy();
    }

    /// Keeps nothing any more that was lost at these generations. Returns what to compile for.
    pub(crate) fn lift(&mut self, world: &mut World, generations: &BTreeSet<u64>) -> BTreeSet<Key> {
        let over = self.kept.iter().filter(|(_, kept)| generations.contains(&kept.generation));
        let places: Vec<_> = over.map(|(place, _)| place.clone()).collect();
        let touched = places.iter().map(|place| {
            self.kept.remove(place);
            world.let_go(place)
        });
        let touched = touched.collect();
        self.tidy();
        touched
    }

    fn tidy(&mut self) {
        self.waits.retain(&self.kept.values().map(|kept| kept.generation).collect());
    }

    /// Everything that is kept, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = KeptEntry<'_>> {
        self.kept.iter().filter_map(|(place, kept)| {
            let Kept { service, count, generation } = kept;
            let wait = self.waits.get(*generation)?;
            Some(KeptEntry { place, service, count: *count, generation: *generation, wait })
        })
    }
}

/// The host that a key is about, if its exposure may be another than before.
fn host(key: &Key) -> Option<&Hostname> {
    match key {
        Key::Endpoints(host) | Key::Splits(host) | Key::Service(host) => Some(host),
        _ => None,
    }
}

/// Whether nobody is there any more, while others are behind the same port.
fn has_lost(now: &BTreeMap<Place, Exposed>, place: &Place) -> bool {
    let is_empty = now.get(place).is_some_and(|exposed| exposed.endpoints.is_empty());
    is_empty && now.iter().any(|(other, exposed)| other.port == place.port && !exposed.endpoints.is_empty())
}
