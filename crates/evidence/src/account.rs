//! What one run wants to know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use load::Locality;
use rollout::{Evidence, Observation, Tally, Time};
use world::api::delivery::{EvidenceSource, MetricKind, MetricSpec};

use crate::measure::{Arms, measure};
use crate::{Channel, ClusterSums, Ledger, LoadSums};

/// The traffic of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arm {
    /// Its clusters, one for each port.
    pub clusters: BTreeSet<Arc<str>>,
    /// Which of their localities are its own.
    pub places: Places,
}

/// Localities of an arm's clusters, by their sub-zones. Only load reports tell them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Places {
    /// All.
    #[default]
    All,
    /// All but these, where proxies find the other revision while this one has no healthy endpoint.
    AllBut(BTreeSet<Arc<str>>),
    /// Only these: both arms share their clusters, and nothing but load reports can tell them apart.
    Only(BTreeSet<Arc<str>>),
}

/// What a run wants to know, of whom, and from where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    /// The candidate.
    pub candidate: Arm,
    /// Stable.
    pub stable: Arm,
    /// The metrics; those of kinds `PromQuery` and `Web` are not answered here.
    pub metrics: Vec<MetricSpec>,
    /// Who counts.
    pub source: EvidenceSource,
    /// Names of the steps that send chosen requests to one revision, as the names of routes end: what takes them is not
    /// exchangeable with the rest. Only access logs tell them apart.
    pub cohort_routes: BTreeSet<Arc<str>>,
}

/// The readings of one run.
#[derive(Debug)]
pub struct Account {
    targets: Targets,
    /// The end of the last reading.
    from: Time,
    tick: u64,
    last: BTreeMap<Arc<str>, ClusterSums>,
    /// By the name of a metric that wants a number: since when it was not given one, and what came since.
    pending: BTreeMap<String, (Time, Tally)>,
}

impl Places {
    /// Whether traffic to this locality belongs to the arm.
    pub fn contain(&self, place: &Locality) -> bool {
        match self {
            Places::All => true,
            Places::AllBut(others) => !others.contains(&place.sub_zone),
            Places::Only(own) => own.contains(&place.sub_zone),
        }
    }
}

impl Targets {
    /// Every cluster of either arm.
    pub fn clusters(&self) -> BTreeSet<Arc<str>> {
        self.candidate.clusters.union(&self.stable.clusters).cloned().collect()
    }

    /// Whether load reports have to be asked for.
    pub fn wants_loads(&self) -> bool {
        match self.source {
            EvidenceSource::Auto | EvidenceSource::MetricsService | EvidenceSource::Lrs => true,
            EvidenceSource::AccessLog | EvidenceSource::Prometheus => false,
        }
    }

    /// Whose reports show that proxies can be heard.
    fn channels(&self) -> &'static [Channel] {
        match self.source {
            EvidenceSource::Auto => &[Channel::Metrics, Channel::Loads],
            EvidenceSource::MetricsService => &[Channel::Metrics],
            EvidenceSource::Lrs => &[Channel::Loads],
            EvidenceSource::AccessLog => &[Channel::Logs],
            EvidenceSource::Prometheus => &[Channel::Metrics, Channel::Loads, Channel::Logs],
        }
    }
}

impl Account {
    /// Makes the clusters of both arms of interest, and counts from `at` on. `now` is the same moment by the clock that
    /// never jumps.
    pub fn open(at: Time, now: Instant, ledger: &mut Ledger, targets: Targets) -> Self {
        for cluster in targets.clusters() {
            ledger.open(now, &cluster, &targets.cohort_routes);
        }
        let mut account =
            Self { targets, from: at, tick: ledger.tick(), last: BTreeMap::new(), pending: BTreeMap::new() };
        account.delta(ledger);
        account
    }

    /// What it is about.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// What was reported since the last reading; also when that is nothing.
    pub fn read(&mut self, at: Time, ledger: &Ledger) -> Evidence {
        let (from, until) = (self.from, at.max(self.from));
        let reporters = ledger.reporters(self.tick, self.targets.channels());
        (self.from, self.tick) = (until, ledger.tick());
        let delta = self.delta(ledger);
        let arms = Arms::new(&self.targets, &delta);
        let mut metrics = BTreeMap::new();
        for spec in &self.targets.metrics {
            if let Some(observation) = observe(spec, &arms, (from, until), &mut self.pending) {
                metrics.insert(spec.name.clone(), observation);
            }
        }
        Evidence { from, until, reporters, metrics }
    }

    /// Ends it: clusters that nobody else wants are not counted any more.
    pub fn close(self, ledger: &mut Ledger) {
        self.targets.clusters().iter().for_each(|cluster| ledger.close(cluster));
    }

    fn delta(&mut self, ledger: &Ledger) -> BTreeMap<Arc<str>, ClusterSums> {
        let mut delta = BTreeMap::new();
        for name in self.targets.clusters() {
            let Some(sums) = ledger.cluster(&name) else { continue };
            let before = self.last.insert(name.clone(), sums.clone()).unwrap_or_default();
            delta.insert(name, sums.since(&before));
        }
        delta
    }
}

fn observe(
    spec: &MetricSpec,
    arms: &Arms<'_>,
    span: (Time, Time),
    pending: &mut BTreeMap<String, (Time, Tally)>,
) -> Option<Observation> {
    let counted = match spec.kind {
        MetricKind::ErrorRate | MetricKind::LatencyFraction | MetricKind::Threshold => measure(spec, arms),
        MetricKind::PromQuery | MetricKind::Web => return None,
    };
    let counts = match counted {
        Ok(counts) => counts,
        Err(words) => return Some(Observation::ProviderError(words)),
    };
    if spec.kind != MetricKind::Threshold {
        return Some(counts.into());
    }
    let (since, tally) = pending.entry(spec.name.clone()).or_insert((span.0, Tally::default()));
    tally.add(counts.candidate);
    let waited = span.1.since(*since);
    if waited < spec.interval.max(Duration::from_millis(1)) {
        return None;
    }
    let value = match spec.query.as_deref() {
        Some("request-rate") => Some(tally.total as f64 / waited.as_secs_f64()),
        // Without requests there is no rate, and nothing to say: no traffic is told by the counts.
        _ => tally.rate(),
    };
    (*since, *tally) = (span.1, Tally::default());
    value.map(Observation::Value)
}

impl LoadSums {
    /// What belongs to an arm, and what of it each endpoint took.
    pub(crate) fn of<'a>(&'a self, places: &'a Places) -> (Tally, impl Iterator<Item = (&'a Arc<str>, Tally)>) {
        let mut all = Tally::default();
        self.places().filter(|(place, _)| places.contain(place)).for_each(|(_, tally)| all.add(tally));
        // What was given up before there was an endpoint has no locality: it is told apart only when all are the arm's.
        if !matches!(places, Places::Only(_)) {
            all.add(Tally::new(self.dropped(), self.dropped()));
        }
        let own = self.endpoints().filter(|(place, _, _)| places.contain(place));
        (all, own.map(|(_, address, tally)| (address, tally)))
    }
}
