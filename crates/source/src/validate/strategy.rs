//! `spec.strategy` of a `DeploymentIntent`.

use std::time::Duration;

use world::api::delivery::{
    AbTest, Amount, BlueGreen, Canary, DeploymentIntent, IntentProtocol, MirrorTest, Promotion, RequestMatch, Rolling,
    Step, StrategyType, Switch, Weight, parse_time,
};

use super::Findings;
use super::request_match::request_matches;
use super::{names, stickiness};

/// More steps than anybody follows.
const MAX_STEPS: usize = 64;

pub(super) fn strategy(spec: &DeploymentIntent, findings: &mut Findings) {
    let strategy = &spec.strategy;
    let blocks = [
        ("canary", StrategyType::Canary, strategy.canary.is_some()),
        ("blueGreen", StrategyType::BlueGreen, strategy.blue_green.is_some()),
        ("rolling", StrategyType::Rolling, strategy.rolling.is_some()),
        ("ab", StrategyType::Ab, strategy.ab.is_some()),
        ("mirror", StrategyType::Mirror, strategy.mirror.is_some()),
    ];
    for (name, kind, given) in blocks {
        if given && kind != strategy.kind {
            findings
                .error(
                    format_args!("spec.strategy.{name}"),
                    format!("the strategy is of type {}", strategy.kind.as_str()),
                )
                .hint(format!("Remove the block, or write type: {}.", kind.as_str()));
        }
    }
    match strategy.kind {
        StrategyType::Canary => canary(&strategy.canary.clone().unwrap_or_default(), spec, findings),
        StrategyType::BlueGreen => blue_green(&strategy.blue_green.clone().unwrap_or_default(), spec, findings),
        StrategyType::Rolling => rolling(&strategy.rolling.clone().unwrap_or_default(), findings),
        StrategyType::Ab => match &strategy.ab {
            Some(test) => ab(test, spec, findings),
            None => _ = findings.error("spec.strategy.ab", "a strategy of type AB needs its variants"),
        },
        StrategyType::Mirror => mirror(&strategy.mirror.clone().unwrap_or_default(), spec, findings),
    }
    stickiness::stickiness(spec, findings);
}

fn canary(canary: &Canary, spec: &DeploymentIntent, findings: &mut Findings) {
    const FIELD: &str = "spec.strategy.canary";
    if canary.max_step.is_zero() {
        findings.error(format_args!("{FIELD}.maxStep"), "no rise is allowed").hint("Use more than 0, up to 100.");
    }
    if canary.steps.is_empty() || canary.steps.len() > MAX_STEPS {
        findings
            .error(format_args!("{FIELD}.steps"), format!("there are {} steps", canary.steps.len()))
            .hint(format!("Use 1 to {MAX_STEPS}, or leave steps out: 1, 5, 10, 25, 50, 100, each judged."));
    }
    let mut last: Option<(usize, Weight)> = None;
    for (at, one) in canary.steps.iter().enumerate() {
        let field = format!("{FIELD}.steps[{at}]");
        step(&field, one, spec, findings);
        let Some(weight) = one.set_weight else { continue };
        let before = last.map_or(Weight::ZERO, |(_, weight)| weight);
        if weight < before && !canary.allow_decrease {
            let first = last.map_or(0, |(at, _)| at);
            let message = format!("the weight falls from {before} (steps[{first}]) to {weight}");
            findings
                .error(format_args!("{field}.setWeight"), message)
                .hint("Set allowDecrease: true if that is meant.");
        } else if weight.ppm().saturating_sub(before.ppm()) > canary.max_step.ppm() {
            let message =
                format!("the weight rises from {before} to {weight}, by more than maxStep: {}", canary.max_step);
            findings.error(format_args!("{field}.setWeight"), message).hint("Add a step in between, or raise maxStep.");
        }
        last = Some((at, weight));
    }
    let ends_full = last.is_some_and(|(_, weight)| weight == Weight::FULL);
    if !ends_full && canary.promote == Promotion::Auto && !canary.steps.is_empty() {
        let at = last.map_or(canary.steps.len() - 1, |(at, _)| at);
        let message = match last {
            Some((_, weight)) => format!("the last weight is {weight}, and the run promotes by itself"),
            None => "no step sets a weight, and the run promotes by itself".to_owned(),
        };
        findings
            .error(format_args!("{FIELD}.steps[{at}]"), message)
            .hint("End with setWeight: 100, or set promote: Manual.");
    }
}

