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
    say!("{}", summary_line(rollout));
}

fn summary_line(rollout: &Rollout) -> String {
    let run = if rollout.run.is_empty() { "no run".to_owned() } else { rollout.run.clone() };
    let waits = waits_for(rollout);
    let waits = if waits == "-" { String::new() } else { format!("; waits: {waits}") };
    format!("{run}: {}, {} to \"{}\"{waits}", phase(rollout), weights(rollout), rollout.candidate)
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
    lines.push(format!(
        "Weight:     configured {} %, acknowledged {} %, observed {}",
        rollout.weight.configured,
        rollout.weight.acknowledged,
        observed(rollout)
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
    lines.extend(rollout.conditions.iter().zip(heads("Conditions:")).map(|(one, head)| head + &condition(one)));
    if !rollout.reason.is_empty() {
        lines.push(format!("Went back:  {}", rollout.reason));
    }
    if !rollout.safe_to_scale_down.is_empty() {
        lines.push(format!("Unused:     {} (safe to scale down)", rollout.safe_to_scale_down.join(", ")));
    }
    for problem in &rollout.problems {
        let text = super::problem_line(problem);
        lines.extend(text.lines().zip(heads("Problem:")).map(|(line, head)| head + line.trim_start()));
    }
    lines.extend(evidence(rollout));
    lines
}

/// The heads of lines that belong together: the first one is told.
fn heads(first: &str) -> impl Iterator<Item = String> {
    std::iter::once(format!("{first:<12}")).chain(std::iter::repeat(" ".repeat(12)))
}

/// Whether it holds, since when, until when, and why.
fn condition(condition: &view::RolloutCondition) -> String {
    let status = match condition.status {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    };
    let since = condition.since.map_or(String::new(), |at| format!(" since {at}"));
    let deadline = condition.deadline.map_or(String::new(), |at| format!(", until {at} at the latest"));
    format!("{} {status}{since}{deadline}: {}", condition.kind, condition.reason)
}

/// A metric's name, and its parts.
fn metrics(rollout: &Rollout) -> impl Iterator<Item = (&str, &Value)> {
    let metrics = rollout.analysis.as_ref().and_then(|analysis| analysis["metrics"].as_array());
    metrics.into_iter().flatten().map(|metric| (metric["name"].as_str().unwrap_or("?"), metric))
}

/// For each metric its verdict, and the evidence against its bound; then what comparing stable with itself says.
fn evidence(rollout: &Rollout) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, metric) in metrics(rollout) {
        lines.push(format!("Evidence:   {name} {}{}", verdict(metric), e_value(metric)));
        let counted = &metric["counted"];
        if let (Some(words), Some(trim)) = (counted["calibration"].as_str(), counted["trimSeconds"].as_f64()) {
            lines.push(format!("            stable with itself: {words}; the best {} s count as nothing", short(trim)));
        }
    }
    lines
}

/// The same in short, on one line; empty without metrics.
pub(super) fn evidence_in_short(rollout: &Rollout) -> String {
    let one = |(name, metric): (&str, &Value)| format!("{name} {}{}", verdict(metric), e_value(metric));
    metrics(rollout).map(one).collect::<Vec<_>>().join("; ")
}

/// Each metric with what is made of it, in a word.
pub(super) fn verdicts(rollout: &Rollout) -> Vec<(&str, &str)> {
    metrics(rollout).map(|(name, metric)| (name, verdict(metric).split(':').next().unwrap_or_default())).collect()
}

fn verdict(metric: &Value) -> &str {
    metric["verdict"].as_str().unwrap_or("?")
}

fn e_value(metric: &Value) -> String {
    let relative = &metric["counted"]["relative"];
    match (relative["eValue"].as_f64(), relative["bound"].as_f64()) {
        (Some(e_value), Some(bound)) => {
            let robust = relative["robustEValue"].as_f64().unwrap_or(e_value);
            format!(", e-value {} (robust {}) of {}", short(e_value), short(robust), short(bound))
        }
        _ => String::new(),
    }
}

/// The share of requests that was counted, with its interval; `-` while there were none.
pub(super) fn observed(rollout: &Rollout) -> String {
    rollout.weight.observed.as_ref().map_or("-".to_owned(), |observed| {
        let [low, high] = observed.interval;
        let chosen = if observed.includes_chosen { ", chosen ones and copies among them" } else { "" };
        format!("{:.2} % [{low:.2}, {high:.2}] of {} requests{chosen}", observed.percent, observed.requests)
    })
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
    explained(rollout).iter().for_each(|line| say!("{line}"));
}

/// Every number, as lines.
fn explained(rollout: &Rollout) -> Vec<String> {
    let mut lines = vec![summary_line(rollout)];
    if !rollout.reason.is_empty() {
        lines.push(format!("went back: {}", rollout.reason));
    }
    let Some(analysis) = &rollout.analysis else {
        lines.push("there is no run, and no evidence".to_owned());
        return lines;
    };
    lines.push(format!(
        "alpha {} for the whole run, beta {}, {} requests to the candidate since the weights changed",
        analysis["alpha"], analysis["beta"], analysis["stepRequests"]
    ));
    for (name, metric) in metrics(rollout) {
        lines.extend([String::new(), format!("{name}: {}", verdict(metric))]);
        for part in ["counted", "threshold"] {
            numbers(&metric[part], 1, &mut lines);
        }
    }
    lines
}

