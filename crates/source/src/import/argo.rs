//! `argoproj.io` Rollouts.

mod analysis;
mod condition;
mod steps;

use std::cell::RefCell;
use std::time::Duration;

use world::api::delivery::{
    Amount, BlueGreen, Canary, DeploymentIntent, IntentProtocol, Rolling, Step, Strategy, StrategyType, Weight as Share,
};

use super::{Manifest, Remarks, Section, Source, Weight};
use analysis::Profiles;
use steps::{steps, weight};

/// The largest `rollback.window`.
const MOST_REVISIONS: u32 = 10;

const WORKLOAD: &str = "it belongs to the workload, which Pointsman does not run: write it at the Deployment";

/// What a Rollout may refer to: analysis templates, and the DestinationRules that say which host is meant.
pub(super) struct Templates<'s> {
    sources: Vec<&'s Source<'s>>,
    used: RefCell<Vec<(&'s str, &'s str, &'s str)>>,
}

impl<'s> Templates<'s> {
    pub(super) fn new(sources: &'s [Source<'s>]) -> Self {
        let kinds = ["AnalysisTemplate", "ClusterAnalysisTemplate", "DestinationRule"];
        Self { sources: sources.iter().filter(|s| kinds.contains(&s.kind)).collect(), used: RefCell::default() }
    }

    /// Cluster-wide templates have no namespace.
    fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&'s Source<'s>> {
        let is_there = |s: &&&Source<'_>| s.kind == kind && s.name == name;
        let is_near = |s: &&&Source<'_>| kind == "ClusterAnalysisTemplate" || s.namespace == namespace;
        let found = *self.sources.iter().filter(is_there).find(is_near)?;
        self.used.borrow_mut().push((found.kind, found.namespace, found.name));
        Some(found)
    }

    /// Says which analysis templates no Rollout of the files refers to.
    pub(super) fn unused(&self, remarks: &Remarks) {
        let used = self.used.borrow();
        for source in &self.sources {
            if source.kind != "DestinationRule" && !used.contains(&(source.kind, source.namespace, source.name)) {
                let message = format!("{} {} is used by no Rollout here", source.kind, source.name);
                remarks.add(Weight::Lost, source.file, source.node.line, "kind", message);
            }
        }
    }
}

/// A Rollout as an intent, behind the profiles that its analyses make.
pub(super) fn rollout(source: &Source<'_>, templates: &Templates<'_>, remarks: &Remarks) -> Vec<Manifest> {
    let Some(spec) = source.spec(remarks) else { return Vec::new() };
    let mut intent = DeploymentIntent::default();
    intent.service.name = source.name.to_owned();
    workload(&spec, &mut intent);
    intent.suspend = spec.flag("paused").unwrap_or(false);
    intent.progress_deadline = spec.span("progressDeadlineSeconds").unwrap_or(intent.progress_deadline);
    if spec.flag("progressDeadlineAbort") == Some(false) {
        spec.note("progressDeadlineAbort", "a candidate that is not ready in time is always rolled back");
    }
    if let Some(window) = spec.section("rollbackWindow") {
        let revisions = window.count("revisions").unwrap_or(1);
        intent.rollback.window = u32::try_from(revisions).unwrap_or(MOST_REVISIONS).min(MOST_REVISIONS);
        if revisions > u64::from(MOST_REVISIONS) {
            window.lose("revisions", format!("so many are not remembered: {MOST_REVISIONS} are"));
        }
    }
    if let Some(kept) = spec.section("analysis") {
        let limits = ["successfulRunHistoryLimit", "unsuccessfulRunHistoryLimit"];
        let kept: u64 = limits.iter().filter_map(|limit| kept.count(limit)).sum();
        intent.history_limit = u32::try_from(kept.clamp(1, 100)).unwrap_or(intent.history_limit);
    }

    let mut profiles = Profiles::new(source, templates, &intent.revisions.label);
    match spec.section("strategy") {
        None => spec.remark(Weight::Lost, "there is no strategy: the usual steps are taken"),
        Some(strategy) => {
            let canary = strategy.section("canary");
            let blue_green = strategy.section("blueGreen");
            match (canary, blue_green) {
                (Some(canary), _) => of_canary(&canary, source, templates, &mut profiles, &mut intent),
                (None, Some(blue_green)) => of_blue_green(&blue_green, &mut profiles, &mut intent),
                (None, None) => {
                    strategy.remark(Weight::Lost, "there is neither canary nor blueGreen: the usual steps are taken")
                }
            }
        }
    }
    let origin = format!("Rollout {}/{} ({}:{})", source.namespace, source.name, source.file, source.node.line);
    if profiles.is_empty() {
        spec.remark(
            Weight::Note,
            "no analysis is converted: the candidate's errors are compared with those of stable all the same",
        );
    }
    if !profiles.watching().is_empty() {
        intent.analysis.profiles = profiles.watching();
    }
    let written = profiles.into_profiles().into_iter();
    let mut manifests: Vec<_> =
        written.map(|(name, profile)| Manifest::profile(origin.clone(), source.namespace, &name, &profile)).collect();
    manifests.push(Manifest::intent(origin, source.namespace, source.name, &intent));
    manifests
}

