//! Evidence for one run, as it comes in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use evidence::{Account, Arm, Places, Targets, Variables};
use load::{Ask, Focus};
use rollout::{Evidence, Revision, Time};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use world::Hostname;

use super::Telemetry;
use super::providers::Providers;

/// Reports that may wait for the run. When they are as many, none is made until there is room; what was counted
/// meanwhile is in the next one.
const WAITING: usize = 4;

/// Within each interval a run is told so often what came in: clients flush when they like, and a verdict that could be
/// known waits for a part of the interval only.
const PARTS: u32 = 4;

/// What a run wants to know, and how often.
#[derive(Clone, Debug)]
pub struct RunTargets {
    /// Names the run.
    pub run: Arc<str>,
    /// What is counted, for which arm, and from which source.
    pub targets: Targets,
    /// How often clients are asked for load reports, at least [`Ask::SHORTEST`]; evidence comes four times as often.
    pub interval: Duration,
    /// The Prometheus that queries without an address of their own go to.
    pub prometheus: Option<String>,
    /// What stands for the names in `{{name}}` in queries and URLs.
    pub variables: Variables,
}

impl RunTargets {
    /// For a service whose revisions have a cluster each, on each of these ports; what falls back to stable is not the
    /// candidate's. The metrics, the source and names of cohort
    /// routes are to be filled in. Queries may name `{{service}}` (the host), `{{candidate}}`, which is `{{revision}}` as well, and
    /// `{{stable}}`.
    pub fn new(run: &str, host: &Hostname, ports: &[u16], candidate: &Revision, stable: &Revision) -> Self {
        let arm = |revision: &Revision| {
            let clusters = ports.iter().map(|port| compile::names::outbound_cluster(*port, revision.as_str(), host));
            let places = Places::AllBut([compile::endpoints::FALLBACK.into()].into());
            Arm { clusters: clusters.collect(), places }
        };
        Self::of(run, host, candidate, stable, arm)
    }

    /// The same for a service whose revisions share its clusters, each in a sub-zone of its own.
    pub fn by_places(run: &str, host: &Hostname, ports: &[u16], candidate: &Revision, stable: &Revision) -> Self {
        let clusters: BTreeSet<_> =
            ports.iter().map(|port| compile::names::outbound_cluster(*port, "", host)).collect();
        let arm = |revision: &Revision| {
            let places = Places::Only([revision.as_str().into()].into());
            Arm { clusters: clusters.clone(), places }
        };
        Self::of(run, host, candidate, stable, arm)
    }

    fn of(run: &str, host: &Hostname, candidate: &Revision, stable: &Revision, arm: impl Fn(&Revision) -> Arm) -> Self {
        let targets = Targets { candidate: arm(candidate), stable: arm(stable), ..Targets::default() };
        let variables = [
            ("service", host.as_str()),
            ("candidate", candidate.as_str()),
            ("revision", candidate.as_str()),
            ("stable", stable.as_str()),
        ];
        Self {
            run: run.into(),
            targets,
            interval: Duration::from_secs(1),
            prometheus: None,
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }
}

/// Evidence for one run. Dropping it ends the counting.
#[derive(Debug)]
pub struct Reports {
    received: mpsc::Receiver<Evidence>,
}

impl Reports {
    pub(super) fn open(telemetry: Arc<Telemetry>, targets: RunTargets) -> Self {
        let (send, received) = mpsc::channel(WAITING);
        let tasks = telemetry.tasks.clone();
        tasks.spawn(follow(telemetry, targets, send));
        Self { received }
    }

    /// The next report; `None` when the server ends.
    pub async fn next(&mut self) -> Option<Evidence> {
        self.received.recv().await
    }
}

async fn follow(telemetry: Arc<Telemetry>, wanted: RunTargets, send: mpsc::Sender<Evidence>) {
    let RunTargets { run, targets, interval, prometheus, variables } = wanted;
    let interval = interval.max(Ask::SHORTEST);
    // A run that is closed and opened again must not lose what it asks for when the first end of it is noticed late.
    let owner: Arc<str> = format!("{run}#{}", telemetry.enter().0).into();
    if targets.wants_loads() {
        let focus = Focus { clusters: targets.clusters(), interval, endpoints: true };
        telemetry.loads.change_policy(|policy| policy.set_focus(owner.clone(), focus));
    }
    let mut providers = Providers::new(&targets.metrics, prometheus.as_deref(), &variables);
    let mut account = Account::open(now(), Instant::now(), &mut telemetry.ledger(), targets);
    let mut ticks = tokio::time::interval(interval / PARTS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                providers.ask(Instant::now());
                let Ok(room) = send.try_reserve() else { continue };
                let mut evidence = account.read(now(), &telemetry.ledger());
                evidence.metrics.extend(providers.take());
                room.send(evidence);
            }
            () = providers.answered() => {}
            () = send.closed() => break,
            () = telemetry.draining.cancelled() => break,
        }
    }
    account.close(&mut telemetry.ledger());
    telemetry.loads.change_policy(|policy| policy.end_focus(&owner));
}

/// The time that runs are told.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
