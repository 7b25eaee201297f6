//! `pointsman rollout watch`: a live view on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use server::view::Rollout;

use super::{PAUSE, lists};
use crate::ask::ask;
use crate::config::Format;
use crate::output::say;
use crate::serve::Signals;

/// Events that the live view shows.
const EVENTS: usize = 12;
/// An interrupt, as shells count it.
const INTERRUPTED: u8 = 130;

/// Shows the rollout until its run is over: 0 when it has completed, 1 when it has gone back.
pub(super) async fn watch(admin: SocketAddr, path: &str, output: Format) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let is_live = output == Format::Text && std::io::stdout().is_terminal();
    let (mut shown, mut last_event) = (None::<Rollout>, 0);
    loop {
        let rollout: Rollout = ask(admin, path).await?;
        if shown.as_ref() != Some(&rollout) {
            match (output, is_live) {
                (Format::Json, _) => say!("{}", serde_json::to_string(&rollout)?),
                (Format::Text, true) => draw(&rollout),
                (Format::Text, false) => {
                    let before = shown.as_ref().map(line);
                    if before.as_deref() != Some(&*line(&rollout)) {
                        say!("{}", line(&rollout));
                    }
                    for event in rollout.events.iter().filter(|event| event.id > last_event) {
                        say!("{}  {}: {}", event.at, event.event, event.text);
                    }
                }
            }
            last_event = rollout.events.last().map_or(last_event, |event| event.id);
        }
        match &*rollout.phase {
            "Completed" => return Ok(ExitCode::SUCCESS),
            "RolledBack" | "Superseded" | "Deleted" => return Ok(ExitCode::FAILURE),
            _ => {}
        }
        shown = Some(rollout);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = signals.any() => return Ok(ExitCode::from(INTERRUPTED)),
        }
    }
}

/// One line about where it stands.
fn line(rollout: &Rollout) -> String {
    let waits = rollout.hold.as_ref().map_or(String::new(), |hold| format!("; waits: {}", hold.text));
    let step = rollout.step.map_or(String::new(), |step| format!(" step {step}"));
    format!(
        "{} {}{step}: configured {} %, acknowledged {} % by {} of {} nodes{waits}",
        rollout.run,
        rollout.phase,
        rollout.weight.configured,
        rollout.weight.acknowledged,
        rollout.nodes.accepted,
        rollout.nodes.concerned
    )
}

/// Draws over what was drawn before: from the top left corner, each line to its end, and what is below is cleared.
fn draw(rollout: &Rollout) {
    let mut text = String::from("\x1b[H");
    let skipped = rollout.events.len().saturating_sub(EVENTS);
    let events = rollout.events.iter().skip(skipped).map(|event| format!("{}  {}", event.at, event.text));
    let bar = bar(rollout.weight.configured, rollout.weight.acknowledged);
    let lines = lists::lines(rollout).into_iter().chain([String::new(), bar, String::new()]).chain(events);
    for line in lines {
        text.push_str(&line);
        text.push_str("\x1b[K\n");
    }
    text.push_str("\x1b[J");
    let mut stdout = std::io::stdout().lock();
    // A terminal that went away is no reason to stop.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
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
    use super::*;

    #[test]
    fn the_bar_shows_what_is_on_its_way() {
        assert_eq!(bar(50.0, 10.0), format!("[{}{}{}] 50 %", "#".repeat(5), "-".repeat(20), " ".repeat(25)));
        assert_eq!(bar(0.0, 100.0).matches('-').count(), 50);
        assert_eq!(bar(100.0, 100.0).matches('#').count(), 50);
    }
}
