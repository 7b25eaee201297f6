//! The live table: one row per step, redrawn in place on a terminal, printed once otherwise.

use std::io::IsTerminal;

use testkit::load::Window;

use super::mesh::Split;
use crate::output::{redraw, say};

/// Width of the bar.
const BAR: usize = 30;

/// A table on standard output.
pub(super) struct Table {
    live: bool,
    row: String,
}

impl Table {
    /// Prints the head.
    pub(super) fn new() -> Self {
        say!("{:>10}  {:>13}  {:<BAR$}  {:>8}  {:>6}", "configured", "observed", "v1 # / v2 .", "requests", "failed");
        Self { live: std::io::stdout().is_terminal(), row: String::new() }
    }

    /// Shows what is seen of the current step.
    pub(super) fn row(&mut self, split: Split, window: &Window) {
        let counts = window.by_backend();
        let count = |name: &str| counts.get(name).copied().unwrap_or(0);
        let (v1, v2) = (count("v1"), count("v2"));
        let all = (v1 + v2).max(1) as f64;
        let share = v1 as f64 / all;
        let filled = if v1 + v2 == 0 { 0 } else { (share * BAR as f64).round() as usize };
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(if v1 + v2 == 0 { 0 } else { BAR - filled }));
        let observed = format!("{:.1}/{:.1}", 100.0 * share, 100.0 * v2 as f64 / all);
        let failed = window.failures().count();
        self.row = format!("{split:>10}  {observed:>13}  {bar:<BAR$}  {:>8}  {failed:>6}", window.len());
        if self.live {
            redraw(&self.row);
        }
    }

    /// Ends the row.
    pub(super) fn settle(&mut self) {
        if self.live {
            say!();
        } else {
            say!("{}", self.row);
        }
    }
}
