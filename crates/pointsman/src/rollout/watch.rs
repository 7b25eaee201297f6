//! `pointsman rollout watch`: a live view on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;
use server::view::{Failure, Rollout};
use testkit::http::Events;

use super::lists;
use crate::ask::Admin;
use crate::config::Format;
use crate::output::{plain, say};
use crate::serve::Signals;

/// Events that the live view shows.
const EVENTS: usize = 12;
/// An interrupt, as shells count it.
const INTERRUPTED: u8 = 130;

/// Numbers that are counted are told again after so long, when nothing else is new.
const NUMBERS: Duration = Duration::from_secs(10);
/// Between two attempts to reach a server that is being restarted.
const PAUSE: Duration = Duration::from_millis(500);

/// Shows the rollout until its run is over: 0 when it has completed, 1 when it has gone back.
pub(super) async fn watch(admin: &Admin, path: &str, output: Format) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut view = View { output, has_shown: false, shown: None, last_event: 0 };
    let mut last_id = String::new();
    let mut events = None::<Events>;
    loop {
        let next = async {
            if events.is_none() {
                events = Some(admin.events(&format!("{path}/events"), &last_id).await?);
            }
            match &mut events {
                Some(events) => events.next().await,
                None => Ok(None),
            }
        };
        let next = tokio::select! {
            next = next => next,
            () = signals.any() => return Ok(ExitCode::from(INTERRUPTED)),
        };
        match next {
            Ok(Some(event)) => {
                // It is told again when the stream is taken up again, unless it still stands so.
                last_id = event.id;
                let rollout: Rollout =
                    serde_json::from_str(&event.data).context("cannot read what the server tells")?;
                view.show(&rollout)?;
                match &*rollout.phase {
                    "Completed" => return Ok(ExitCode::SUCCESS),
                    "RolledBack" | "Superseded" | "Deleted" => return Ok(ExitCode::FAILURE),
                    _ => {}
                }
            }
            Ok(None) | Err(_) => {
                // The server ends, the connection broke, or there is nothing of this name: an answer decides which.
                events = None;
                match admin.call::<Rollout>(Method::GET, path, String::new()).await {
                    Ok(Err(Failure { error, hint, .. })) => bail!("{error}\n    {hint}"),
                    Err(error) if !view.has_shown => return Err(error),
                    // A server that is restarted is back in a moment.
                    Ok(Ok(_)) | Err(_) => {}
                }
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = signals.any() => return Ok(ExitCode::from(INTERRUPTED)),
                }
            }
        }
    }
}

/// What was shown.
struct View {
    output: Format,
    has_shown: bool,
    shown: Option<Shown>,
    last_event: u64,
}

/// A line that was printed.
struct Shown {
    standing: String,
    line: String,
    at: Instant,
}

impl View {
    fn show(&mut self, rollout: &Rollout) -> Result<()> {
        match (self.output, std::io::stdout().is_terminal()) {
            (Format::Json, _) => say!("{}", serde_json::to_string(rollout)?),
            (Format::Text, true) => draw(rollout),
            (Format::Text, false) => self.tell(rollout, Instant::now()).iter().for_each(|line| say!("{line}")),
        }
        // A server that was restarted counts from the beginning.
        self.last_event = rollout.events.last().map_or(0, |event| event.id);
        self.has_shown = true;
        Ok(())
    }

    /// What is new since the last time, as lines. Numbers that are counted change with every report; when nothing else
    /// does they are told now and then.
    fn tell(&mut self, rollout: &Rollout, now: Instant) -> Vec<String> {
        let (standing, line) = (standing(rollout), line(rollout));
        let is_new = self.shown.as_ref().is_none_or(|shown| {
            shown.standing != standing || shown.line != line && now.duration_since(shown.at) >= NUMBERS
        });
        let mut lines = Vec::new();
        if is_new {
            lines.push(line.clone());
            self.shown = Some(Shown { standing, line, at: now });
        }
        let events = rollout.events.iter().filter(|event| event.id > self.last_event);
        lines.extend(events.map(|event| format!("{}  {}: {}", event.at, event.event, event.text)));
        lines
    }
}

/// Where it stands, without the numbers that are counted.
fn standing(rollout: &Rollout) -> String {
    let Rollout { run, phase, step, weight, nodes, hold, .. } = rollout;
    let (weights, nodes) = ((weight.configured, weight.acknowledged), (nodes.accepted, nodes.concerned));
    let hold = hold.as_ref().map(|hold| &hold.reason);
    format!("{run} {phase} {step:?} {weights:?} {nodes:?} {hold:?} {:?}", lists::verdicts(rollout))
}

/// One line about where it stands and what is known.
fn line(rollout: &Rollout) -> String {
    let waits = rollout.hold.as_ref().map_or(String::new(), |hold| format!("; waits: {}", hold.text));
    let step = rollout.step.map_or(String::new(), |step| format!(" step {step}"));
    let evidence = Some(lists::evidence_in_short(rollout)).filter(|evidence| !evidence.is_empty());
    format!(
        "{} {}{step}: configured {} %, acknowledged {} % by {} of {} nodes, observed {}{}{waits}",
        rollout.run,
        rollout.phase,
        rollout.weight.configured,
        rollout.weight.acknowledged,
        rollout.nodes.accepted,
        rollout.nodes.concerned,
        lists::observed(rollout),
        evidence.map_or(String::new(), |evidence| format!("; {evidence}"))
    )
}

