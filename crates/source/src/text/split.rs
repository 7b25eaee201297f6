//! Cuts a file into documents before any of them is parsed, so that a broken one costs only itself.

use serde::de::IgnoredAny;

/// The text of one document and the number of lines of the file above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'t> {
    pub(super) text: &'t str,
    pub(super) lines_above: u32,
}

/// Cuts at lines that start with `---` or that are `...`. In YAML such a line is a boundary wherever it stands, even
/// inside quotes and block scalars, so no value is ever cut. `%` directives go with the document below them; a piece
/// without content is dropped.
pub(super) fn yaml(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let (mut has_content, mut has_directive) = (false, false);
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let marker = is_marker(line, "---");
        if marker {
            if has_content {
                documents.push(Document { text: &text[start..offset], lines_above: start_line });
            }
            if has_content || !has_directive {
                (start, start_line) = (offset, number);
            }
            has_directive = false;
            // Content may follow the marker on its line.
            has_content = !is_empty(line[3..].trim());
        } else if is_marker(line, "...") {
            if has_content {
                documents.push(Document { text: &text[start..offset], lines_above: start_line });
            }
            (start, start_line) = (offset + line.len(), number + 1);
            (has_content, has_directive) = (false, false);
        } else if line.starts_with('%') && !has_content {
            has_directive = true;
        } else if !is_empty(line.trim()) {
            has_content = true;
        }
        offset += line.len();
    }
    if has_content {
        documents.push(Document { text: &text[start..], lines_above: start_line });
    }
    documents
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_empty(trimmed: &str) -> bool {
    trimmed.is_empty() || trimmed.starts_with('#')
}

/// A place in JSON where reading stopped, line and column counted from 1 in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JsonError {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
}

/// Cuts JSON values that follow one another; stops at the first that cannot be read.
pub(super) fn json(text: &str) -> (Vec<Document<'_>>, Option<JsonError>) {
    let mut documents = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let (mut start, mut lines_above) = (0, 0);
    loop {
        match values.next() {
            None => return (documents, None),
            Some(Ok(_)) => {
                let end = values.byte_offset();
                let piece = &text[start..end];
                documents.push(Document { text: piece, lines_above });
                lines_above += lines(piece);
                start = end;
            }
            Some(Err(error)) => {
                let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                let message = error.to_string();
                // The place is reported on its own.
                let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
                return (
                    documents,
                    Some(JsonError { line: narrow(error.line()), column: narrow(error.column()), message }),
                );
            }
        }
    }
}

fn lines(text: &str) -> u32 {
    u32::try_from(text.bytes().filter(|b| *b == b'\n').count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cut(text: &str) -> Vec<(u32, &str)> {
        yaml(text).into_iter().map(|d| (d.lines_above, d.text)).collect()
    }

    #[test]
    fn documents_are_cut_at_marker_lines_only() {
        assert_eq!(cut("a: 1\n---\nb: |\n  ---\n  x\n---\n"), [(0, "a: 1\n"), (1, "---\nb: |\n  ---\n  x\n")]);
        assert_eq!(cut("# head\n---\n# more\n\n---\na: 1"), [(4, "---\na: 1")]);
        assert_eq!(cut("--- a\n--- b\n"), [(0, "--- a\n"), (1, "--- b\n")]);
        assert_eq!(cut("----\n"), [(0, "----\n")]);
        assert_eq!(cut(""), []);
        assert_eq!(cut("---\n# nothing\n"), []);
    }

    #[test]
    fn directives_stay_with_the_document_below() {
        assert_eq!(cut("a: 1\n...\n%YAML 1.2\n---\nb: 2\n"), [(0, "a: 1\n"), (2, "%YAML 1.2\n---\nb: 2\n")]);
    }

    #[test]
    fn carriage_returns_do_not_hide_a_marker() {
        assert_eq!(cut("a: 1\r\n---\r\nb: 2\r\n"), [(0, "a: 1\r\n"), (1, "---\r\nb: 2\r\n")]);
    }

    #[test]
    fn json_values_that_follow_one_another_are_cut() {
        let (documents, error) = json("{\"a\":\n1}\n{\"b\":2}");
        assert_eq!(documents.len(), 2);
        assert_eq!((documents[1].lines_above, documents[1].text), (1, "\n{\"b\":2}"));
        assert_eq!(error, None);
    }

    #[test]
    fn json_before_a_broken_value_is_kept() {
        let (documents, error) = json("{\"a\":1}\n{\"b\":}");
        assert_eq!(documents.len(), 1);
        let error = error.unwrap();
        assert_eq!((error.line, error.column, error.message.as_str()), (2, 6, "expected value"));
    }
}
