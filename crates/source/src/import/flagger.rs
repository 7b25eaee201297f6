//! `flagger.app` Canaries.

mod metrics;
mod request_match;
mod webhooks;

use std::time::Duration;

use world::api::delivery::{
    AnalysisProfile, BlueGreen, Canary, DeploymentIntent, HeaderRoute, IntentProtocol, MirrorStep, PauseStep, SameSite,
    Step, StepAnalysis, StickinessMode, StickyCookie, Strategy, StrategyType, Weight as Share,
};

use super::{Manifest, Remarks, Section, Source, Weight};
pub(super) use metrics::MetricTemplates;

/// The shortest interval that Flagger takes, and the one without a word.
const SHORTEST: Duration = Duration::from_secs(10);
const USUAL: Duration = Duration::from_secs(60);

/// Two steps for each weight, and one for the end, fit into as many as an intent may have.
const MAX_WEIGHTS: usize = 31;

/// A Canary as an intent, behind the profile that its metrics make.
pub(super) fn canary(source: &Source<'_>, templates: &MetricTemplates<'_>, remarks: &Remarks) -> Vec<Manifest> {
    let Some(spec) = source.spec(remarks) else { return Vec::new() };
    let mut intent = DeploymentIntent::default();
    let target = target(&spec);
    spec.note("provider", "Pointsman configures the proxies itself");
    spec.note("revertOnDeletion", "Pointsman never changes the objects of others");
    for (field, message) in [
        ("autoscalerRef", "scaling is not Pointsman's: point the autoscaler at the workload of each revision"),
        ("ingressRef", "traffic of an Ingress is not routed: name gateways under spec.attach"),
        ("routeRef", "traffic of this route is not routed: name gateways under spec.attach"),
        ("upstreamRef", "traffic of this upstream is not routed: name gateways under spec.attach"),
    ] {
        spec.lose(field, message);
    }
    intent.progress_deadline = spec.span("progressDeadlineSeconds").unwrap_or(intent.progress_deadline);
    intent.suspend = spec.flag("suspend").unwrap_or(false);
    intent.service.name.clone_from(&target);
    service(&spec, &mut intent);

    let prometheus = spec.text("metricsServer");
    let mut profile = AnalysisProfile::default();
    let analysis = spec.section("analysis").or_else(|| spec.section("canaryAnalysis"));
    match analysis {
        Some(analysis) => {
            let interval = analysis.span("interval").unwrap_or(USUAL).max(SHORTEST);
            let threshold = analysis.count("threshold");
            let forgiven = threshold.unwrap_or(1).saturating_sub(1);
            intent.strategy = strategy(&analysis, interval);
            let scope = metrics::Scope {
                namespace: source.namespace,
                name: source.name,
                target: &target,
                service: &intent.service.name,
                prometheus: prometheus.as_deref(),
                forgiven: u32::try_from(forgiven).unwrap_or(u32::MAX),
                interval,
            };
            profile.metrics = metrics::metrics(&analysis, templates, &scope);
            if threshold.is_some() && profile.metrics.iter().any(|metric| metric.range.is_none()) {
                let message = "what is counted is judged by all requests together, and no check is forgiven: it holds \
                               for queries only";
                analysis.note("threshold", message);
            }
            webhooks::webhooks(&analysis, &mut intent);
            stickiness(&analysis, &mut intent);
            rest(&analysis);
        }
        None => {
            intent.strategy = at_once();
            spec.remark(Weight::Note, "there is no analysis: the candidate takes everything at once");
        }
    }
    if spec.flag("skipAnalysis") == Some(true) {
        intent.strategy = at_once();
        spec.remark(Weight::Note, "skipAnalysis: the candidate takes everything at once, and is still watched");
    }

    let origin = format!("Canary {}/{} ({}:{})", source.namespace, source.name, source.file, source.node.line);
    let mut manifests = Vec::new();
    if profile.metrics.is_empty() {
        spec.remark(Weight::Note, "no metric is converted: the candidate's errors are compared with those of stable");
    } else {
        intent.analysis.profiles = vec![source.name.to_owned()];
        manifests.push(Manifest::profile(origin.clone(), source.namespace, source.name, &profile));
    }
    manifests.push(Manifest::intent(origin, source.namespace, source.name, &intent));
    manifests
}

/// The name of the workload, which names the service unless something else does.
fn target(spec: &Section<'_, '_>) -> String {
    let Some(target) = spec.section("targetRef") else { return String::new() };
    target.has("apiVersion");
    target.has("kind");
    target.remark(
        Weight::Note,
        "revisions are told apart by the label `version` of their pods, and there is no copy called -primary: give the \
         pods of each revision that label, or name another one under spec.revisions.label",
    );
    target.text("name").unwrap_or_default()
}

