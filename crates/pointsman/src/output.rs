//! Standard output, which carries results and nothing else.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
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
    let _ = writeln!(std::io::stdout().lock(), "{}", plain(&text.to_string()));
}

/// A text without anything that a terminal would obey: what people and servers say is shown, not carried out. Control
/// characters are written as JSON writes them, so that a document stays one; lines and tabs are left.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(is_obeyed) {
        return text.into();
    }
    let escaped = text.chars().fold(String::with_capacity(text.len() + 16), |mut escaped, c| {
        match is_obeyed(c) {
            // Writing to a string does not fail.
            true => _ = write!(escaped, "\\u{:04x}", u32::from(c)),
            false => escaped.push(c),
        }
        escaped
    });
    escaped.into()
}

/// Draws over the current line of a terminal.
pub(crate) fn redraw(text: &str) {
    let mut stdout = std::io::stdout().lock();
    // A terminal that went away is no reason to stop.
    let _ = write!(stdout, "\r{text}").and_then(|()| stdout.flush());
}

/// An error with what has caused it; what a message has said already is not said again.
pub(crate) fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        let text = "\x1b]0;gone\x07 a\tb\nc\0\u{9b}2J\r";
        assert_eq!(plain(text), "\\u001b]0;gone\\u0007 a\tb\nc\\u0000\\u009b2J\\u000d");
        assert!(matches!(plain("größer\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_document_says_the_same_as_before() {
        let document = serde_json::json!({"reason": "a\x1b[31m\u{9b}b\x7f"});
        let shown = plain(&document.to_string()).into_owned();
        assert!(!shown.contains('\u{9b}'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).ok(), Some(document));
    }

    #[test]
    fn what_has_caused_an_error_is_said_once() {
        let error = anyhow::anyhow!("permission denied")
            .context("cannot read \"key.pem\": permission denied")
            .context("cannot serve TLS")
            .context("cannot start to serve");
        let said = "cannot start to serve: cannot serve TLS: cannot read \"key.pem\": permission denied";
        assert_eq!(causes(&error), said);
    }
}
