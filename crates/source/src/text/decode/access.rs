//! How a [`Decoder`] hands out the parts of lists, free-form maps and typed structures.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess};

use super::super::node::{Key, Node, Value};
use super::{Decoder, Mismatch, Step, Unknown};

/// The items of a list.
pub(super) struct Items<'n, 's> {
    list: Decoder<'n, 's>,
    items: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
}

impl<'n, 's> Items<'n, 's> {
    pub(super) fn new(list: Decoder<'n, 's>, items: &'n [Node]) -> Self {
        Self { list, items: items.iter().enumerate() }
    }
}

impl<'n> SeqAccess<'n> for Items<'n, '_> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some((at, node)) = self.items.next() else { return Ok(None) };
        self.list.child(Step::Index(at), node, |child| seed.deserialize(child)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of a map whose keys are free: labels, headers.
pub(super) struct Entries<'n, 's> {
    map: Decoder<'n, 's>,
    entries: std::slice::Iter<'n, (Key, Node)>,
    current: Option<&'n (Key, Node)>,
}

impl<'n, 's> Entries<'n, 's> {
    pub(super) fn new(map: Decoder<'n, 's>, entries: &'n [(Key, Node)]) -> Self {
        Self { map, entries: entries.iter(), current: None }
    }
}

impl<'n> MapAccess<'n> for Entries<'n, '_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        self.current = self.entries.next();
        let Some((key, _)) = self.current else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(&key.text)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let (key, node) = self.current.expect("serde asks for a key before its value");
        self.map.child(Step::Key(&key.text), node, |child| seed.deserialize(child))
    }
}

/// The fields of a structure: null ones are skipped, and so are unknown ones once they are noted.
pub(super) struct Fields<'n, 's> {
    structure: Decoder<'n, 's>,
    entries: std::slice::Iter<'n, (Key, Node)>,
    current: Option<&'n (Key, Node)>,
    known: &'static [&'static str],
}

impl<'n, 's> Fields<'n, 's> {
    pub(super) fn new(structure: Decoder<'n, 's>, entries: &'n [(Key, Node)], known: &'static [&'static str]) -> Self {
        Self { structure, entries: entries.iter(), current: None, known }
    }

    fn note_unknown(&self, key: &'n Key) {
        let mut state = self.structure.state.borrow_mut();
        state.path.push(Step::Field(&key.text));
        let unknown = Unknown {
            path: state.path(),
            pattern: state.pattern(),
            name: key.text.to_string(),
            line: key.line,
            column: key.column,
            known: self.known,
        };
        state.path.pop();
        state.unknown.push(unknown);
    }
}

impl<'n> MapAccess<'n> for Fields<'n, '_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        while let Some(entry) = self.entries.next() {
            let (key, node) = entry;
            if self.known.contains(&&*key.text) {
                if node.value != Value::Null {
                    self.current = Some(entry);
                    return seed.deserialize(StrDeserializer::new(&key.text)).map(Some);
                }
            } else if !self.structure.also.contains(&&*key.text) {
                self.note_unknown(key);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let (key, node) = self.current.expect("serde asks for a key before its value");
        self.structure.child(Step::Field(&key.text), node, |child| seed.deserialize(child))
    }
}