fn service(spec: &Section<'_, '_>, intent: &mut DeploymentIntent) {
    let Some(service) = spec.section("service") else { return };
    if let Some(name) = service.text("name") {
        intent.service.name = name;
    }
    service.remark(
        Weight::Note,
        format!(
            "Flagger generates Services and routes, Pointsman decorates those that there are: keep a Service \"{}\" \
             that selects the pods of both revisions",
            intent.service.name
        ),
    );
    intent.service.ports = service.count("port").and_then(|port| u16::try_from(port).ok()).into_iter().collect();
    intent.protocol = match service.text("appProtocol").unwrap_or_default().to_ascii_lowercase().as_str() {
        "http" | "http2" => IntentProtocol::Http,
        "grpc" => IntentProtocol::Grpc,
        "tcp" => IntentProtocol::Tcp,
        _ => IntentProtocol::Auto,
    };
    let gateways = service.texts("gateways");
    intent.attach.mesh = gateways.is_empty() || gateways.iter().any(|name| name == "mesh");
    intent.attach.gateways = gateways.into_iter().filter(|name| name != "mesh").collect();
    for field in ["portName", "targetPort", "portDiscovery"] {
        service.note(field, "the Service says it");
    }
    for field in ["hosts", "match", "rewrite", "headers", "retries", "timeout", "corsPolicy", "delegation", "mirror"] {
        service.lose(field, "write it in the VirtualService of the service, whose routes Pointsman decorates");
    }
    service.lose("trafficPolicy", "write it in the DestinationRule of the service");
    for field in ["apex", "primary", "canary"] {
        service.lose(field, "write labels and annotations at the Service itself");
    }
    for field in ["meshName", "backends", "gatewayRefs"] {
        service.lose(field, "it belongs to another mesh: name gateways under spec.attach");
    }
}

/// Everything at once, still watched.
fn at_once() -> Strategy {
    let steps = vec![weight(100.0)];
    Strategy { canary: Some(Canary { steps, ..Canary::default() }), ..Strategy::default() }
}

fn weight(percent: f64) -> Step {
    // Flagger's weights are whole percents from 0 to 100; what is not is cut to that.
    Step { set_weight: Some(Share::from_ppm((percent.clamp(0.0, 100.0) * 1e4).round() as u32)), ..Step::default() }
}

fn judged(min: Duration) -> Step {
    let analysis = StepAnalysis { min_duration: Some(min), ..StepAnalysis::default() };
    Step { analysis: Some(analysis), ..Step::default() }
}

fn strategy(analysis: &Section<'_, '_>, interval: Duration) -> Strategy {
    let iterations = analysis.count("iterations").filter(|count| *count > 0);
    let matches = request_match::matches(analysis);
    let mirror = analysis.flag("mirror").unwrap_or(false).then(|| analysis.number("mirrorWeight").unwrap_or(100.0));
    let span = iterations.map(|count| interval.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)));
    let canary = |steps: Vec<Step>| {
        let weights: Vec<_> = steps.iter().filter_map(|step: &Step| step.set_weight).collect();
        let allow_decrease = !weights.is_sorted();
        Strategy { canary: Some(Canary { steps, allow_decrease, ..Canary::default() }), ..Strategy::default() }
    };
    match (span, matches) {
        (Some(_), Some(matches)) if matches.is_empty() => {
            analysis.remark(
                Weight::Lost,
                "no match can be said, so no request would reach the candidate while it is tested: the run waits for \
                 `promote` first, and then all requests go to it",
            );
            let pause = Step { pause: Some(PauseStep::default()), ..Step::default() };
            canary(vec![pause, weight(100.0)])
        }
        // A test of two variants by what requests look like. The strategy AB wants the names of two revisions, which a
        // Canary does not have; a route by header to whatever is the candidate says the same.
        (Some(span), Some(matches)) => {
            analysis.remark(
                Weight::Note,
                "requests that match go to the candidate by a headerRoute for interval x iterations, then all do: \
                 strategy AB would need the names of the revisions",
            );
            let route = HeaderRoute { name: "match".to_owned(), matches, enabled: true };
            let route = Step { header_route: Some(route), ..Step::default() };
            canary(vec![route, judged(span), weight(100.0)])
        }
        (Some(span), None) if mirror.is_none() => {
            analysis.remark(
                Weight::Note,
                "blue-green: Flagger checks for interval x iterations while the candidate has no traffic, Pointsman \
                 waits as long (blueGreen.delay), and judges from the switch on",
            );
            let block = BlueGreen { delay: span, ..BlueGreen::default() };
            Strategy { kind: StrategyType::BlueGreen, blue_green: Some(block), ..Strategy::default() }
        }
        // Blue-green with copies: the copies need steps.
        (Some(span), None) => {
            let mut steps = copies(analysis, mirror, span);
            steps.push(weight(100.0));
            canary(steps)
        }
        (None, matches) => {
            if matches.is_some() {
                analysis.remark(Weight::Lost, "match without iterations means nothing to Flagger, and is left out");
            }
            let mut steps = copies(analysis, mirror, interval);
            let weights = weights(analysis);
            let last = weights.last().copied();
            steps.extend(weights.into_iter().flat_map(|percent| [weight(percent), judged(interval)]));
            if last.is_none_or(|percent| percent < 100.0) {
                steps.push(weight(100.0));
            }
            canary(steps)
        }
    }
}

