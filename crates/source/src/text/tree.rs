//! From the events of one YAML document to its tree.
//!
//! Without recursion, and with a bound on everything that a small text can make large: depth, values, and what aliases
//! expand to.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag, options};

use super::node::{Key, Node, Value};
use super::scalar;
use super::split::Document;

/// Nested deeper than this nothing is read: a CustomResourceDefinition reaches about 60.
const MAX_DEPTH: usize = 100;

/// Values of one document, those that aliases repeat included. `kubectl get` of 30,000 objects has about 2,500,000; as
/// many take about half a gigabyte.
const MAX_VALUES: usize = 4_000_000;

/// Values that the aliases of one document repeat.
const MAX_REPEATED: usize = 200_000;

/// Where and why a document cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) message: String,
}

/// Reads one document; null when it is empty.
pub(super) fn build(document: &Document<'_>) -> Result<Node, Broken> {
    let parser = Parser::new_from_str_with_options(
        document.text,
        options! { emit_comments: false, flow_nesting_limit: MAX_DEPTH + 2, block_nesting_limit: MAX_DEPTH + 2 },
    );
    let mut builder = Builder { lines_above: document.lines_above, ..Builder::default() };
    for event in parser {
        match event {
            Ok((event, span)) => builder.take(event, span.start)?,
            Err(error) => {
                // The parser looks ahead into flow collections and may meet the limit before this builder does.
                let message = match error.info() {
                    info if info.contains("recursion limit") => too_deep(),
                    info => info,
                };
                return Err(builder.broken(*error.marker(), message));
            }
        }
    }
    Ok(builder.root.unwrap_or(Node { line: document.lines_above + 1, column: 1, value: Value::Null }))
}

fn too_deep() -> String {
    format!("values are nested deeper than {MAX_DEPTH}")
}

#[derive(Default)]
struct Builder {
    lines_above: u32,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Anchored>,
    values: usize,
    repeated: usize,
}

/// A collection that is not closed yet.
struct Open {
    line: u32,
    column: u32,
    anchor: usize,
    /// How many values there were before it.
    before: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, merged: Vec<Node> },
}

struct Anchored {
    node: Node,
    values: usize,
}

/// The key that takes over the entries of another mapping.
const MERGE: &str = "<<";

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Marker) -> Result<(), Broken> {
        match event {
            Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag, at),
            Event::SequenceStart(_, anchor, _) => self.start(Content::List(Vec::new()), anchor, at),
            Event::MappingStart(_, anchor, _) => {
                self.start(Content::Map { entries: Vec::new(), key: None, merged: Vec::new() }, anchor, at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(self.broken(at, "a second document begins in the middle of a line".to_owned()))
            }
            // The remaining ones carry no value. The enum grows with the parser's options, which are fixed above.
            _ => Ok(()),
        }
    }

    fn place(&self, at: Marker) -> (u32, u32) {
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        (narrow(at.line()).saturating_add(self.lines_above), narrow(at.col()).saturating_add(1))
    }

    fn broken(&self, at: Marker, message: String) -> Broken {
        let (line, column) = self.place(at);
        Broken { line, column, message }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        at: Marker,
    ) -> Result<(), Broken> {
        self.count(1, at)?;
        let (line, column) = self.place(at);
        let is_plain = style == ScalarStyle::Plain && tag.is_none();
        if let Some(Open { content: Content::Map { key: key @ None, .. }, .. }) = self.open.last_mut() {
            let is_merge = is_plain && text == MERGE;
            // A merge is kept apart from a quoted key of the same text by an empty place.
            let (line, column) = if is_merge { (0, 0) } else { (line, column) };
            *key = Some(Key { text: text.into(), line, column });
            if anchor > 0 {
                let node = Node { line, column, value: Value::String(text.into()) };
                self.anchors.insert(anchor, Anchored { node, values: 1 });
            }
            return Ok(());
        }
        let value = match tag.as_deref().map(Tag::suffix) {
            None if is_plain => scalar::resolve(text),
            // `!!int "5"`: as if it were not quoted.
            Some("null" | "bool" | "int" | "float") => scalar::resolve(text),
            _ => Value::String(text.into()),
        };
        self.finish(Node { line, column, value }, anchor, 1, at)
    }

    fn start(&mut self, content: Content, anchor: usize, at: Marker) -> Result<(), Broken> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.broken(at, too_deep()));
        }
        if let Some(Open { content: Content::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(self.broken(at, "a key must be a single value".to_owned()));
        }
        let before = self.values;
        self.count(1, at)?;
        let (line, column) = self.place(at);
        self.open.push(Open { line, column, anchor, before, content });
        Ok(())
    }

    fn end(&mut self, at: Marker) -> Result<(), Broken> {
        let Some(Open { line, column, anchor, before, content }) = self.open.pop() else {
            return Err(self.broken(at, "a collection ends that has not begun".to_owned()));
        };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map { mut entries, merged, .. } => {
                if let Some(key) = repeated_key(&entries) {
                    let message = format!("key \"{}\" is given twice", key.text);
                    return Err(Broken { line: key.line, column: key.column, message });
                }
                for node in merged {
                    merge(&mut entries, node);
                }
                Value::Map(entries)
            }
        };
        let values = self.values - before;
        self.finish(Node { line, column, value }, anchor, values, at)
    }

    fn alias(&mut self, anchor: usize, at: Marker) -> Result<(), Broken> {
        let Some(Anchored { node, values }) = self.anchors.get(&anchor) else {
            return Err(self.broken(at, "an alias stands inside of what it refers to".to_owned()));
        };
        let values = *values;
        if self.repeated + values > MAX_REPEATED {
            return Err(self.broken(at, format!("aliases repeat more than the limit of {MAX_REPEATED} values")));
        }
        let (line, column) = self.place(at);
        if let Some(Open { content: Content::Map { key: key @ None, .. }, .. }) = self.open.last_mut() {
            let Some(text) = node.as_str() else {
                return Err(self.broken(at, "a key must be a single value".to_owned()));
            };
            *key = Some(Key { text: text.into(), line, column });
            return Ok(());
        }
        let node = Node { line, column, value: node.value.clone() };
        self.repeated += values;
        self.count(values, at)?;
        self.finish(node, 0, values, at)
    }

    fn count(&mut self, values: usize, at: Marker) -> Result<(), Broken> {
        self.values += values;
        if self.values > MAX_VALUES {
            return Err(self.broken(at, format!("the document has more than the limit of {MAX_VALUES} values")));
        }
        Ok(())
    }

    /// Puts a complete value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, values: usize, at: Marker) -> Result<(), Broken> {
        if anchor > 0 {
            // The copy that is kept counts like a repetition: anchors alone must not double the memory unbounded.
            self.repeated += values;
            if self.repeated > MAX_REPEATED {
                return Err(self.broken(at, format!("anchors hold more than the limit of {MAX_REPEATED} values")));
            }
            self.anchors.insert(anchor, Anchored { node: node.clone(), values });
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key, merged }) => match key.take() {
                Some(key) if key.line == 0 => match &node.value {
                    Value::Map(_) => merged.push(node),
                    Value::List(items) if items.iter().all(|n| matches!(n.value, Value::Map(_))) => {
                        merged.extend(items.iter().cloned());
                    }
                    _ => return Err(self.broken(at, "<< takes a mapping, or a list of them".to_owned())),
                },
                Some(key) => entries.push((key, node)),
                None => return Err(self.broken(at, "a key must be a single value".to_owned())),
            },
        }
        Ok(())
    }
}

