//! A report as text.

use std::fmt;

use super::{CostReport, PhaseReport, Report, Span};
use crate::scenario::{NodeSize, Variant};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { String::new() } else { format!("{}: ", self.name) };
        let variant = match self.variant {
            Variant::Delta => "delta",
            Variant::Sotw => "state-of-the-world",
        };
        let node = match self.node {
            NodeSize::Small => "small",
            NodeSize::Full => "full-size",
        };
        writeln!(f, "{name}{} {variant} nodes ({node}) against {}", self.nodes, self.server)?;
        writeln!(f)?;
        let head = [
            "phase",
            "nodes",
            "first ms",
            "p50",
            "p90",
            "p99",
            "last",
            "B/node",
            "server µs/node",
            "client µs/node",
            "server RSS",
            "",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        self.phases.iter().for_each(|phase| rows.extend(phase.rows()));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..head.len()).map(width).collect();
        for row in &rows {
            let mut line = format!("{:<1$}", row[0], widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                line.push_str(&format!("  {cell:>width$}"));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        self.phases.iter().try_for_each(|phase| phase.details(f))?;
        if self.is_interrupted {
            writeln!(f, "\nInterrupted: the last phase is not whole.")?;
        }
        Ok(())
    }
}

impl PhaseReport {
    /// One row for each kind of time that it has.
    fn rows(&self) -> Vec<[String; 12]> {
        let times = match self.repetitions {
            0 | 1 => String::new(),
            times => format!(" ×{times}"),
        };
        let named = [(" → synced", &self.synced), (" → arrived", &self.arrived), (" → ACK", &self.acknowledged)];
        let mut rows: Vec<_> = named
            .into_iter()
            .filter_map(|(what, span)| Some((format!("{}{times}{what}", self.phase), span.as_ref()?)))
            .map(|(name, span)| self.row(name, Some(span)))
            .collect();
        if rows.is_empty() {
            rows.push(self.row(format!("{}{times}", self.phase), None));
        }
        // What belongs to the phase and not to one kind of time is said once.
        for row in rows.iter_mut().skip(1) {
            row[7..].fill(String::new());
        }
        rows
    }

    fn row(&self, name: String, span: Option<&Span>) -> [String; 12] {
        let time = |of: fn(&Span) -> f64| span.map_or_else(|| "-".to_owned(), |span| format!("{:.2}", of(span)));
        let cpu = |cost: CostReport| format!("{:.1}", cost.micros_per_node);
        let reached = span.map_or(self.reached, |span| span.count);
        [
            name,
            format!("{reached}/{}", self.wanted),
            time(|span| span.first),
            time(|span| span.p50),
            time(|span| span.p90),
            time(|span| span.p99),
            time(|span| span.last),
            format!("{:.0}", self.bytes_per_node),
            self.server.map_or_else(|| "-".to_owned(), cpu),
            cpu(self.client),
            self.server.map_or_else(|| "-".to_owned(), |server| mebibytes(server.rss_bytes_after)),
            if self.is_client_bound == Some(true) { "client-bound".to_owned() } else { String::new() },
        ]
    }

    fn details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}, {:.1} s, {} connected", self.phase, self.seconds, self.connected)?;
        for (name, count) in &self.types {
            write!(f, "  {name}: {} responses, {} resources", count.responses, count.resources)?;
            writeln!(f, ", {} removed, {} bytes", count.removed, count.bytes)?;
        }
        writeln!(f, "  sockets: {} bytes received, {} sent", self.received_bytes, self.sent_bytes)?;
        if let Some(server) = self.server {
            write!(
                f,
                "  server: {:.3} s of CPU, RSS {} before",
                server.cpu_seconds,
                mebibytes(server.rss_bytes_before)
            )?;
            writeln!(f, " and {} after, peak {}", mebibytes(server.rss_bytes_after), mebibytes(server.peak_bytes))?;
        }
        let client = self.client;
        writeln!(f, "  client: {:.3} s of CPU, RSS {}", client.cpu_seconds, mebibytes(client.rss_bytes_after))?;
        if self.refused > 0 || self.unasked > 0 {
            writeln!(f, "  {} responses refused, {} not asked for", self.refused, self.unasked)?;
        }
        for (reason, count) in &self.ends {
            writeln!(f, "  {count} × {reason}")?;
        }
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
