//! `RolloutRun` and `Freeze`.

use world::api::delivery::{Freeze, parse_time};

use super::Findings;

/// A run in a file would divide traffic without anybody who watches over it.
pub(super) fn rollout_run(findings: &mut Findings) {
    findings.error("", "runs are Pointsman's own to write: write a DeploymentIntent, and a run begins");
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