/// Draws over what was drawn before.
fn draw(rollout: &Rollout) {
    let mut stdout = std::io::stdout().lock();
    // A terminal that went away is no reason to stop.
    let _ = stdout.write_all(drawing(rollout).as_bytes()).and_then(|()| stdout.flush());
}

/// From the top left corner, each line to its end, and what is below is cleared.
fn drawing(rollout: &Rollout) -> String {
    let mut text = String::from("\x1b[H");
    let skipped = rollout.events.len().saturating_sub(EVENTS);
    let events = rollout.events.iter().skip(skipped).map(|event| format!("{}  {}", event.at, event.text));
    let bar = bar(rollout.weight.configured, rollout.weight.acknowledged);
    let lines = lists::lines(rollout).into_iter().chain([String::new(), bar, String::new()]).chain(events);
    for line in lines {
        text.push_str(&plain(&line));
        text.push_str("\x1b[K\n");
    }
    text.push_str("\x1b[J");
    text
}

/// The candidate's share: what is acknowledged, and what is on its way.
fn bar(configured: f64, acknowledged: f64) -> String {
    const WIDTH: f64 = 50.0;
    let cells = |percent: f64| (percent / 100.0 * WIDTH).round() as usize;
    let (sure, way) = (cells(configured.min(acknowledged)), cells(configured.max(acknowledged)));
    let rest = WIDTH as usize - way;
    format!("[{}{}{}] {configured} %", "#".repeat(sure), "-".repeat(way - sure), " ".repeat(rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use server::view::{ObservedShare, RolloutEvent, RolloutHold, RolloutNodes, RolloutWeights};

    use super::*;

    #[test]
    fn the_bar_shows_what_is_on_its_way() {
        assert_eq!(bar(50.0, 10.0), format!("[{}{}{}] 50 %", "#".repeat(5), "-".repeat(20), " ".repeat(25)));
        assert_eq!(bar(0.0, 100.0).matches('-').count(), 50);
        assert_eq!(bar(100.0, 100.0).matches('#').count(), 50);
    }

    fn rollout(e_value: f64, requests: u64) -> Rollout {
        let metric = serde_json::json!({
            "name": "error-rate",
            "verdict": format!("waits: {requests} requests are not enough"),
            "counted": {"relative": {"eValue": e_value, "robustEValue": 0.5, "bound": 100.0}},
        });
        let observed = ObservedShare { percent: 9.5, interval: [8.25, 10.8], requests, includes_chosen: false };
        let event =
            |id| RolloutEvent { id, event: "Phase".to_owned(), text: format!("step {id}"), ..RolloutEvent::default() };
        Rollout {
            run: "web-1".to_owned(),
            phase: "Waiting".to_owned(),
            step: Some(1),
            weight: RolloutWeights { configured: 10.0, acknowledged: 10.0, observed: Some(observed) },
            nodes: RolloutNodes { accepted: 3, concerned: 3, ..RolloutNodes::default() },
            hold: Some(RolloutHold {
                reason: "Evidence".to_owned(),
                text: "for more".to_owned(),
                ..RolloutHold::default()
            }),
            events: vec![event(1)],
            analysis: Some(serde_json::json!({"metrics": [metric]})),
            ..Rollout::default()
        }
    }

    #[test]
    fn without_a_terminal_a_line_has_weights_evidence_and_its_bound() {
        let mut view = View { output: Format::Text, has_shown: false, shown: None, last_event: 0 };
        let now = Instant::now();
        let line = "web-1 Waiting step 1: configured 10 %, acknowledged 10 % by 3 of 3 nodes, observed 9.50 % [8.25, 10.80] \
                    of 40 requests; error-rate waits: 40 requests are not enough, e-value 1.5 (robust 0.5) of 100; \
                    waits: for more";
        let event = format!("{}  Phase: step 1", rollout(1.5, 40).events[0].at);
        assert_eq!(view.tell(&rollout(1.5, 40), now), [line, &event]);
        view.last_event = 1;
        // Other numbers alone are told after ten seconds, something else at once.
        assert!(view.tell(&rollout(2.5, 50), now + NUMBERS / 2).is_empty());
        let later = view.tell(&rollout(3.5, 60), now + NUMBERS);
        assert!(later.len() == 1 && later[0].contains("e-value 3.5"), "{later:?}");
        let lines = view.tell(&Rollout { step: Some(2), ..rollout(3.5, 60) }, now + NUMBERS);
        assert!(lines.len() == 1 && lines[0].starts_with("web-1 Waiting step 2"), "{lines:?}");
        assert!(
            view.tell(&Rollout { step: Some(2), ..rollout(3.5, 60) }, now + NUMBERS * 9).is_empty(),
            "nothing is new"
        );
    }

    #[test]
    fn on_a_terminal_everything_is_drawn_over_what_was_there() {
        let mut rollout = rollout(1.5, 40);
        rollout.events[0].text = "what \x1b[31m somebody says".to_owned();
        let text = drawing(&rollout);
        let frame = text.strip_prefix("\x1b[H").and_then(|text| text.strip_suffix("\x1b[J")).unwrap();
        let lines: Vec<_> = frame.split_terminator("\x1b[K\n").collect();
        assert!(lines.iter().all(|line| !line.contains('\x1b')), "nothing that anybody says is obeyed: {lines:#?}");
        for part in ["observed 9.50 % [8.25, 10.80]", "e-value 1.5 (robust 0.5) of 100", "[#####", "somebody says"] {
            assert!(lines.iter().any(|line| line.contains(part)), "{part} in {lines:#?}");
        }
    }
}
