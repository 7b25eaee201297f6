//! Standard output, which carries results and nothing else.

use std::fmt;
use std::io::Write;

/// Prints a line to standard output, as `println!` does, but goes on when nobody reads it any more: `pointsman check |
/// head -1` must not end in a panic, and its exit code is that of the check.
macro_rules! say {
    () => { $crate::output::line(format_args!("")) };
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}

pub(crate) use say;

/// Prints a line; see [`say`].
pub(crate) fn line(text: fmt::Arguments<'_>) {
    // The one error that is likely is a closed pipe; there is nowhere to report any.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Draws over the current line of a terminal.
pub(crate) fn redraw(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // A terminal that went away is no reason to stop.
    let _ = write!(stdout, "\r{text}").and_then(|()| stdout.flush());
}
