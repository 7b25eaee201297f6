//! `DeploymentIntent`: the fields beside its strategy.

use std::time::Duration;

use world::api::delivery::{
    Choice, DeploymentIntent, EvidenceSource, GateSpec, IntentProtocol, NotifySpec, RollbackMode, StrategyType, Weight,
};

use super::Findings;
use super::strategy::strategy;
use super::{names, url};

/// Chances between these are meant; others are slips.
const PROBABILITIES: std::ops::RangeInclusive<f64> = 1e-6..=0.2;

/// A gate that takes longer has somebody behind it, who can answer "not yet".
const LONGEST_QUESTION: Duration = Duration::from_secs(3_600);
/// More attempts are one that never ends.
const MOST_RETRIES: u32 = 100;

pub(super) fn deployment_intent(spec: &DeploymentIntent, findings: &mut Findings) {
    service(spec, findings);
    revisions(spec, findings);
    strategy(spec, findings);
    analysis(spec, findings);
    safety(spec, findings);
    if spec.rollback.mode == RollbackMode::Ramp && spec.rollback.ramp.is_none_or(|ramp| ramp < Duration::from_secs(1)) {
        findings.error("spec.rollback.ramp", "mode Ramp needs a ramp of at least 1s").hint("Set ramp: 30s.");
    }
    if spec.rollback.window > 10 {
        findings.error("spec.rollback.window", format!("{} is more than 10 revisions", spec.rollback.window));
    }
    if spec.progress_deadline.is_zero() {
        findings.error("spec.progressDeadline", "a deadline of 0 has always passed");
    }
    if spec.drain.timeout > Duration::from_secs(3600) {
        findings.error("spec.drain.timeout", format!("{:?} is longer than 1h", spec.drain.timeout));
    }
    if !(1..=100).contains(&spec.history_limit) {
        findings.error("spec.historyLimit", format!("{} is not from 1 to 100", spec.history_limit));
    }
    for (at, gate) in spec.gates.iter().enumerate() {
        gate_of(&format!("spec.gates[{at}]"), gate, findings);
    }
    for (at, notify) in spec.notify.iter().enumerate() {
        url::http(&format!("spec.notify[{at}].url"), &notify.url, findings);
        for (nth, event) in notify.events.iter().enumerate() {
            findings.one_of(format_args!("spec.notify[{at}].events[{nth}]"), Some(event), &NotifySpec::EVENTS);
        }
    }
}

fn gate_of(field: &str, gate: &GateSpec, findings: &mut Findings) {
    match gate.insecure {
        true => url::http(&format!("{field}.url"), &gate.url, findings),
        false => url::https(&format!("{field}.url"), &gate.url, findings),
    }
    if gate.timeout.is_zero() {
        findings.error(format_args!("{field}.timeout"), "no time is left for an answer");
    } else if gate.timeout > LONGEST_QUESTION {
        findings.error(format_args!("{field}.timeout"), format!("{:?} is longer than 1h", gate.timeout));
    }
    if gate.retries > MOST_RETRIES {
        findings
            .error(format_args!("{field}.retries"), format!("{} is more than {MOST_RETRIES}", gate.retries))
            .hint("A gate with onError: Hold is asked again and again anyway.");
    }
}

fn service(spec: &DeploymentIntent, findings: &mut Findings) {
    if spec.service.name.is_empty() {
        findings.error("spec.service.name", "no service is named");
    } else if !names::is_subdomain(&spec.service.name) {
        findings.error("spec.service.name", format!("{:?} is not a service's name", spec.service.name));
    }
    if let Some(namespace) = spec.service.namespace.as_deref().filter(|n| !names::is_label(n)) {
        findings.error("spec.service.namespace", format!("{namespace:?} is not a namespace"));
    }
    for (at, port) in spec.service.ports.iter().enumerate() {
        findings.port(format_args!("spec.service.ports[{at}]"), *port);
        if spec.service.ports[..at].contains(port) {
            findings.error(format_args!("spec.service.ports[{at}]"), format!("port {port} is named twice"));
        }
    }
    if !spec.attach.mesh && spec.attach.gateways.is_empty() {
        findings.error("spec.attach", "no traffic is meant").hint("Set mesh: true, or name gateways.");
    }
    for (at, gateway) in spec.attach.gateways.iter().enumerate() {
        super::virtual_service::gateway_name(&format!("spec.attach.gateways[{at}]"), gateway, findings);
    }
}