fn numbers(value: &Value, depth: usize, lines: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let indent = "  ".repeat(depth);
        match value {
            Value::Object(_) => {
                lines.push(format!("{indent}{name}:"));
                numbers(value, depth + 1, lines);
            }
            Value::Number(number) => {
                lines.push(format!("{indent}{name}: {}", number.as_f64().map_or(number.to_string(), short)));
            }
            Value::Array(raises) if name == "trimRaises" => {
                lines.extend(raises.iter().map(|raise| format!("{indent}{name}: {}", raised(raise))));
            }
            Value::String(text) => lines.push(format!("{indent}{name}: {text}")),
            other => lines.push(format!("{indent}{name}: {other}")),
        }
    }
}

/// Why more of the evidence is deleted than before.
fn raised(raise: &Value) -> String {
    let number = |name: &str| raise[name].as_f64().map_or("?".to_owned(), short);
    let at = raise["at"].as_u64().map_or("?".to_owned(), |millis| {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis.min(253_402_300_799_000));
        view::Timestamp::from(at).to_string()
    });
    format!(
        "{at}: from {} to {} s, because {} of {} comparisons of stable with itself were false alarms",
        number("fromSeconds"),
        number("toSeconds"),
        number("falseAlarms"),
        number("trials")
    )
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
    fn a_status_says_since_when_each_condition_holds_and_until_when_at_the_latest() {
        let at = |seconds| Some((std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).into());
        let condition = |kind: &str, status, since, deadline, reason: &str| {
            let (kind, reason) = (kind.to_owned(), reason.to_owned());
            view::RolloutCondition { kind, status, reason, since, deadline }
        };
        let conditions = vec![
            condition("Accepted", Some(true), at(0), None, "Valid"),
            condition("Healthy", None, None, None, "NoVerdictAgainstIt"),
            condition("Blocked", Some(false), at(60), at(120), "NotBlocked"),
        ];
        let lines = lines(&Rollout { conditions, ..Rollout::default() });
        let expected = [
            "Conditions: Accepted yes since 1970-01-01T00:00:00.000Z: Valid",
            "            Healthy not known: NoVerdictAgainstIt",
            "            Blocked no since 1970-01-01T00:01:00.000Z, until 1970-01-01T00:02:00.000Z at the latest: NotBlocked",
        ];
        assert!(lines.windows(3).any(|three| three == expected), "{lines:#?}");
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

    fn judged() -> Rollout {
        let analysis = serde_json::json!({
            "alpha": 0.01, "beta": 0.05, "stepRequests": 1200,
            "metrics": [
                {"name": "error-rate", "verdict": "waits: the evidence leans against it", "counted": {
                    "candidate": [1200, 30], "recentRates": [0.025, null],
                    "relative": {"eValue": 41.5, "robustEValue": 2e9, "bound": 100.0},
                    "trimSeconds": 20.0, "calibration": "0 of 8 comparisons raised a false alarm",
                    "trimRaises": [
                        {"at": 86_400_000, "fromSeconds": 10.0, "toSeconds": 20.0, "falseAlarms": 2, "trials": 16},
                    ],
                }},
                {"name": "p/load", "verdict": "passes", "threshold": {"last": 0.7, "error": "no answer"}},
            ],
        });
        let observed =
            view::ObservedShare { percent: 9.5, interval: [8.25, 10.8], requests: 4_000, includes_chosen: false };
        Rollout {
            run: "a-1".to_owned(),
            phase: "Waiting".to_owned(),
            step: Some(1),
            steps: 3,
            candidate: "v2".to_owned(),
            weight: view::RolloutWeights { configured: 10.0, acknowledged: 10.0, observed: Some(observed) },
            analysis: Some(analysis),
            ..Rollout::default()
        }
    }

    #[test]
    fn an_explanation_has_every_number_and_says_why_the_stretch_was_raised() {
        let expected = "\
a-1: Waiting (step 1 of 0-2), 10 % to \"v2\"
alpha 0.01 for the whole run, beta 0.05, 1200 requests to the candidate since the weights changed

error-rate: waits: the evidence leans against it
  candidate: [1200,30]
  recentRates: [0.025,null]
  relative:
    eValue: 41.5
    robustEValue: 2.00e9
    bound: 100
  trimSeconds: 20
  calibration: 0 of 8 comparisons raised a false alarm
  trimRaises: 1970-01-02T00:00:00.000Z: from 10 to 20 s, because 2 of 16 comparisons of stable with itself were false \
                        alarms

p/load: passes
  last: 0.7
  error: no answer";
        assert_eq!(explained(&judged()).join("\n"), expected);
        let nothing = Rollout { reason: "aborted".to_owned(), ..Rollout::default() };
        let lines = explained(&nothing);
        assert_eq!(lines[1..], ["went back: aborted", "there is no run, and no evidence"]);
    }

    #[test]
    fn a_status_says_what_the_evidence_is_and_what_it_is_worth() {
        let lines = lines(&judged());
        let expected = [
            "Evidence:   error-rate waits: the evidence leans against it, e-value 41.5 (robust 2.00e9) of 100",
            "            stable with itself: 0 of 8 comparisons raised a false alarm; the best 20 s count as nothing",
            "Evidence:   p/load passes",
        ];
        assert_eq!(lines[lines.len() - 3..], expected);
        let weight = "Weight:     configured 10 %, acknowledged 10 %, observed 9.50 % [8.25, 10.80] of 4000 requests";
        assert!(lines.iter().any(|line| line == weight), "{lines:#?}");
    }
}
