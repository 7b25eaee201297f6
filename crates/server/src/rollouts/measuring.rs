//! Counts the requests of runs: one follower for each, all of which say into one channel what they read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rollout::{Evidence, Lane, Run};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use world::api::delivery::{BlueGreen, DeploymentIntent, IntentProtocol, MetricSpec, StrategyType};
use world::{ObjectRef, Protocol};

use crate::{RunTargets, Telemetry};

/// Readings that may wait; followers wait then, and what is counted meanwhile is in the next one.
const READINGS: usize = 64;

/// The followers.
#[derive(Debug)]
pub(super) struct Measuring {
    followers: JoinSet<()>,
    /// Who counts for each run, and which metrics.
    runs: BTreeMap<ObjectRef, (AbortHandle, Vec<MetricSpec>)>,
    say: mpsc::Sender<(ObjectRef, Evidence)>,
    said: mpsc::Receiver<(ObjectRef, Evidence)>,
}

impl Default for Measuring {
    fn default() -> Self {
        let (say, said) = mpsc::channel(READINGS);
        Self { followers: JoinSet::new(), runs: BTreeMap::new(), say, said }
    }
}

impl Measuring {
    /// Begins to count for a run, unless that is being done; begins anew when other metrics are wanted than before.
    pub(super) fn begin(&mut self, run: ObjectRef, targets: RunTargets, telemetry: &Arc<Telemetry>) {
        let metrics = targets.targets.metrics.clone();
        if self.runs.get(&run).is_some_and(|(_, counted)| *counted == metrics) {
            return;
        }
        self.end(&run);
        let (mut reports, say, name) = (telemetry.open(targets), self.say.clone(), run.clone());
        let follower = self.followers.spawn(async move {
            while let Some(evidence) = reports.next().await {
                if say.send((name.clone(), evidence)).await.is_err() {
                    return;
                }
            }
        });
        self.runs.insert(run, (follower, metrics));
    }

    /// Counts no more for a run.
    pub(super) fn end(&mut self, run: &ObjectRef) {
        if let Some((follower, _)) = self.runs.remove(run) {
            follower.abort();
        }
        while self.followers.try_join_next().is_some() {}
    }

    /// The next reading of any of them. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<(ObjectRef, Evidence)> {
        self.said.recv().await
    }

    /// Ends all of them.
    pub(super) async fn shutdown(&mut self) {
        self.followers.shutdown().await;
    }
}

/// What is counted for the current run of an intent; `None` while its service is not known.
pub(super) fn targets(run: &ObjectRef, lane: &Lane, interval: Duration) -> Option<RunTargets> {
    let plan = &lane.run().map(Run::record)?.plan;
    let (host, ports) = lane.sight()?.ports.as_ref()?;
    let name = format!("{}/{}", run.namespace, run.name);
    let (candidate, stable) = (&plan.candidate, &plan.stable);
    // Where routes divide requests, revisions have clusters; connections and members of one cluster are told apart by
    // places. Of a service with ports of both kinds, requests say more.
    let has_routes = plan.spec.strategy.kind != StrategyType::Rolling && plan.spec.protocol != IntentProtocol::Tcp;
    let is_routed = |protocol: Protocol| protocol.is_http() || protocol == Protocol::Auto;
    let routed: Vec<u16> = ports.iter().filter(|(_, protocol)| is_routed(*protocol)).map(|(port, _)| *port).collect();
    let mut wanted = if has_routes && !routed.is_empty() {
        RunTargets::new(&name, host, &routed, candidate, stable)
    } else {
        let all: Vec<u16> = ports.iter().map(|(port, _)| *port).collect();
        RunTargets::by_places(&name, host, &all, candidate, stable)
    };
    // Steps may name further profiles; what is counted too early does no harm.
    wanted.targets.metrics = plan.metrics();
    wanted.targets.cohort_routes = cohorts(&plan.spec);
    wanted.targets.source = plan.spec.analysis.source;
    wanted.interval = interval;
    wanted.prometheus.clone_from(&plan.spec.analysis.prometheus_url);
    Some(wanted)
}

/// Steps and variants that send chosen requests to one revision; `preview` is what one of blue and green is called.
fn cohorts(spec: &DeploymentIntent) -> BTreeSet<Arc<str>> {
    let strategy = &spec.strategy;
    let steps = strategy.canary.iter().flat_map(|canary| &canary.steps);
    let of_steps = steps.filter_map(|step| Some(step.header_route.as_ref()?.name.as_str()));
    let has_preview = |blue_green: &&BlueGreen| !blue_green.preview.matches.is_empty();
    let preview = strategy.blue_green.iter().filter(has_preview).map(|_| "preview");
    let variants = strategy.ab.iter().flat_map(|test| &test.variants);
    let of_variants = variants.filter(|variant| !variant.matches.is_empty()).map(|variant| variant.name.as_str());
    of_steps.chain(preview).chain(of_variants).map(Arc::from).collect()
}
