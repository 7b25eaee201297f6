//! A part of a foreign object, read field by field.

use std::cell::RefCell;
use std::time::Duration;

use world::api::delivery::parse_duration;

use super::{Remarks, Weight};
use crate::text::{Node, Value};

/// A mapping. Every field that is asked for, or remarked on, counts as taken; all others are remarked on when the
/// section is dropped.
pub(super) struct Section<'n, 'r> {
    file: &'n str,
    node: &'n Node,
    path: String,
    taken: RefCell<Vec<&'n str>>,
    remarks: &'r Remarks,
}

impl<'n, 'r> Section<'n, 'r> {
    pub(super) fn new(file: &'n str, node: &'n Node, path: impl Into<String>, remarks: &'r Remarks) -> Self {
        Self { file, node, path: path.into(), taken: RefCell::default(), remarks }
    }

    /// Where remarks go.
    pub(super) fn remarks(&self) -> &'r Remarks {
        self.remarks
    }

    fn entries(&self) -> impl Iterator<Item = (&'n str, u32, &'n Node)> + use<'n> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|(key, node)| (&*key.text, key.line, node))
    }

    /// The names of the fields that are given, taken or not.
    pub(super) fn keys(&self) -> Vec<&'n str> {
        self.entries().filter(|(_, _, node)| node.value != Value::Null).map(|(key, ..)| key).collect()
    }

    fn take(&self, name: &str) -> Option<(u32, &'n Node)> {
        let (key, line, node) = self.entries().find(|(key, ..)| *key == name)?;
        self.taken.borrow_mut().push(key);
        (node.value != Value::Null).then_some((line, node))
    }

    /// Whether the field is given; it counts as taken.
    pub(super) fn has(&self, name: &str) -> bool {
        self.take(name).is_some()
    }

    fn path(&self, name: &str) -> String {
        if name.is_empty() { self.path.clone() } else { format!("{}.{name}", self.path) }
    }

    /// Says that the field, if it is given, is lost.
    pub(super) fn lose(&self, name: &str, message: impl Into<String>) {
        if let Some((line, _)) = self.take(name) {
            self.remarks.add(Weight::Lost, self.file, line, &self.path(name), message);
        }
    }

    /// Says that the field, if it is given, is said in another way.
    pub(super) fn note(&self, name: &str, message: impl Into<String>) {
        if let Some((line, _)) = self.take(name) {
            self.remarks.add(Weight::Note, self.file, line, &self.path(name), message);
        }
    }

    /// Says something about the section as a whole.
    pub(super) fn remark(&self, weight: Weight, message: impl Into<String>) {
        self.remarks.add(weight, self.file, self.node.line, &self.path, message);
    }

    /// Takes everything, for a section that is lost as a whole.
    pub(super) fn lose_all(self, message: impl Into<String>) {
        self.remark(Weight::Lost, message);
        self.taken.borrow_mut().extend(self.entries().map(|(key, ..)| key));
    }

    /// Reads the field as something, and remarks on it if it is something else.
    fn read<T>(&self, name: &str, what: &str, read: impl FnOnce(&'n Node) -> Option<T>) -> Option<T> {
        let (line, node) = self.take(name)?;
        let value = read(node);
        if value.is_none() {
            self.remarks.add(Weight::Lost, self.file, line, &self.path(name), format!("this is not {what}"));
        }
        value
    }

    /// A text; numbers and booleans are taken as they would be written.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.read(name, "a text", scalar)
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.read(name, "true or false", |node| match node.value {
            Value::Bool(value) => Some(value),
            _ => None,
        })
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.read(name, "a number", |node| match &node.value {
            Value::String(text) => text.parse().ok(),
            Value::Int(value) => Some(*value as f64),
            Value::Unsigned(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
        })
    }

    /// A number from 0 on; Argo writes some of them as text.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        self.read(name, "a whole number", |node| match &node.value {
            Value::Int(value) => u64::try_from(*value).ok(),
            Value::Unsigned(value) => Some(*value),
            Value::String(text) => text.parse().ok(),
            Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => None,
        })
    }

    /// A duration as Go writes it, or a number of seconds.
    pub(super) fn span(&self, name: &str) -> Option<Duration> {
        self.read(name, "a duration", |node| match &node.value {
            Value::String(text) => parse_duration(text).ok().or_else(|| text.parse().ok().map(Duration::from_secs)),
            Value::Int(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            Value::Unsigned(_) | Value::Float(_) | Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
                None
            }
        })
    }

    /// A mapping.
    pub(super) fn section(&self, name: &str) -> Option<Section<'n, 'r>> {
        let node = self.read(name, "a mapping", |node| matches!(node.value, Value::Map(_)).then_some(node))?;
        Some(Section::new(self.file, node, self.path(name), self.remarks))
    }

    /// A list of mappings.
    pub(super) fn sections(&self, name: &str) -> Vec<Section<'n, 'r>> {
        let items = self.read(name, "a list", |node| match &node.value {
            Value::List(items) => Some(items),
            _ => None,
        });
        let items = items.into_iter().flatten().enumerate();
        let section = |(at, node): (usize, &'n Node)| {
            Section::new(self.file, node, format!("{}[{at}]", self.path(name)), self.remarks)
        };
        items.map(section).collect()
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let items = self.read(name, "a list", |node| match &node.value {
            Value::List(items) => Some(items),
            _ => None,
        });
        items.into_iter().flatten().filter_map(scalar).collect()
    }

    /// A list of numbers.
    pub(super) fn numbers(&self, name: &str) -> Vec<f64> {
        self.texts(name).iter().filter_map(|text| text.parse().ok()).collect()
    }
}

fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::String(text) => Some(text.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Int(value) => Some(value.to_string()),
        Value::Unsigned(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

impl Drop for Section<'_, '_> {
    fn drop(&mut self) {
        let taken = self.taken.borrow();
        for (key, line, node) in self.entries() {
            if !taken.contains(&key) && node.value != Value::Null {
                let message = "this field is not converted";
                self.remarks.add(Weight::Lost, self.file, line, &self.path(key), message);
            }
        }
    }
}