fn step(field: &str, step: &Step, spec: &DeploymentIntent, findings: &mut Findings) {
    let given = step.given();
    if given.len() != 1 {
        let message = match given.as_slice() {
            [] => "the step does nothing".to_owned(),
            several => format!("{} exclude each other", several.join(" and ")),
        };
        findings.error(field, message).hint(
            "A step is one of setWeight, pause, analysis, headerRoute, mirror, requireEndpoints and gate; \
             write an empty one as pause: {}.",
        );
    }
    if let Some(pause) = &step.pause
        && pause.duration.is_some_and(|d| d < Duration::from_secs(1))
    {
        findings
            .error(format_args!("{field}.pause.duration"), "a pause is at least 1s")
            .hint("Leave the duration out to wait for the action promote.");
    }
    if let Some(analysis) = &step.analysis {
        let bounds = (analysis.min_duration, analysis.max_duration.unwrap_or(spec.analysis.max_step_duration));
        if let (Some(min), max) = bounds
            && min > max
        {
            let message = format!("minDuration {min:?} is longer than maxDuration {max:?}");
            findings.error(format_args!("{field}.analysis.minDuration"), message).hint("Raise maxDuration.");
        }
    }
    if let Some(route) = &step.header_route {
        let field = format!("{field}.headerRoute");
        names::line(&format!("{field}.name"), &route.name, "route", findings);
        if route.matches.is_empty() && route.enabled {
            findings.error(format_args!("{field}.match"), "there is no match").hint("Say which requests are meant.");
        }
        http_only(&field, spec, findings);
        request_matches(&format!("{field}.match"), &route.matches, findings);
    }
    if let Some(mirror) = &step.mirror {
        let field = format!("{field}.mirror");
        if mirror.enabled && mirror.percent.is_zero() {
            findings
                .error(format_args!("{field}.percent"), "nothing is mirrored")
                .hint("enabled: false ends mirroring.");
        }
        // What ends copies makes none.
        let allows_all = mirror.allow_unsafe_methods || !mirror.enabled;
        mirrored(&field, &mirror.matches, allows_all, spec, findings);
    }
    if let Some(endpoints) = &step.require_endpoints {
        let field = format!("{field}.requireEndpoints");
        if endpoints.absolute.is_none() && endpoints.percent_of_stable.is_none() {
            findings.error(&field, "nothing is required").hint("Give absolute or percentOfStable.");
        }
        for (name, value) in [("absolute", endpoints.absolute), ("percentOfStable", endpoints.percent_of_stable)] {
            if value == Some(0) {
                findings.error(format_args!("{field}.{name}"), "0 is always there").hint("Use more than 0.");
            }
        }
    }
    if let Some(gate) = &step.gate {
        let field = format!("{field}.gate");
        match (&gate.webhook, gate.manual) {
            (Some(url), false) => super::url::https(&format!("{field}.webhook"), url, findings),
            (None, true) => {}
            (Some(_), true) => _ = findings.error(&field, "webhook and manual exclude each other"),
            (None, false) => {
                findings.error(&field, "nobody is asked").hint("Give webhook: https://… or manual: true.");
            }
        }
    }
}

/// Copies of requests that change something change it twice.
fn mirrored(
    field: &str,
    matches: &[RequestMatch],
    allow_unsafe_methods: bool,
    spec: &DeploymentIntent,
    findings: &mut Findings,
) {
    http_only(field, spec, findings);
    request_matches(&format!("{field}.match"), matches, findings);
    let safe = |m: &RequestMatch| matches!(m.method.as_deref(), Some("GET" | "HEAD" | "OPTIONS" | "TRACE"));
    if !allow_unsafe_methods && (matches.is_empty() || !matches.iter().all(safe)) {
        findings
            .warning(
                field,
                "requests that change something are mirrored, too",
                "what they change is changed twice where both revisions share a store",
            )
            .hint("Match method: GET, or set allowUnsafeMethods: true.");
    }
}

fn http_only(field: &str, spec: &DeploymentIntent, findings: &mut Findings) {
    if spec.protocol == IntentProtocol::Tcp {
        findings.error(field, "TCP has no requests to match, mirror or mark").hint("Use setWeight alone.");
    }
}