/// The second of two equal keys.
fn repeated_key(entries: &[(Key, Node)]) -> Option<&Key> {
    if entries.len() < 16 {
        return entries.iter().enumerate().find_map(|(at, (key, _))| {
            entries[..at].iter().any(|(earlier, _)| earlier.text == key.text).then_some(key)
        });
    }
    let mut seen = std::collections::HashSet::with_capacity(entries.len());
    entries.iter().map(|(key, _)| key).find(|key| !seen.insert(&key.text))
}

/// Takes over what `entries` do not say themselves.
fn merge(entries: &mut Vec<(Key, Node)>, node: Node) {
    let Value::Map(others) = node.value else { return };
    for (key, value) in others {
        if !entries.iter().any(|(own, _)| own.text == key.text) {
            entries.push((key, value));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Node, Broken> {
        build(&Document { text, lines_above: 0 })
    }

    /// The tree as JSON-like text.
    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Unsigned(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::String(text) => format!("{text:?}"),
            Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
            Value::Map(entries) => {
                let entry = |(key, node): &(Key, Node)| format!("{}: {}", key.text, shown(node));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        }
    }

    #[test]
    fn aliases_and_merges_are_written_out() {
        let node =
            read("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: [*a]\n\"<<\": 4\nd: {<<: [*a, {z: 5}]}\n").unwrap();
        assert_eq!(shown(&node), "{a: {x: 1, y: 2}, b: {y: 3, x: 1}, c: [{x: 1, y: 2}], <<: 4, d: {x: 1, y: 2, z: 5}}");
    }

    #[test]
    fn quotes_and_tags_decide_what_a_scalar_is() {
        let node = read("[1, '1', \"1\", !!str 1, !!int '1', !other 1]").unwrap();
        assert_eq!(shown(&node), "[1, \"1\", \"1\", \"1\", 1, \"1\"]");
    }

    #[test]
    fn what_cannot_be_expanded_is_refused() {
        for (text, message) in [
            ("a: &a [*a]", "an alias stands inside of what it refers to"),
            ("{<<: 5}", "<< takes a mapping, or a list of them"),
            ("{[a]: 5}", "a key must be a single value"),
            ("{a: 1, b: 2, a: 3}", "key \"a\" is given twice"),
        ] {
            assert_eq!(read(text).unwrap_err().message, message, "{text}");
        }
    }

    #[test]
    fn places_count_from_the_top_of_the_file() {
        let node = build(&Document { text: "a:\n  b:\n  - c: 1\n", lines_above: 10 }).unwrap();
        assert_eq!(node.locate("a"), (11, 1));
        assert_eq!(node.locate("a.b"), (12, 3));
        assert_eq!(node.locate("a.b[0]"), (13, 5));
        assert_eq!(node.locate("a.b[0].c"), (13, 5));
        assert_eq!(node.locate("a.b[7].c"), (12, 3), "the deepest part that exists");
    }
}