/// The pods are not Pointsman's; of them it needs the label that tells revisions apart.
fn workload(spec: &Section<'_, '_>, intent: &mut DeploymentIntent) {
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "restartAt"] {
        spec.note(field, WORKLOAD);
    }
    spec.has("selector");
    // A Deployment's ReplicaSets mark their pods with it, as a Rollout's do with a label of their own.
    "pod-template-hash".clone_into(&mut intent.revisions.label);
    let labels = spec.section("template").map(|template| {
        let labels = template.section("metadata").and_then(|metadata| {
            metadata.has("annotations");
            metadata.section("labels").map(|labels| labels.keys().into_iter().filter(|key| labels.has(key)).collect())
        });
        template.has("spec");
        labels.unwrap_or_else(Vec::new)
    });
    if labels.as_ref().is_some_and(|labels| labels.contains(&"version")) {
        "version".clone_into(&mut intent.revisions.label);
    }
    let message = format!(
        "Pointsman runs no pods: make a Deployment of it; revisions are told apart by the label `{}` of the pods \
         (while Argo's controller still runs them, by rollouts-pod-template-hash)",
        intent.revisions.label
    );
    spec.lose("template", message.clone());
    spec.lose("workloadRef", message);
}

fn of_canary(
    canary: &Section<'_, '_>,
    source: &Source<'_>,
    templates: &Templates<'_>,
    profiles: &mut Profiles<'_, '_>,
    intent: &mut DeploymentIntent,
) {
    let stable = canary.text("stableService");
    if let Some(stable) = &stable {
        stable.clone_into(&mut intent.service.name);
    }
    canary.note(
        "canaryService",
        "one Service is enough: clients go on asking for one name, whose Service selects the pods of both revisions",
    );
    let routing = canary.section("trafficRouting");
    let most = routing.as_ref().and_then(|routing| routing.number("maxTrafficWeight")).unwrap_or(100.0);
    let host = routing.as_ref().and_then(|routing| routed(routing, source, templates, intent));
    match (host, &stable) {
        (Some(host), _) => intent.service.name = host,
        (None, Some(_)) => {}
        (None, None) => canary.remark(
            Weight::Lost,
            format!("no service is named; \"{}\" is taken: correct spec.service.name if it is another", source.name),
        ),
    }
    if let Some(background) = canary.section("analysis") {
        background.note("startingStep", "the profile judges from the first step on");
        profiles.watch("background", &background);
    }
    for field in [
        "canaryMetadata",
        "stableMetadata",
        "antiAffinity",
        "scaleDownDelaySeconds",
        "scaleDownDelayRevisionLimit",
        "abortScaleDownDelaySeconds",
        "dynamicStableScale",
        "minPodsPerReplicaSet",
        "replicaProgressThreshold",
    ] {
        canary.lose(field, WORKLOAD);
    }
    canary.note("pingPong", "nothing is re-pointed: every revision has its own cluster");
    let surge = amount(canary, "maxSurge");
    let unavailable = amount(canary, "maxUnavailable");
    let mut steps = steps(canary, most, profiles);
    if steps.is_empty() && routing.is_none() {
        let rolling = Rolling {
            batch: surge.filter(|batch| !batch.is_zero()).unwrap_or(Rolling::default().batch),
            max_unavailable: unavailable.unwrap_or(Amount::Share(Share::from_ppm(250_000))),
            ..Rolling::default()
        };
        canary.remark(
            Weight::Note,
            "a canary without steps is a rolling strategy: endpoints join and leave by as many as maxSurge says",
        );
        intent.strategy = Strategy { kind: StrategyType::Rolling, rolling: Some(rolling), ..Strategy::default() };
        return;
    }
    if surge.is_some() || unavailable.is_some() {
        canary.remark(Weight::Note, "maxSurge and maxUnavailable belong to the Deployment: weights do not need them");
    }
    if routing.is_none() {
        canary.remark(Weight::Note, "weights are shares of requests, not of pods");
    }
    let weights: Vec<Share> = steps.iter().filter_map(|step: &Step| step.set_weight).collect();
    if weights.last() != Some(&Share::FULL) {
        steps.push(weight(100.0));
    }
    let allow_decrease = !weights.is_sorted();
    if steps.len() > 64 {
        canary.remark(Weight::Lost, format!("{} steps are more than 64: the rest is left out", steps.len()));
        steps.truncate(63);
        steps.push(weight(100.0));
    }
    let canary = Canary { steps, allow_decrease, ..Canary::default() };
    intent.strategy = Strategy { canary: Some(canary), ..Strategy::default() };
}

