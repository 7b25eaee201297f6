//! Rollouts as text.

use serde_json::Value;
use server::view::{self, Rollout};

use crate::output::say;
use crate::table::table;

/// One row an intent.
pub(super) fn all(all: &view::Rollouts) {
    if all.rollouts.is_empty() {
        say!("there is no DeploymentIntent");
        return;
    }
    let rows = all.rollouts.iter().map(|rollout| {
        [
            format!("{}/{}", rollout.namespace, rollout.intent),
            or_dash(&rollout.run),
            phase(rollout),
            or_dash(&rollout.stable),
            or_dash(&rollout.candidate),
            weights(rollout),
            waits_for(rollout),
        ]
    });
    table(["INTENT", "RUN", "PHASE", "STABLE", "CANDIDATE", "WEIGHT", "WAITS FOR"], rows.collect());
}

/// One line about a rollout, after an action.
pub(super) fn summary(rollout: &Rollout) {
    let run = if rollout.run.is_empty() { "no run".to_owned() } else { rollout.run.clone() };
    let waits = waits_for(rollout);
    let waits = if waits == "-" { String::new() } else { format!("; waits: {waits}") };
    say!("{run}: {}, {} to \"{}\"{waits}", phase(rollout), weights(rollout), rollout.candidate);
}

/// Everything about one.
pub(super) fn one(rollout: &Rollout) {
    lines(rollout).iter().for_each(|line| say!("{line}"));
}

/// Everything about one, as lines.
pub(super) fn lines(rollout: &Rollout) -> Vec<String> {
    let mut lines = vec![
        format!("Intent:     {}/{} ({} of {})", rollout.namespace, rollout.intent, or_dash(&rollout.strategy), {
            or_dash(&rollout.service)
        }),
        format!("Run:        {} (attempt {})", or_dash(&rollout.run), rollout.attempt),
        format!("Phase:      {}", phase(rollout)),
        format!("Revisions:  {} -> {}", or_dash(&rollout.stable), or_dash(&rollout.candidate)),
    ];
    let observed = rollout.weight.observed.as_ref().map_or("-".to_owned(), |observed| {
        let [low, high] = observed.interval;
        format!("{:.2} % [{low:.2}, {high:.2}] of {} requests", observed.percent, observed.requests)
    });
    lines.push(format!(
        "Weight:     configured {} %, acknowledged {} %, observed {observed}",
        rollout.weight.configured, rollout.weight.acknowledged
    ));
    let stale = match rollout.nodes.stale {
        0 => String::new(),
        stale => format!("; {stale} that left may still follow an older one"),
    };
    lines.push(format!(
        "Nodes:      {} of {} have accepted version {}{stale}",
        rollout.nodes.accepted, rollout.nodes.concerned, rollout.nodes.version
    ));
    for refusal in &rollout.nodes.refused {
        lines.push(format!("            {} refuses: {}", refusal.node, refusal.words));
    }
    let endpoints: Vec<_> =
        rollout.endpoints.iter().map(|e| format!("{} {} of {}", e.revision, e.healthy, e.total)).collect();
    lines.push(format!("Endpoints:  {}", or_dash(&endpoints.join(", "))));
    if let Some(hold) = &rollout.hold {
        let deadline = hold.deadline.map_or(String::new(), |at| format!(", until {at} at the latest"));
        lines.push(format!("Waits for:  {} ({}, since {}{deadline})", hold.text, hold.reason, hold.since));
    }
    if !rollout.reason.is_empty() {
        lines.push(format!("Went back:  {}", rollout.reason));
    }
    if !rollout.safe_to_scale_down.is_empty() {
        lines.push(format!("Unused:     {} (safe to scale down)", rollout.safe_to_scale_down.join(", ")));
    }
    for problem in &rollout.problems {
        let text = super::problem_line(problem);
        let heads = std::iter::once("Problem:    ").chain(std::iter::repeat("            "));
        lines.extend(text.lines().zip(heads).map(|(line, head)| format!("{head}{}", line.trim_start())));
    }
    lines.extend(evidence(rollout));
    lines
}

/// One line a metric: its verdict, and the evidence against its bound.
pub(super) fn evidence(rollout: &Rollout) -> Vec<String> {
    let metrics = rollout.analysis.as_ref().and_then(|analysis| analysis["metrics"].as_array());
    let mut lines = Vec::new();
    for metric in metrics.into_iter().flatten() {
        let (name, verdict) = (metric["name"].as_str().unwrap_or("?"), metric["verdict"].as_str().unwrap_or("?"));
        let relative = &metric["counted"]["relative"];
        let e_value = match (relative["eValue"].as_f64(), relative["bound"].as_f64()) {
            (Some(e_value), Some(bound)) => {
                let robust = relative["robustEValue"].as_f64().unwrap_or(e_value);
                format!(", e-value {} (robust {}) of {}", short(e_value), short(robust), short(bound))
            }
            _ => String::new(),
        };
        lines.push(format!("Evidence:   {name} {verdict}{e_value}"));
    }
    lines
}

