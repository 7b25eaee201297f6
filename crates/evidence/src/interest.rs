//! Which clusters are counted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// The clusters that somebody wants to know of. Changes at run time; whoever reads reports holds the one that was in
/// force when they came.
#[derive(Clone, Debug, Default)]
pub struct Interest {
    /// By the name that statistics use, which has no colons.
    clusters: HashMap<Arc<str>, Wanted>,
    /// Counts the changes.
    generation: u64,
}

/// One cluster of interest.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its name.
    pub(crate) cluster: Arc<str>,
    /// The generation in which it became of interest.
    pub(crate) since: u64,
    /// When it became of interest.
    pub(crate) opened: Instant,
    /// Routes whose requests are not counted, where the source says what route a request took: by the names of
    /// steps, which stand at the end of theirs: `default~qa`, and `default~qa~mirror` where copies are sent.
    pub(crate) excluded_routes: BTreeSet<Arc<str>>,
    owners: usize,
}

impl Interest {
    /// Clusters that are of interest.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.clusters.values().map(|wanted| &wanted.cluster)
    }

    /// Whether nobody wants to know anything.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
    }

    /// Rises with every cluster that becomes of interest.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The cluster that statistics and access logs call so: its name, or what `alt_stat_name` says, which for our clusters
    /// (and Istio's) is the name and a semicolon.
    pub(crate) fn by_stat_name(&self, name: &str) -> Option<&Wanted> {
        self.clusters.get(name.strip_suffix(';').unwrap_or(name))
    }

    /// The cluster of this name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&Wanted> {
        match name.contains(':') {
            true => self.clusters.get(&*stat_name(name)),
            false => self.clusters.get(name),
        }
    }

    pub(crate) fn open(&mut self, now: Instant, cluster: &Arc<str>, excluded_routes: &BTreeSet<Arc<str>>) {
        let generation = self.generation + 1;
        let wanted = self.clusters.entry(stat_name(cluster)).or_insert_with(|| {
            self.generation = generation;
            let excluded_routes = BTreeSet::new();
            Wanted { cluster: cluster.clone(), since: generation, opened: now, excluded_routes, owners: 0 }
        });
        wanted.owners += 1;
        wanted.excluded_routes.extend(excluded_routes.iter().cloned());
    }

    /// Whether nobody is interested any more.
    pub(crate) fn close(&mut self, cluster: &str) -> bool {
        let name = stat_name(cluster);
        let Some(wanted) = self.clusters.get_mut(&name) else { return true };
        wanted.owners = wanted.owners.saturating_sub(1);
        let is_over = wanted.owners == 0;
        if is_over {
            self.clusters.remove(&name);
        }
        is_over
    }
}

impl Wanted {
    /// Whether requests that took this route are not counted.
    pub(crate) fn excludes(&self, route: &str) -> bool {
        let route = route.strip_suffix("~mirror").unwrap_or(route);
        let is_of = |step: &str| route.strip_suffix(step).is_some_and(|head| head.is_empty() || head.ends_with('~'));
        self.excluded_routes.iter().any(|step| is_of(step))
    }
}

/// Envoy writes `_` for `:` in the names of statistics.
fn stat_name(cluster: &str) -> Arc<str> {
    if cluster.contains(':') { cluster.replace(':', "_").into() } else { cluster.into() }
}
