//! A document as a tree in which every value and every key knows its place.

/// A value and the place in its file where it starts; line and column count from 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) value: Value,
}

/// What a node holds. Maps keep the order of the text; the reader has refused repeated keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    Float(f64),
    String(Box<str>),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A map's key and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) text: Box<str>,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Node {
    /// The value under `key`, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    fn entry(&self, key: &str) -> Option<(&Key, &Node)> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| &*k.text == key).map(|(k, n)| (k, n)),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The same as JSON, without places. A number that JSON cannot say is null.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Unsigned(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::String(text) => (&**text).into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, node)| (key.text.to_string(), node.to_json())).collect(),
        }
    }

    /// Line and column of the field at `path` (`spec.http[0].match`, `data[tls.crt]`), or of the deepest part of it that
    /// exists. For a field this is where its name stands, for a list's item where the item starts.
    pub(crate) fn locate(&self, path: &str) -> (u32, u32) {
        let (mut node, mut place) = (self, (self.line, self.column));
        let mut rest = path;
        while !rest.is_empty() {
            if let Some(indexed) = rest.strip_prefix('[') {
                let Some((index, after)) = indexed.split_once(']') else { break };
                // Of a map it is a key that may look like a path itself (`data[tls.crt]`).
                let next = match &node.value {
                    Value::List(items) => index.parse().ok().and_then(|index: usize| items.get(index)),
                    _ => None,
                };
                match (next, node.entry(index)) {
                    (Some(item), _) => (node, place) = (item, (item.line, item.column)),
                    (None, Some((key, value))) => (node, place) = (value, (key.line, key.column)),
                    (None, None) => break,
                }
                rest = after.strip_prefix('.').unwrap_or(after);
                continue;
            }
            // Keys may hold dots themselves (`app.kubernetes.io/name`): take the longest that exists.
            let Value::Map(entries) = &node.value else { break };
            let ends = |key: &str| {
                rest.strip_prefix(key).is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
            };
            let Some((key, value)) =
                entries.iter().filter(|(k, _)| !k.text.is_empty() && ends(&k.text)).max_by_key(|(k, _)| k.text.len())
            else {
                break;
            };
            (node, place) = (value, (key.line, key.column));
            rest = &rest[key.text.len()..];
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        place
    }

    /// Every field and every item of a list below this node, which is at `path`, with line and column as
    /// [`Node::locate`] says them.
    pub(crate) fn places(&self, path: &str) -> Vec<(String, (u32, u32))> {
        let mut places = Vec::new();
        let mut open = vec![(path.to_owned(), self)];
        while let Some((path, node)) = open.pop() {
            match &node.value {
                Value::Map(entries) => {
                    for (key, value) in entries {
                        let path = if path.is_empty() { key.text.to_string() } else { format!("{path}.{}", key.text) };
                        places.push((path.clone(), (key.line, key.column)));
                        open.push((path, value));
                    }
                }
                Value::List(items) => {
                    for (at, item) in items.iter().enumerate() {
                        let path = format!("{path}[{at}]");
                        places.push((path.clone(), (item.line, item.column)));
                        open.push((path, item));
                    }
                }
                Value::Null
                | Value::Bool(_)
                | Value::Int(_)
                | Value::Unsigned(_)
                | Value::Float(_)
                | Value::String(_) => {}
            }
        }
        places
    }
}
