//! Figures and the tables that show them.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::time::Duration;

/// Values in order of size.
#[derive(Clone, Debug, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    pub fn new(values: impl IntoIterator<Item = f64>) -> Figures {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Figures(values)
    }

    pub fn of(durations: impl IntoIterator<Item = Duration>) -> Figures {
        Figures::new(durations.into_iter().map(|duration| duration.as_secs_f64()))
    }

    /// The value that `percent` of all values do not exceed (nearest rank). Of 50 values the 99th is the largest.
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn min(&self) -> f64 {
        self.percentile(0.0)
    }

    pub fn median(&self) -> f64 {
        self.percentile(50.0)
    }

    pub fn max(&self) -> f64 {
        self.percentile(100.0)
    }
}

/// Seconds as a person would write them.
pub fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    format!("{value:.*} {unit}", if value < 10.0 { 2 } else { usize::from(value < 100.0) })
}

/// Bytes as a person would write them, in powers of ten.
pub fn bytes(count: f64) -> String {
    match count {
        c if c < 1e3 => format!("{c:.0} B"),
        c if c < 1e6 => format!("{:.1} kB", c / 1e3),
        c => format!("{:.1} MB", c / 1e6),
    }
}

/// Whether a target is reached.
pub fn verdict(is_reached: bool) -> &'static str {
    if is_reached { "yes" } else { "NO" }
}

/// A table with a title, in the form of Markdown.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(title: &str, columns: [&str; N]) -> Table {
        Table { title: title.to_owned(), rows: vec![columns.map(str::to_owned).to_vec()] }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.rows[0].len());
        self.rows.push(cells.to_vec());
    }

    pub fn print(&self) {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        println!("\n### {}\n", self.title);
        for (at, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
            println!("|{}", cells.collect::<String>());
            if at == 0 {
                println!("|{}", widths.iter().map(|width| format!("{}|", "-".repeat(width + 2))).collect::<String>());
            }
        }
    }
}