fn revisions(spec: &DeploymentIntent, findings: &mut Findings) {
    let policy = &spec.revisions;
    if policy.label.is_empty() {
        findings.error("spec.revisions.label", "no label tells revisions apart").hint("The usual one is version.");
    }
    for (field, choice) in [("stable", &policy.stable), ("candidate", &policy.candidate)] {
        if let Choice::Named(name) = choice
            && !names::is_subset(name)
        {
            let field = format_args!("spec.revisions.{field}").to_string();
            findings.error(field, format!("{name:?} is not a label's value")).hint("Name a value, or write Auto.");
        }
    }
    if policy.stable != Choice::Auto && policy.stable == policy.candidate {
        let message = format!("\"{}\" is stable already", policy.candidate);
        findings.error("spec.revisions.candidate", message).hint("Traffic moves from one revision to another.");
    }
}

fn analysis(spec: &DeploymentIntent, findings: &mut Findings) {
    let policy = &spec.analysis;
    for (field, value) in [("alpha", policy.alpha), ("beta", policy.beta)] {
        if !PROBABILITIES.contains(&value) {
            findings
                .error(format_args!("spec.analysis.{field}"), format!("{value} is not from 0.000001 to 0.2"))
                .hint("It is a probability: 0.01 is one in a hundred.");
        }
    }
    if policy.profiles.is_empty() {
        findings
            .warning("spec.analysis.profiles", "no profile is named", "nothing about requests can end a run")
            .hint("Leave profiles out for the built-in one.");
    }
    if policy.source == EvidenceSource::Prometheus && policy.prometheus_url.is_none() {
        findings.error("spec.analysis.prometheusUrl", "source Prometheus needs an address").hint("Set prometheusUrl.");
    }
    if let Some(address) = &policy.prometheus_url {
        url::http("spec.analysis.prometheusUrl", address, findings);
    }
    for (field, span) in [
        ("maxStepDuration", policy.max_step_duration),
        ("noTrafficTimeout", policy.no_traffic_timeout),
        ("telemetryTimeout", policy.telemetry_timeout),
    ] {
        if span < Duration::from_secs(1) {
            findings.error(format_args!("spec.analysis.{field}"), format!("{span:?} is shorter than 1s"));
        }
    }
}

fn safety(spec: &DeploymentIntent, findings: &mut Findings) {
    let policy = &spec.safety;
    if policy.min_healthy_endpoints == 0 {
        findings
            .error("spec.safety.minHealthyEndpoints", "traffic would go to a revision without endpoints")
            .hint("Use at least 1.");
    }
    // Written so that NaN is refused too.
    if !(0.0..=100.0).contains(&policy.capacity_ratio) {
        findings.error("spec.safety.capacityRatio", format!("{} is not a ratio", policy.capacity_ratio));
    }
    if policy.ack_quorum < Weight::from_ppm(500_000) {
        let message = format!("{} of the nodes is less than half", policy.ack_quorum);
        findings.error("spec.safety.ackQuorum", message).hint("Use 50 to 100.");
    }
    if policy.ack_timeout < Duration::from_secs(1) {
        findings.error("spec.safety.ackTimeout", format!("{:?} is shorter than 1s", policy.ack_timeout));
    }
    if spec.protocol == IntentProtocol::Tcp && matches!(spec.strategy.kind, StrategyType::Ab | StrategyType::Mirror) {
        findings.error("spec.strategy.type", "TCP has no requests to tell apart").hint("Use Canary or BlueGreen.");
    }
}