/// Copies for a while; no metric judges them.
fn copies(analysis: &Section<'_, '_>, mirror: Option<f64>, span: Duration) -> Vec<Step> {
    let Some(percent) = mirror else { return Vec::new() };
    analysis.remark(
        Weight::Lost,
        "while requests are only mirrored no metric judges the candidate, because answers to copies are not counted as \
         requests; Flagger's checks did look then",
    );
    let percent = Share::from_ppm((percent.clamp(0.0, 100.0) * 1e4).round() as u32);
    let on = MirrorStep { percent, ..MirrorStep::default() };
    let off = MirrorStep { enabled: false, ..on.clone() };
    let pause = PauseStep { duration: Some(span) };
    vec![
        Step { mirror: Some(on), ..Step::default() },
        Step { pause: Some(pause), ..Step::default() },
        Step { mirror: Some(off), ..Step::default() },
    ]
}

/// The weights that Flagger passes through, in percent.
fn weights(analysis: &Section<'_, '_>) -> Vec<f64> {
    let listed = analysis.numbers("stepWeights");
    let step = analysis.number("stepWeight");
    let max = analysis.number("maxWeight").unwrap_or(100.0);
    let mut weights = match step {
        _ if !listed.is_empty() => listed,
        Some(step) if step > 0.0 => {
            let mut weights: Vec<f64> = Vec::new();
            while weights.last().is_none_or(|last| *last < max) && weights.len() < 1_000 {
                weights.push((weights.last().unwrap_or(&0.0) + step).min(100.0));
            }
            weights
        }
        _ => {
            analysis.remark(Weight::Lost, "neither stepWeight, stepWeights nor iterations: the usual steps are taken");
            vec![1.0, 5.0, 10.0, 25.0, 50.0]
        }
    };
    if weights.len() > MAX_WEIGHTS {
        let stride = weights.len().div_ceil(MAX_WEIGHTS);
        let message = format!("{} weights are more than fit into 64 steps: every {stride}th is taken", weights.len());
        analysis.remark(Weight::Lost, message);
        weights = weights.into_iter().skip(stride - 1).step_by(stride).collect();
    }
    weights
}

fn stickiness(analysis: &Section<'_, '_>, intent: &mut DeploymentIntent) {
    let Some(affinity) = analysis.section("sessionAffinity") else { return };
    intent.stickiness.mode = StickinessMode::Cookie;
    let usual = StickyCookie::default();
    intent.stickiness.cookie = StickyCookie {
        name: affinity.text("cookieName").unwrap_or(usual.name),
        ttl: affinity.span("maxAge").unwrap_or(usual.ttl),
        path: affinity.text("path").unwrap_or(usual.path),
        domain: affinity.text("domain"),
        same_site: match affinity.text("sameSite").as_deref() {
            Some("Strict") => SameSite::Strict,
            Some("None") => SameSite::None,
            _ => SameSite::Lax,
        },
        // What is not said is not an attribute of Flagger's cookie.
        secure: affinity.flag("secure").unwrap_or(false),
        http_only: affinity.flag("httpOnly").unwrap_or(false),
    };
    affinity.note("primaryCookieName", "one cookie keeps clients of both revisions where they are");
    affinity.lose("partitioned", "the cookie has no attribute Partitioned");
}

fn rest(analysis: &Section<'_, '_>) {
    for field in ["stepWeightPromotion", "primaryReadyThreshold"] {
        analysis.note(field, "there is no second rollout: the candidate becomes stable where it is");
    }
    analysis.lose("canaryReadyThreshold", "set spec.safety.minHealthyEndpoints, or a step requireEndpoints");
    for alert in analysis.sections("alerts") {
        alert.lose_all("alerts go to webhooks of Pointsman's own form: name one under spec.notify");
    }
}
