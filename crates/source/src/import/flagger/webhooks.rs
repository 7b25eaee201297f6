//! `analysis.webhooks`.

use std::time::Duration;

use world::api::delivery::{DeploymentIntent, GatePhase, GateSpec, NotifySpec, OnGateError};

use crate::import::{Section, Weight};

/// Webhooks as gates, and those of type `event` as notifications.
pub(super) fn webhooks(analysis: &Section<'_, '_>, intent: &mut DeploymentIntent) {
    for webhook in analysis.sections("webhooks") {
        // A webhook without a type is asked at every check.
        let kind = webhook.text("type").unwrap_or_else(|| "rollout".to_owned());
        let gate = match kind.as_str() {
            "confirm-rollout" => Some((GatePhase::PreRun, OnGateError::Hold)),
            "pre-rollout" => Some((GatePhase::PreRun, OnGateError::Fail)),
            "rollout" => Some((GatePhase::PreStep, OnGateError::Fail)),
            "confirm-traffic-increase" => Some((GatePhase::PreStep, OnGateError::Hold)),
            "confirm-promotion" => Some((GatePhase::PrePromote, OnGateError::Hold)),
            "post-rollout" => Some((GatePhase::PostRun, OnGateError::Hold)),
            "rollback" => Some((GatePhase::Rollback, OnGateError::Hold)),
            "event" => None,
            _ => {
                webhook.lose_all(format!("there is no gate for webhooks of type \"{kind}\""));
                continue;
            }
        };
        let url = webhook.text("url").unwrap_or_default();
        if !["http://", "https://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty())) {
            webhook.lose_all(format!("{url:?} is not the URL of a webhook"));
            continue;
        }
        webhook.has("name");
        webhook
            .lose("metadata", "a gate is asked with Pointsman's own message: put what the receiver needs into the URL");
        webhook.lose("muteAlert", "notifications are chosen by spec.notify");
        webhook.lose("disableTLS", "certificates are checked: use an http:// URL with insecure: true instead");
        let Some((phase, on_error)) = gate else {
            webhook.has("timeout");
            webhook.has("retries");
            webhook.remark(Weight::Note, "events are told in Pointsman's own form");
            intent.notify.push(NotifySpec { url, events: Vec::new() });
            continue;
        };
        if kind == "rollout" {
            webhook.remark(Weight::Note, "it is asked before each step, not at each interval");
        }
        let usual = GateSpec::default();
        intent.gates.push(GateSpec {
            phase,
            insecure: url.starts_with("http://"),
            url,
            timeout: webhook.span("timeout").filter(|timeout| *timeout > Duration::ZERO).unwrap_or(usual.timeout),
            retries: webhook.count("retries").and_then(|count| u32::try_from(count).ok()).unwrap_or(usual.retries),
            on_error,
        });
    }
}