/// The host whose routes are edited, as far as they say so, and which routes those are.
fn routed(
    routing: &Section<'_, '_>,
    source: &Source<'_>,
    templates: &Templates<'_>,
    intent: &mut DeploymentIntent,
) -> Option<String> {
    routing.note("managedRoutes", "routes by header stand above the weights, in the order of the steps");
    for field in ["nginx", "alb", "smi", "ambassador", "appMesh", "traefik", "apisix", "plugins"] {
        routing.lose(field, "Pointsman routes by the proxies that it configures: name gateways under spec.attach");
    }
    let istio = routing.section("istio")?;
    let services = istio.section("virtualService").into_iter().chain(istio.sections("virtualServices"));
    let mut is_http = false;
    let mut is_plain = false;
    for service in services {
        service.note(
            "name",
            "the routes of every VirtualService that lead to the service are decorated, not only of this one",
        );
        let routes = service.texts("routes");
        is_http |= !routes.is_empty();
        intent.attach.routes.extend(routes);
        for field in ["tlsRoutes", "tcpRoutes"] {
            for route in service.sections(field) {
                is_plain = true;
                let port = route.count("port").and_then(|port| u16::try_from(port).ok());
                intent.service.ports.extend(port.filter(|port| !intent.service.ports.contains(port)));
                route.lose("sniHosts", "a route is chosen by its port");
            }
        }
    }
    if is_plain && !is_http {
        intent.protocol = IntentProtocol::Tcp;
    } else if is_plain {
        istio.remark(Weight::Lost, "routes of HTTP and of TCP in one Rollout: write a second intent for the TCP ports");
        intent.service.ports.clear();
    }
    let rule = istio.section("destinationRule")?;
    let name = rule.text("name").unwrap_or_default();
    for field in ["canarySubsetName", "stableSubsetName"] {
        rule.lose(
            field,
            "clusters are named by revision: let the VirtualService lead to the host without a subset, and remove this one",
        );
    }
    let found = templates.find("DestinationRule", source.namespace, &name);
    let host = found.and_then(|rule| rule.node.get("spec")?.get("host")?.as_str());
    if host.is_none() {
        rule.remark(
            Weight::Note,
            format!("DestinationRule {name} is not among the files, and could say which host is meant"),
        );
    }
    // The first label of a host within the cluster is its Service.
    host.map(|host| host.split('.').next().unwrap_or(host).to_owned())
}

fn amount(section: &Section<'_, '_>, field: &str) -> Option<Amount> {
    let text = section.text(field)?;
    let read = match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().and_then(|p| Share::from_percent(p).ok()).map(Amount::Share),
        None => text.parse().ok().map(Amount::Count),
    };
    if read.is_none() {
        section.lose(field, format!("{text:?} is neither a number nor a share"));
    }
    read
}

fn of_blue_green(section: &Section<'_, '_>, profiles: &mut Profiles<'_, '_>, intent: &mut DeploymentIntent) {
    if let Some(active) = section.text("activeService") {
        intent.service.name = active;
    }
    section.lose(
        "previewService",
        "the candidate has no Service of its own before the switch: say under blueGreen.preview.match which requests see it",
    );
    let mut block = BlueGreen {
        auto_promote: section.flag("autoPromotionEnabled").unwrap_or(true),
        delay: section.span("autoPromotionSeconds").unwrap_or(Duration::ZERO),
        keep_previous: section.span("scaleDownDelaySeconds").unwrap_or(Duration::from_secs(30)),
        ..BlueGreen::default()
    };
    if block.keep_previous < Duration::from_secs(30) {
        section.note("scaleDownDelaySeconds", "what was stable is kept for 30s at least");
        block.keep_previous = Duration::from_secs(30);
    }
    if let Some(before) = section.section("prePromotionAnalysis") {
        before.remark(
            Weight::Lost,
            "metrics are judged from the switch on, not before it: set autoPromote: false to look first, or a gate of \
             phase PrePromote",
        );
        profiles.watch("pre-promotion", &before);
    }
    if let Some(after) = section.section("postPromotionAnalysis") {
        profiles.watch("post-promotion", &after);
    }
    for field in [
        "previewReplicaCount",
        "maxUnavailable",
        "scaleDownDelayRevisionLimit",
        "antiAffinity",
        "activeMetadata",
        "previewMetadata",
        "abortScaleDownDelaySeconds",
    ] {
        section.lose(field, WORKLOAD);
    }
    intent.strategy = Strategy { kind: StrategyType::BlueGreen, blue_green: Some(block), ..Strategy::default() };
}
