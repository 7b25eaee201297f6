//! `RolloutRun` and `Freeze`.

use world::api::delivery::{Freeze, RolloutRun, parse_time};

use super::Findings;

pub(super) fn rollout_run(spec: &RolloutRun, findings: &mut Findings) {
    let texts = [
        ("intent", &spec.intent),
        ("service.name", &spec.service.name),
        ("stable", &spec.stable),
        ("candidate", &spec.candidate),
    ];
    for (field, text) in texts {
        if text.is_empty() {
            findings.error(format_args!("spec.{field}"), "nothing is named");
        }
    }
    if !spec.stable.is_empty() && spec.stable == spec.candidate {
        findings.error("spec.candidate", format!("\"{}\" is stable already", spec.candidate));
    }
    if spec.attempt == 0 {
        findings.error("spec.attempt", "attempts are counted from 1");
    }
}

pub(super) fn freeze(spec: &Freeze, findings: &mut Findings) {
    let mut times = Vec::new();
    for (field, text) in [("from", &spec.from), ("until", &spec.until)] {
        match text.as_deref().map(parse_time) {
            None => {}
            Some(Ok(time)) => times.push(time),
            Some(Err(wrong)) => _ = findings.error(format_args!("spec.{field}"), wrong),
        }
    }
    if let [from, until] = times[..]
        && from >= until
    {
        findings.error("spec.until", "the freeze ends before it begins");
    }
}
