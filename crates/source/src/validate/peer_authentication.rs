//! `PeerAuthentication`, as Istio's own validation has it.

use world::api::istio::{PeerAuthentication, WorkloadSelector};

use super::Findings;

pub(super) fn peer_authentication(spec: &PeerAuthentication, findings: &mut Findings) {
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    if let Some(selector) = &spec.selector {
        workload_selector(selector, findings);
    }
    if !spec.port_level_mtls.is_empty() && !selects {
        findings
            .error("spec.portLevelMtls", "modes of ports need a selector")
            .hint("Say which workloads have these ports: spec.selector.matchLabels.");
    }
    for port in spec.port_level_mtls.keys() {
        if !port.parse::<u16>().is_ok_and(|number| number > 0) {
            findings
                .error(format_args!("spec.portLevelMtls[{port}]"), format!("\"{port}\" is not a port"))
                .hint("Use the workload's port, a number from 1 to 65535.");
        }
    }
}

/// The selector of a policy of any kind.
pub(super) fn workload_selector(selector: &WorkloadSelector, findings: &mut Findings) {
    for (label, value) in &selector.match_labels {
        if label.is_empty() {
            findings.error("spec.selector.matchLabels", "a label has no name");
        } else if label.contains('*') || value.contains('*') {
            findings
                .error(
                    format_args!("spec.selector.matchLabels[{label}]"),
                    format!("\"{label}: {value}\" has a wildcard, and labels are compared as they are"),
                )
                .hint("Write the label as the workloads carry it.");
        }
    }
}