fn blue_green(blue_green: &BlueGreen, spec: &DeploymentIntent, findings: &mut Findings) {
    const FIELD: &str = "spec.strategy.blueGreen";
    if !blue_green.preview.matches.is_empty() {
        http_only("spec.strategy.blueGreen.preview", spec, findings);
        request_matches("spec.strategy.blueGreen.preview.match", &blue_green.preview.matches, findings);
    }
    if let Switch::Ramp(ramp) = blue_green.switch
        && !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&ramp)
    {
        findings.error(format_args!("{FIELD}.switch.ramp"), format!("{ramp:?} is not from 1s to 1h"));
    }
    if blue_green.keep_previous < Duration::from_secs(30) {
        let message = "what was stable is kept for at least 30s";
        findings.error(format_args!("{FIELD}.keepPrevious"), message).hint("Nothing to go back to is left otherwise.");
    }
}

fn rolling(rolling: &Rolling, findings: &mut Findings) {
    const FIELD: &str = "spec.strategy.rolling";
    if rolling.batch.is_zero() {
        findings.error(format_args!("{FIELD}.batch"), "a batch is at least one endpoint");
    }
    if rolling.max_unavailable == Amount::Share(Weight::FULL) {
        findings
            .error(format_args!("{FIELD}.maxUnavailable"), "all endpoints may be missing")
            .hint("Use less than 100%.");
    }
}

fn ab(test: &AbTest, spec: &DeploymentIntent, findings: &mut Findings) {
    const FIELD: &str = "spec.strategy.ab";
    if !(2..=8).contains(&test.variants.len()) {
        let message = format!("there are {} variants", test.variants.len());
        findings.error(format_args!("{FIELD}.variants"), message).hint("Use 2 to 8.");
    }
    let mut shares = Vec::new();
    for (at, variant) in test.variants.iter().enumerate() {
        let field = format!("{FIELD}.variants[{at}]");
        names::line(&format!("{field}.name"), &variant.name, "variant", findings);
        if let Some(first) = test.variants[..at].iter().position(|v| v.name == variant.name && !v.name.is_empty()) {
            findings.error(format_args!("{field}.name"), format!("\"{}\" is variants[{first}] already", variant.name));
        }
        if variant.revision.is_empty() {
            findings.error(format_args!("{field}.revision"), "the variant has no revision");
        } else if !names::is_subset(&variant.revision) {
            let message = format!("{:?} is not a label's value", variant.revision);
            findings.error(format_args!("{field}.revision"), message).hint("Name a value of spec.revisions.label.");
        }
        if variant.share.is_none() && variant.matches.is_empty() {
            findings.error(&field, "nothing leads to the variant").hint("Give it a share or a match.");
        }
        if !variant.matches.is_empty() {
            http_only(&field, spec, findings);
            request_matches(&format!("{field}.match"), &variant.matches, findings);
        }
        shares.extend(variant.share);
    }
    let revisions: std::collections::BTreeSet<_> = test.variants.iter().map(|variant| &variant.revision).collect();
    if let (1, [first, _, ..]) = (revisions.len(), &*test.variants)
        && !first.revision.is_empty()
    {
        let message = format!("every variant is \"{}\": there is nothing to test", first.revision);
        findings.error(format_args!("{FIELD}.variants"), message).hint("Give the variants different revisions.");
    }
    let sum: u64 = shares.iter().map(|share| u64::from(share.ppm())).sum();
    if !shares.is_empty() && sum != u64::from(Weight::TOTAL) {
        let message = format!("the shares add up to {}%", sum as f64 / 1e4);
        findings.error(format_args!("{FIELD}.variants"), message).hint("Shares add up to 100.");
    } else if shares.is_empty() && !test.variants.is_empty() {
        findings
            .error(format_args!("{FIELD}.variants"), "no variant takes the requests that nothing matches")
            .hint("Give one variant share: 100.");
    }
    if let Some(Err(wrong)) = test.end_at.as_deref().map(parse_time) {
        findings.error(format_args!("{FIELD}.endAt"), wrong);
    }
}

fn mirror(mirror: &MirrorTest, spec: &DeploymentIntent, findings: &mut Findings) {
    const FIELD: &str = "spec.strategy.mirror";
    if mirror.percent.is_zero() {
        findings.error(format_args!("{FIELD}.percent"), "nothing is mirrored").hint("Use more than 0.");
    }
    if mirror.duration < Duration::from_secs(1) {
        findings.error(format_args!("{FIELD}.duration"), "mirroring takes at least 1s");
    }
    mirrored(FIELD, &mirror.matches, mirror.allow_unsafe_methods, spec, findings);
}