/// The runs of an intent, the current one in full.
pub(super) fn history(rollout: &Rollout) {
    let rows = rollout.runs.iter().map(|run| {
        [
            run.run.clone(),
            format!("{} -> {}", run.stable, run.candidate),
            run.attempt.to_string(),
            run.phase.clone(),
            run.started.to_string(),
            or_dash(&run.reason),
        ]
    });
    table(["RUN", "REVISIONS", "ATTEMPT", "PHASE", "STARTED", "WHY"], rows.collect());
    if let Some(run) = rollout.runs.first() {
        say!("\n{}:", run.run);
        for passage in &run.passages {
            say!("  {}  {:<22} {} %", passage.at, passage.phase, passage.weight);
        }
    }
    for action in &rollout.actions {
        say!("  {}  {} by {}: {}", action.at, action.verb, action.actor, action.reason);
    }
}

/// Every number.
pub(super) fn explain(rollout: &Rollout) {
    summary(rollout);
    if !rollout.reason.is_empty() {
        say!("went back: {}", rollout.reason);
    }
    let Some(analysis) = &rollout.analysis else {
        say!("there is no run, and no evidence");
        return;
    };
    say!(
        "alpha {} for the whole run, beta {}, {} requests to the candidate since the weights changed",
        analysis["alpha"],
        analysis["beta"],
        analysis["stepRequests"]
    );
    for metric in analysis["metrics"].as_array().into_iter().flatten() {
        say!("\n{}: {}", metric["name"].as_str().unwrap_or("?"), metric["verdict"].as_str().unwrap_or("?"));
        for part in ["counted", "threshold"] {
            numbers(&metric[part], 1);
        }
    }
}

fn numbers(value: &Value, depth: usize) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let indent = "  ".repeat(depth);
        match value {
            Value::Object(_) => {
                say!("{indent}{name}:");
                numbers(value, depth + 1);
            }
            Value::Number(number) => say!("{indent}{name}: {}", number.as_f64().map_or(number.to_string(), short)),
            other => say!("{indent}{name}: {other}"),
        }
    }
}

fn short(number: f64) -> String {
    match number.abs() {
        size if size == 0.0 || (0.001..1e7).contains(&size) => {
            let text = format!("{number:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{number:.2e}"),
    }
}

fn phase(rollout: &Rollout) -> String {
    match rollout.step {
        Some(step) => format!("{} (step {step} of 0-{})", rollout.phase, rollout.steps.saturating_sub(1)),
        None => rollout.phase.clone(),
    }
}

fn weights(rollout: &Rollout) -> String {
    let view::RolloutWeights { configured, acknowledged, .. } = rollout.weight;
    match configured == acknowledged {
        true => format!("{configured} %"),
        false => format!("{acknowledged} -> {configured} %"),
    }
}

fn waits_for(rollout: &Rollout) -> String {
    // Errors come first, and keep it from going on; a warning does not.
    let problem = rollout.problems.first();
    let error = problem.filter(|problem| problem.severity == "error").map(|problem| &problem.message);
    let hold = rollout.hold.as_ref().map(|hold| &hold.text);
    let idle = problem.filter(|_| rollout.run.is_empty()).map(|problem| &problem.message);
    error.or(hold).or(idle).cloned().unwrap_or_else(|| "-".to_owned())
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(severity: &str, message: &str) -> view::Problem {
        view::Problem {
            severity: severity.to_owned(),
            object: "deploymentintent/shop/a".to_owned(),
            field: "spec.service.name".to_owned(),
            message: message.to_owned(),
            consequence: "no run is started".to_owned(),
            hint: "Name another.\nOr none.".to_owned(),
            file: "a.yaml".to_owned(),
            line: 7,
        }
    }

    #[test]
    fn what_keeps_an_intent_from_running_is_told_as_check_tells_it() {
        let rollout = Rollout { problems: vec![problem("error", "there is no such service")], ..Rollout::default() };
        let lines = lines(&rollout);
        let first = "Problem:    error: a.yaml:7: deploymentintent/shop/a: spec.service.name: there is no such service; \
                     no run is started";
        let expected = [first, "            Name another.", "            Or none."];
        assert!(lines.windows(3).any(|three| three == expected), "{lines:#?}");
        assert_eq!(waits_for(&rollout), "there is no such service");
    }

    #[test]
    fn a_warning_is_no_reason_to_wait_while_a_run_has_one() {
        let hold = view::RolloutHold { text: "a gate".to_owned(), ..view::RolloutHold::default() };
        let mut rollout = Rollout {
            run: "a-1".to_owned(),
            problems: vec![problem("warning", "odd")],
            hold: Some(hold),
            ..Rollout::default()
        };
        assert_eq!(waits_for(&rollout), "a gate");
        rollout.hold = None;
        assert_eq!(waits_for(&rollout), "-");
        rollout.run.clear();
        assert_eq!(waits_for(&rollout), "odd");
    }
}
