//! The steps, what is seen at each, and the verdict.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testkit::stats;

use super::mesh::{Mesh, Split};
use super::table::Table;
use crate::output::say;

/// The splits in order; the last one is the way back, at once.
const STEPS: [Split; 5] = [
    Split { v1: 100, v2: 0 },
    Split { v1: 80, v2: 20 },
    Split { v1: 50, v2: 50 },
    Split { v1: 0, v2: 100 },
    Split { v1: 100, v2: 0 },
];

/// How often the table is drawn anew.
const TICK: Duration = Duration::from_millis(250);

/// The walk to be done.
pub(super) struct Walk {
    step: Duration,
}

/// What was seen.
#[derive(Default)]
pub(super) struct Report {
    changes: Vec<(Split, Duration)>,
    requests: usize,
    failures: Vec<String>,
    off: Vec<String>,
}

impl Walk {
    /// A walk of this length in all.
    pub(super) fn new(length: Duration) -> Self {
        Self { step: length / STEPS.len() as u32 }
    }

    /// Goes through all steps.
    pub(super) async fn run(&self, mesh: &mut Mesh) -> Result<Report> {
        let mut report = Report::default();
        let mut table = Table::new();
        let begun = Instant::now();
        let mut current = None;
        for split in STEPS {
            let written = if current.is_some_and(|c| c != split) { Some(mesh.set(split)?) } else { None };
            current = Some(split);
            let since = match written {
                None => Instant::now(),
                Some(written) => {
                    let mark = split.to_string();
                    let seen = mesh
                        .load()
                        .first(written, self.step.max(Duration::from_secs(10)), |sample| sample.mark() == Some(&*mark));
                    let first = seen.await.context("the new split never reached the traffic")?;
                    report.changes.push((split, first.finished().duration_since(written)));
                    // What was begun after the first request of the new split is judged by the new split.
                    first.finished()
                }
            };
            self.watch(mesh, &mut table, split, since).await;
            let window = mesh.load().window(since, Instant::now()).await;
            let fit = stats::fit(&window.by_backend(), &[("v1", split.v1), ("v2", split.v2)]);
            if fit.p < stats::FALSE_ALARM {
                report.off.push(format!("at {split}: {fit}"));
            }
        }
        let all = mesh.load().since(begun).await;
        report.requests = all.len();
        report.failures = all.failures().map(|sample| sample.outcome.to_string()).collect();
        Ok(report)
    }

    async fn watch(&self, mesh: &Mesh, table: &mut Table, split: Split, since: Instant) {
        let end = since + self.step;
        loop {
            let now = Instant::now();
            let window = mesh.load().window(since, now).await;
            table.row(split, &window);
            if now >= end {
                break;
            }
            tokio::time::sleep(TICK.min(end - now)).await;
        }
        table.settle();
    }
}

impl Report {
    /// Whether no request failed and every split was as configured.
    pub(super) fn is_good(&self) -> bool {
        self.failures.is_empty() && self.off.is_empty() && self.requests > 0
    }

    /// Prints the summary.
    pub(super) fn print(&self) {
        say!("\nFrom writing the file to the first request under the new weights:");
        for (split, took) in &self.changes {
            say!("  {split:>7}  {:6.1} ms", took.as_secs_f64() * 1e3);
        }
        say!("\n{} requests, {} failed.", self.requests, self.failures.len());
        for failure in self.failures.iter().take(5) {
            say!("  failed: {failure}");
        }
        for off in &self.off {
            say!("  split off (chi-square, p < {:.0e}): {off}", stats::FALSE_ALARM);
        }
        say!("{}", if self.is_good() { "All splits were as configured." } else { "Something was wrong: see above." });
    }
}
