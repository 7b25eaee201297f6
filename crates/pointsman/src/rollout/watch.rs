//! `pointsman rollout watch`: a live view on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

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

/// Between two attempts to reach a server that is being restarted.
const PAUSE: Duration = Duration::from_millis(500);

/// Shows the rollout until its run is over: 0 when it has completed, 1 when it has gone back.
pub(super) async fn watch(admin: &Admin, path: &str, output: Format) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let mut view = View { output, shown: None, last_event: 0 };
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
                    Err(error) if view.shown.is_none() => return Err(error),
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
    shown: Option<Rollout>,
    last_event: u64,
}

impl View {
    fn show(&mut self, rollout: &Rollout) -> Result<()> {
        match (self.output, std::io::stdout().is_terminal()) {
            (Format::Json, _) => say!("{}", serde_json::to_string(rollout)?),
            (Format::Text, true) => draw(rollout),
            (Format::Text, false) => {
                let before = self.shown.as_ref().map(line);
                if before.as_deref() != Some(&*line(rollout)) {
                    say!("{}", line(rollout));
                }
                for event in rollout.events.iter().filter(|event| event.id > self.last_event) {
                    say!("{}  {}: {}", event.at, event.event, event.text);
                }
            }
        }
        // A server that was restarted counts from the beginning.
        self.last_event = rollout.events.last().map_or(0, |event| event.id);
        self.shown = Some(rollout.clone());
        Ok(())
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
        text.push_str(&plain(&line));
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
