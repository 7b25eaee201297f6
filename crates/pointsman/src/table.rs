//! Tables on standard output.

use crate::output::say;

/// Prints columns as wide as their widest cell.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) {
    let len = |text: &str| text.chars().count();
    let width = |at: usize| rows.iter().map(|row| len(&row[at])).chain([len(head[at])]).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        say!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(head);
    for row in &rows {
        line(std::array::from_fn(|at| row[at].as_str()));
    }
}
